//! What was measured, kept in a file for each artifact: `tune/DIGEST.json` in the store's folder. It counts for the machine that it was
//! measured on and for the code that computed; anything else is measured anew.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Chosen, TuneError, TuneReport};
use crate::Library;

/// Raised when what is kept means something else.
const SCHEMA: u32 = 1;
/// A table of a few candidates has some KiB.
const MAX_BYTES: u64 = 256 << 10;
/// Files that are kept; the oldest goes for one more.
const MAX_RECORDS: usize = 256;
/// The longest name of a processor that is kept, in characters.
const MAX_NAME: usize = 128;

/// What is kept of one artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    schema: u32,
    digest: String,
    machine: Machine,
    /// Of whoever measured.
    gateway: String,
    /// The version of ggml.
    ggml: String,
    /// When, in seconds since 1970-01-01T00:00:00Z.
    measured_s: u64,
    /// Whether the number of threads was measured, and not given.
    has_threads: bool,
    /// The table, or why there is none.
    outcome: Result<TuneReport, String>,
}

/// What the figures depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Machine {
    /// The processor's name.
    cpu: String,
    /// Cores that the process may use.
    cores: usize,
    /// The beginning of the SHA-256 of what the processor can do.
    features: String,
}

impl Machine {
    fn this() -> Self {
        Self::of(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    /// `text` is as `/proc/cpuinfo` has it: the first processor's lines count.
    fn of(text: &str) -> Self {
        let field = |names: &[&str]| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let mut found = lines.filter(|(name, _)| names.contains(&name.trim()));
            found.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let cpu = field(&["model name", "CPU part", "uarch"]).chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let features = hex::encode(Sha256::digest(field(&["flags", "Features", "isa"])));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { cpu, cores, features: features.get(..16).unwrap_or_default().to_owned() }
    }
}

impl Record {
    pub(super) fn new(digest: &str, has_threads: bool, outcome: Result<TuneReport, String>) -> Self {
        Record {
            schema: SCHEMA,
            digest: digest.to_owned(),
            machine: Machine::this(),
            gateway: env!("CARGO_PKG_VERSION").to_owned(),
            ggml: tollgate_backend_llama::version(),
            measured_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            has_threads,
            outcome,
        }
    }

    /// What the model is to be loaded with.
    pub(super) fn chosen(&self) -> Chosen {
        let Ok(report) = &self.outcome else { return Chosen::default() };
        let threads = self.has_threads.then_some(report.chosen.threads);
        Chosen { threads, tuning: report.chosen.tuning() }
    }

    /// What is kept of an artifact, if it still counts. A file that is damaged is as if there were none.
    pub(super) fn find(library: &Library, digest: &str) -> Option<Self> {
        let path = path(&folder(library), digest);
        match read(&path) {
            Ok(record) => record.counts(digest).then_some(record),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let file = path.display();
                tracing::warn!(%file, reason = %error, "what was measured of a model is damaged and ignored");
                None
            }
        }
    }

    fn counts(&self, digest: &str) -> bool {
        let is_sound = self.outcome.as_ref().map_or(true, |report| {
            let chosen = report.chosen;
            (1..=512).contains(&chosen.threads) && (1..=8_192).contains(&chosen.micro_batch)
        });
        is_sound
            && self.schema == SCHEMA
            && self.digest == digest
            && self.ggml == tollgate_backend_llama::version()
            && self.machine == Machine::this()
    }

    /// Writes the file so that a reader sees the old one or the new one whole; returns its path.
    pub(super) fn keep(&self, library: &Library) -> Result<PathBuf, TuneError> {
        let folder = folder(library);
        let path = path(&folder, &self.digest);
        self.write(&folder, &path).map_err(|error| TuneError::Keep { path: path.clone(), error })?;
        Ok(path)
    }

    fn write(&self, folder: &Path, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        fs::create_dir_all(folder)?;
        make_room(folder, path)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    }
}

fn folder(library: &Library) -> PathBuf {
    library.store().root().join("tune")
}

fn path(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.json"))
}

fn read(path: &Path) -> std::io::Result<Record> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Removes the oldest files where there are as many as may be, `path` aside.
fn make_room(folder: &Path, path: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path() != path {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    let excess = (files.len() + 1).saturating_sub(MAX_RECORDS);
    files.iter().take(excess).try_for_each(|(_, file)| fs::remove_file(file))
}

#[cfg(test)]
mod tests {
    use tollgate_artifacts::Store;

    use super::*;
    use crate::tune::{Candidate, Measured};

    fn library(dir: &Path) -> Library {
        let store = Store::open(&dir.join("models")).unwrap();
        Library::new(&[], dir.join("builtin"), dir.to_owned(), store)
    }

    fn digest() -> String {
        "ab".repeat(32)
    }

    fn report() -> TuneReport {
        let candidate = Candidate { repack: false, threads: 3, micro_batch: 128, spin: false };
        let row = Measured { candidate, prompt_tps: 100.25, decode_tps: 12.5, decode4_tps: None, load_ms: 7, bytes: 9 };
        TuneReport {
            table: vec![row],
            chosen: candidate,
            gained_prompt_percent: 0.0,
            gained_decode_percent: 0.0,
            is_complete: true,
            busy_percent: 0,
            took_ms: 900,
        }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path());
        assert!(Record::find(&library, &digest()).is_none());
        let record = Record::new(&digest(), true, Ok(report()));
        let file = record.keep(&library).unwrap();
        assert_eq!(file, dir.path().join(format!("models/tune/{}.json", digest())));
        let found = Record::find(&library, &digest()).unwrap();
        assert_eq!(found, record);
        assert_eq!(found.chosen(), Chosen { threads: Some(3), tuning: report().chosen.tuning() });
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing temporary is left");
        Record::new(&digest(), false, Ok(report())).keep(&library).unwrap();
        assert_eq!(Record::find(&library, &digest()).unwrap().chosen().threads, None, "they were given");
        Record::new(&digest(), false, Err("too late".to_owned())).keep(&library).unwrap();
        assert_eq!(Record::find(&library, &digest()).unwrap().chosen(), Chosen::default());
    }

    #[test]
    fn what_was_measured_elsewhere_or_otherwise_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path());
        let changes: [fn(&mut Record); 6] = [
            |record| record.schema += 1,
            |record| record.machine.cores += 1,
            |record| record.machine.cpu.push('x'),
            |record| record.machine.features.push('x'),
            |record| record.ggml.push('x'),
            |record| record.outcome.as_mut().unwrap().chosen.threads = 0,
        ];
        for change in changes {
            let mut record = Record::new(&digest(), true, Ok(report()));
            change(&mut record);
            record.keep(&library).unwrap();
            assert!(Record::find(&library, &digest()).is_none(), "{record:?}");
        }
        let other = Record::new(&"cd".repeat(32), true, Ok(report()));
        let file = other.keep(&library).unwrap();
        fs::rename(file, path(&folder(&library), &digest())).unwrap();
        assert!(Record::find(&library, &digest()).is_none(), "another artifact's");
    }

    #[test]
    fn a_damaged_file_is_as_if_there_were_none() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path());
        let file = Record::new(&digest(), true, Ok(report())).keep(&library).unwrap();
        let text = fs::read(&file).unwrap();
        for damaged in [&b""[..], b"[]", &text[..text.len() / 2]] {
            fs::write(&file, damaged).unwrap();
            assert!(Record::find(&library, &digest()).is_none());
        }
    }

    #[test]
    fn the_oldest_goes_where_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_RECORDS + 3 {
            fs::write(dir.path().join(format!("{number:03}.json")), "{}").unwrap();
        }
        make_room(dir.path(), &dir.path().join("new.json")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_RECORDS - 1);
        assert!(!dir.path().join("000.json").exists());
    }

    #[test]
    fn a_machine_is_told_by_its_processor() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2\n\nprocessor : 1\nmodel name : Other\n";
        let machine = Machine::of(text);
        assert_eq!(machine.cpu, "Some CPU @ 2 GHz");
        assert_ne!(machine.features, Machine::of(&text.replace("avx2", "avx")).features);
        assert_eq!(Machine::of("").cpu, "");
    }
}
