//! Rules of this repository that lints cannot say: who may depend on whom, and how long files and functions are.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files are up to about 400 lines and functions up to about 60; what is longer than these is split, or named below with a reason.
const MAX_FILE_LINES: usize = 450;
const MAX_FUNCTION_LINES: usize = 70;
/// Path, and why it may be longer.
const LONG_FILES: &[(&str, &str)] =
    &[("host/api/src/openai/fields.rs", "one table: every field of OpenAI's request, what becomes of it, and its reader")];

/// ARCHITECTURE.md's table: a crate, and what of ours it may depend on. `*` is everything.
const TABLE: &[(&str, &[&str])] = &[
    ("tollgate-domain", &[]),
    ("tollgate-backend", &[]),
    ("tollgate-config", &[]),
    ("tollgate-formats", &[]),
    ("tollgate-artifacts", &["tollgate-formats"]),
    ("tollgate-convert", &["tollgate-formats"]),
    ("tollgate-backend-hf", &["tollgate-backend", "tollgate-formats"]),
    ("tollgate-backend-candle", &["tollgate-backend", "tollgate-backend-hf", "tollgate-formats"]),
    ("tollgate-backend-onnx", &["tollgate-backend", "tollgate-backend-hf", "tollgate-formats"]),
    ("tollgate-backend-llama", &["tollgate-backend"]),
    ("tollgate-backend-scripted", &["tollgate-backend"]),
    ("tollgate-telemetry", &["tollgate-config"]),
    ("tollgate-inference", &["tollgate-domain", "tollgate-backend"]),
    (
        "tollgate-models",
        &[
            "tollgate-domain",
            "tollgate-config",
            "tollgate-formats",
            "tollgate-artifacts",
            "tollgate-convert",
            "tollgate-inference",
            "tollgate-providers",
            "tollgate-backend",
            "tollgate-backend-candle",
            "tollgate-backend-onnx",
            "tollgate-backend-llama",
            "tollgate-backend-scripted",
        ],
    ),
    ("tollgate-plugins", &["tollgate-domain", "tollgate-config", "tollgate-cases"]),
    ("tollgate-store", &["tollgate-domain", "tollgate-config"]),
    ("tollgate-providers", &["tollgate-domain", "tollgate-config"]),
    ("tollgate-pipeline", &["tollgate-domain", "tollgate-plugins", "tollgate-models", "tollgate-store"]),
    ("tollgate-api", &["tollgate-domain", "tollgate-pipeline", "tollgate-models"]),
    ("tollgate-server", &["tollgate-config"]),
    ("tollgate-reload", &["tollgate-config", "tollgate-plugins", "tollgate-models", "tollgate-pipeline"]),
    ("tollgate", &["*"]),
    ("tollgate-cases", &[]),
    ("tollgate-pack", &["tollgate-cases"]),
    ("tollgate-sdk", &["tollgate-cases"]),
    (
        "tollgate-proof",
        &["tollgate-domain", "tollgate-convert", "tollgate-formats", "tollgate-plugins", "tollgate-plugin-filter-pii"],
    ),
    ("xtask", &["tollgate-cases", "tollgate-pack"]),
];
/// What a plugin may depend on, wherever it lies.
const PLUGIN: &[&str] = &["tollgate-sdk"];
/// Crates that know HTTP, and those that know wasmtime or llama.cpp: nobody else may.
const CONFINED: &[(&str, &[&str])] = &[
    ("axum", &["tollgate-api", "tollgate"]),
    ("hyper", &["tollgate-server", "tollgate-telemetry", "tollgate", "tollgate-proof"]),
    ("rustls", &["tollgate-server", "tollgate-telemetry", "tollgate-proof"]),
    ("reqwest", &["tollgate-artifacts", "tollgate-providers"]),
    ("wasmtime", &["tollgate-plugins"]),
    ("wasmtime-wasi", &["tollgate-plugins"]),
    ("llama-cpp-2", &["tollgate-backend-llama"]),
    ("llama-cpp-sys-2", &["tollgate-backend-llama"]),
    ("anyhow", &["tollgate", "tollgate-reload", "tollgate-proof", "xtask"]),
    ("minijinja", &["tollgate-inference", "tollgate-plugin-template-jinja"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

struct Package {
    name: String,
    folder: String,
    dependencies: BTreeSet<String>,
}

/// Every package of the workspace but this one, with its normal and build dependencies.
fn packages() -> Vec<Package> {
    let root = root();
    let workspace: toml::Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members = members.iter().map(|member| member.as_str().unwrap()).filter(|member| *member != "tests");
    members
        .map(|folder| {
            let manifest: toml::Table = fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap().parse().unwrap();
            let tables = ["dependencies", "build-dependencies"].into_iter().filter_map(|kind| manifest.get(kind)?.as_table());
            Package {
                name: manifest["package"]["name"].as_str().unwrap().to_owned(),
                folder: folder.to_owned(),
                dependencies: tables.flat_map(|table| table.keys().cloned()).collect(),
            }
        })
        .collect()
}

#[test]
fn edges_are_those_of_the_table() {
    let table = TABLE.iter().copied().collect::<BTreeMap<_, _>>();
    let packages = packages();
    let ours = packages.iter().map(|package| package.name.as_str()).collect::<BTreeSet<_>>();
    let mut wrong = Vec::new();
    for package in &packages {
        let is_plugin = package.folder.starts_with("plugins/") || package.folder.starts_with("tests/guests/");
        let allowed = if is_plugin { PLUGIN } else { table.get(package.name.as_str()).copied().unwrap_or(&[]) };
        if !is_plugin && !table.contains_key(package.name.as_str()) {
            wrong.push(format!("{} is not in the table of ARCHITECTURE.md and of this test", package.name));
        }
        for dependency in package.dependencies.iter().filter(|name| ours.contains(name.as_str())) {
            if !allowed.contains(&"*") && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{} must not depend on {dependency}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for package in packages() {
        for (library, allowed) in CONFINED {
            if package.dependencies.contains(*library) && !allowed.contains(&package.name.as_str()) {
                wrong.push(format!("{} must not depend on {library}: only {} may", package.name, allowed.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_package_takes_the_workspace_lints() {
    for package in packages() {
        let manifest: toml::Table = fs::read_to_string(root().join(&package.folder).join("Cargo.toml")).unwrap().parse().unwrap();
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(lints, Some(true), "{}: [lints] workspace = true", package.folder);
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" && name != "data" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Name, first line and length of every function, by the indentation that rustfmt gives it.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines = text.lines().collect::<Vec<_>>();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let starts = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn ", "pub(crate) async fn "];
        if !starts.iter().any(|start| code.starts_with(start)) {
            continue;
        }
        // A method of a trait without a body of its own has no length.
        let ends = lines[at..].iter().find(|line| line.ends_with([';', '{', '}'])).copied().unwrap_or_default();
        if ends.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[at..].iter().position(|line| *line == close).map_or(1, |end| end + 1);
        let name = code.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next()).unwrap_or_default();
        found.push((name.to_owned(), at + 1, length));
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let root = root();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were found");
    let (mut listed, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        let path = file.strip_prefix(&root).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES && !LONG_FILES.iter().any(|(long, _)| *long == path) {
            wrong.push(format!("{path} has {lines} lines, {MAX_FILE_LINES} at most"));
        }
        for (name, line, length) in functions(&text) {
            if length > MAX_FUNCTION_LINES {
                wrong.push(format!("{path}:{line}: `{name}` has {length} lines, {MAX_FUNCTION_LINES} at most"));
            } else if length > 60 {
                listed.push(format!("{length} lines: {path}:{line} `{name}`"));
            }
        }
        // House rule: `foo.rs` and `foo/`, no `mod.rs`.
        if path.ends_with("/mod.rs") {
            wrong.push(format!("{path}: call it by its module's name, one folder up"));
        }
        if !text.starts_with("//!") && !text.starts_with("#!") {
            wrong.push(format!("{path}: begin with `//!`: what it is, and what it is not"));
        }
    }
    listed.sort();
    println!("long functions:\n{}", listed.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn architecture_is_short_enough_to_be_read() {
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap().lines().count();
    assert!(lines <= 150, "ARCHITECTURE.md has {lines} lines, 150 at most");
}
