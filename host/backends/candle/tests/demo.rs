//! The demo model from its Hugging Face folder. The expected tokens were computed with another implementation, in which every one
//! of them leads by more than 2.8.
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::Path;

use tollgate_backend::{Backend, DecodeError, Row, SequenceId, Token};
use tollgate_backend_candle::{Candle, Settings};

/// How far a logit may be from the same logit in steps that are cut otherwise.
const NEAR: f32 = 1e-3;

const ANSWERS: [(&str, &str, &[Token]); 3] = [
    (
        "What is Tollgate?",
        "Tollgate is an edge inference gateway: one binary that terminates TLS, runs language models in-process and applies polic",
        &[
            769, 371, 338, 220, 355, 70, 68, 398, 1877, 274, 879, 794, 25, 1047, 278, 272, 294, 88, 498, 537, 677, 1518, 261, 43,
            50, 11, 1104, 1403, 736, 398, 12, 79, 81, 763, 1957, 386, 1310, 1693, 1349, 549,
        ],
    ),
    (
        "Hello!",
        "Hello! I am Tollgate's small demo model. Ask me about Tollgate, simple facts or sums.",
        &[39, 842, 78, 0, 440, 596, 383, 860, 616, 476, 359, 13, 267, 82, 74, 507, 587, 383, 11, 759, 757, 418, 726, 13, 2046],
    ),
    (
        "Apa kabar?",
        "Saya baik, terima kasih. Apa yang ingin diketahui?",
        &[593, 1291, 11, 537, 1415, 1905, 13, 1141, 484, 2003, 272, 1182, 353, 598, 72, 30, 2046],
    ),
];

fn load(threads: Option<u16>) -> Candle {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/hf");
    let settings = Settings { folder, context_tokens: Some(512), sequences: 4, step_rows: 128, threads };
    Candle::load(&settings).expect("the demo model loads")
}

fn prompt(candle: &Candle, question: &str) -> Vec<Token> {
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    candle.tokenizer().tokenize(&text, true).expect("tokens")
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

fn likeliest(logits: &[f32]) -> Token {
    let best = (0..logits.len()).max_by(|one, other| logits[*one].total_cmp(&logits[*other])).expect("logits");
    Token::try_from(best).expect("small")
}

/// Decodes tokens and returns the logits of each.
fn decode(candle: &mut Candle, sequence: u16, start: usize, tokens: &[Token]) -> Vec<Vec<f32>> {
    candle.decode(&rows(sequence, start, tokens)).expect("decoded");
    (0..tokens.len()).map(|row| candle.logits(row).expect("logits").to_vec()).collect()
}

fn assert_near(one: &[f32], other: &[f32]) {
    let far = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    assert!(one.len() == other.len() && far < NEAR, "{far}");
}

#[test]
fn greedy_replies_are_those_of_another_implementation() {
    for threads in [None, Some(1)] {
        let mut candle = load(threads);
        for (question, text, expected) in ANSWERS {
            let mut tokens = prompt(&candle, question);
            let start = tokens.len();
            let mut logits = decode(&mut candle, 0, 0, &tokens).pop().expect("a row");
            while tokens.len() - start < expected.len() {
                tokens.push(likeliest(&logits));
                logits = decode(&mut candle, 0, tokens.len() - 1, &tokens[tokens.len() - 1..]).pop().expect("a row");
            }
            assert_eq!(&tokens[start..], expected, "{question}");
            let tokenizer = candle.tokenizer();
            let vocabulary = tokenizer.vocabulary();
            let shown = expected.iter().filter(|token| !vocabulary.ends_generation(**token));
            let said: Vec<u8> = shown.flat_map(|token| vocabulary.bytes(*token)).copied().collect();
            assert_eq!(String::from_utf8(said).expect("text"), text);
            candle.truncate(SequenceId(0), 0).expect("emptied");
        }
    }
}

#[test]
fn a_prompt_in_chunks_is_the_whole_prompt() {
    let mut candle = load(Some(1));
    let tokens = prompt(&candle, ANSWERS[0].0);
    let whole = decode(&mut candle, 0, 0, &tokens);
    let mut chunked = Vec::new();
    for (start, end) in [(0, 1), (1, 4), (4, 5), (5, tokens.len())] {
        chunked.extend(decode(&mut candle, 1, start, &tokens[start..end]));
    }
    assert_eq!(whole.len(), chunked.len());
    whole.iter().zip(&chunked).for_each(|(one, other)| assert_near(one, other));
}

#[test]
fn sequences_in_one_step_are_those_alone() {
    let mut candle = load(Some(1));
    let prompts: Vec<Vec<Token>> = ANSWERS.iter().map(|(question, _, _)| prompt(&candle, question)).collect();
    let alone: Vec<Vec<Vec<f32>>> = prompts
        .iter()
        .map(|tokens| {
            let logits = decode(&mut candle, 3, 0, tokens);
            candle.truncate(SequenceId(3), 0).expect("emptied");
            logits
        })
        .collect();
    // Row by row in turns, so that rows of one sequence are not next to each other.
    let mut step: Vec<(usize, usize, Row)> = Vec::new();
    for (at, tokens) in prompts.iter().enumerate() {
        let sequence = u16::try_from(at).expect("few");
        step.extend(rows(sequence, 0, tokens).into_iter().enumerate().map(|(position, row)| (position, at, row)));
    }
    step.sort_by_key(|(position, at, _)| (*position, *at));
    let batch: Vec<Row> = step.iter().map(|(_, _, row)| *row).collect();
    candle.decode(&batch).expect("decoded");
    for (index, (position, at, _)) in step.iter().enumerate() {
        assert_near(candle.logits(index).expect("logits"), &alone[*at][*position]);
    }
}

#[test]
fn a_copied_prefix_is_a_computed_one() {
    let mut candle = load(Some(1));
    let (one, other) = (prompt(&candle, "What is Tollgate?"), prompt(&candle, "What is a gateway?"));
    let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    assert!(common > 3);
    decode(&mut candle, 0, 0, &one);
    candle.copy_prefix(SequenceId(0), SequenceId(1), u32::try_from(common).expect("short")).expect("copied");
    let copied = decode(&mut candle, 1, common, &other[common..]);
    let computed = decode(&mut candle, 2, 0, &other);
    copied.iter().zip(&computed[common..]).for_each(|(one, other)| assert_near(one, other));
    // What it was copied from goes on as if nothing had happened.
    let next = likeliest(&decode(&mut candle, 3, 0, &one).pop().expect("a row"));
    assert_eq!(next, ANSWERS[0].2[0]);
    let (after, whole) = (decode(&mut candle, 0, one.len(), &[next]), decode(&mut candle, 3, one.len(), &[next]));
    assert_near(&after[0], &whole[0]);
}

#[test]
fn what_is_cut_off_is_forgotten() {
    let mut candle = load(Some(1));
    let tokens = prompt(&candle, "Hello!");
    let whole = decode(&mut candle, 0, 0, &tokens);
    decode(&mut candle, 0, tokens.len(), &[39, 842, 78]);
    candle.truncate(SequenceId(0), 5).expect("cut");
    let again = decode(&mut candle, 0, 5, &tokens[5..]);
    again.iter().zip(&whole[5..]).for_each(|(one, other)| assert_near(one, other));
}

#[test]
fn a_full_cache_says_so_and_limits_are_told() {
    let mut candle = load(Some(1));
    let capabilities = candle.capabilities().clone();
    assert_eq!((capabilities.max_sequences, capabilities.context_tokens, capabilities.sequence_tokens), (4, 512, 512));
    assert!(capabilities.prefix_copy && capabilities.partial_remove);
    for start in (0..512).step_by(128) {
        decode(&mut candle, 0, start, &[30; 128]);
    }
    assert_eq!(candle.decode(&rows(1, 0, &[30])), Err(DecodeError::Full { rows: 1 }));
    candle.truncate(SequenceId(0), 0).expect("emptied");
    decode(&mut candle, 1, 0, &[30]);
    let memory = candle.memory();
    // 512 tokens, 3 layers, keys and values of 2 heads of 64 numbers, 4 bytes each.
    assert_eq!(memory.cache, 512 * 3 * 2 * 128 * 4);
    assert!(memory.weights > 11_000_000, "f32, twice what the file has");
    assert!(candle.chat_template().expect("a template").contains("<|im_start|>"));
}
