//! Free space on a disk: what is left for the rest of the system is never taken (P-M3).

use std::path::{Path, PathBuf};

/// What stays free on the disk, in bytes: 1 GiB.
pub const RESERVE: u64 = 1 << 30;

/// There is not enough room.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The disk is too full.
    #[error(
        "{}: {needed} bytes are needed beside a reserve of {RESERVE} bytes, and {free} bytes are free; free some with \
         `tollgate model remove`, or choose another disk",
        .path.display()
    )]
    Full {
        /// Where it would have gone.
        path: PathBuf,
        /// How much is needed, in bytes.
        needed: u64,
        /// How much is free, in bytes.
        free: u64,
    },
    /// The disk cannot be asked.
    #[error("{}: its free space cannot be read: {source}", .path.display())]
    Unknown {
        /// Which disk.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How many bytes the disk that `folder` lies on has free for this user.
///
/// # Errors
/// The folder is not there.
pub fn free(folder: &Path) -> Result<u64, SpaceError> {
    let stat =
        rustix::fs::statvfs(folder).map_err(|errno| SpaceError::Unknown { path: folder.to_owned(), source: errno.into() })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether `bytes` more fit on the disk that `folder` lies on, beside the reserve of [`RESERVE`].
///
/// # Errors
/// They do not fit, or the folder is not there.
pub fn check(folder: &Path, bytes: u64) -> Result<(), SpaceError> {
    let free = free(folder)?;
    let is_enough = bytes.checked_add(RESERVE).is_some_and(|wanted| wanted <= free);
    if is_enough { Ok(()) } else { Err(SpaceError::Full { path: folder.to_owned(), needed: bytes, free }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let folder = std::env::temp_dir();
        let free = free(&folder).unwrap();
        assert!(free > 0);
        let error = check(&folder, u64::MAX - 1).unwrap_err().to_string();
        assert!(error.contains("18446744073709551614 bytes are needed") && error.contains("bytes are free"), "{error}");
        assert!(check(&folder, free).is_err(), "the reserve stays free");
        assert!(matches!(check(Path::new("/nowhere/at/all"), 1), Err(SpaceError::Unknown { .. })));
    }
}
