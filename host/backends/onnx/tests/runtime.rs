//! ONNX Runtime itself, on models of a few numbers whose results are computed here a second time.
#![allow(clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

#[path = "runtime/proto.rs"]
mod proto;
#[path = "runtime/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};

use tollgate_backend::{Backend, DecodeError, Embedder, Row, SequenceId, Token};
use tollgate_backend_onnx::{Onnx, OnnxEmbedder, Settings, find_library};

use crate::tiny::{HIDDEN, Table, Tiny, WORDS};

/// A word for each letter, and a template that puts `[` before a text.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 0, "content": "[", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "[", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"[": {"id": "[", "ids": [0], "tokens": ["["]}}},
    "decoder": null,
    "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"[": 0, "?": 1, "a": 2, "b": 3, "c": 4, "d": 5}}}"#;

const CONFIG: &str = r#"{"vocab_size": 11, "hidden_size": 4, "num_attention_heads": 2, "max_position_embeddings": 16}"#;

fn library() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/onnxruntime/libonnxruntime.so");
    find_library(Some(&path)).unwrap_or_else(|error| panic!("run scripts/onnxruntime first, as `make test` does: {error}"))
}

fn folder(model: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in [("config.json", CONFIG.as_bytes()), ("tokenizer.json", TOKENIZER.as_bytes()), ("model.onnx", model)] {
        std::fs::write(directory.path().join(name), bytes).expect("written");
    }
    directory
}

fn settings(folder: &Path) -> Settings {
    let (folder, graph) = (folder.to_owned(), PathBuf::from("model.onnx"));
    Settings {
        folder,
        graph,
        is_ours: false,
        library: library(),
        context_tokens: Some(24),
        sequences: 3,
        step_rows: 16,
        threads: Some(1),
    }
}

fn rows(sequence: u16, start: usize, tokens: &[Token]) -> Vec<Row> {
    let row = |(at, token): (usize, &Token)| Row {
        token: *token,
        position: u32::try_from(start + at).expect("short"),
        sequence: SequenceId(sequence),
        wants_logits: true,
    };
    tokens.iter().enumerate().map(row).collect()
}

fn decode(onnx: &mut Onnx, sequence: u16, start: usize, tokens: &[Token]) -> Vec<Vec<f32>> {
    onnx.decode(&rows(sequence, start, tokens)).expect("decoded");
    (0..tokens.len()).map(|row| onnx.logits(row).expect("logits").to_vec()).collect()
}

fn assert_near(one: &[Vec<f32>], other: &[Vec<f32>], near: f32) {
    let far = one.iter().flatten().zip(other.iter().flatten()).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    assert!(one.len() == other.len() && far < near, "{far}");
}

const TOKENS: [Token; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

#[test]
fn logits_are_those_computed_by_hand_in_any_chunks() {
    let expected = Tiny::new().logits(&TOKENS);
    assert_eq!(expected[0].len(), WORDS);
    for has_positions in [true, false] {
        let folder = folder(&Tiny::new().model(has_positions, false));
        let mut onnx = Onnx::load(&settings(folder.path())).expect("the model loads");
        assert_near(&decode(&mut onnx, 0, 0, &TOKENS), &expected, 1e-4);
        let mut chunked = Vec::new();
        for (start, end) in [(0, 1), (1, 4), (4, 5), (5, 9)] {
            chunked.extend(decode(&mut onnx, 1, start, &TOKENS[start..end]));
        }
        assert_near(&chunked, &expected, 1e-4);
    }
}

#[test]
fn sequences_are_apart_and_prefixes_are_shared() {
    let tiny = Tiny::new();
    let folder = folder(&tiny.model(true, false));
    let mut onnx = Onnx::load(&settings(folder.path())).expect("the model loads");
    assert!(onnx.capabilities().prefix_copy && onnx.capabilities().partial_remove);
    let other: Vec<Token> = vec![3, 1, 4, 8, 8];
    // Two in one step, row by row in turns.
    let mut step: Vec<Row> =
        rows(0, 0, &TOKENS[..5]).into_iter().zip(rows(1, 0, &other)).flat_map(|(one, two)| [one, two]).collect();
    step[0].wants_logits = false;
    onnx.decode(&step).expect("decoded");
    assert_eq!(onnx.logits(0), None);
    let (one, two) = (tiny.logits(&TOKENS), tiny.logits(&other));
    for at in 1..5 {
        assert_near(&[onnx.logits(2 * at).expect("logits").to_vec()], &one[at..=at], 1e-4);
        assert_near(&[onnx.logits(2 * at + 1).expect("logits").to_vec()], &two[at..=at], 1e-4);
    }
    // A part of one is the beginning of a third; the whole of it goes on as well.
    onnx.copy_prefix(SequenceId(0), SequenceId(2), 3).expect("copied");
    assert_near(&decode(&mut onnx, 2, 3, &other[3..]), &two[3..], 1e-4);
    assert_near(&decode(&mut onnx, 0, 5, &TOKENS[5..]), &one[5..], 1e-4);
    // What is cut off is forgotten.
    onnx.truncate(SequenceId(0), 3).expect("cut");
    assert_near(&decode(&mut onnx, 0, 3, &other[3..]), &two[3..], 1e-4);
    onnx.truncate(SequenceId(2), 0).expect("emptied");
    onnx.copy_prefix(SequenceId(0), SequenceId(2), 5).expect("copied whole");
    let longer: Vec<Token> = other.iter().copied().chain([7]).collect();
    let expected = tiny.logits(&longer);
    assert_near(&decode(&mut onnx, 2, 5, &[7]), &expected[5..], 1e-4);
    assert_near(&decode(&mut onnx, 0, 5, &[7]), &expected[5..], 1e-4);
}

#[test]
fn a_cache_of_halves_works_but_cannot_be_cut() {
    let folder = folder(&Tiny::new().model(true, true));
    let mut onnx = Onnx::load(&settings(folder.path())).expect("the model loads");
    assert!(!onnx.capabilities().prefix_copy && !onnx.capabilities().partial_remove);
    let mut chunked = decode(&mut onnx, 0, 0, &TOKENS[..4]);
    chunked.extend(decode(&mut onnx, 0, 4, &TOKENS[4..]));
    assert_near(&chunked, &Tiny::new().logits(&TOKENS), 2e-2);
    assert!(onnx.truncate(SequenceId(0), 4).is_err() && onnx.truncate(SequenceId(0), 0).is_ok());
    // One layer, keys and values of 2 heads of 2 numbers, 2 bytes each, 24 tokens.
    assert_eq!(onnx.memory().cache, 2 * 4 * 2 * 24);
}

#[test]
fn limits_are_kept() {
    let model = Tiny::new().model(true, false);
    let folder = folder(&model);
    let mut onnx = Onnx::load(&settings(folder.path())).expect("the model loads");
    assert_eq!((onnx.capabilities().context_tokens, onnx.capabilities().sequence_tokens), (24, 16));
    assert_eq!(onnx.memory().weights, u64::try_from(model.len()).expect("small"));
    decode(&mut onnx, 0, 0, &[2; 16]);
    decode(&mut onnx, 1, 0, &[2; 8]);
    assert_eq!(onnx.decode(&rows(2, 0, &[2])), Err(DecodeError::Full { rows: 1 }));
    onnx.truncate(SequenceId(1), 0).expect("emptied");
    assert!(matches!(onnx.decode(&rows(0, 16, &[2])), Err(DecodeError::Failed(_))), "longer than the model reads");
    assert!(matches!(onnx.decode(&rows(2, 0, &[11])), Err(DecodeError::Failed(_))), "no such word");
    assert_eq!(onnx.tokenizer().tokenize("a b", false), Ok(vec![2, 3]));
    assert_eq!(onnx.tokenizer().vocabulary().len(), WORDS);
}

#[test]
fn an_encoder_gives_vectors_pooled_here_or_there() {
    let table = Table::new();
    for is_pooled in [false, true] {
        let folder = folder(&table.model(is_pooled));
        let mut embedder = OnnxEmbedder::load(&settings(folder.path())).expect("the model loads");
        assert_eq!((embedder.dimensions(), embedder.max_tokens()), (4, 15));
        let vectors = embedder.embed(&[vec![2, 3], vec![5]]).expect("vectors");
        // The template's token comes first, and only the direction of the mean counts.
        let sum: Vec<f32> = (0..HIDDEN).map(|at| table.row(0)[at] + table.row(2)[at] + table.row(3)[at]).collect();
        let length = sum.iter().map(|number| number * number).sum::<f32>().sqrt();
        let expected: Vec<f32> = sum.iter().map(|number| number / length).collect();
        assert_near(&vectors[..1], &[expected], 1e-5);
        assert!(embedder.embed(&[vec![2; 16]]).is_err());
    }
}

#[test]
fn what_is_no_decoder_is_refused() {
    let folder_of_table = folder(&Table::new().model(false));
    let error = Onnx::load(&settings(folder_of_table.path())).err().expect("refused").to_string();
    assert!(error.contains("past_key_values"), "{error}");
    let broken = folder(b"no model");
    let error = Onnx::load(&settings(broken.path())).err().expect("refused").to_string();
    assert!(error.contains("does not take it"), "{error}");
}
