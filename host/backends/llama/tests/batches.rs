//! P-M13 on the demo model: what a sequence computes does not depend on what else is in its steps.
#![allow(unsafe_code, reason = "llama.cpp writes the f16 model of this test; no other call has it")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a test may fail loudly")]

use std::ffi::CString;
use std::path::{Path, PathBuf};

use llama_cpp_sys_2 as sys;
use tollgate_backend::{Backend, DecodeError, Row, SequenceId, Token};
use tollgate_backend_llama::{KvCache, Llama, Settings, Tuning};

const SEQUENCES: u16 = 8;
/// Tokens of each reply.
const STEPS: usize = 40;
/// How far a logit of a batch may be from the same logit alone, at f16, as a part of the largest of its row.
const NEAR: f32 = 1e-3;

const QUESTIONS: [&str; 8] = [
    "What is Tollgate?",
    "Hello!",
    "Who are you, and what can you do for me today?",
    "Apa kabar?",
    "Tell me about the weather.",
    "The quick brown fox jumps over the lazy dog, again and again, until it is tired of it and lies down beside the dog.",
    "1 2 3 4 5 6 7 8 9",
    "Terima kasih banyak.",
];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/demo.gguf")
}

/// The demo model with its weights as f16: what a quantized one computes jumps where a number is rounded the other way.
fn at_f16(directory: &Path) -> PathBuf {
    // Sets llama.cpp up.
    drop(load(demo(), false));
    let path = directory.join("f16.gguf");
    let name = |path: &Path| CString::new(path.to_str().expect("UTF-8")).expect("no zero byte");
    let (from, to) = (name(&demo()), name(&path));
    // SAFETY: plain data without arguments.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = sys::LLAMA_FTYPE_MOSTLY_F16;
    params.nthread = 1;
    params.allow_requantize = true;
    // SAFETY: both names end in zero, and the parameters are llama.cpp's own with numbers changed.
    let code = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params) };
    assert_eq!(code, 0, "llama.cpp writes an f16 model");
    path
}

fn load(path: PathBuf, apart: bool) -> Llama {
    let settings = Settings {
        path,
        mapped: false,
        context_tokens: Some(2_048),
        sequences: SEQUENCES,
        step_rows: 512,
        threads: Some(1),
        apart,
        kv_cache: KvCache::F16,
        tuning: Tuning::default(),
    };
    Llama::load(&settings).expect("the demo model loads")
}

fn prompts(llama: &Llama) -> Vec<Vec<Token>> {
    let tokenizer = llama.tokenizer();
    let prompt = |question: &&str| {
        let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
        tokenizer.tokenize(&text, true).expect("tokens")
    };
    QUESTIONS.iter().map(prompt).collect()
}

fn rows(sequence: u16, start: usize, tokens: &[Token]) -> impl Iterator<Item = Row> {
    let last = tokens.len() - 1;
    tokens.iter().enumerate().map(move |(at, &token)| Row {
        token,
        position: u32::try_from(start + at).expect("short"),
        sequence: SequenceId(sequence),
        wants_logits: at == last,
    })
}

/// The likeliest token, and how far the next is behind it.
fn greedy(logits: &[f32]) -> (Token, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&one, &other| logits[other].total_cmp(&logits[one]));
    (Token::try_from(order[0]).expect("small"), logits[order[0]] - logits[order[1]])
}

/// The logits of a greedy reply, token by token, with nothing else decoded.
fn alone(llama: &mut Llama, sequence: u16, prompt: &[Token]) -> (Vec<Token>, Vec<Vec<f32>>) {
    let (mut tokens, mut logits) = (prompt.to_vec(), Vec::new());
    let mut decoded = 0;
    for _ in 0..STEPS {
        let batch: Vec<Row> = rows(sequence, decoded, &tokens[decoded..]).collect();
        decoded = tokens.len();
        llama.decode(&batch).expect("decoded");
        let row = llama.logits(batch.len() - 1).expect("logits").to_vec();
        tokens.push(greedy(&row).0);
        logits.push(row);
    }
    llama.truncate(SequenceId(sequence), 0).expect("emptied");
    (tokens, logits)
}

/// Sequences come one after the other into steps with those before: their prompts in two chunks beside the others' rows, then a row
/// in each step. The logits are within a thousandth of those alone, and where the likeliest token leads by more than two such errors it is
/// the same.
#[test]
fn logits_in_a_batch_are_those_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut llama = load(at_f16(directory.path()), false);
    let prompts = prompts(&llama);
    let expected: Vec<_> = (0..SEQUENCES).zip(&prompts).map(|(sequence, prompt)| alone(&mut llama, sequence, prompt)).collect();

    let mut decoded = vec![0; prompts.len()];
    let (mut furthest, mut part, mut compared, mut fullest) = (0.0_f32, 0.0_f32, 0, 0);
    for step in 0.. {
        let mut batch: Vec<Row> = Vec::new();
        // Which row of the step is which of a reply's.
        let mut said: Vec<(usize, usize, usize)> = Vec::new();
        for (at, (tokens, _)) in expected.iter().enumerate().take(step / 2 + 1) {
            let (from, prompt) = (decoded[at], prompts[at].len());
            let to = if from < prompt / 2 { prompt / 2 } else { prompt.max(from + 1) };
            if to > prompt + STEPS - 1 {
                continue;
            }
            let sequence = u16::try_from(at).expect("few");
            batch.extend(rows(sequence, from, &tokens[from..to]));
            decoded[at] = to;
            if to >= prompt {
                said.push((at, to - prompt, batch.len() - 1));
            }
        }
        if batch.is_empty() {
            break;
        }
        llama.decode(&batch).expect("decoded");
        fullest = fullest.max(said.len());
        for (at, number, row) in said {
            let (logits, alone) = (llama.logits(row).expect("logits"), &expected[at].1[number]);
            let far = logits.iter().zip(alone).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            let near = NEAR * alone.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
            let (token, lead) = greedy(alone);
            furthest = furthest.max(far);
            part = part.max(far / near * NEAR);
            assert!(far <= near, "sequence {at}, token {number}: {far} over {near}");
            assert!(lead <= 2.0 * near || greedy(logits).0 == token, "sequence {at}, token {number}");
            compared += 1;
        }
    }
    assert_eq!((compared, fullest), (usize::from(SEQUENCES) * STEPS, usize::from(SEQUENCES)));
    println!("the furthest of {compared} rows: {furthest:e}, {part:e} of the largest of its row");
}

/// Apart, each sequence has an equal part of the cells, and the same batches give the same bits whatever lies beside it.
#[test]
fn apart_the_same_batches_give_the_same_bits() {
    let mut llama = load(demo(), true);
    let capabilities = llama.capabilities().clone();
    assert!(!capabilities.prefix_copy && capabilities.partial_remove);
    assert_eq!((capabilities.context_tokens, capabilities.sequence_tokens), (2_048, 256));
    let prompts = prompts(&llama);
    let expected: Vec<_> = prompts.iter().map(|prompt| alone(&mut llama, 0, prompt)).collect();
    // Others are left in the cache, longer and longer, and the place is another each time.
    for (sequence, prompt) in (1..SEQUENCES).zip(&prompts) {
        let batch: Vec<Row> = rows(sequence - 1, 0, prompt).collect();
        llama.decode(&batch).expect("decoded");
        for (at, prompt) in prompts.iter().enumerate() {
            let (tokens, logits) = alone(&mut llama, sequence, prompt);
            assert_eq!(tokens, expected[at].0);
            let bits = |rows: &[Vec<f32>]| rows.iter().flatten().map(|logit| logit.to_bits()).collect::<Vec<_>>();
            assert!(bits(&logits) == bits(&expected[at].1), "sequence {sequence}, prompt {at}");
        }
    }
}

/// llama.cpp would end the process over these.
#[test]
fn what_is_too_much_is_an_error() {
    let mut llama = load(demo(), false);
    let long: Vec<Row> = rows(0, 0, &[1; 513]).collect();
    let beyond: Vec<Row> = rows(SEQUENCES, 0, &[1]).collect();
    for rows in [long, beyond] {
        assert!(matches!(llama.decode(&rows), Err(DecodeError::Failed(_))));
    }
    let (first, beyond) = (SequenceId(0), SequenceId(SEQUENCES));
    assert!(llama.copy_prefix(first, beyond, 1).is_err() && llama.copy_prefix(beyond, first, 1).is_err());
    assert!(llama.truncate(beyond, 0).is_err());
    llama.decode(&rows(0, 0, &[1; 512]).collect::<Vec<_>>()).expect("as many as it says");
    let settings = Settings {
        path: demo(),
        mapped: false,
        context_tokens: Some(256),
        sequences: 1,
        step_rows: 8_192,
        threads: Some(1),
        apart: false,
        kv_cache: KvCache::F16,
        tuning: Tuning::default(),
    };
    let capabilities = Llama::load(&settings).expect("the demo model loads").capabilities().clone();
    assert!(capabilities.step_rows <= capabilities.context_tokens, "{capabilities:?}");
}
