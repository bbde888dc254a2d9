//! The vocabulary of a model file: llama.cpp asserts that words differ, and fails in the middle of a request where one is missing.

use std::borrow::Cow;
use std::collections::HashSet;

use super::charsmap::check_charsmap;
use super::{Array, Gguf, Value, Values};
use crate::error::{FormatError, Quoted, ensure, malformed, support};

const MAX_WORDS: u64 = 2 << 20;
const TOKENIZERS: [&str; 8] = ["llama", "gpt2", "bert", "t5", "plamo2", "gemma4", "hybriddna", "whitespace"];
/// llama.cpp's number for a word that stands for one byte.
const BYTE: i32 = 6;
/// The keys `tokenizer.ggml.{}_token_id`; the missing letter of `seperator` is the format's.
const SPECIAL: [&str; 18] = [
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "cls",
    "mask",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "fim_pad",
    "fim_rep",
    "fim_sep",
    "prefix",
    "suffix",
    "middle",
];

/// Holds the vocabulary to what llama.cpp relies on, and says how many words it has.
pub(super) fn check_vocabulary(gguf: &Gguf) -> Result<u64, FormatError> {
    let missing = || malformed("`tokenizer.ggml.model` is missing, or not a text");
    let tokenizer = gguf.string("tokenizer.ggml.model").ok_or_else(missing)?;
    let has_words = !matches!(tokenizer, "none" | "no_vocab");
    support!(has_words, "it has no vocabulary; a model is served with one");
    // llama.cpp never ends on a text whose next byte begins no word.
    support!(tokenizer != "rwkv", "it has a tokenizer of the kind rwkv, which is not run here; take a model with another");
    let is_known = TOKENIZERS.contains(&tokenizer);
    support!(is_known, "`tokenizer.ggml.model` is {}; it is one of {}", Quoted(tokenizer), TOKENIZERS.join(", "));
    let missing = || malformed("`tokenizer.ggml.tokens` is missing, or not an array of texts");
    let words = gguf.array("tokenizer.ggml.tokens").and_then(Array::strings).ok_or_else(missing)?;
    let count = words.len() as u64;
    ensure!((1..=MAX_WORDS).contains(&count), "it has a vocabulary of {count} words; 1 to {MAX_WORDS} are read");
    let distinct = check_distinct(words)?;
    check_beside(gguf, count)?;
    check_bytes(gguf, tokenizer, words, &distinct)?;
    check_special(gguf, tokenizer, count)?;
    if tokenizer == "t5" {
        let missing = || malformed("`tokenizer.ggml.precompiled_charsmap` is not an array of bytes");
        match gguf.metadata.get("tokenizer.ggml.precompiled_charsmap") {
            None => {}
            Some(Value::Array(Array { values: Values::U8(bytes), .. })) => check_charsmap(bytes)?,
            Some(Value::Array(Array { values: Values::I8(bytes), .. })) => {
                let bytes = bytes.iter().map(|byte| byte.cast_unsigned()).collect::<Vec<_>>();
                check_charsmap(&bytes)?;
            }
            Some(_) => return Err(missing()),
        }
    }
    Ok(count)
}

/// Words as llama.cpp sees them: up to the first zero byte, and an empty one under a name of its own.
fn check_distinct(words: &[String]) -> Result<HashSet<Cow<'_, str>>, FormatError> {
    let mut seen = HashSet::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        let text = word.split('\0').next().unwrap_or_default();
        let text = if text.is_empty() { Cow::Owned(format!("[EMPTY_{at}]")) } else { Cow::Borrowed(text) };
        ensure!(seen.insert(text), "the vocabulary has {} twice", Quoted(word));
    }
    Ok(seen)
}

/// What stands beside every word.
fn check_beside(gguf: &Gguf, count: u64) -> Result<(), FormatError> {
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        let Some(value) = gguf.metadata.get(key) else { continue };
        let Value::Array(array) = value else { return Err(malformed(format!("`{key}` is not an array"))) };
        let is_good = match &array.values {
            Values::I32(_) => true,
            Values::F32(_) => key.ends_with("scores"),
            _ => false,
        };
        ensure!(is_good, "`{key}` has items of the kind {:?}", array.kind);
        ensure!(array.len == count, "`{key}` has {} items for {count} words", array.len);
    }
    Ok(())
}

fn check_bytes(gguf: &Gguf, tokenizer: &str, words: &[String], distinct: &HashSet<Cow<'_, str>>) -> Result<(), FormatError> {
    let kinds = gguf.array("tokenizer.ggml.token_type").and_then(Array::i32s).unwrap_or_default();
    for (word, _) in words.iter().zip(kinds).filter(|(_, kind)| **kind == BYTE) {
        ensure!(
            tokenizer != "bert",
            "the word {} is typed as a byte, which a tokenizer of the kind bert has none of",
            Quoted(word)
        );
        let hex = word.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        let is_byte = hex.is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        ensure!(is_byte, "the word {} is typed as a byte; such a word is `<0x00>` to `<0xFF>`", Quoted(word));
    }
    if tokenizer != "llama" {
        return Ok(());
    }
    // A text outside the vocabulary is spelt in bytes; one that is missing would end the process with the request.
    for byte in 0..=u8::MAX {
        let is_there = distinct.contains(format!("<0x{byte:02X}>").as_str())
            || (byte.is_ascii() && distinct.contains(char::from(byte).to_string().as_str()));
        ensure!(is_there, "the vocabulary has no word `<0x{byte:02X}>`; a tokenizer of the kind llama needs all 256");
    }
    Ok(())
}

fn check_special(gguf: &Gguf, tokenizer: &str, count: u64) -> Result<(), FormatError> {
    for name in SPECIAL {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(value) = gguf.metadata.get(&key) else { continue };
        let id = value.as_u64().ok_or_else(|| malformed(format!("`{key}` is not a count")))?;
        ensure!(id < count, "`{key}` is {id}; the vocabulary has {count} words");
    }
    // What llama.cpp takes where the file says nothing: the ids, and whether a prompt gets them.
    let (bos, eos, adds_bos, adds_eos) = match tokenizer {
        "llama" => (Some(1), Some(2), true, false),
        "gpt2" | "hybriddna" | "whitespace" => (Some(11), Some(11), true, true),
        "bert" => (Some(101), None, true, false),
        "t5" => (None, Some(1), false, true),
        "plamo2" => (Some(1), Some(2), false, false),
        "gemma4" => (None, None, true, false),
        _ => return Ok(()),
    };
    let is_always = matches!(tokenizer, "bert" | "gemma4");
    let mut needed = vec![("bos", bos, is_always || gguf.bool("tokenizer.ggml.add_bos_token").unwrap_or(adds_bos))];
    if tokenizer == "bert" {
        needed.push(("seperator", Some(102), true));
    } else {
        needed.push(("eos", eos, gguf.bool("tokenizer.ggml.add_eos_token").unwrap_or(adds_eos)));
    }
    for (name, default, is_added) in needed {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let is_there = gguf.u64(&key).or(default).is_some_and(|id| id < count);
        ensure!(!is_added || is_there, "`{key}` is missing, and prompts get this token");
    }
    Ok(())
}
