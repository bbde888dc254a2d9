//! Files below a folder, opened and made without following a link on the way, and errors that name the file (P-M1).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::read_through;
use crate::name::RelativePath;
use crate::progress::Progress;

/// Something could not be done with a file or a folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct FileError {
    /// Which one.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Adds the path to an error.
pub(crate) trait At<T> {
    /// Names the file that an operation failed on.
    fn at(self, path: &Path) -> Result<T, FileError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, FileError> {
        self.map_err(|error| FileError { path: path.to_owned(), source: error.into() })
    }
}

/// Opens a regular file below `folder` to read it. No component below `folder` may be a symbolic link.
pub(crate) fn open_beneath(folder: &Path, path: &RelativePath) -> Result<File, FileError> {
    let named = folder.join(path.as_str());
    let open = || {
        let (parent, name) = parent_of(folder, path, false)?;
        // Without NONBLOCK, opening a named pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(explain)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    };
    open().at(&named)
}

/// Makes a file below `folder` that was not there, and the folders on its way.
pub(crate) fn create_beneath(folder: &Path, path: &RelativePath) -> Result<File, FileError> {
    let named = folder.join(path.as_str());
    let create = || {
        let (parent, name) = parent_of(folder, path, true)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(explain)?;
        Ok::<_, io::Error>(File::from(file))
    };
    create().at(&named)
}

/// The folder that `path` lies in, opened one component after the other, and the last component.
fn parent_of<'a>(folder: &Path, path: &'a RelativePath, is_made: bool) -> io::Result<(OwnedFd, &'a str)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut parent = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let mut components = path.components();
    let mut name = components.next().unwrap_or_default();
    for next in components {
        if is_made {
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        parent = rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)?;
        name = next;
    }
    Ok((parent, name))
}

fn explain(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => {
            io::Error::other("it is a symbolic link, which an artifact cannot hold; copy the file itself there (`cp -L`)")
        }
        Errno::NOTDIR => io::Error::other("what should be a folder on its way is a file or a symbolic link"),
        other => other.into(),
    }
}

/// Copies what is left of `from` to `to`, `max_bytes` at most; answers how many there were.
///
/// # Errors
/// There are more: `max_bytes` and nothing else was then written.
pub(crate) fn copy(from: &mut impl Read, to: &mut File, max_bytes: u64, progress: &dyn Progress) -> io::Result<u64> {
    let mut written = 0u64;
    let copied = read_through(&mut from.take(max_bytes.saturating_add(1)), |piece| {
        written = written.saturating_add(crate::digest::len(piece));
        if written > max_bytes {
            return Err(io::Error::other(format!("it is longer than the {max_bytes} bytes that were declared")));
        }
        to.write_all(piece)?;
        progress.advance(crate::digest::len(piece));
        Ok(())
    })?;
    Ok(copied)
}

/// Writes a small file so that a reader sees the old one or the new one whole, also after a power cut.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.tmp"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().at(&temporary)?;
    std::fs::rename(&temporary, path).at(path)?;
    sync_folder(parent)
}

/// Makes the names in a folder last over a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).at(folder)
}

/// Removes a file, a link or a folder with all it holds; what is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.at(path),
    }
}

/// Reads a small file whole.
///
/// # Errors
/// It is longer than `max_bytes`.
pub(crate) fn read_small(file: &mut impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if crate::digest::len(&bytes) > max_bytes {
        return Err(io::Error::other(format!("it is longer than {max_bytes} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::progress::Silent;

    fn path(text: &str) -> RelativePath {
        text.parse().unwrap()
    }

    #[test]
    fn links_pipes_and_folders_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir(at.join("sub")).unwrap();
        std::fs::write(at.join("sub/file"), "x").unwrap();
        symlink("sub/file", at.join("link")).unwrap();
        symlink("sub", at.join("folder-link")).unwrap();
        rustix::fs::mknodat(CWD, at.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();

        assert!(open_beneath(at, &path("sub/file")).is_ok());
        for (name, words) in [
            ("link", "symbolic link"),
            ("folder-link/file", "symbolic link"),
            ("pipe", "not a regular file"),
            ("sub", "not a regular file"),
            ("sub/file/x", "a file or a symbolic link"),
            ("missing", "No such file"),
        ] {
            let error = open_beneath(at, &path(name)).unwrap_err().to_string();
            assert!(error.contains(words), "{error} should say {words}");
        }
        assert!(create_beneath(at, &path("folder-link/new")).is_err());
        assert!(create_beneath(at, &path("link")).is_err());
        assert!(create_beneath(at, &path("sub/file")).is_err());
        assert!(create_beneath(at, &path("a/b/new")).is_ok());
    }

    #[test]
    fn nothing_is_written_beyond_what_was_declared() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let mut out = File::create(&file).unwrap();
        let error = copy(&mut io::repeat(1), &mut out, 1000, &Silent).unwrap_err().to_string();
        assert!(error.contains("longer than the 1000 bytes"), "{error}");
        assert!(std::fs::metadata(&file).unwrap().len() <= 1000);
        assert_eq!(copy(&mut [1; 1000].as_slice(), &mut File::create(&file).unwrap(), 1000, &Silent).unwrap(), 1000);
    }

    #[test]
    fn small_files_are_replaced_whole_and_read_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("small");
        write_atomically(&file, b"one", 0o600).unwrap();
        write_atomically(&file, b"two", 0o600).unwrap();
        assert_eq!(read_small(&mut File::open(&file).unwrap(), 3).unwrap(), b"two");
        assert!(read_small(&mut File::open(&file).unwrap(), 2).is_err());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        remove(folder.path().join("missing").as_path()).unwrap();
    }
}
