//! Every error body that any row has seen, for the row that searches them for internals (P-E11).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Kept at most; floods make the same few again and again.
const MOST: usize = 20_000;
/// Bytes kept of one.
const LONGEST: usize = 4_096;

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Where they are kept between runs, one JSON string a line.
pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/verify/error-bodies.jsonl")
}

/// Keeps a body that is not known yet. A file that cannot be written loses it, and the row says how many it searched.
pub(crate) fn note(body: &[u8]) {
    if body.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(body.get(..LONGEST).unwrap_or(body)).into_owned();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() >= MOST || !seen.insert(text.clone()) {
        return;
    }
    let line = format!("{}\n", serde_json::Value::String(text));
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(file()) {
        let _ = file.write_all(line.as_bytes());
    }
}

/// All that were kept, by this run and those before.
pub(crate) fn all() -> BTreeSet<String> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
