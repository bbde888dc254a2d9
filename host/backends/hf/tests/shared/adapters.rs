//! P-M13 with a PEFT adapter on the demo model, for every backend that takes one: a sequence computes what it would alone, with
//! the adapter or without, whatever takes turns with it. What it is to be is from a reference of its own, in
//! `host/demo-model/exports.json`.
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_backend::{AdapterId, Backend, BackendError, Row, SequenceId, Token};

/// Messages that are answered at the same time, each with the adapter and without.
const AT_ONCE: usize = 4;
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// A file or folder of the demo model.
pub(crate) fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model").join(name)
}

fn table() -> Value {
    serde_json::from_str(&std::fs::read_to_string(demo("exports.json")).expect("readable")).expect("JSON")
}

fn ids(value: &Value) -> Vec<Token> {
    let id = |id: &Value| Token::try_from(id.as_u64().expect("a number")).expect("a token");
    value.as_array().expect("a list").iter().map(id).collect()
}

/// A sequence and its greedy reply so far.
struct Talk {
    sequence: u16,
    tokens: Vec<Token>,
    prompt: usize,
    decoded: usize,
    is_over: bool,
}

impl Talk {
    fn new(sequence: usize, prompt: &Value) -> Self {
        let tokens = ids(prompt);
        let sequence = u16::try_from(sequence).expect("few");
        Talk { sequence, prompt: tokens.len(), tokens, decoded: 0, is_over: false }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let last = self.tokens.len() - 1;
        self.tokens.iter().enumerate().skip(self.decoded).map(move |(at, &token)| Row {
            token,
            position: u32::try_from(at).expect("short"),
            sequence: SequenceId(self.sequence),
            wants_logits: at == last,
        })
    }

    fn said(&self) -> &[Token] {
        &self.tokens[self.prompt..]
    }
}

fn likeliest(logits: &[f32]) -> Token {
    let best = logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).expect("logits");
    Token::try_from(best.0).expect("small")
}

/// One step of all talks that go on; whether there were any.
fn step(backend: &mut dyn Backend, adapter: Option<AdapterId>, talks: &mut [Talk], table: &Value) -> bool {
    let mut talks = talks.iter_mut().filter(|talk| !talk.is_over).collect::<Vec<_>>();
    let (mut batch, mut ends) = (Vec::<Row>::new(), Vec::new());
    for talk in &mut talks {
        batch.extend(talk.rows());
        talk.decoded = talk.tokens.len();
        ends.push(batch.len() - 1);
    }
    if batch.is_empty() {
        return false;
    }
    backend.select_adapter(adapter).expect("it is there");
    backend.decode(&batch).expect("decoded");
    let number = |name: &str| table[name].as_u64().expect("a number");
    let (limit, stop) = (number("limit"), number("stop"));
    for (talk, end) in talks.into_iter().zip(ends) {
        let token = likeliest(backend.logits(end).expect("logits"));
        if u64::from(token) == stop {
            talk.is_over = true;
        } else {
            talk.tokens.push(token);
            talk.is_over = talk.said().len() as u64 == limit;
        }
    }
    true
}

/// The reply to one message with nothing else about.
fn alone(backend: &mut dyn Backend, adapter: Option<AdapterId>, row: &Value, table: &Value) -> Vec<Token> {
    let mut talks = [Talk::new(0, &row["prompt"])];
    while step(backend, adapter, &mut talks, table) {}
    backend.truncate(SequenceId(0), 0).expect("emptied");
    talks[0].said().to_vec()
}

/// Steps with the adapter and steps without take turns, and both are what they should be.
pub(crate) fn replies_with_and_without_the_adapter_are_the_references(backend: &mut dyn Backend) {
    let table = table();
    assert!(backend.capabilities().adapters);
    let polite = backend.load_adapter(&demo("lora"), 1.0).expect("the demo adapter loads");
    let rows = table["rows"].as_array().expect("rows");
    assert!(rows.len() >= 20 && rows.iter().any(|row| row["plain"] != row["adapter"]));
    for messages in rows.chunks(AT_ONCE) {
        let talks = |first: usize| messages.iter().enumerate().map(move |(at, row)| Talk::new(first + at, &row["prompt"]));
        let (mut plain, mut adapted) = (talks(0).collect::<Vec<_>>(), talks(AT_ONCE).collect::<Vec<_>>());
        loop {
            let goes_on = step(backend, None, &mut plain, &table);
            if !step(backend, Some(polite), &mut adapted, &table) && !goes_on {
                break;
            }
        }
        for ((row, plain), adapted) in messages.iter().zip(&plain).zip(&adapted) {
            assert_eq!(plain.said(), ids(&row["plain"]), "{}", row["message"]);
            assert_eq!(adapted.said(), ids(&row["adapter"]), "{}", row["message"]);
        }
        for talk in plain.iter().chain(&adapted) {
            backend.truncate(SequenceId(talk.sequence), 0).expect("emptied");
        }
    }
}

/// They come and go while the model is in use, and count as much as they are told to.
pub(crate) fn adapters_come_and_go(backend: &mut dyn Backend) {
    let table = table();
    let rows = table["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["plain"] != row["adapter"]).expect("one that differs");
    let silent = backend.load_adapter(&demo("lora"), 0.0).expect("loaded");
    assert_eq!(alone(backend, Some(silent), row, &table), ids(&row["plain"]));
    for _ in 0..2 {
        let polite = backend.load_adapter(&demo("lora"), 1.0).expect("loaded");
        assert_eq!(alone(backend, Some(polite), row, &table), ids(&row["adapter"]));
        // Selected as it is, it goes all the same.
        backend.drop_adapter(polite);
        assert!(matches!(backend.select_adapter(Some(polite)), Err(BackendError::Failed(_))));
        assert_eq!(alone(backend, None, row, &table), ids(&row["plain"]));
    }
    assert_eq!(alone(backend, Some(silent), row, &table), ids(&row["plain"]));
}

/// The demo adapter with other words in the header of its weights, as long as those that they replace.
fn altered(from: &str, to: &str) -> tempfile::TempDir {
    assert_eq!(from.len(), to.len());
    let directory = tempfile::tempdir().expect("a directory");
    let mut bytes = std::fs::read(demo("lora").join(WEIGHTS)).expect("readable");
    let places = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect::<Vec<_>>();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    std::fs::write(directory.path().join(WEIGHTS), bytes).expect("written");
    std::fs::copy(demo("lora").join(CONFIG), directory.path().join(CONFIG)).expect("copied");
    directory
}

/// A refusal says why, and the model is as it was.
pub(crate) fn what_is_no_adapter_of_the_model_is_refused(backend: &mut dyn Backend) {
    for name in ["hf", "README.md", "missing"] {
        let refused = backend.load_adapter(&demo(name), 1.0);
        assert!(matches!(&refused, Err(BackendError::Load(why)) if why.contains(name)), "{refused:?}");
    }
    assert!(backend.load_adapter(&demo("lora"), f32::NAN).is_err());
    // A layer that the model does not have, and a module with another's shape.
    for (from, to, word) in
        [("layers.0.", "layers.9.", "layers.9."), (".layers.0.mlp.up_proj", ".layers.0.mlp.in_proj", "mlp.in_proj")]
    {
        let folder = altered(from, to);
        let why = backend.load_adapter(folder.path(), 1.0).expect_err("refused").to_string();
        assert!(why.contains(word) && why.contains("another"), "{why}");
    }
    let table = table();
    let row = &table["rows"][1];
    assert_eq!(alone(backend, None, row, &table), ids(&row["plain"]));
}
