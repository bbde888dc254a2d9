//! Where rows are kept between runs. What the documents say is in `proof/records` and is committed with them, so that a fresh checkout
//! writes the same documents; the raw samples and short runs are in `target`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::report::Row;

/// The committed folder, below the root: `COMMAND/ID.json` for each row, and the machines by their numbers.
pub(crate) const FOLDER: &str = "proof/records";

/// A run with all that was measured, as it is kept in `target/COMMAND/ID.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Kept<'a> {
    /// What the document says of it.
    #[serde(flatten)]
    pub(crate) row: &'a Row,
    /// How long it took.
    pub(crate) seconds: u64,
    /// Whether it was a short run, which is in no document.
    pub(crate) is_quick: bool,
    /// Everything that was measured, for who doubts the figure.
    pub(crate) samples: &'a Value,
}

/// The rows of one command.
#[derive(Debug)]
pub(crate) struct Store {
    /// Committed: one file a row.
    records: PathBuf,
    /// Committed: the machines of all rows; a machine's number is its place, from 1, so that it stays when rows are run elsewhere.
    machines: PathBuf,
    /// Not committed: everything that was measured.
    raw: PathBuf,
}

impl Store {
    /// The rows of `command` in the tree at `root`.
    pub(crate) fn open(root: &Path, command: &str) -> anyhow::Result<Self> {
        let folder = root.join(FOLDER);
        let store = Store {
            records: folder.join(command),
            machines: folder.join("machines.json"),
            raw: root.join("target").join(command),
        };
        for folder in [&store.records, &store.raw] {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(store)
    }

    /// What is kept of a row's last full run, if it was ever run.
    pub(crate) fn load(&self, id: &str) -> anyhow::Result<Option<Row>> {
        read(&self.records.join(format!("{id}.json")))
    }

    /// Every machine that a row was run on, by its number.
    pub(crate) fn machines(&self) -> anyhow::Result<Vec<String>> {
        Ok(read(&self.machines)?.unwrap_or_default())
    }

    /// Keeps a run in place of the row's last one.
    pub(crate) fn save(&self, run: &Kept<'_>) -> anyhow::Result<()> {
        let id = &run.row.id;
        write(&self.raw.join(if run.is_quick { format!("{id}.quick.json") } else { format!("{id}.json") }), run)?;
        if run.is_quick {
            return Ok(());
        }
        let mut machines = self.machines()?;
        if !machines.contains(&run.row.stamp.machine) {
            machines.push(run.row.stamp.machine.clone());
            write(&self.machines, &machines)?;
        }
        write(&self.records.join(format!("{id}.json")), run.row)
    }
}

/// What a file holds; nothing where there is none.
fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Puts a file in place of another in one step.
fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::report::tests::row;

    #[test]
    fn a_kept_row_is_read_back_and_a_quick_one_is_apart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "bench").unwrap();
        let samples = serde_json::json!([1, 2]);
        let (first, second) = (row("a", Verdict::Met, "one"), row("a", Verdict::Missed, "two"));
        let run = |row, is_quick| Kept { row, seconds: 1, is_quick, samples: &samples };
        store.save(&run(&second, true)).unwrap();
        assert!(store.load("a").unwrap().is_none() && store.machines().unwrap().is_empty());
        store.save(&run(&first, false)).unwrap();
        store.save(&run(&second, false)).unwrap();
        assert_eq!(store.load("a").unwrap().unwrap(), second);
        assert_eq!(store.machines().unwrap(), ["one", "two"]);
        let raw = std::fs::read_to_string(folder.path().join("target/bench/a.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&raw).unwrap()["samples"], samples);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_no_row_that_was_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "bench").unwrap();
        std::fs::write(folder.path().join(FOLDER).join("bench/a.json"), "{").unwrap();
        assert!(store.load("a").is_err());
    }
}
