//! Keeping the cache small: every change of a config leaves a compiled plugin behind.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// Files of each kind that are kept: those made or used last. More than most configs have plugins; who has more builds some of them
/// again at a reload.
const KEPT: usize = 256;
/// Compiled plugins, functions and components compiled before, and golden cases passed.
const KINDS: [&str; 4] = ["plugin", "functions", "quick", "cases"];
/// Copies for a build and half-written files, which a build removes unless it is cut off.
const PASSING: [&str; 2] = ["wasm", "tmp"];
/// No build takes as long.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3_600);

/// Removes all but the files of each kind that were used last, and what builds have left behind.
pub(super) fn prune(cache: &Path) {
    let kept = KINDS.iter().flat_map(|kind| by_age(cache, kind).into_iter().skip(KEPT));
    let left = PASSING.iter().flat_map(|kind| {
        let is_old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > LEFT_BEHIND);
        by_age(cache, kind).into_iter().filter(move |(modified, _)| is_old(*modified))
    });
    for (_, path) in kept.chain(left) {
        // What cannot be removed now is tried again after the next build.
        let _ = std::fs::remove_file(path);
    }
}

/// Marks a file as used now.
pub(super) fn touch(path: &Path) {
    // At worst it is removed sooner, and built again.
    let _ = std::fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// The files of a kind, the newest first.
fn by_age(cache: &Path, kind: &str) -> Vec<(SystemTime, std::path::PathBuf)> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Vec::new() };
    let of_kind = entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|found| found == kind));
    let modified =
        |entry: &std::fs::DirEntry| entry.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut files = of_kind.map(|entry| (modified(&entry), entry.path())).collect::<Vec<_>>();
    files.sort_by(|a, b| b.cmp(a));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let name = |number: usize| dir.path().join(format!("{number:03}.plugin"));
        for number in 0..KEPT + 5 {
            let file = std::fs::File::create(name(number)).expect("made");
            let age = u64::try_from(10_000 - number).expect("small");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("dated");
        }
        std::fs::write(dir.path().join("other"), "").expect("written");
        touch(&name(0));
        for (left, age) in [("old.wasm", LEFT_BEHIND + Duration::from_secs(60)), ("new.wasm", Duration::ZERO)] {
            let file = std::fs::File::create(dir.path().join(left)).expect("made");
            file.set_modified(SystemTime::now() - age).expect("dated");
        }
        prune(dir.path());
        assert!(!dir.path().join("old.wasm").exists() && dir.path().join("new.wasm").exists());
        assert!(name(0).exists() && !name(1).exists() && !name(5).exists() && name(6).exists() && name(KEPT + 4).exists());
        assert!(dir.path().join("other").exists());
    }
}
