//! How a text is cut before merges are applied, and what llama.cpp calls that.
//!
//! The expressions are those that the models' own `tokenizer.json` files have; llama.cpp has each of them built in under a name.

use serde_json::Value;

use super::{bad, shown};
use crate::error::ConvertError;

/// One step of a pre-tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// Each match is a piece, and so is what lies between.
    Regex(String),
    /// Each digit is a piece.
    Digits,
    /// Bytes are spelled as GPT-2 does, after its own expression if `regex`.
    Bytes { regex: bool },
    /// Spaces are spelled U+2581, one before the text if `first`.
    Spaces { first: bool },
    /// Pieces end with a space. After spaces were replaced there is none, so nothing is cut.
    AfterSpace,
}

impl Cut {
    pub(super) fn is_bytes(&self) -> bool {
        matches!(self, Self::Bytes { .. })
    }
}

/// The cuts in the table below.
enum Known {
    Regex(&'static str),
    Digits,
}

/// Steps that a pre-tokenizer may have.
const MAX_STEPS: usize = 16;
/// How SentencePiece spells a space.
const SPACE: &str = "\u{2581}";

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Chinese and Korean, in both DeepSeeks of the first generation.
const DEEPSEEK_EAST: &str = "[一-龥\u{800}-一가-\u{d7ff}]+";
const DEEPSEEK_V3_EAST: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const DEEPSEEK_V3: &str = concat!(
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|",
    " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
);

/// llama.cpp's name, the cuts before the bytes, whether GPT-2's own expression follows, and whether a whole piece that is a word stays
/// one (where the name decides over that).
type Row = (&'static str, &'static [Known], bool, Option<bool>);

const NAMES: &[Row] = &[
    ("gpt-2", &[], true, Some(false)),
    ("smollm", &[Known::Digits], true, Some(false)),
    ("qwen2", &[Known::Regex(QWEN2)], false, Some(false)),
    ("llama-bpe", &[Known::Regex(LLAMA3)], false, Some(true)),
    ("dbrx", &[Known::Regex(LLAMA3)], false, Some(false)),
    // llama.cpp keeps whole words for Tekken whatever the file says; the file's merges lead to the same words.
    ("tekken", &[Known::Regex(TEKKEN)], false, None),
    ("gpt-4o", &[Known::Regex(GPT4O)], false, Some(false)),
    (
        "deepseek-coder",
        &[
            Known::Regex("[\r\n]"),
            Known::Regex(r"\s?\p{L}+"),
            Known::Regex(r"\s?\p{P}+"),
            Known::Regex(DEEPSEEK_EAST),
            Known::Digits,
        ],
        false,
        Some(false),
    ),
    (
        "deepseek-v3",
        &[Known::Regex(r"\p{N}{1,3}"), Known::Regex(DEEPSEEK_V3_EAST), Known::Regex(DEEPSEEK_V3)],
        false,
        Some(false),
    ),
];

/// The steps of a pre-tokenizer, in order.
pub(super) fn of(value: Option<&Value>) -> Result<Vec<Cut>, ConvertError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let steps = match (text(value, "type"), value.get("pretokenizers").and_then(Value::as_array)) {
        (Some("Sequence"), Some(steps)) => steps.iter().collect(),
        _ => vec![value],
    };
    if steps.len() > MAX_STEPS {
        return Err(bad(format!("has a pre-tokenizer of {} steps; {MAX_STEPS} are the most", steps.len())));
    }
    steps.into_iter().map(cut).collect()
}

fn cut(step: &Value) -> Result<Cut, ConvertError> {
    let kind = text(step, "type").unwrap_or_default();
    let flag = |name: &str, default: bool| step.get(name).and_then(Value::as_bool).unwrap_or(default);
    let found = match kind {
        "ByteLevel" if !flag("add_prefix_space", true) => Some(Cut::Bytes { regex: flag("use_regex", true) }),
        "Digits" if flag("individual_digits", false) => Some(Cut::Digits),
        "Metaspace" => metaspace(step),
        "Split" => split(step),
        _ => None,
    };
    found.ok_or_else(|| unknown(&step.to_string()))
}

fn split(step: &Value) -> Option<Cut> {
    let pattern = step.get("pattern")?;
    let behavior = text(step, "behavior")?;
    let inverted = step.get("invert").and_then(Value::as_bool).unwrap_or(false);
    match (text(pattern, "Regex"), text(pattern, "String")) {
        // What matches is kept and the rest dropped: the same, since these expressions match everything.
        (Some(regex), _) if (behavior, inverted) == ("Isolated", false) || (behavior, inverted) == ("Removed", true) => {
            Some(Cut::Regex(regex.to_owned()))
        }
        (_, Some(" ")) if behavior == "MergedWithPrevious" && !inverted => Some(Cut::AfterSpace),
        _ => None,
    }
}

fn metaspace(step: &Value) -> Option<Cut> {
    if text(step, "replacement") != Some(SPACE) || step.get("split").and_then(Value::as_bool).unwrap_or(true) {
        return None;
    }
    let first = match text(step, "prepend_scheme") {
        Some("always" | "first") => true,
        Some("never") => false,
        _ => step.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true),
    };
    Some(Cut::Spaces { first })
}

/// llama.cpp's name for these cuts.
pub(super) fn name(cuts: &[Cut], keeps_words: bool) -> Result<&'static str, ConvertError> {
    let is_known = |(_, before, regex, keeps): &&Row| {
        let Some((Cut::Bytes { regex: found }, steps)) = cuts.split_last() else { return false };
        let same = |(step, known): (&Cut, &Known)| match (step, known) {
            (Cut::Regex(found), Known::Regex(expected)) => found == expected,
            (Cut::Digits, Known::Digits) => true,
            _ => false,
        };
        found == regex
            && keeps.is_none_or(|keeps| keeps == keeps_words)
            && steps.len() == before.len()
            && steps.iter().zip(before.iter()).all(same)
    };
    if let Some((name, ..)) = NAMES.iter().find(is_known) {
        return Ok(name);
    }
    let regexes: Vec<&str> =
        cuts.iter().filter_map(|cut| if let Cut::Regex(regex) = cut { Some(regex.as_str()) } else { None }).collect();
    Err(if regexes.is_empty() { unknown(&format!("{cuts:?}")) } else { unknown(&regexes.join("  ")) })
}

fn unknown(words: &str) -> ConvertError {
    ConvertError::unsupported(format!(
        "its tokenizer cuts a text by {}, which is none of the ways that are known to llama.cpp by name; a GGUF file made by others, or \
         the candle backend, may serve it",
        shown(words)
    ))
}

/// Byte-level tokenizers may compose characters (NFC), which llama.cpp leaves out: text comes composed nearly always.
pub(super) fn check_normalizer(value: Option<&Value>) -> Result<(), ConvertError> {
    match value.filter(|value| !value.is_null()) {
        None => Ok(()),
        Some(value) => {
            let is_empty = || value.get("normalizers").and_then(Value::as_array).is_some_and(Vec::is_empty);
            match text(value, "type") {
                Some("NFC") => Ok(()),
                Some("Sequence") if is_empty() => Ok(()),
                _ => Err(ConvertError::unsupported(format!("its tokenizer rewrites a text by {}", shown(&value.to_string())))),
            }
        }
    }
}

/// For SentencePiece's kind: whether a text begins as if a space stood before it. What else is done to a text has to be what llama.cpp
/// does, which is to spell spaces U+2581.
pub(super) fn space_first(normalizer: Option<&Value>, cuts: &[Cut]) -> Result<bool, ConvertError> {
    let steps: Vec<&Value> = match normalizer.filter(|value| !value.is_null()) {
        None => Vec::new(),
        Some(value) => match value.get("normalizers").and_then(Value::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![value],
        },
    };
    let (mut first, mut replaced) = (false, false);
    for step in steps {
        match text(step, "type") {
            Some("Prepend") if text(step, "prepend") == Some(SPACE) => first = true,
            Some("Replace") if is_replacement(step) => replaced = true,
            _ => {
                return Err(ConvertError::unsupported(format!(
                    "its tokenizer rewrites a text by {}, and llama.cpp only spells spaces U+2581",
                    shown(&step.to_string())
                )));
            }
        }
    }
    match cuts {
        [] if replaced => Ok(first),
        [Cut::AfterSpace] if replaced => Ok(first),
        [Cut::Spaces { first: metaspace }] if !replaced && !first => Ok(*metaspace),
        [] => Err(ConvertError::unsupported("its tokenizer does not spell spaces U+2581")),
        _ => Err(unknown(&format!("{cuts:?}"))),
    }
}

fn is_replacement(step: &Value) -> bool {
    step.get("pattern").and_then(|pattern| text(pattern, "String")) == Some(" ") && text(step, "content") == Some(SPACE)
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

#[cfg(test)]
mod tests;
