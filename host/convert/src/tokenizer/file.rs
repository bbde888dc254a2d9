//! `tokenizer.json` and `tokenizer_config.json` as they are written.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) added_tokens: Vec<Added>,
    pub(super) normalizer: Option<Value>,
    pub(super) pre_tokenizer: Option<Value>,
    pub(super) post_processor: Option<Value>,
    pub(super) model: Model,
}

/// A word that is found before the text is cut.
#[derive(Debug, Deserialize)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) vocab: HashMap<String, u32>,
    pub(super) merges: Vec<Merge>,
    pub(super) byte_fallback: Option<bool>,
    pub(super) ignore_merges: Option<bool>,
    pub(super) unk_token: Option<String>,
    pub(super) continuing_subword_prefix: Option<String>,
    pub(super) end_of_word_suffix: Option<String>,
}

/// A merge in its newer or its older form.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Pair(String, String),
    Text(String),
}

impl Merge {
    /// The two words, neither of them empty.
    pub(super) fn parts(&self) -> Option<(&str, &str)> {
        let (left, right) = match self {
            Self::Pair(left, right) => (left.as_str(), right.as_str()),
            Self::Text(text) => text.split_once(' ')?,
        };
        (!left.is_empty() && !right.is_empty()).then_some((left, right))
    }
}

/// The parts of `tokenizer_config.json` that are looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Settings {
    pub(super) tokenizer_class: Option<String>,
    pub(super) add_bos_token: Option<bool>,
    pub(super) add_eos_token: Option<bool>,
    pub(super) bos_token: Option<Word>,
    pub(super) eos_token: Option<Word>,
    pub(super) pad_token: Option<Word>,
    pub(super) unk_token: Option<Word>,
    pub(super) mask_token: Option<Word>,
    pub(super) chat_template: Option<Template>,
}

/// A word as such, or with how it is matched.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Word {
    Plain(String),
    Full { content: String },
}

impl Word {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Full { content: text } => text,
        }
    }
}

/// One chat template, or several with names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Template {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedTemplate {
    name: String,
    template: String,
}

impl Template {
    /// The only one, or the one named "default".
    pub(super) fn default(&self) -> Option<&str> {
        match self {
            Self::One(text) => Some(text),
            Self::Named(all) => all.iter().find(|one| one.name == "default").map(|one| one.template.as_str()),
        }
    }
}
