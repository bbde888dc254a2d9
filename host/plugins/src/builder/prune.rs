//! Keeping the cache small: every change of a config leaves a compiled plugin behind.

use std::path::Path;
use std::time::SystemTime;

/// Files of each kind that are kept: the newest.
const KEPT: usize = 64;
/// Compiled plugins, functions and components compiled before, and golden cases passed.
const KINDS: [&str; 4] = ["plugin", "functions", "quick", "cases"];

/// Removes all but the newest files of each kind. A plugin that is loaded does not need its file.
pub(super) fn prune(cache: &Path) {
    for kind in KINDS {
        for path in oldest(cache, kind) {
            // What cannot be removed now is tried again after the next build.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn oldest(cache: &Path, kind: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Vec::new() };
    let of_kind = entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|found| found == kind));
    let modified =
        |entry: &std::fs::DirEntry| entry.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut files = of_kind.map(|entry| (modified(&entry), entry.path())).collect::<Vec<_>>();
    files.sort_by(|a, b| b.cmp(a));
    files.into_iter().skip(KEPT).map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let name = |number: usize| dir.path().join(format!("{number:03}.plugin"));
        for number in 0..KEPT + 5 {
            let file = std::fs::File::create(name(number)).expect("made");
            let age = u64::try_from(1_000 - number).expect("small");
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).expect("dated");
        }
        std::fs::write(dir.path().join("other"), "").expect("written");
        prune(dir.path());
        assert!(!name(4).exists() && name(5).exists() && name(KEPT + 4).exists());
        assert!(dir.path().join("other").exists());
    }
}
