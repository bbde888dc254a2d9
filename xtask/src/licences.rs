//! `THIRD-PARTY.txt` for packages: which crates are inside the binary and its plugins, and every licence text that they carry. Not
//! the check of what is allowed: that is cargo-deny's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::plugins::find_crates;

/// The binary's target, and the plugins' inside it.
const HOST: &str = "x86_64-unknown-linux-gnu";
const GUEST: &str = "wasm32-unknown-unknown";
const BINARY: &str = "tollgate";
/// File names of licences, in capitals, begin with one of these.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// Endings of files that are named like a licence and are none.
const CODE: [&str; 6] = ["rs", "c", "h", "cmake", "py", "html"];
/// Licences that stand at the head of a source file alone: package, file.
const HEADS: [(&str, &str); 2] = [
    ("llama-cpp-sys-2", "llama.cpp/ggml/src/ggml-cpu/llamafile/sgemm.cpp"),
    ("llama-cpp-sys-2", "llama.cpp/vendor/nlohmann/json.hpp"),
];
/// What is linked in and comes with the Rust compiler.
const STANDARD_LIBRARY: &str = "The Rust standard library is licensed under MIT OR Apache-2.0. Copyright (c) The Rust Project \
    Contributors. Its parts and their licences are listed in the file COPYRIGHT-library.html of the Rust distribution.";
const RULE: &str = "--------------------------------------------------------------------------------";

/// A crate that is shipped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shipped {
    name: String,
    version: String,
    expression: String,
    folder: PathBuf,
}

/// Writes the file.
///
/// # Errors
/// cargo fails, or a crate is without a licence text and none can stand for it.
pub(crate) fn write(out: &Path) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let crates = shipped(root)?;
    ensure!(!crates.is_empty(), "cargo names no crate");
    let text = document(&crates, &texts(root, &crates)?);
    std::fs::write(out, text).with_context(|| out.display().to_string())
}

/// The crates of others that are linked into the binary or into a plugin that it carries, sorted.
fn shipped(root: &Path) -> anyhow::Result<Vec<Shipped>> {
    let known = known(root)?;
    let mut names = tree(root, BINARY, HOST)?;
    for plugin in find_crates(root, &["plugins"])? {
        names.extend(tree(root, &plugin.package, GUEST)?);
    }
    Ok(names.into_iter().filter_map(|name| known.get(&name).cloned()).collect())
}

/// Name and version of every crate that `package` is linked with.
fn tree(root: &Path, package: &str, target: &str) -> anyhow::Result<BTreeSet<(String, String)>> {
    let arguments = ["tree", "--locked", "--package", package, "--target", target, "--edges", "normal", "--prefix", "none"];
    let text = cargo(root, &arguments)?;
    let words = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    Ok(text.lines().filter_map(words).collect())
}

/// Every crate of the lock file that is not ours, by name and version.
fn known(root: &Path) -> anyhow::Result<BTreeMap<(String, String), Shipped>> {
    let metadata: Value = serde_json::from_str(&cargo(root, &["metadata", "--locked", "--format-version", "1"])?)?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("cargo metadata has packages")?;
    let read = |package: &Value| {
        // Ours have no source.
        package.get("source")?.as_str()?;
        let text = |field: &str| package.get(field).and_then(Value::as_str).map(str::to_owned);
        let folder = PathBuf::from(text("manifest_path")?).parent()?.to_owned();
        let expression = text("license").unwrap_or_else(|| "see its text".to_owned());
        let shipped = Shipped { name: text("name")?, version: text("version")?, expression, folder };
        Some(((shipped.name.clone(), shipped.version.clone()), shipped))
    };
    Ok(packages.iter().filter_map(read).collect())
}

fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("cargo").current_dir(root).args(arguments).output().context("cargo")?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Every licence text, with the crates that carry it. Texts that differ in their white space alone are one.
fn texts(root: &Path, crates: &[Shipped]) -> anyhow::Result<Vec<(String, BTreeSet<String>)>> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut add = |owner: String, text: String| {
        let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        found.entry(folded).or_insert_with(|| (text, BTreeSet::new())).1.insert(owner);
    };
    for shipped in crates {
        let mut files = Vec::new();
        licence_files(&shipped.folder, &mut files)?;
        for file in &files {
            let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
            // zstd is offered under BSD as well, and that is what is taken.
            if !text.trim_start().starts_with("GNU GENERAL PUBLIC LICENSE") {
                add(owner(shipped, file), text);
            }
        }
        if files.is_empty() {
            add(format!("{} {}", shipped.name, shipped.version), stand_in(root, crates, shipped)?);
        }
        for (_, file) in HEADS.iter().filter(|(package, _)| *package == shipped.name) {
            let path = shipped.folder.join(file);
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            add(owner(shipped, &path), head(&text));
        }
    }
    let mut texts = found.into_values().collect::<Vec<_>>();
    texts.sort_by(|left, right| left.1.cmp(&right.1));
    Ok(texts)
}

/// A crate, and the place of the text in it where that says more: code of others lies in folders of its own.
fn owner(shipped: &Shipped, file: &Path) -> String {
    let inside = file.strip_prefix(&shipped.folder).ok().filter(|path| path.components().count() > 1);
    let inside = inside.map(|path| format!(" ({})", path.display())).unwrap_or_default();
    format!("{} {}{inside}", shipped.name, shipped.version)
}

fn licence_files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_code = path.extension().is_some_and(|ending| CODE.iter().any(|code| ending == *code));
        if entry.file_type()?.is_dir() {
            licence_files(&path, found)?;
        } else if NAMES.iter().any(|start| name.starts_with(start)) && !is_code {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// The comment at the head of a source file, as text.
fn head(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).fold(String::new(), |text, line| text + line + "\n")
}

/// The text for a crate that carries none: that of the project it is part of, or of its licence.
fn stand_in(root: &Path, crates: &[Shipped], shipped: &Shipped) -> anyhow::Result<String> {
    let file = if shipped.expression.contains("LLVM-exception") {
        let wasmtime = crates.iter().find(|other| other.name == "wasmtime").context("wasmtime carries the text")?;
        wasmtime.folder.join("LICENSE")
    } else if shipped.expression.contains("Apache-2.0") {
        root.join("LICENSE-APACHE")
    } else {
        bail!("{} {} ({}) carries no licence text", shipped.name, shipped.version, shipped.expression);
    };
    std::fs::read_to_string(&file).with_context(|| file.display().to_string())
}

fn document(crates: &[Shipped], texts: &[(String, BTreeSet<String>)]) -> String {
    let mut out = String::from(
        "Tollgate contains software of others: the crates below, under the licences that they name. Their texts follow.\n\n",
    );
    // Writing to a string cannot fail.
    for shipped in crates {
        let _ = writeln!(out, "{} {}: {}", shipped.name, shipped.version, shipped.expression);
    }
    let _ = writeln!(out, "\n{STANDARD_LIBRARY}");
    for (text, owners) in texts {
        let owners = owners.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "\n{RULE}\n{owners}\n{RULE}\n\n{}", text.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_source_file_ends_with_its_comment() {
        assert_eq!(head("// Copyright\n//\n//  Permission\n\nint main;\n// later\n"), "Copyright\n\n Permission\n");
    }

    #[test]
    fn texts_are_found_below_a_crate_and_code_is_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(dir.path().join("vendor/x")).expect("made");
        for name in ["LICENSE-MIT", "licence.txt", "copying.rs", "README.md", "vendor/x/COPYING"] {
            std::fs::write(dir.path().join(name), "text").expect("written");
        }
        let mut found = Vec::new();
        licence_files(dir.path(), &mut found).expect("read");
        let found = found.iter().filter_map(|path| path.strip_prefix(dir.path()).ok()?.to_str()).collect::<Vec<_>>();
        assert_eq!(found, ["LICENSE-MIT", "licence.txt", "vendor/x/COPYING"]);
    }
}
