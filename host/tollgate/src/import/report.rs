//! The words in which an import is told. What they tell is decided in `plan`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::plan::{PRECEDENCE, Plan};

/// A key that is longer, with its file, does not move the column of the others.
const MAX_COLUMN: usize = 64;

/// Prints what was understood and what was not kept; with `show_files` also the files that would be written.
pub(super) fn text(plan: &Plan, show_files: bool) -> anyhow::Result<()> {
    let mut text = told(plan);
    if show_files {
        for file in &plan.files {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n--- {}\n{}", file.path, file.toml);
        }
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Prints which files were written, and what comes next.
pub(super) fn written(paths: &[PathBuf], config: &Path) -> anyhow::Result<()> {
    let mut text = String::from("\n");
    for path in paths {
        let _ = writeln!(text, "wrote {}", path.display());
    }
    if !paths.is_empty() {
        let _ = writeln!(text, "next: tollgate check --config {}", config.display());
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Prints all of it as JSON.
pub(super) fn json(plan: &Plan, written: &[PathBuf]) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(&value(plan, written))?;
    text.push('\n');
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The plan as JSON.
pub(super) fn value(plan: &Plan, written: &[PathBuf]) -> serde_json::Value {
    let files = plan.files.iter().map(|file| json!({ "path": file.path, "toml": file.toml })).collect::<Vec<_>>();
    let kept = plan.kept.iter();
    let kept = kept.map(|kept| json!({ "file": kept.file, "from": kept.from, "to": kept.to, "note": kept.note }));
    let dropped = plan.dropped.iter();
    let dropped = dropped.map(|line| json!({ "file": line.file, "key": line.key, "why": line.why, "instead": line.instead }));
    let paste = plan.paste.iter().map(|paste| json!({ "into": paste.into, "key": paste.key, "toml": paste.text }));
    json!({
        "files": files,
        "kept": kept.collect::<Vec<_>>(),
        "dropped": dropped.collect::<Vec<_>>(),
        "paste": paste.collect::<Vec<_>>(),
        "precedence": PRECEDENCE,
        "written": written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}

/// The plan in words, but for its files.
pub(super) fn told(plan: &Plan) -> String {
    let mut text = String::new();
    let sources = plan.kept.iter().map(|kept| format!("{}: {}", kept.file, kept.from)).collect::<Vec<_>>();
    let width = sources.iter().map(|source| source.chars().count()).filter(|length| *length <= MAX_COLUMN).max().unwrap_or(0);
    if plan.kept.is_empty() {
        text.push_str("Nothing here describes a model.\n");
    } else {
        text.push_str("Understood:\n");
    }
    for (kept, source) in plan.kept.iter().zip(&sources) {
        let note = if kept.note.is_empty() { String::new() } else { format!("  ({})", kept.note) };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {source:width$}  ->  {}{note}", kept.to);
    }
    if !plan.dropped.is_empty() {
        text.push_str("\nNot kept:\n");
    }
    for line in &plan.dropped {
        let _ = writeln!(text, "  {}: {} {}\n      instead: {}", line.file, line.key, line.why, line.instead);
    }
    for paste in &plan.paste {
        let _ = writeln!(
            text,
            "\nTo paste into {} for {}, without the name of a table that is there already:\n\n{}",
            paste.into,
            paste.key,
            paste.text.trim_end()
        );
    }
    let _ = writeln!(text, "\n{PRECEDENCE}");
    text
}
