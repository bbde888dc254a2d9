//! The tokens with a meaning: what begins and ends a text, and whether they are added to a prompt.

use serde_json::Value;

use super::file::{File, Settings, Word};
use super::words::Words;
use crate::config::Config;
use crate::error::ConvertError;

/// Words that end a turn of a chat, the more particular ones first.
const TURN_ENDS: &[&str] = &["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"];

/// Ids of the tokens with a meaning.
#[derive(Debug)]
pub(super) struct Special {
    /// Begins a text.
    pub(super) first: Option<u32>,
    /// Ends a text. llama.cpp takes some other token for it where none is named.
    pub(super) last: u32,
    /// Ends a turn.
    pub(super) turn_end: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
    /// Whether a prompt gets `first`.
    pub(super) adds_first: bool,
    /// Whether a prompt gets `last`.
    pub(super) adds_last: bool,
}

impl Special {
    /// `tokenizer_config.json` names words, `config.json` ids; the words go first.
    pub(super) fn of(file: &File, settings: &Settings, config: &Config, words: &Words) -> Result<Self, ConvertError> {
        let named = |word: &Option<Word>, id: Option<u64>| {
            let by_word = word.as_ref().and_then(|word| words.id(word.text()));
            by_word.or_else(|| id.and_then(|id| words.row(id)))
        };
        let first = named(&settings.bos_token, config.first_token);
        let Some(last) = named(&settings.eos_token, config.last_token) else {
            return Err(ConvertError::file(super::SETTINGS, "names no eos_token that the vocabulary has, nor does config.json"));
        };
        let unknown = named(&settings.unk_token, None).or_else(|| words.id(file.model.unk_token.as_deref()?));
        let adds_first = adds_first(file, settings, words, first);
        if adds_first && first.is_none() {
            return Err(ConvertError::file(super::SETTINGS, "asks for a bos_token before each prompt and names none"));
        }
        Ok(Self {
            first,
            last,
            turn_end: TURN_ENDS.iter().find_map(|text| words.id(text)),
            unknown,
            padding: named(&settings.pad_token, config.padding_token),
            adds_first,
            adds_last: settings.add_eos_token == Some(true),
        })
    }
}

/// The setting, or what the file does to a single text, or what the class does by itself.
fn adds_first(file: &File, settings: &Settings, words: &Words, first: Option<u32>) -> bool {
    if let Some(adds) = settings.add_bos_token {
        return adds;
    }
    if let Some(template) = file.post_processor.as_ref().and_then(template_of) {
        let begins_with = template.first().and_then(|step| step.get("SpecialToken")?.get("id")?.as_str());
        return begins_with.and_then(|text| words.id(text)).is_some_and(|id| Some(id) == first);
    }
    settings.tokenizer_class.as_deref().is_some_and(|class| class.starts_with("Llama") || class.starts_with("Gemma"))
}

/// The steps for a single text, of the post-processor or of the one among several that has them.
fn template_of(processor: &Value) -> Option<&Vec<Value>> {
    let one = if is_template(processor) {
        processor
    } else {
        processor.get("processors")?.as_array()?.iter().find(|one| is_template(one))?
    };
    one.get("single")?.as_array()
}

fn is_template(processor: &Value) -> bool {
    processor.get("type").and_then(Value::as_str) == Some("TemplateProcessing")
}
