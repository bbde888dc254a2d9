//! Vectors of the demo model, which is a decoder, and of a tiny encoder: a text's vector is its own, whatever is computed beside it.
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

#[path = "embeddings/bert.rs"]
mod bert;

use std::path::{Path, PathBuf};

use tollgate_backend::{BackendError, Embedder, Token};
use tollgate_backend_llama::{KvCache, LlamaEmbedder, Settings, Tuning};

/// How far a number of a batch may be from the same number alone.
const NEAR: f32 = 1e-3;
const TEXTS: [&str; 6] = [
    "What is Tollgate?",
    "Hello!",
    "The quick brown fox jumps over the lazy dog, again and again, until it is tired of it and lies down beside the dog.",
    "Apa kabar?",
    "What is Tollgate?",
    "x",
];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/demo-f16.gguf")
}

fn load(path: PathBuf, step_rows: u32, sequences: u16) -> Result<LlamaEmbedder, BackendError> {
    let settings = Settings {
        path,
        mapped: false,
        context_tokens: None,
        sequences,
        step_rows,
        threads: Some(1),
        apart: false,
        kv_cache: KvCache::F16,
        tuning: Tuning::default(),
    };
    LlamaEmbedder::load(&settings)
}

fn tokens(embedder: &LlamaEmbedder) -> Vec<Vec<Token>> {
    TEXTS.iter().map(|text| embedder.tokenizer().tokenize(text, false).expect("tokens")).collect()
}

/// Both have the same direction, as far as numbers of this kind tell.
fn are_near(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() <= NEAR)
}

#[test]
fn a_batch_gives_what_each_text_gives_alone() {
    // In one batch, in batches of two texts, and in batches by their tokens.
    for (rows, sequences) in [(512, 16), (512, 2), (128, 16)] {
        let mut embedder = load(demo(), rows, sequences).expect("the demo model loads");
        let texts = tokens(&embedder);
        let alone: Vec<Vec<f32>> =
            texts.iter().map(|text| embedder.embed(std::slice::from_ref(text)).expect("a vector").remove(0)).collect();
        let together = embedder.embed(&texts).expect("vectors");
        let reversed = embedder.embed(&texts.iter().rev().cloned().collect::<Vec<_>>()).expect("vectors");
        assert_eq!((together.len(), reversed.len()), (texts.len(), texts.len()));
        for (at, vector) in alone.iter().enumerate() {
            assert_eq!(vector.len(), embedder.dimensions() as usize);
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-3, "text {at} has the length {length}");
            assert!(are_near(vector, &together[at]), "text {at} in a batch, {rows} rows and {sequences} texts");
            assert!(are_near(vector, &reversed[texts.len() - 1 - at]), "text {at} in the other order");
        }
        assert!(are_near(&together[0], &together[4]), "the same text");
        assert!(!are_near(&together[0], &together[1]), "another text");
    }
}

/// llama.cpp would end the process over these.
#[test]
fn what_is_too_much_is_an_error() {
    let mut embedder = load(demo(), 32, 4).expect("the demo model loads");
    let most = embedder.max_tokens();
    assert!((1..=32).contains(&most), "{most}");
    let token = tokens(&embedder)[1][0];
    let longest = vec![token; most as usize];
    let too_long = vec![token; most as usize + 1];
    assert!(embedder.embed(std::slice::from_ref(&too_long)).is_err());
    assert!(embedder.embed(&[longest.clone(), too_long]).is_err());
    let many = vec![longest; 9];
    assert_eq!(embedder.embed(&many).expect("as many as there are").len(), 9);
    assert!(embedder.embed(&[vec![Token::MAX]]).is_err() && embedder.embed(&[vec![Token::MAX / 4]]).is_err());
    assert_eq!(embedder.embed(&[]).expect("nothing"), Vec::<Vec<f32>>::new());
}

#[test]
fn a_model_without_a_head_for_it_does_not_rank() {
    let mut embedder = load(demo(), 64, 4).expect("the demo model loads");
    assert!(!embedder.ranks());
    let texts = tokens(&embedder);
    assert!(matches!(embedder.rank(&texts[0], &texts), Err(BackendError::Unsupported(_))));
    assert!(embedder.memory().total() > 1 << 20);
}

/// Texts of the tiny encoder's words.
fn words() -> Vec<Vec<Token>> {
    vec![vec![5, 6, 7], vec![8], (5..bert::WORDS).collect(), vec![7, 6, 5], vec![5, 6, 9]]
}

#[test]
fn an_encoder_sees_the_whole_text() {
    let folder = tempfile::tempdir().expect("a folder");
    // The mean, and the first row: what follows it counts there too.
    for pooling in [1, 2] {
        let mut embedder = load(bert::write(folder.path(), pooling), 512, 16).expect("the encoder loads");
        assert_eq!(embedder.max_tokens(), bert::POSITIONS - 2, "without [CLS] and [SEP]");
        let texts = words();
        let together = embedder.embed(&texts).expect("vectors");
        for (text, vector) in texts.iter().zip(&together) {
            let alone = embedder.embed(std::slice::from_ref(text)).expect("a vector");
            assert!(are_near(&alone[0], vector), "pooling {pooling}, {text:?}");
        }
        assert!(!are_near(&together[0], &together[4]), "pooling {pooling}: another last word");
        assert!(!are_near(&together[0], &together[3]), "pooling {pooling}: another order");
        let longest = vec![5; embedder.max_tokens() as usize];
        assert_eq!(embedder.embed(&vec![longest; 40]).expect("in several batches").len(), 40);
        assert!(embedder.embed(&[vec![5; embedder.max_tokens() as usize + 1]]).is_err(), "no position for the last");
        assert!(embedder.embed(&[vec![bert::WORDS]]).is_err(), "no such word");
    }
}

#[test]
fn a_reranker_scores_each_document_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut embedder = load(bert::write(folder.path(), 4), 64, 16).expect("the reranker loads");
    assert!(embedder.ranks());
    assert_eq!(embedder.max_tokens(), bert::POSITIONS - 3, "without [CLS] and two [SEP]");
    let (query, documents) = (vec![5, 9], words());
    let together = embedder.rank(&query, &documents).expect("scores");
    for (document, score) in documents.iter().zip(&together) {
        let alone = embedder.rank(&query, std::slice::from_ref(document)).expect("a score");
        assert!((alone[0] - score).abs() <= 1e-3, "{document:?}: {} and {score}", alone[0]);
    }
    assert!((together[0] - together[1]).abs() > 1e-6, "documents differ");
    assert!(matches!(embedder.embed(&documents), Err(BackendError::Unsupported(_))));
    assert!(embedder.rank(&query, &[vec![5; 28]]).is_err(), "too long with the query");
}
