//! `tollgate check` and `tollgate schemas`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tollgate_config::{Config, Source};

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
            let missing = missing_files(&config);
            for (file, error) in &missing {
                eprintln!("error: {file}: {error}");
            }
            if !keys.problems.is_empty() || !missing.is_empty() {
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

/// The components and artifacts that are named and cannot be opened, with the config files that name them.
fn missing_files(config: &Config) -> Vec<(&str, String)> {
    let components = config.plugins.values().map(|plugin| (plugin.file.as_str(), "component", Some(&plugin.component)));
    let artifacts = config.models.values().map(|model| (model.file.as_str(), "artifact", model.artifact.as_ref()));
    let of = |(file, field, source): (_, _, Option<&Source>)| {
        let Some(Source::File(path)) = source else { return None };
        let path = config.resolve(path);
        // A pipe would not open before somebody writes to it.
        let error = match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => "it is not a regular file".to_owned(),
            Ok(_) => std::fs::File::open(&path).err()?.to_string(),
            Err(error) => error.to_string(),
        };
        Some((file, format!("{field}: {}: {error}", path.display())))
    };
    components.chain(artifacts).filter_map(of).collect()
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
