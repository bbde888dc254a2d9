//! Where symbolic links lead: a change of any link on the way to a file is a change of the file.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links in a row that are followed, as by the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The links that `path` leads over, in their order, and at last the file or folder that it ends at, which need not be there.
/// Each of them lies in a folder whose path holds no link, as a watcher names it.
///
/// A `path` that is not absolute is taken from the working directory.
pub(crate) fn trail(path: &Path) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (mut at, mut trail) = (PathBuf::new(), Vec::new());
    let mut ahead = parts(&path);
    while let Some(part) = ahead.pop() {
        if part == "/" {
            at = PathBuf::from("/");
        } else if part == ".." {
            // No link is in what was gone so far, so the folder above is the one before.
            at.pop();
        } else {
            let next = at.join(part);
            match fs::read_link(&next) {
                Ok(target) if trail.len() < MAX_LINKS => {
                    ahead.extend(parts(&target));
                    trail.push(next);
                }
                _ => at = next,
            }
        }
    }
    trail.push(at);
    trail
}

/// What in a config directory leads elsewhere: links that are `*.toml` files or folders with such.
pub(crate) fn links_in(dir: &Path) -> Vec<PathBuf> {
    let mut links = Vec::new();
    for path in entries(dir) {
        if path.is_dir() {
            links.extend(entries(&path).filter(|path| is_toml(path) && path.is_symlink()));
        } else if !is_toml(&path) {
            continue;
        }
        if path.is_symlink() {
            links.push(path);
        }
    }
    links
}

/// What is in a folder, hidden things aside.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).map(|entry| entry.path())
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "toml")
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().filter(|part| *part != Component::CurDir).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn every_link_on_the_way_is_named() {
        let (_kept, dir) = folder();
        fs::create_dir_all(dir.join("releases/7")).unwrap();
        fs::create_dir(dir.join("config")).unwrap();
        symlink("7", dir.join("releases/current")).unwrap();
        symlink("../releases/./current/a.toml", dir.join("config/a.toml")).unwrap();
        symlink(dir.join("config"), dir.join("etc")).unwrap();
        let expected = ["etc", "config/a.toml", "releases/current", "releases/7/a.toml"].map(|name| dir.join(name));
        // `..` leaves the folder that the link led to.
        let twice = trail(&dir.join("etc/../etc/a.toml"));
        assert_eq!((&twice[0], &twice[1..]), (&expected[0], &expected[..]));
        assert_eq!(trail(&dir.join("etc/a.toml")), expected);
    }

    #[test]
    fn loops_end_and_what_is_missing_is_named() {
        let (_kept, dir) = folder();
        symlink("b", dir.join("a")).unwrap();
        symlink("a", dir.join("b")).unwrap();
        assert_eq!(trail(&dir.join("a")).len(), MAX_LINKS + 1);
        assert_eq!(trail(&dir.join("gone/x")), [dir.join("gone/x")]);
    }

    #[test]
    fn config_files_and_their_folders_may_be_links() {
        let (_kept, dir) = folder();
        let (config, policies) = (dir.join("config"), dir.join("policies"));
        fs::create_dir_all(config.join("routes/deep")).unwrap();
        fs::create_dir(&policies).unwrap();
        for link in ["tollgate.toml", "routes/a.toml", "routes/a.log", "routes/deep/b.toml", "busy.log", "..data"] {
            symlink("x", config.join(link)).unwrap();
        }
        symlink(&policies, config.join("plugins")).unwrap();
        symlink("x", policies.join("c.toml")).unwrap();
        let mut found = links_in(&config);
        found.sort();
        assert_eq!(found, ["plugins", "plugins/c.toml", "routes/a.toml", "tollgate.toml"].map(|name| config.join(name)));
        assert_eq!(trail(&config.join("plugins/c.toml")), [config.join("plugins"), policies.join("c.toml"), policies.join("x")]);
    }
}
