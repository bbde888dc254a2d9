//! `tollgate check` and `tollgate schemas`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tollgate_config::{Backend, Config, Source};

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
            // A directory that does not exist is a problem of both.
            let problems = problems.0.iter().filter(|problem| !keys.problems.contains(problem)).collect::<Vec<_>>();
            for problem in &problems {
                eprintln!("error: {problem}");
            }
            eprintln!("{}: {}", dir.display(), counted(problems.len() + keys.problems.len(), "problem"));
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
                eprintln!("{}: {}", dir.display(), counted(missing.len() + keys.problems.len(), "problem"));
                return ExitCode::FAILURE;
            }
            let counts = [
                counted(config.listeners.len(), "listener"),
                counted(config.models.len(), "model"),
                counted(config.plugins.len(), "plugin"),
                counted(config.routes.len(), "route"),
                counted(keys.keys.len(), "key"),
            ];
            println!("{}: {}", dir.display(), counts.join(", "));
            ExitCode::SUCCESS
        }
    }
}

/// So many of something, in words.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The components and artifacts that are named and cannot be opened, with the config files that name them.
fn missing_files(config: &Config) -> Vec<(&str, String)> {
    let components =
        config.plugins.values().map(|plugin| (plugin.file.as_str(), "component", Some(&plugin.component), None::<bool>));
    let artifacts = config.models.values().map(|model| {
        let is_folder = matches!(model.backend, Backend::Candle | Backend::Onnx);
        (model.file.as_str(), "artifact", model.artifact.as_ref(), Some(is_folder))
    });
    let of = |(file, field, source, wants_folder): (_, _, Option<&Source>, Option<bool>)| {
        let Some(Source::File(path)) = source else { return None };
        let path = config.resolve(path);
        // A pipe would not open before somebody writes to it.
        let error = match std::fs::metadata(&path) {
            Ok(metadata) if wants_folder == Some(true) && !metadata.is_dir() => {
                "it is not a folder, which this backend takes".to_owned()
            }
            Ok(metadata) if wants_folder == Some(false) && metadata.is_dir() => {
                "it is a folder, and this backend takes a GGUF file; `tollgate model import` makes one of safetensors".to_owned()
            }
            Ok(metadata) if wants_folder != Some(true) && !metadata.is_file() => "it is not a regular file".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_for_the_backends_that_take_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (file, text) in [
            ("listeners/main.toml", "authenticators = [\"keys\"]\n"),
            ("plugins/keys.toml", "component = \"builtin:auth-keys\"\n"),
            ("routes/chat.toml", "plugins = []\n"),
            ("models/a.toml", "backend = \"candle\"\nartifact = \"../weights\"\n"),
            ("models/b.toml", "backend = \"llama\"\nartifact = \"../weights\"\n"),
            ("models/c.toml", "backend = \"onnx\"\nartifact = \"models/c.toml\"\n"),
            ("models/d.toml", "backend = \"llama\"\nartifact = \"models/d.toml\"\n"),
        ] {
            let path = dir.path().join("config").join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
            std::fs::write(path, text).expect("it can be written");
        }
        std::fs::create_dir(dir.path().join("weights")).expect("it can be made");
        let config = tollgate_config::load(&dir.path().join("config")).unwrap_or_else(|problems| panic!("{problems}"));
        let mut missing = missing_files(&config);
        missing.sort();
        let files = missing.iter().map(|(file, _)| *file).collect::<Vec<_>>();
        assert_eq!(files, ["models/b.toml", "models/c.toml"], "{missing:?}");
    }
}
