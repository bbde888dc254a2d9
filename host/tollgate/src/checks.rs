//! `tollgate check` and `tollgate schemas`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

/// Says everything that is wrong with a config directory. Success is silent but for warnings.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]
pub(crate) fn check(dir: &Path) -> ExitCode {
    let keys = tollgate_config::load_keys(dir, &tollgate_config::Keys::default());
    let loaded = tollgate_config::load(dir);
    for problem in &keys.problems {
        eprintln!("error: {problem}");
    }
    match loaded {
        Err(problems) => {
            for problem in &problems.0 {
                eprintln!("error: {problem}");
            }
            let count = problems.0.len() + keys.problems.len();
            eprintln!("{}: {count} {}", dir.display(), if count == 1 { "problem" } else { "problems" });
            ExitCode::FAILURE
        }
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            if !keys.problems.is_empty() {
                return ExitCode::FAILURE;
            }
            let (listeners, models) = (config.listeners.len(), config.models.len());
            let (plugins, routes, keys) = (config.plugins.len(), config.routes.len(), keys.keys.len());
            println!(
                "{}: {listeners} listeners, {models} models, {plugins} plugins, {routes} routes, {keys} keys",
                dir.display()
            );
            ExitCode::SUCCESS
        }
    }
}

/// Writes a JSON schema for each kind of config file.
pub(crate) fn write_schemas(out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    for (name, schema) in tollgate_config::schemas() {
        let path = out.join(format!("{name}.schema.json"));
        std::fs::write(&path, serde_json::to_string_pretty(&schema)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
