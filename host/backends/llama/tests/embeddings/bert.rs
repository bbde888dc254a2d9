//! A tiny BERT with random weights, as a GGUF file.

use std::path::{Path, PathBuf};

/// Width, heads, inner width, positions and words.
const WIDTH: u64 = 32;
const HEADS: u32 = 4;
const INNER: u64 = 64;
pub(crate) const POSITIONS: u32 = 32;
/// The first five are special: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`.
pub(crate) const WORDS: u32 = 16;
const ALIGNMENT: usize = 32;

enum Value {
    Text(&'static str),
    U32(u32),
    F32(f32),
    Bool(bool),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

/// Writes one whose rows become a vector by llama.cpp's number `pooling`; 4 gives it a head that ranks.
pub(crate) fn write(folder: &Path, pooling: u32) -> PathBuf {
    let path = folder.join(format!("bert-{pooling}.gguf"));
    std::fs::write(&path, file(&keys(pooling), &tensors(pooling == 4))).expect("written");
    path
}

fn keys(pooling: u32) -> Vec<(&'static str, Value)> {
    let words = (0..WORDS).map(|word| match word {
        0 => "[PAD]".to_owned(),
        1 => "[UNK]".to_owned(),
        2 => "[CLS]".to_owned(),
        3 => "[SEP]".to_owned(),
        4 => "[MASK]".to_owned(),
        word => format!("\u{2581}word{word}"),
    });
    vec![
        ("general.architecture", Value::Text("bert")),
        ("bert.block_count", Value::U32(1)),
        ("bert.context_length", Value::U32(POSITIONS)),
        ("bert.embedding_length", Value::U32(u32::try_from(WIDTH).expect("small"))),
        ("bert.feed_forward_length", Value::U32(u32::try_from(INNER).expect("small"))),
        ("bert.attention.head_count", Value::U32(HEADS)),
        ("bert.attention.layer_norm_epsilon", Value::F32(1e-12)),
        ("bert.attention.causal", Value::Bool(false)),
        ("bert.pooling_type", Value::U32(pooling)),
        ("tokenizer.ggml.model", Value::Text("bert")),
        ("tokenizer.ggml.token_type_count", Value::U32(2)),
        // llama.cpp puts one there all the same.
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.tokens", Value::Texts(words.collect())),
        ("tokenizer.ggml.token_type", Value::I32s((0..WORDS).map(|word| if word < 5 { 3 } else { 1 }).collect())),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
        ("tokenizer.ggml.bos_token_id", Value::U32(2)),
        ("tokenizer.ggml.cls_token_id", Value::U32(2)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(3)),
        ("tokenizer.ggml.mask_token_id", Value::U32(4)),
    ]
}

fn tensors(ranks: bool) -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![WIDTH, u64::from(WORDS)]),
        ("token_types.weight".to_owned(), vec![WIDTH, 2]),
        ("position_embd.weight".to_owned(), vec![WIDTH, u64::from(POSITIONS)]),
    ];
    for norm in ["token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"] {
        tensors.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![WIDTH])));
    }
    for (name, from, to) in [
        ("attn_q", WIDTH, WIDTH),
        ("attn_k", WIDTH, WIDTH),
        ("attn_v", WIDTH, WIDTH),
        ("attn_output", WIDTH, WIDTH),
        ("ffn_up", WIDTH, INNER),
        ("ffn_down", INNER, WIDTH),
    ] {
        tensors.push((format!("blk.0.{name}.weight"), vec![from, to]));
        tensors.push((format!("blk.0.{name}.bias"), vec![to]));
    }
    if ranks {
        tensors.push(("cls.output.weight".to_owned(), vec![WIDTH, 1]));
        tensors.push(("cls.output.bias".to_owned(), vec![1]));
    }
    tensors
}

/// GGUF, version 3, with f32 tensors of numbers that are the same each time.
fn file(keys: &[(&str, Value)], tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut bytes, key);
        put(&mut bytes, value);
    }
    let mut data: Vec<u8> = Vec::new();
    let mut state = 7_u64;
    for (name, shape) in tensors {
        text(&mut bytes, name);
        bytes.extend(u32::try_from(shape.len()).expect("two").to_le_bytes());
        shape.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product::<u64>() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = f32::from(u16::try_from(state >> 48).expect("16 bits")) / 65_536.0 - 0.5;
            data.extend(number.to_le_bytes());
        }
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes.extend(data);
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A value, with the format's number of its kind before it.
fn put(bytes: &mut Vec<u8>, value: &Value) {
    let kind = |bytes: &mut Vec<u8>, kind: u32| bytes.extend(kind.to_le_bytes());
    match value {
        Value::U32(number) => {
            kind(bytes, 4);
            bytes.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            kind(bytes, 6);
            bytes.extend(number.to_le_bytes());
        }
        Value::Bool(flag) => {
            kind(bytes, 7);
            bytes.push(u8::from(*flag));
        }
        Value::Text(words) => {
            kind(bytes, 8);
            text(bytes, words);
        }
        Value::Texts(items) => {
            kind(bytes, 9);
            kind(bytes, 8);
            bytes.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| text(bytes, item));
        }
        Value::I32s(items) => {
            kind(bytes, 9);
            kind(bytes, 5);
            bytes.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| bytes.extend(item.to_le_bytes()));
        }
    }
}
