//! P-M13 with an adapter on the demo model: a sequence computes what it would alone, with the adapter or without, whatever takes turns
//! with it. What it is to be is from a reference of its own, in `host/demo-model/exports.json`.
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_backend::{AdapterId, Backend, BackendError, Row, SequenceId, Token};
use tollgate_backend_llama::{KvCache, Llama, Settings, Tuning};

/// Messages that are answered at the same time, each with the adapter and without.
const AT_ONCE: usize = 4;

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model").join(name)
}

fn load() -> Llama {
    let settings = Settings {
        path: demo("demo-f16.gguf"),
        mapped: false,
        context_tokens: Some(4_096),
        sequences: 8,
        step_rows: 2_048,
        threads: Some(1),
        apart: false,
        kv_cache: KvCache::F16,
        tuning: Tuning::default(),
    };
    Llama::load(&settings).expect("the demo model loads")
}

fn adapter(llama: &mut Llama, scale: f32) -> AdapterId {
    llama.load_adapter(&demo("lora/demo-lora.gguf"), scale).expect("the demo adapter loads")
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
fn step(llama: &mut Llama, adapter: Option<AdapterId>, talks: &mut [Talk], table: &Value) -> bool {
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
    llama.select_adapter(adapter).expect("it is there");
    llama.decode(&batch).expect("decoded");
    let number = |name: &str| table[name].as_u64().expect("a number");
    let (limit, stop) = (number("limit"), number("stop"));
    for (talk, end) in talks.into_iter().zip(ends) {
        let token = likeliest(llama.logits(end).expect("logits"));
        if u64::from(token) == stop {
            talk.is_over = true;
        } else {
            talk.tokens.push(token);
            talk.is_over = talk.said().len() as u64 == limit;
        }
    }
    true
}

/// The replies to one message with nothing else about.
fn alone(llama: &mut Llama, adapter: Option<AdapterId>, row: &Value, table: &Value) -> Vec<Token> {
    let mut talks = [Talk::new(0, &row["prompt"])];
    while step(llama, adapter, &mut talks, table) {}
    llama.truncate(SequenceId(0), 0).expect("emptied");
    talks[0].said().to_vec()
}

/// Steps with the adapter and steps without take turns, and both are what they should be.
#[test]
fn replies_with_and_without_the_adapter_are_the_references() {
    let (mut llama, table) = (load(), table());
    assert!(llama.capabilities().adapters);
    let polite = adapter(&mut llama, 1.0);
    let rows = table["rows"].as_array().expect("rows");
    assert!(rows.len() >= 20 && rows.iter().any(|row| row["plain"] != row["adapter"]));
    for messages in rows.chunks(AT_ONCE) {
        let talks = |first: usize| messages.iter().enumerate().map(move |(at, row)| Talk::new(first + at, &row["prompt"]));
        let (mut plain, mut adapted) = (talks(0).collect::<Vec<_>>(), talks(AT_ONCE).collect::<Vec<_>>());
        loop {
            let goes_on = step(&mut llama, None, &mut plain, &table);
            if !step(&mut llama, Some(polite), &mut adapted, &table) && !goes_on {
                break;
            }
        }
        for ((row, plain), adapted) in messages.iter().zip(&plain).zip(&adapted) {
            assert_eq!(plain.said(), ids(&row["plain"]), "{}", row["message"]);
            assert_eq!(adapted.said(), ids(&row["adapter"]), "{}", row["message"]);
        }
        for talk in plain.iter().chain(&adapted) {
            llama.truncate(SequenceId(talk.sequence), 0).expect("emptied");
        }
    }
}

/// They come and go while the model is in use, and count as much as they are told to.
#[test]
fn adapters_come_and_go() {
    let (mut llama, table) = (load(), table());
    let rows = table["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["plain"] != row["adapter"]).expect("one that differs");
    let silent = adapter(&mut llama, 0.0);
    assert_eq!(alone(&mut llama, Some(silent), row, &table), ids(&row["plain"]));
    for _ in 0..3 {
        let polite = adapter(&mut llama, 1.0);
        assert_eq!(alone(&mut llama, Some(polite), row, &table), ids(&row["adapter"]));
        // Selected as it is, it goes all the same.
        llama.drop_adapter(polite);
        assert!(matches!(llama.select_adapter(Some(polite)), Err(BackendError::Failed(_))));
        assert_eq!(alone(&mut llama, None, row, &table), ids(&row["plain"]));
    }
    assert_eq!(alone(&mut llama, Some(silent), row, &table), ids(&row["plain"]));
}

#[test]
fn what_is_no_adapter_is_refused() {
    let mut llama = load();
    for name in ["demo-f16.gguf", "README.md", "missing.gguf"] {
        let refused = llama.load_adapter(&demo(name), 1.0);
        assert!(matches!(&refused, Err(BackendError::Load(why)) if why.contains(name)), "{refused:?}");
    }
    assert!(llama.load_adapter(&demo("lora/demo-lora.gguf"), f32::NAN).is_err());
}
