//! Takes a file that was made here of an installed version: a conversion. Whoever was trusted for the version is trusted for this too.

use std::path::Path;
use std::time::SystemTime;

use crate::describe::{About, describe};
use crate::import::ImportError;
use crate::inspect::gguf_format;
use crate::manifest::Format;
use crate::name::{RelativePath, Which};
use crate::progress::Progress;
use crate::store::{Installed, Store, Version};
use crate::trust::Signed;

/// What the GGUF file in the artifact is called, whatever it was called before.
const FILE: &str = "model.gguf";

/// A GGUF file and what it was made of.
#[derive(Debug, Clone)]
pub struct FromVersion<'a> {
    /// The version that it was made of.
    pub version: &'a Version,
    /// How it was made, in a few words: `to q8_0`.
    pub how: &'a str,
    /// The base, if it is an adapter.
    pub base: Option<Which>,
    /// Whether it answers word for word as the version does, so that the known answer in its manifest holds for this too.
    pub is_exact: bool,
    /// What time it is.
    pub now: SystemTime,
}

/// Installs the GGUF file `folder/model.gguf` under the name and the version of what it was made of; it is linked into the store, on
/// whose disk it lies. Its manifest says in `source` of which digest it was converted. It is not current yet: see
/// [`crate::store::Held::activate`].
///
/// # Errors
/// It is no sound model or adapter, or anything of [`Store::check`].
///
/// # Panics
/// Never: the name of the file is a path.
pub fn import_converted(
    store: &Store,
    folder: &Path,
    from: &FromVersion<'_>,
    progress: &dyn Progress,
) -> Result<Installed, ImportError> {
    let FromVersion { version, how, base, is_exact, now } = from;
    let file: RelativePath = FILE.parse().expect("the name written here is a path");
    let format = gguf_format(folder, &file)?;
    let staging = store.stage()?;
    staging.take(folder, &file)?;
    let about = About {
        name: version.manifest.name.clone(),
        version: version.manifest.version,
        created: *now,
        expires: None,
        base: base.clone().filter(|_| format.is_adapter()),
        description: version.manifest.description.clone(),
        source: Some(format!("converted from {} {how}", version.digest)),
    };
    let mut manifest = describe(staging.path(), format, &[file], about, progress)?;
    if *is_exact && format == Format::Gguf {
        manifest.check.clone_from(&version.manifest.check);
    }
    let bytes = manifest.to_bytes()?;
    let checked = store.check_trusted(&staging, (manifest, &bytes), (Signed::Nobody, None), *now, progress)?;
    Ok(store.hold()?.put(checked)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::store::StoreError;
    use crate::testing::{Case, folder, gguf, now};

    fn from(version: &Version) -> FromVersion<'_> {
        FromVersion { version, how: "to q8_0", base: None, is_exact: true, now: now() }
    }

    #[test]
    fn what_was_converted_has_the_name_and_version_of_its_source() {
        let case = Case::new();
        let source = case.install(&case.store.hold().unwrap(), 7, 0).unwrap();
        let version = case.store.find(&Which::Digest(source.digest)).unwrap();
        // On the disk of the store, as a conversion lies.
        let made = case.folder.path().join("made");
        std::fs::create_dir(&made).unwrap();
        std::fs::write(made.join(FILE), gguf(1)).unwrap();
        let installed = import_converted(&case.store, &made, &from(&version), &Silent).unwrap();
        assert_eq!((&installed.manifest.name, installed.manifest.version), (&version.manifest.name, 7));
        assert_eq!(installed.manifest.source, Some(format!("converted from {} to q8_0", source.digest)));
        assert_eq!(installed.signed, Signed::Nobody);
        assert_ne!(installed.digest, source.digest);
        assert!(made.join(FILE).exists(), "it is linked, and whoever made the folder removes it");
        let held = case.store.hold().unwrap();
        held.activate(&installed.manifest.name, Some(&installed.digest)).unwrap();
        held.remove(&Which::Digest(source.digest), false).unwrap();

        // The source may come again, and the version after it; one before it may not.
        case.install(&held, 7, 0).unwrap();
        case.install(&held, 8, 2).unwrap();
        assert!(matches!(case.install(&held, 6, 3), Err(StoreError::Downgrade { .. })));
    }

    #[test]
    fn what_is_no_model_is_not_taken() {
        let case = Case::new();
        let source = case.install(&case.store.hold().unwrap(), 1, 0).unwrap();
        let version = case.store.find(&Which::Digest(source.digest)).unwrap();
        let made = folder(&[(FILE, b"GGUF and nothing else")]);
        assert!(import_converted(&case.store, made.path(), &from(&version), &Silent).is_err());
        assert_eq!(case.store.list().unwrap().len(), 1);
    }
}
