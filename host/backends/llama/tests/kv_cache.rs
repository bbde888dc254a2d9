//! The demo model with its key-value cache stored in fewer bits: it decodes, copies and cuts as with all of them, in less room.
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a test may fail loudly")]

use std::path::Path;

use tollgate_backend::{Backend, Row, SequenceId, Token};
use tollgate_backend_llama::{KvCache, Llama, Settings, Tuning};

const KINDS: [KvCache; 3] = [KvCache::F16, KvCache::Q8_0, KvCache::Q4_0];
/// How far a logit may be from the same one computed in another batch, as a part of the largest of its row: where a number is
/// rounded the other way, what is computed from it jumps.
const NEAR: f32 = 0.1;
/// Tokens of a reply that are compared.
const BEGINNING: usize = 4;

const QUESTIONS: [&str; 6] = [
    "What is Tollgate?",
    "Hello!",
    "Who are you, and what can you do for me today?",
    "Apa kabar?",
    "Tell me about the weather.",
    "Terima kasih banyak.",
];

fn load(kv_cache: KvCache) -> Llama {
    let settings = Settings {
        path: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/demo-f16.gguf"),
        mapped: false,
        context_tokens: Some(1_024),
        sequences: 4,
        step_rows: 512,
        threads: Some(1),
        apart: false,
        kv_cache,
        tuning: Tuning::default(),
    };
    Llama::load(&settings).expect("the demo model loads")
}

fn prompt(llama: &Llama, question: &str) -> Vec<Token> {
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    llama.tokenizer().tokenize(&text, true).expect("tokens")
}

/// Decodes tokens at the end of a sequence of `start`; the logits of the last.
fn decode(llama: &mut Llama, sequence: u16, start: usize, tokens: &[Token]) -> Vec<f32> {
    let last = tokens.len() - 1;
    let rows = tokens.iter().enumerate().map(|(at, &token)| Row {
        token,
        position: u32::try_from(start + at).expect("short"),
        sequence: SequenceId(sequence),
        wants_logits: at == last,
    });
    llama.decode(&rows.collect::<Vec<_>>()).expect("decoded");
    llama.logits(last).expect("logits").to_vec()
}

fn likeliest(logits: &[f32]) -> Token {
    let order = (0..logits.len()).max_by(|&one, &other| logits[one].total_cmp(&logits[other]));
    Token::try_from(order.expect("there are words")).expect("small")
}

fn assert_near(one: &[f32], other: &[f32], what: &str) {
    let largest = one.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
    let far = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    assert!(one.iter().all(|logit| logit.is_finite()), "{what}");
    assert!(far <= NEAR * largest, "{what}: {far} of {largest}");
}

#[test]
fn a_cache_in_fewer_bits_takes_less() {
    let [f16, q8, q4] = KINDS.map(|kind| load(kind).memory().cache);
    assert!(f16 > 0);
    assert_eq!((q8 * 64, q4 * 64), (f16 * 34, f16 * 18));
}

#[test]
fn prefixes_are_copied_and_cut_whatever_the_cache_is_stored_in() {
    for kind in KINDS {
        let mut llama = load(kind);
        assert!(llama.capabilities().prefix_copy && llama.capabilities().partial_remove);
        let tokens = prompt(&llama, QUESTIONS[2]);
        let (all, before) = (tokens.len(), tokens.len() - 1);
        let whole = decode(&mut llama, 0, 0, &tokens);

        let length = u32::try_from(before).expect("short");
        llama.copy_prefix(SequenceId(0), SequenceId(1), length).expect("copied");
        let copied = decode(&mut llama, 1, before, &tokens[before..]);
        assert_near(&whole, &copied, &format!("{kind:?}, a copy"));

        llama.truncate(SequenceId(0), length).expect("cut");
        let again = decode(&mut llama, 0, before, &tokens[before..]);
        assert_near(&whole, &again, &format!("{kind:?}, cut"));

        let next = likeliest(&again);
        assert!(decode(&mut llama, 0, all, &[next]).iter().all(|logit| logit.is_finite()));
    }
}

/// What is stored is rounded, so replies may differ, and do. Of some questions they begin alike.
#[test]
fn replies_with_q8_0_begin_like_those_with_f16() {
    let begin = |kind: KvCache| {
        let mut llama = load(kind);
        QUESTIONS.map(|question| {
            let mut tokens = prompt(&llama, question);
            let (asked, mut decoded) = (tokens.len(), 0);
            for _ in 0..BEGINNING {
                let logits = decode(&mut llama, 0, decoded, &tokens[decoded..]);
                decoded = tokens.len();
                tokens.push(likeliest(&logits));
            }
            llama.truncate(SequenceId(0), 0).expect("emptied");
            tokens.split_off(asked)
        })
    };
    let [f16, q8, q4] = KINDS.map(begin);
    let alike = |other: &[Vec<Token>]| f16.iter().zip(other).filter(|(one, other)| one == other).count();
    println!("of {} replies, {} begin alike with q8_0, and {} with q4_0", f16.len(), alike(&q8), alike(&q4));
    assert!(alike(&q8) > 0);
}

/// What is saved of a sequence goes on in another place as it would have where it was, and is read by the model that saved it alone.
#[test]
fn what_is_saved_is_put_back() {
    let sizes = KINDS.map(|kind| {
        let mut llama = load(kind);
        assert!(llama.capabilities().state);
        let tokens = prompt(&llama, QUESTIONS[2]);
        let before = tokens.len() - 1;
        decode(&mut llama, 0, 0, &tokens[..before]);
        let (first, second, empty) = (SequenceId(0), SequenceId(2), SequenceId(3));
        let state = llama.save(first, usize::MAX).expect("it can").expect("saved");
        assert_eq!(state.tokens() as usize, before);
        assert!(llama.save(first, state.size() - 1).expect("it can").is_none(), "a byte too little");
        assert!(llama.save(empty, usize::MAX).is_err() && llama.save(SequenceId(4), usize::MAX).is_err());

        let whole = decode(&mut llama, 0, before, &tokens[before..]);
        llama.restore(second, &state).expect("restored");
        assert!(llama.restore(second, &state).is_err(), "it is not empty any more");
        let restored = decode(&mut llama, 2, before, &tokens[before..]);
        assert_near(&whole, &restored, &format!("{kind:?}, restored"));

        let mut other = load(kind);
        assert!(other.restore(second, &state).is_err(), "another model's");
        assert!(decode(&mut other, 2, 0, &tokens).iter().all(|logit| logit.is_finite()), "nothing was put there");
        state.size()
    });
    let [f16, q8, q4] = sizes;
    assert!(q8 * 3 < f16 * 2 && q4 * 2 < f16, "{sizes:?}");
}
