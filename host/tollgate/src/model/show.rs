//! What is installed, and whether it is as it was: `list`, `show`, `verify`.

use std::process::ExitCode;

use anyhow::Context;
use indicatif::HumanBytes;
use serde_json::{Value, json};
use tollgate_artifacts::inspect::inspect;
use tollgate_artifacts::store::{Damage, Entry};
use tollgate_artifacts::{Digest, Store, Which};

use super::cli::{Show, Verify};
use super::progress::Shown;
use super::{Opened, answer, open};
use crate::cli::Ask;

pub(super) fn list(local: &Ask) -> anyhow::Result<()> {
    let Opened { store, .. } = open(local)?;
    let entries = store.list()?;
    let value = entries.iter().map(|entry| {
        json!({
            "name": entry.name,
            "version": entry.version,
            "digest": entry.digest,
            "format": entry.format,
            "bytes": entry.bytes,
            "current": entry.is_current,
            "rollback": entry.is_rollback,
            "signed_by": entry.signed_by,
            "installed": entry.installed,
        })
    });
    let head = ["NAME", "VERSION", "STATE", "FORMAT", "SIZE", "SIGNED BY", "INSTALLED", "DIGEST"].map(str::to_owned);
    let rows = entries.iter().map(|entry| {
        [
            entry.name.to_string(),
            entry.version.to_string(),
            state(entry).to_owned(),
            entry.format.to_string(),
            HumanBytes(entry.bytes).to_string(),
            entry.signed_by.clone().unwrap_or_else(|| "nobody".to_owned()),
            entry.installed.clone(),
            entry.digest.to_string(),
        ]
    });
    let text = if entries.is_empty() {
        "no model is installed: `tollgate model import` and `tollgate model pull` do that\n".to_owned()
    } else {
        table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    };
    answer(local.json, &value.collect(), &text)
}

fn state(entry: &Entry) -> &'static str {
    match (entry.is_current, entry.is_rollback) {
        (true, _) => "current",
        (false, true) => "rollback",
        (false, false) => "-",
    }
}

/// Columns as wide as what is in them.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths = (0..N).map(width).collect::<Vec<_>>();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("  ");
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

pub(super) fn show(ask: &Show) -> anyhow::Result<()> {
    let Opened { store, .. } = open(&ask.local)?;
    let version = store.find(&ask.which)?;
    let manifest = &version.manifest;
    let entries = store.list()?.into_iter().filter(|entry| entry.digest == version.digest).collect::<Vec<_>>();
    let names = entries.iter().map(|entry| json!({ "name": entry.name, "state": state(entry) })).collect::<Vec<_>>();
    let first = entries.first();
    let signed_by = first.and_then(|entry| entry.signed_by.clone());
    let installed = first.map(|entry| entry.installed.clone());
    // What is damaged is `verify`'s to say.
    let summary = inspect(&version.folder, manifest).ok();
    let architecture = summary.as_ref().and_then(|summary| summary.architecture.clone());
    let value = json!({
        "digest": version.digest,
        "folder": version.folder.display().to_string(),
        "names": names,
        "signed_by": signed_by,
        "installed": installed,
        "architecture": architecture,
        "bytes": manifest.total_bytes(),
        "weights_bytes": summary.map(|summary| summary.parameters_bytes),
        "manifest": manifest,
    });
    let mut lines = vec![
        ["digest".to_owned(), version.digest.to_string()],
        ["folder".to_owned(), version.folder.display().to_string()],
        [
            "name".to_owned(),
            entries.iter().map(|entry| format!("{} ({})", entry.name, state(entry))).collect::<Vec<_>>().join(", "),
        ],
        ["version".to_owned(), manifest.version.to_string()],
        ["format".to_owned(), manifest.format.to_string()],
        ["size".to_owned(), HumanBytes(manifest.total_bytes()).to_string()],
        ["signed by".to_owned(), signed_by.unwrap_or_else(|| "nobody".to_owned())],
        ["made".to_owned(), manifest.created.clone()],
    ];
    let mut optional = |name: &str, text: Option<String>| lines.extend(text.map(|text| [name.to_owned(), text]));
    optional("installed", installed);
    optional("architecture", architecture);
    optional("expires", manifest.expires.clone());
    optional("base", manifest.base.as_ref().map(Which::to_string));
    optional("description", manifest.description.clone());
    optional("source", manifest.source.clone());
    optional("check", manifest.check.as_ref().map(|check| format!("{:?} is answered {:?}", check.prompt, check.reply)));
    lines.extend(
        manifest
            .files
            .iter()
            .map(|file| ["file".to_owned(), format!("{}, {}, {}", file.path, HumanBytes(file.bytes), file.sha256)]),
    );
    answer(ask.local.json, &value, &table(&lines))
}

/// A version that was read again.
struct Verified {
    digest: Digest,
    names: Vec<String>,
    damaged: Vec<Damage>,
}

/// Fails in its exit code if something is damaged.
pub(super) fn verify(ask: &Verify) -> anyhow::Result<ExitCode> {
    let Opened { store, .. } = open(&ask.local)?;
    let digests = match &ask.which {
        Some(which) => vec![store.find(which)?.digest],
        None => everything(&store)?,
    };
    // A version whose manifest is damaged has no name here.
    let entries = store.list().unwrap_or_default();
    let progress = Shown::new();
    let verified = digests.into_iter().map(|digest| {
        let damaged = store
            .verify(&Which::Digest(digest), &progress)
            .unwrap_or_else(|error| vec![Damage { path: "manifest.json".to_owned(), why: error.to_string() }]);
        let names = entries.iter().filter(|entry| entry.digest == digest).map(|entry| entry.name.to_string());
        Verified { digest, names: names.collect(), damaged }
    });
    let verified = verified.collect::<Vec<_>>();
    let is_good = verified.iter().all(|version| version.damaged.is_empty());
    let versions = verified.iter().map(|version| {
        let damaged = version.damaged.iter().map(|damage| json!({ "path": damage.path, "why": damage.why }));
        json!({ "digest": version.digest, "names": version.names, "damaged": damaged.collect::<Vec<_>>() })
    });
    let value = json!({ "good": is_good, "versions": versions.collect::<Vec<Value>>() });
    answer(ask.local.json, &value, &told(&verified))?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The digests of all versions, those with a damaged manifest included.
fn everything(store: &Store) -> anyhow::Result<Vec<Digest>> {
    let folder = store.root().join("cache/versions");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut digests: Vec<Digest> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    digests.sort();
    Ok(digests)
}

fn told(verified: &[Verified]) -> String {
    let mut text = String::new();
    for version in verified {
        let names = if version.names.is_empty() { "without a name".to_owned() } else { version.names.join(", ") };
        let state = if version.damaged.is_empty() { "good" } else { "DAMAGED" };
        text.push_str(&format!("{state} {} ({names})\n", version.digest));
        text.extend(version.damaged.iter().map(|damage| format!("  {}: {}\n", damage.path, damage.why)));
    }
    let damaged = verified.iter().filter(|version| !version.damaged.is_empty()).count();
    text.push_str(&match damaged {
        0 => format!("{} verified, none damaged\n", verified.len()),
        _ => format!(
            "{} verified, {damaged} damaged: install the same model again (`tollgate model pull` or `import`), which mends it, or go \
             back with `tollgate model rollback`\n",
            verified.len()
        ),
    });
    text
}
