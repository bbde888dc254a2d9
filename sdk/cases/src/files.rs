//! Where cases are kept: `cases/*.toml` beside a plugin, and inside its component.

use std::path::Path;

use crate::problem::{Problem, Problems};
use crate::{MAX_FILE_BYTES, MAX_FILES};

/// Names of the custom sections that carry cases in a component: this, and the file's name. Each holds one file as it is.
pub const SECTION: &str = "tollgate:cases/";

/// The files of cases of a directory, by name: those that end in `.toml` and begin with neither `.` nor `#`.
///
/// # Errors
/// The directory or a file cannot be read, or there is too much.
pub fn sources(directory: &Path) -> Result<Vec<(String, String)>, Problems> {
    let failed = |path: &Path, error: std::io::Error, cure: &str| {
        Problems(vec![Problem::of_file(path.display().to_string(), error.to_string(), cure)])
    };
    let entries = std::fs::read_dir(directory).map_err(|error| failed(directory, error, "name a directory of cases"))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(directory, error, "make it readable"))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.ends_with(".toml") || name.starts_with(['.', '#']) {
            continue;
        }
        let size = std::fs::metadata(&path).map_err(|error| failed(&path, error, "make it readable"))?.len();
        if size > MAX_FILE_BYTES as u64 || found.len() >= MAX_FILES {
            let message = format!("too much: {MAX_FILES} files of {MAX_FILE_BYTES} bytes at most");
            return Err(Problems(vec![Problem::of_file(name, message, "remove some")]));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error, "save it as UTF-8"))?;
        found.push((name.to_owned(), text));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_directory_are_found_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in [("b.toml", "2"), ("a.toml", "1"), (".a.toml.swp", ""), ("#a.toml", ""), ("README.md", "")] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let found = sources(dir.path()).expect("readable");
        assert_eq!(found, [("a.toml".to_owned(), "1".to_owned()), ("b.toml".to_owned(), "2".to_owned())]);
        let missing = sources(&dir.path().join("missing")).expect_err("there is none").to_string();
        assert!(missing.contains("missing") && missing.contains("name a directory"), "{missing}");
    }
}
