//! What a row found, and the Markdown table made of it. Knows nothing of how a row is run (`rows.rs`) and where it is kept
//! (`records.rs`).
//!
//! A row's code returns a [`Found`]. The driver stamps it with commit, date and machine as a [`Row`]. [`markdown`] writes all rows of a
//! command as one document.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a figure stands to its aim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The aim is reached.
    Met,
    /// It was measured, and is short of the aim.
    Missed,
    /// There is no aim; the figure is stated.
    Stated,
    /// It could not be measured; the figure says why.
    Failed,
}

impl Verdict {
    /// `Met` or `Missed`.
    pub(crate) fn of(is_met: bool) -> Self {
        if is_met { Verdict::Met } else { Verdict::Missed }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::Stated => "stated",
            Verdict::Failed => "**failed**",
        }
    }
}

/// What a row's code found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The figure with its unit, for people: `13.2 tok/s, 1.04x of llama-server's 12.7`.
    pub(crate) figure: String,
    /// How it stands to the aim.
    pub(crate) verdict: Verdict,
    /// How it was measured, where that is not plain from the row's name; may be empty.
    pub(crate) method: String,
    /// Everything that was measured, for who doubts the figure. It is kept apart from the row.
    #[serde(skip)]
    pub(crate) samples: Value,
}

/// A row as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its name on the command line.
    pub(crate) id: String,
    /// What is shown.
    pub(crate) what: String,
    /// What is to be reached.
    pub(crate) aim: String,
    /// What was found.
    #[serde(flatten)]
    pub(crate) found: Found,
    /// When and where.
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
}

/// When and where a row was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// The commit, 12 hex digits; with `+` behind it where the tree had changes.
    pub(crate) commit: String,
    /// The day, UTC.
    pub(crate) date: String,
    /// Processor, cores, memory, kernel.
    pub(crate) machine: String,
}

impl Stamp {
    /// Now, here, and the tree at `root`. The rows' records and the documents that are written from them are no change of the tree.
    pub(crate) fn now(root: &Path) -> anyhow::Result<Self> {
        let head = git(root, &["rev-parse", "--short=12", "HEAD"])?;
        let records = format!(":!{}", crate::records::FOLDER);
        let changes = git(root, &["status", "--porcelain", "--", ".", ":!BENCHMARKS.md", ":!VERIFICATION.md", &records])?;
        let commit = if changes.is_empty() { head } else { format!("{head}+") };
        let date = time::OffsetDateTime::now_utc().date().to_string();
        Ok(Stamp { commit, date, machine: machine() })
    }
}

fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").current_dir(root).args(arguments).output().context("git")?;
    anyhow::ensure!(output.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The machine in a few words.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (family, model) = (field("/proc/cpuinfo", "cpu family"), field("/proc/cpuinfo", "model\t"));
    format!(
        "{} (family {family}, model {model}), {cores} cores, {} GiB, Linux {}",
        field("/proc/cpuinfo", "model name"),
        kib / (1 << 20),
        kernel.trim()
    )
}

/// What is known of rows that are short of their aim: cause, and what was tried. From `notes.toml`: one table per row's id.
pub(crate) type Notes = std::collections::BTreeMap<String, Note>;

/// See [`Notes`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// Why it is so.
    pub(crate) cause: String,
    /// What was tried against it.
    pub(crate) tried: String,
}

/// The document: `preface`, the table, the `machines` by their numbers, how each row was measured, the rows short of their aim with
/// cause and what was tried, and those that were not run, by id and what they show.
pub(crate) fn markdown(preface: &str, machines: &[String], rows: &[Row], not_run: &[(&str, &str)], notes: &Notes) -> String {
    let mut machines = machines.iter().map(String::as_str).collect::<Vec<_>>();
    let mut table =
        String::from("| row | what | figure | aim | verdict | commit | date | machine |\n|---|---|---|---|---|---|---|---|\n");
    for row in rows {
        let machine = row.stamp.machine.as_str();
        let at = machines.iter().position(|known| *known == machine).unwrap_or_else(|| {
            machines.push(machine);
            machines.len() - 1
        });
        let cells =
            [&row.id, &row.what, &row.found.figure, &row.aim, row.found.verdict.word(), &row.stamp.commit, &row.stamp.date];
        let cells = cells.map(cell).join(" | ");
        let _ = writeln!(table, "| {cells} | {} |", at + 1);
    }
    let mut out = format!("{}\n\n{table}\nMachines:\n", preface.trim_end());
    for (at, machine) in machines.iter().enumerate() {
        let _ = writeln!(out, "{}. {machine}", at + 1);
    }
    let short = rows.iter().filter(|row| matches!(row.found.verdict, Verdict::Missed | Verdict::Failed)).collect::<Vec<_>>();
    if !short.is_empty() {
        out.push_str("\n## Short of the aim\n\n");
        for row in short {
            match notes.get(&row.id) {
                Some(note) => {
                    let _ = writeln!(out, "- **{}**: {} Tried: {}", row.id, note.cause.trim(), note.tried.trim());
                }
                None => {
                    let _ = writeln!(out, "- **{}**: no cause is known yet.", row.id);
                }
            }
        }
    }
    if !not_run.is_empty() {
        out.push_str("\n## Not run yet\n\n");
        for (id, what) in not_run {
            let _ = writeln!(out, "- **{id}**: {what}");
        }
    }
    let methods = rows.iter().filter(|row| !row.found.method.is_empty()).collect::<Vec<_>>();
    if !methods.is_empty() {
        out.push_str("\n## How it was measured\n\n");
        for row in methods {
            let _ = writeln!(out, "- **{}**: {}", row.id, row.found.method.trim());
        }
    }
    out
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(id: &str, verdict: Verdict, machine: &str) -> Row {
        Row {
            id: id.to_owned(),
            what: "what | is".to_owned(),
            aim: "1".to_owned(),
            found: Found { figure: "2".to_owned(), verdict, method: String::new(), samples: Value::Null },
            stamp: Stamp { commit: "c".to_owned(), date: "d".to_owned(), machine: machine.to_owned() },
        }
    }

    #[test]
    fn a_document_names_what_is_short_of_its_aim() {
        let rows = [row("a", Verdict::Met, "one"), row("b", Verdict::Missed, "two"), row("c", Verdict::Failed, "one")];
        let note = Note { cause: "Why.".to_owned(), tried: "This.".to_owned() };
        let machines = ["two".to_owned(), "one".to_owned()];
        let text = markdown("# Title", &machines, &rows, &[("d", "what is not known")], &Notes::from([("b".to_owned(), note)]));
        assert!(text.contains("| a | what \\| is | 2 | 1 | met | c | d | 2 |"), "{text}");
        assert!(text.contains("| c | what \\| is | 2 | 1 | **failed** | c | d | 2 |"), "{text}");
        assert!(text.contains("Machines:\n1. two\n2. one\n"), "{text}");
        assert!(text.contains("- **b**: Why. Tried: This."), "{text}");
        assert!(text.contains("- **c**: no cause is known yet."), "{text}");
        assert!(text.contains("## Not run yet\n\n- **d**: what is not known\n"), "{text}");
        assert!(!text.contains("- **a**"), "{text}");
    }
}
