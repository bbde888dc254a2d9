//! What can go wrong in the store, as a sentence that an operator can act on.

use std::path::PathBuf;

use crate::files::FileError;
use crate::inspect::InspectError;
use crate::manifest::ManifestError;
use crate::name::ArtifactName;
use crate::space::SpaceError;
use crate::trust::TrustError;

/// The store could not do what it was asked. What was current is current still.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or a folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not enough room.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its signature.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The structure of a file.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Another process is changing the store.
    #[error(
        "the models are being changed by {holder}, and {waited_s} s were not enough to wait for it; try again when it is done"
    )]
    Busy {
        /// Which process, as it wrote itself into the lock.
        holder: String,
        /// How long was waited, in seconds.
        waited_s: u64,
    },
    /// No such version.
    #[error("no model `{0}` is installed; `tollgate model list` shows those that are")]
    Missing(String),
    /// No version to go back to.
    #[error("`{0}` has no version to go back to; `tollgate model activate` chooses one that is installed")]
    NoRollback(ArtifactName),
    /// What is current is not removed.
    #[error(
        "`{0}` is current; name another version's digest to remove that one alone, make another version current first with \
             `tollgate model activate`, or say --force"
    )]
    Current(String),
    /// A version below one that was accepted.
    #[error(
        "version {offered} of `{name}` is older than version {newest}, which was accepted before; whoever offers it may be replaying an old \
         model. To go back on purpose use `tollgate model rollback`, or remove {} and install it again", .record.display()
    )]
    Downgrade {
        /// Of what.
        name: ArtifactName,
        /// The version that was offered.
        offered: u64,
        /// The highest version that was ever accepted.
        newest: u64,
        /// The file that remembers it.
        record: PathBuf,
    },
    /// A version number that means something else already.
    #[error("version {version} of `{name}` was accepted before with other files; give the new files a higher version")]
    Reused {
        /// Of what.
        name: ArtifactName,
        /// Which version.
        version: u64,
    },
    /// A file that is not as its manifest says.
    #[error("{}: {why}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The clock is beyond the year 9999.
    #[error("this machine's clock is wrong; set it")]
    Clock,
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Randomness(getrandom::Error),
}
