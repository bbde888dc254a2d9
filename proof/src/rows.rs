//! Runs rows, one after another: which are asked for, which are known already, progress, deadlines, what fails. What a row does is
//! `bench/` and `verify/`.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::records::{Kept, Store};
use crate::report::{Found, Notes, Row, Stamp, Verdict, markdown};

/// What of a command is to be run.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Rows by id, or by the beginning of it (`decode`); without any, all that are not known for this commit.
    rows: Vec<String>,
    /// Short runs, to see that rows work; kept apart, and not written into the document.
    #[arg(long)]
    quick: bool,
    /// Run rows again that are known for this commit.
    #[arg(long)]
    again: bool,
    /// Say which rows there are, and run none.
    #[arg(long)]
    list: bool,
    /// Write the document from what is known, and run none.
    #[arg(long)]
    write: bool,
}

/// What a row's code gets.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    /// The repository's root.
    pub(crate) root: PathBuf,
    /// Whether a short run is asked for: enough to see that the row works.
    pub(crate) is_quick: bool,
}

impl Here {
    /// `full`, or `quick` in a short run.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

/// A row's run. It runs in a task of its own, so that a panic in it is its failure.
pub(crate) type Run = fn(Here) -> Pin<Box<dyn Future<Output = anyhow::Result<Found>> + Send>>;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    /// Its name on the command line.
    pub(crate) id: &'static str,
    /// What is shown.
    pub(crate) what: &'static str,
    /// What is to be reached; empty if the figure is only stated.
    pub(crate) aim: &'static str,
    /// After this it is ended, and has failed.
    pub(crate) minutes: u64,
    /// Its code.
    pub(crate) run: Run,
}

/// A command over rows.
#[derive(Debug)]
pub(crate) struct Driver {
    /// `bench` or `verify`; the folder below `proof/records` and `target`.
    pub(crate) command: &'static str,
    /// The document that it writes, below the root.
    pub(crate) document: &'static str,
    /// What stands above the table.
    pub(crate) preface: &'static str,
    /// `notes.toml`, as text.
    pub(crate) notes: &'static str,
    /// All rows, in the document's order.
    pub(crate) rows: Vec<Spec>,
}

impl Driver {
    /// Runs what is selected. Fails where a row failed or is short of its aim.
    pub(crate) fn run(&self, selection: &Selection) -> anyhow::Result<ExitCode> {
        if selection.list {
            for row in &self.rows {
                println!("{:24} {}", row.id, row.what);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let root = root()?;
        let (store, stamp) = (Store::open(&root, self.command)?, Stamp::now(&root)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let mut short = Vec::new();
        for spec in if selection.write { Vec::new() } else { self.selected(selection, &store, &stamp)? } {
            eprintln!("== {}: {}", spec.id, spec.what);
            let began = Instant::now();
            let found = runtime.block_on(run_one(spec, Here { root: root.clone(), is_quick: selection.quick }))?;
            let row =
                Row { id: spec.id.to_owned(), what: spec.what.to_owned(), aim: spec.aim.to_owned(), found, stamp: stamp.clone() };
            let seconds = began.elapsed().as_secs();
            eprintln!("   {:?} after {seconds} s: {}", row.found.verdict, row.found.figure);
            if matches!(row.found.verdict, Verdict::Failed | Verdict::Missed) {
                short.push(row.id.clone());
            }
            store.save(&Kept { row: &row, seconds, is_quick: selection.quick, samples: &row.found.samples })?;
            if !selection.quick {
                self.write(&root, &store)?;
            }
        }
        if selection.write {
            self.write(&root, &store)?;
        }
        if short.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("short of their aim: {}", short.join(", "));
        Ok(ExitCode::FAILURE)
    }

    fn selected(&self, selection: &Selection, store: &Store, stamp: &Stamp) -> anyhow::Result<Vec<Spec>> {
        if let Some(unknown) = selection.rows.iter().find(|name| !self.rows.iter().any(|row| row.id.starts_with(name.as_str()))) {
            bail!("no row is called {unknown}: `proof {} --list` names them", self.command);
        }
        let is_asked = |row: &Spec| selection.rows.iter().any(|name| row.id.starts_with(name.as_str()));
        let is_known = |row: &Spec| -> anyhow::Result<bool> {
            let is_same = |kept: &Row| kept.stamp.commit == stamp.commit && !stamp.commit.ends_with('+');
            Ok(store.load(row.id)?.is_some_and(|kept| is_same(&kept) && kept.found.verdict != Verdict::Failed))
        };
        let mut rows = Vec::new();
        for row in self.rows.iter().filter(|row| selection.rows.is_empty() || is_asked(row)) {
            if !selection.again && !selection.quick && is_known(row)? {
                eprintln!("== {}: known for {} (--again runs it again)", row.id, stamp.commit);
            } else {
                rows.push(*row);
            }
        }
        Ok(rows)
    }

    /// Writes the document from what is kept.
    fn write(&self, root: &Path, store: &Store) -> anyhow::Result<()> {
        let path = root.join(self.document);
        std::fs::write(&path, self.text(store)?).with_context(|| path.display().to_string())
    }

    /// The document, from what is kept.
    fn text(&self, store: &Store) -> anyhow::Result<String> {
        let notes = toml::from_str::<Notes>(self.notes).context("notes.toml")?;
        let (mut rows, mut not_run) = (Vec::new(), Vec::new());
        for spec in &self.rows {
            match store.load(spec.id)? {
                Some(row) => rows.push(row),
                None => not_run.push((spec.id, spec.what)),
            }
        }
        Ok(markdown(self.preface, &store.machines()?, &rows, &not_run, &notes))
    }
}

/// The repository's.
fn root() -> anyhow::Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the workspace")?.to_owned())
}

/// What a row found; its errors, its panics and its deadline are found as well. A signal ends it and everything it started.
async fn run_one(spec: Spec, here: Here) -> anyhow::Result<Found> {
    let mut task = tokio::spawn((spec.run)(here));
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(spec.minutes * 60), &mut task) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminated.recv() => None,
    };
    let why = match ended {
        Some(Ok(Ok(Ok(found)))) => return Ok(found),
        Some(Ok(Ok(Err(error)))) => format!("{error:#}"),
        Some(Ok(Err(panic))) => match panic.try_into_panic() {
            Ok(panic) => panic_text(panic.as_ref()),
            Err(error) => error.to_string(),
        },
        Some(Err(_)) | None => {
            task.abort();
            let _ = task.await;
            anyhow::ensure!(ended.is_some(), "interrupted");
            format!("not done after {} minutes", spec.minutes)
        }
    };
    Ok(Found { figure: why, verdict: Verdict::Failed, method: String::new(), samples: Value::Null })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
impl Driver {
    /// Fails where the document says anything but what is kept.
    pub(crate) fn check_document(&self) -> anyhow::Result<()> {
        let root = root()?;
        let text = self.text(&Store::open(&root, self.command)?)?;
        let written = std::fs::read_to_string(root.join(self.document))?;
        let differs = text.lines().zip(written.lines()).find(|(kept, written)| kept != written);
        anyhow::ensure!(text == written, "`proof {} --write` would change {}: {differs:?}", self.command, self.document);
        Ok(())
    }
}
