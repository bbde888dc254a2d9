//! `libonnxruntime.so`: where it is, and its one environment in a process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use tollgate_backend::BackendError;

const FILE: &str = "libonnxruntime.so";
const VARIABLE: &str = "ORT_DYLIB_PATH";
const ADVICE: &str = "set `[models] onnxruntime = PATH` in tollgate.toml to a libonnxruntime.so of version 1.24 or later, or fetch one \
                      with the set-up of `make run`";

/// What was loaded, and from where. It stays for as long as the process does.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Finds ONNX Runtime: the `configured` file, the one that `ORT_DYLIB_PATH` names, or one of the system's.
///
/// # Errors
/// There is none, or none where one was said to be; the text says what to do.
pub fn find_library(configured: Option<&Path>) -> Result<PathBuf, BackendError> {
    let system = [format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH), "/usr/local/lib".to_owned()];
    find(configured, std::env::var_os(VARIABLE), &system.map(PathBuf::from))
}

fn find(configured: Option<&Path>, variable: Option<OsString>, folders: &[PathBuf]) -> Result<PathBuf, BackendError> {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = [(configured, "`[models] onnxruntime`"), (variable.as_deref(), VARIABLE)];
    for (path, name) in named {
        let Some(path) = path else { continue };
        // Whatever is named has to be there: another version in its place would be a surprise.
        return match path.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            _ => Err(BackendError::Load(format!("{name} names {}, which is no file; {ADVICE}", path.display()))),
        };
    }
    let found = folders.iter().find_map(|folder| in_folder(folder));
    found.ok_or_else(|| BackendError::Load(format!("ONNX Runtime is not installed; {ADVICE}")))
}

/// `libonnxruntime.so`, or else the last of those with a version behind it.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(FILE);
    if plain.is_file() {
        return Some(plain);
    }
    let names = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    names.filter(|path| is_versioned(path) && path.is_file()).max()
}

fn is_versioned(path: &Path) -> bool {
    let rest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(FILE));
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// The environment of the library at `path`, which is loaded on the first call.
pub(crate) fn environment(path: &Path) -> Result<Environment, BackendError> {
    let path = path.canonicalize().map_err(|error| {
        BackendError::Load(format!("ONNX Runtime cannot be loaded from {}: {error}; {ADVICE}", path.display()))
    })?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((from, environment)) = &*loaded {
        if *from != path {
            let what = format!("ONNX Runtime was loaded from {} before; {} takes a restart", from.display(), path.display());
            return Err(BackendError::Load(what));
        }
        return Ok(environment.clone());
    }
    let failed = |error: &dyn std::fmt::Display| {
        BackendError::Load(format!("ONNX Runtime cannot be loaded from {}: {error}; {ADVICE}", path.display()))
    };
    let builder = ort::init_from(&path).map_err(|error| failed(&error))?;
    let environment = builder.with_name("tollgate").with_telemetry(false).build().map_err(|error| failed(&error))?;
    *loaded = Some((path, environment.clone()));
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_comes_first_and_has_to_be_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("a path");
        let file = |name: &str| {
            let path = root.join(name);
            std::fs::write(&path, "").expect("written");
            path
        };
        let (one, other, system) = (file("one.so"), file("other.so"), root.join("lib"));
        std::fs::create_dir(&system).expect("made");
        let folders = [root.join("absent"), system];
        assert_eq!(find(Some(&one), Some(other.clone().into()), &folders), Ok(one));
        assert_eq!(find(None, Some(other.clone().into()), &folders), Ok(other));
        let error = find(Some(&root.join("gone.so")), None, &folders).expect_err("no file").to_string();
        assert!(error.contains("gone.so") && error.contains("[models] onnxruntime"), "{error}");
        assert!(find(None, Some("gone.so".into()), &folders).expect_err("no file").to_string().contains(VARIABLE));
        let error = find(None, Some("".into()), &folders).expect_err("nothing anywhere").to_string();
        assert!(error.contains("not installed") && error.contains("tollgate.toml"), "{error}");
        file("lib/libonnxruntime_providers_shared.so");
        assert!(find(None, None, &folders).is_err(), "a part of it is not it");
        file("lib/libonnxruntime.so.1.24.1");
        let newer = file("lib/libonnxruntime.so.1.26.0");
        assert_eq!(find(None, None, &folders), Ok(newer));
        let plain = file("lib/libonnxruntime.so");
        assert_eq!(find(None, None, &folders), Ok(plain));
    }

    #[test]
    fn what_is_no_library_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("libonnxruntime.so");
        assert!(environment(&path).expect_err("absent").to_string().contains("tollgate.toml"));
        std::fs::write(&path, "no library").expect("written");
        let error = environment(&path).expect_err("no library").to_string();
        assert!(error.contains("cannot be loaded") && error.contains("1.24"), "{error}");
    }
}
