//! Installing: one way for every source. Manifest, signature, age, sizes, digests and structure are checked on the very files that then
//! become the version; it gets its name last, whole (P-M8, P-M10). Only that last step takes the lock: a rollback does not wait until
//! somebody's 80 GB are hashed.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::heal::{NEW, OLD};
use super::{Held, RECORD_FILE, Record, Staging, Store, StoreError, newest};
use crate::digest::{Digest, Digests};
use crate::files::{At, FileError, open_beneath, remove, sync_folder};
use crate::inspect::{Summary, inspect};
use crate::manifest::{FileEntry, MANIFEST_FILE, Manifest, SIGNATURE_FILE, rfc3339};
use crate::name::RelativePath;
use crate::progress::{Progress, Work};
use crate::space;
use crate::trust::{Signed, Trust};

/// A version was installed. It is not current yet: see [`Held::activate`].
#[derive(Debug, Clone)]
pub struct Installed {
    /// What it is known by.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: Manifest,
    /// Where its files are.
    pub folder: PathBuf,
    /// Who has signed it.
    pub signed: Signed,
    /// What was found in its files.
    pub summary: Summary,
}

/// What was staged, verified: a version but for its name. See [`Held::put`].
#[derive(Debug)]
pub struct Checked<'a> {
    manifest: Manifest,
    manifest_bytes: &'a [u8],
    signature: Option<&'a [u8]>,
    signed: Signed,
    summary: Summary,
    record: Vec<u8>,
    staging: &'a Staging,
    /// The disk and the inode of each staged file that was verified.
    verified: BTreeMap<RelativePath, [u64; 2]>,
    /// The inodes of the files that the store has already and that are whole there.
    known: BTreeMap<Digest, u64>,
    /// Whether its version has to be the highest of its name.
    is_ordered: bool,
}

impl Store {
    /// Verifies what was staged. That takes as long as reading all of it does, and needs no lock.
    ///
    /// # Errors
    /// The manifest is not believed, expired or below one that was accepted before; a file is missing, of another length, digest or
    /// structure; the disk is too full. Nothing is changed then.
    pub fn check<'a>(
        &self,
        staging: &'a Staging,
        (manifest_bytes, signature): (&'a [u8], Option<&'a [u8]>),
        trust: &Trust,
        now: SystemTime,
        progress: &dyn Progress,
    ) -> Result<Checked<'a>, StoreError> {
        let signed = trust.verify(manifest_bytes, signature)?;
        let manifest = Manifest::parse(manifest_bytes, now)?;
        newest::check(&self.layout, &manifest)?;
        let checked = self.check_trusted(staging, (manifest, manifest_bytes), (signed, signature), now, progress)?;
        Ok(Checked { is_ordered: true, ..checked })
    }

    /// The same for a manifest that was made here, or is known to be trusted. It may have the version of another one of its name: the
    /// record of the highest version is left as it is.
    pub(crate) fn check_trusted<'a>(
        &self,
        staging: &'a Staging,
        (manifest, manifest_bytes): (Manifest, &'a [u8]),
        (signed, signature): (Signed, Option<&'a [u8]>),
        now: SystemTime,
        progress: &dyn Progress,
    ) -> Result<Checked<'a>, StoreError> {
        space::check(self.layout.root(), crate::digest::len(manifest_bytes))?;
        let (mut verified, mut known) = (BTreeMap::new(), BTreeMap::new());
        for file in &manifest.files {
            verified.insert(file.path.clone(), check_file(staging.path(), file, progress)?);
            known.extend(whole(&self.layout.blob(&file.sha256), file).map(|inode| (file.sha256, inode)));
        }
        let summary = inspect(staging.path(), &manifest)?;
        let signed_by = match &signed {
            Signed::By(key) => Some(key.clone()),
            Signed::Nobody => None,
        };
        let record = Record { installed: rfc3339(now).ok_or(StoreError::Clock)?, signed_by };
        let record = serde_json::to_vec(&record).map_err(crate::manifest::ManifestError::Json)?;
        let is_ordered = false;
        Ok(Checked { manifest, manifest_bytes, signature, signed, summary, record, staging, verified, known, is_ordered })
    }
}

impl Held {
    /// Makes what was verified a version. It is not current yet: see [`Held::activate`].
    ///
    /// # Errors
    /// A higher version of its name came meanwhile, or it cannot be written. Nothing is changed then.
    pub fn put(&self, checked: Checked<'_>) -> Result<Installed, StoreError> {
        if checked.is_ordered {
            newest::check(self.layout(), &checked.manifest)?;
        }
        let digest = checked.manifest.digest();
        let made = self.layout().versions().join(format!("{NEW}{digest}"));
        let put = self.make_version(&made, &checked).and_then(|()| self.put_version(&made, &digest));
        if put.is_err() {
            // What is left would be cleared with the next lock; on a full disk it should not take room until then.
            let _ = remove(&made);
            let _ = self.drop_unused_blobs();
        }
        put?;
        let Checked { manifest, signed, summary, is_ordered, .. } = checked;
        if is_ordered {
            newest::accept(self.layout(), &manifest)?;
        }
        Ok(Installed { digest, folder: self.layout().version(&digest), manifest, signed, summary })
    }

    /// Makes a version's folder under a name that nobody looks at, and has it written to the disk.
    fn make_version(&self, made: &Path, checked: &Checked<'_>) -> Result<(), StoreError> {
        remove(made)?;
        fs::create_dir(made).at(made)?;
        let mut folders = vec![made.to_owned()];
        for file in &checked.manifest.files {
            let blob = self.keep(checked, file)?;
            let link = made.join(file.path.as_str());
            let parent = link.parent().unwrap_or(made);
            if !folders.iter().any(|folder| folder == parent) {
                fs::create_dir_all(parent).at(parent)?;
                // All between the version's folder and this one may be new.
                folders.extend(parent.ancestors().take_while(|folder| *folder != made).map(Path::to_owned));
            }
            fs::hard_link(&blob, &link).at(&link)?;
        }
        write_new(&made.join(MANIFEST_FILE), checked.manifest_bytes)?;
        if let Some(signature) = checked.signature {
            write_new(&made.join(SIGNATURE_FILE), signature)?;
        }
        write_new(&made.join(RECORD_FILE), &checked.record)?;
        for folder in &folders {
            sync_folder(folder)?;
        }
        Ok(sync_folder(&self.layout().blobs())?)
    }

    /// Links a staged file that was checked into the store under its digest. A file that is there already is used if it is still whole.
    fn keep(&self, checked: &Checked<'_>, file: &FileEntry) -> Result<PathBuf, StoreError> {
        let (blob, staging) = (self.layout().blob(&file.sha256), checked.staging.path());
        // What was there when the files were verified is not read again: whoever waits for the lock would wait for that.
        let here = fs::symlink_metadata(&blob).ok().map(|blob| blob.ino());
        if here.is_some() && (here == checked.known.get(&file.sha256).copied() || whole(&blob, file).is_some()) {
            return Ok(blob);
        }
        let temporary = self.layout().blobs().join(format!(".{}.tmp", file.sha256));
        remove(&temporary)?;
        fs::hard_link(staging.join(file.path.as_str()), &temporary).at(&temporary)?;
        let linked = fs::symlink_metadata(&temporary).at(&temporary)?;
        let is_verified = checked.verified.get(&file.path) == Some(&[linked.dev(), linked.ino()]);
        if !is_verified || linked.len() != file.bytes {
            let why = "it was replaced while it was being installed".to_owned();
            return Err(StoreError::Damaged { path: staging.join(file.path.as_str()), why });
        }
        fs::rename(&temporary, &blob).at(&blob)?;
        Ok(blob)
    }

    /// Gives a version's folder its name in one step. A folder with the name has the same content, but perhaps another manifest: the two
    /// change places, and the old one goes.
    fn put_version(&self, made: &Path, digest: &Digest) -> Result<(), StoreError> {
        let versions = self.layout().versions();
        let folder = self.layout().version(digest);
        if folder.exists() {
            match renameat_with(CWD, made, CWD, &folder, RenameFlags::EXCHANGE) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    // This file system cannot do it in one step; `heal` puts the old one back after a crash between the two.
                    let old = versions.join(format!("{OLD}{digest}"));
                    fs::rename(&folder, &old).at(&folder)?;
                    if let Err(error) = fs::rename(made, &folder) {
                        // What may be current is put back at once. If that fails, too, the next lock does it.
                        let _ = fs::rename(&old, &folder);
                        return Err(error).at(&folder).map_err(StoreError::from);
                    }
                    remove(&old)?;
                }
                Err(errno) => return Err(errno).at(&folder).map_err(StoreError::from),
            }
            remove(made)?;
        } else {
            fs::rename(made, &folder).at(&folder)?;
        }
        Ok(sync_folder(&versions)?)
    }
}

/// Compares a staged file with its entry, byte by byte, and makes it read-only and lasting; answers its disk and its inode.
fn check_file(staging: &Path, file: &FileEntry, progress: &dyn Progress) -> Result<[u64; 2], StoreError> {
    let path = staging.join(file.path.as_str());
    let damaged = |why: String| StoreError::Damaged { path: path.clone(), why };
    let mut open = open_beneath(staging, &file.path)?;
    let metadata = open.metadata().at(&path)?;
    let bytes = metadata.len();
    if bytes != file.bytes {
        return Err(damaged(format!("it has {bytes} bytes, and the manifest says {}", file.bytes)));
    }
    // From here on nobody else opens it to write.
    open.set_permissions(Permissions::from_mode(0o444)).at(&path)?;
    let work = Work::begin(progress, &format!("verifying {}", file.path), file.bytes);
    let found = Digests::of_reader(&mut open, file.bytes, progress).at(&path)?;
    drop(work);
    if found.whole != file.sha256 || found.bytes != file.bytes {
        return Err(damaged(format!("its digest is {}, and the manifest says {}", found.whole, file.sha256)));
    }
    if !file.chunks.is_empty() && found.chunks != file.chunks {
        let at = found.chunks.iter().zip(&file.chunks).position(|(found, said)| found != said).unwrap_or_default();
        return Err(damaged(format!(
            "its chunk {at} has another digest than the manifest says, though the whole has not; make the manifest again"
        )));
    }
    open.sync_all().at(&path)?;
    Ok([metadata.dev(), metadata.ino()])
}

/// The inode of a file in the store, if that still has the content that it is named after.
fn whole(blob: &Path, file: &FileEntry) -> Option<u64> {
    let name: RelativePath = file.sha256.to_string().parse().ok()?;
    let mut open = open_beneath(blob.parent()?, &name).ok()?;
    let inode = open.metadata().ok()?.ino();
    let found = Digests::of_reader(&mut open, file.bytes, &crate::progress::Silent).ok()?;
    (found.whole == file.sha256 && found.bytes == file.bytes).then_some(inode)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()
    };
    write().at(path)
}
