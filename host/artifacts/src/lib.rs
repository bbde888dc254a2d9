//! Model artifacts: fetched, verified, kept by content, switched by links.
//!
//! Everything here but `pull` is synchronous: it belongs on a thread of its own. What it is for and how its folders look is in
//! `docs/models.md`; loading a model is not done here.

mod converted;
mod describe;
pub mod digest;
mod files;
pub mod import;
pub mod inspect;
pub mod manifest;
pub mod name;
pub mod pack;
pub mod progress;
pub mod pull;
pub mod space;
pub mod store;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod zip_file;

pub use converted::{FromVersion, import_converted};
pub use digest::Digest;
pub use files::FileError;
pub use import::{ImportError, ImportOptions, import, import_described};
pub use manifest::{Format, Manifest};
pub use name::{ArtifactName, RelativePath, Which};
pub use progress::{Progress, Silent};
pub use store::{Store, StoreError};
pub use trust::{PublicKey, Signed, SigningKey, Trust};
