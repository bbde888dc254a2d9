//! WordPiece, as BERT has it: whole words, and pieces that go on a word.
//!
//! llama.cpp's `bert` cuts a text as BERT's own normalizer and pre-tokenizer do, with lower-casing and the stripping of accents as
//! switches. What is done otherwise is refused. It has no limit to a word's length, where the original takes one of more than 100
//! letters for an unknown token.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;
use tollgate_formats::tokenizer;

use super::file::{Added, Settings, Word};
use super::words::{CONTROL, NORMAL, UNKNOWN, USER_DEFINED, filled, placed};
use super::{SETTINGS, SETTINGS_BYTES, bad, read, shown};
use crate::error::{ConvertError, quoted};
use crate::files;
use crate::gguf::Value;

/// How a piece that goes on a word begins.
const GOES_ON: &str = "##";
/// How llama.cpp spells the beginning of a word.
const BEGINS: &str = "\u{2581}";

/// A vocabulary as llama.cpp takes it.
#[derive(Debug)]
pub(crate) struct WordPiece {
    /// The settings under `tokenizer.`.
    pub(crate) metadata: Vec<(String, Value)>,
    /// Whether the second text of a pair is told from the first by its segment.
    pub(crate) marks_second: bool,
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Json>,
    pre_tokenizer: Option<Json>,
    post_processor: Option<Json>,
    model: Model,
}

#[derive(Debug, Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
}

/// What is done to the letters of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Letters {
    lowercase: bool,
    strip_accents: bool,
}

/// What stands around a text.
#[derive(Debug)]
struct Frame<'a> {
    first: &'a str,
    last: &'a str,
    marks_second: bool,
}

/// Reads the tokenizer of a model whose embedding has `rows` rows, and one for each of `segments` segments.
pub(crate) fn read_vocabulary(folder: &Path, rows: u32, segments: u32) -> Result<WordPiece, ConvertError> {
    let file: File = read(folder, tokenizer::Kind::WordPiece, "WordPiece")?;
    let settings: Settings = files::json(folder, SETTINGS, SETTINGS_BYTES)?.unwrap_or_default();
    if let Some(prefix) = file.model.continuing_subword_prefix.as_deref().filter(|prefix| *prefix != GOES_ON) {
        return Err(ConvertError::unsupported(format!("pieces that go on a word begin with `{}`, not `##`", quoted(prefix))));
    }
    let letters = letters(file.normalizer.as_ref())?;
    if kind(file.pre_tokenizer.as_ref()) != Some("BertPreTokenizer") {
        let words = file.pre_tokenizer.as_ref().map_or_else(|| "nothing".to_owned(), |value| shown(&value.to_string()));
        return Err(ConvertError::unsupported(format!("its tokenizer cuts a text by {words}, not as BERT does")));
    }
    let frame = frame(file.post_processor.as_ref()).ok_or_else(|| {
        ConvertError::unsupported("its tokenizer does not put one token before a text and one after it, as BERT does")
    })?;
    let mut ids = file.model.vocab;
    let tokens = placed(&mut ids, &file.added_tokens, rows)?;
    let needed = |text: &str| {
        ids.get(text).copied().ok_or_else(|| bad(format!("puts the token `{}` around a text and does not have it", quoted(text))))
    };
    let (first, last) = (needed(frame.first)?, needed(frame.last)?);
    let unknown = file.model.unk_token.as_ref().and_then(|text| ids.get(text)).copied();
    let unknown = unknown.ok_or_else(|| bad("names no unk_token that it has"))?;
    let named = |word: Option<&Word>, usual: &str| ids.get(word.map_or(usual, Word::text)).copied();
    let special = [
        ("bos", Some(first)),
        ("cls", Some(first)),
        ("seperator", Some(last)),
        ("unknown", Some(unknown)),
        ("padding", named(settings.pad_token.as_ref(), "[PAD]")),
        ("mask", named(settings.mask_token.as_ref(), "[MASK]")),
    ];
    let mut kinds = kinds(&file.added_tokens, &[first, last], unknown, tokens.len());
    let tokens = spelled(filled(tokens, &mut kinds, &ids), &kinds);
    Ok(WordPiece { metadata: listed(tokens, kinds, special, letters, segments), marks_second: frame.marks_second })
}

fn kind(step: Option<&Json>) -> Option<&str> {
    step?.get("type")?.as_str()
}

fn letters(normalizer: Option<&Json>) -> Result<Letters, ConvertError> {
    let flag = |name: &str| normalizer.and_then(|step| step.get(name)).and_then(Json::as_bool);
    let does_all = flag("clean_text") != Some(false) && flag("handle_chinese_chars") != Some(false);
    if kind(normalizer) != Some("BertNormalizer") || !does_all {
        let words = normalizer.map_or_else(|| "nothing".to_owned(), |value| shown(&value.to_string()));
        return Err(ConvertError::unsupported(format!("its tokenizer rewrites a text by {words}, not as BERT does")));
    }
    let lowercase = flag("lowercase").unwrap_or(true);
    Ok(Letters { lowercase, strip_accents: flag("strip_accents").unwrap_or(lowercase) })
}

fn frame(processor: Option<&Json>) -> Option<Frame<'_>> {
    let processor = processor?;
    match kind(Some(processor))? {
        "BertProcessing" => {
            let word = |name: &str| processor.get(name)?.as_array()?.first()?.as_str();
            Some(Frame { first: word("cls")?, last: word("sep")?, marks_second: true })
        }
        "TemplateProcessing" => {
            let [first, text, last] = processor.get("single")?.as_array()?.as_slice() else { return None };
            text.get("Sequence")?;
            let marks = |step: &Json| {
                let part = step.get("Sequence").or_else(|| step.get("SpecialToken"));
                part.and_then(|part| part.get("type_id")).and_then(Json::as_u64).is_some_and(|segment| segment != 0)
            };
            let marks_second = processor.get("pair").and_then(Json::as_array).is_none_or(|steps| steps.iter().any(marks));
            Some(Frame { first: word_of(first)?, last: word_of(last)?, marks_second })
        }
        _ => None,
    }
}

fn word_of(step: &Json) -> Option<&str> {
    step.get("SpecialToken")?.get("id")?.as_str()
}

fn kinds(added: &[Added], frame: &[u32], unknown: u32, count: usize) -> Vec<i32> {
    let mut kinds = vec![NORMAL; count];
    let mut set = |id: u32, kind: i32| {
        if let Some(place) = usize::try_from(id).ok().and_then(|id| kinds.get_mut(id)) {
            *place = kind;
        }
    };
    added.iter().for_each(|added| set(added.id, if added.special { CONTROL } else { USER_DEFINED }));
    frame.iter().for_each(|id| set(*id, CONTROL));
    set(unknown, UNKNOWN);
    kinds
}

/// Words with llama.cpp's sign before them, pieces without their own; tokens that are found as they stand stay so.
fn spelled(tokens: Vec<String>, kinds: &[i32]) -> Vec<String> {
    let spell = |(text, kind): (String, &i32)| match text.strip_prefix(GOES_ON) {
        _ if *kind != NORMAL => text,
        Some(piece) => piece.to_owned(),
        None => format!("{BEGINS}{text}"),
    };
    tokens.into_iter().zip(kinds).map(spell).collect()
}

fn listed(
    tokens: Vec<String>,
    kinds: Vec<i32>,
    special: [(&str, Option<u32>); 6],
    letters: Letters,
    segments: u32,
) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut put = |key: &str, value: Value| all.push((format!("tokenizer.ggml.{key}"), value));
    put("model", Value::String("bert".to_owned()));
    put("pre", Value::String("default".to_owned()));
    put("normalizer.lowercase", Value::Bool(letters.lowercase));
    put("normalizer.strip_accents", Value::Bool(letters.strip_accents));
    put("token_type_count", Value::U32(segments));
    put("tokens", Value::Strings(tokens));
    put("token_type", Value::I32s(kinds));
    for (name, id) in special {
        if let Some(id) = id {
            put(&format!("{name}_token_id"), Value::U32(id));
        }
    }
    all
}
