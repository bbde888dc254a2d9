//! A model's `tokenizer.json` and what stands beside it, as the settings that llama.cpp makes its tokenizer of.
//!
//! Three kinds can be said in a GGUF file: byte-level BPE (`gpt2`), SentencePiece's BPE with bytes to fall back on (`llama`), and for
//! encoders WordPiece (`bert`, in `wordpiece.rs`). Anything else, and any way of cutting a text that llama.cpp has no name for, is refused: it would tokenize otherwise than the model was trained.

mod cuts;
mod file;
mod special;
pub(crate) mod wordpiece;
mod words;

use std::path::Path;

use file::{File, Settings};
use serde::de::DeserializeOwned;
use special::Special;
use tollgate_formats::tokenizer;
use words::Words;

use crate::config::Config;
use crate::error::{ConvertError, quoted};
use crate::files;
use crate::gguf::Value;

pub(crate) const FILE: &str = "tokenizer.json";
const FILE_BYTES: u64 = 64 << 20;
const SETTINGS: &str = "tokenizer_config.json";
const SETTINGS_BYTES: u64 = 16 << 20;
const TEMPLATE: &str = "chat_template.jinja";
const TEMPLATE_BYTES: u64 = 1 << 20;

/// The settings under `tokenizer.`.
pub(crate) fn metadata(folder: &Path, config: &Config) -> Result<Vec<(String, Value)>, ConvertError> {
    let file: File = read(folder, tokenizer::Kind::Bpe, "BPE")?;
    let settings: Settings = files::json(folder, SETTINGS, SETTINGS_BYTES)?.unwrap_or_default();
    let style = Style::of(&file)?;
    let words = Words::of(&file, &style, config.shape.vocabulary)?;
    let special = Special::of(&file, &settings, config, &words)?;
    let template = template(folder, &settings)?;
    Ok(listed(&style, words, &special, template))
}

/// A sound `tokenizer.json` of the kind that is wanted, which is called `name`.
fn read<T: DeserializeOwned>(folder: &Path, kind: tokenizer::Kind, name: &str) -> Result<T, ConvertError> {
    let bytes = files::read(folder, FILE, FILE_BYTES)?
        .ok_or_else(|| bad("is missing from the model's folder; a SentencePiece file alone is not converted"))?;
    let sound = tokenizer::read(&bytes).map_err(|source| ConvertError::Format { file: FILE.to_owned(), source })?;
    if sound.kind != kind {
        return Err(ConvertError::unsupported(format!("its tokenizer is of kind {:?}; {name} is converted", sound.kind)));
    }
    files::parse(FILE, &bytes)
}

/// The refusal of `tokenizer.json`.
fn bad(what: impl Into<String>) -> ConvertError {
    ConvertError::file(FILE, what)
}

/// The two kinds of tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Style {
    /// Words are bytes in GPT-2's spelling; the text is cut as llama.cpp's name for it says.
    Bytes { cut: &'static str },
    /// Words are text with U+2581 for a space.
    Pieces {
        /// Whether a text begins as if a space stood before it.
        space_first: bool,
    },
}

impl Style {
    fn of(file: &File) -> Result<Self, ConvertError> {
        for (name, affix) in [
            ("continuing_subword_prefix", &file.model.continuing_subword_prefix),
            ("end_of_word_suffix", &file.model.end_of_word_suffix),
        ] {
            if affix.as_ref().is_some_and(|affix| !affix.is_empty()) {
                return Err(ConvertError::unsupported(format!("its tokenizer has a {name}")));
            }
        }
        let cuts = cuts::of(file.pre_tokenizer.as_ref())?;
        if cuts.iter().any(cuts::Cut::is_bytes) {
            cuts::check_normalizer(file.normalizer.as_ref())?;
            return Ok(Self::Bytes { cut: cuts::name(&cuts, file.model.ignore_merges.unwrap_or(false))? });
        }
        if file.model.byte_fallback != Some(true) {
            return Err(ConvertError::unsupported("its tokenizer has neither byte-level words nor bytes to fall back on"));
        }
        Ok(Self::Pieces { space_first: cuts::space_first(file.normalizer.as_ref(), &cuts)? })
    }
}

/// The template in a file of its own goes before the one in the settings.
fn template(folder: &Path, settings: &Settings) -> Result<Option<String>, ConvertError> {
    match files::read(folder, TEMPLATE, TEMPLATE_BYTES)? {
        Some(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| ConvertError::file(TEMPLATE, "is not UTF-8")),
        None => Ok(settings.chat_template.as_ref().and_then(file::Template::default).map(str::to_owned)),
    }
}

fn listed(style: &Style, words: Words, special: &Special, template: Option<String>) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut put = |key: &str, value: Value| all.push((format!("tokenizer.{key}"), value));
    match style {
        Style::Bytes { cut } => {
            put("ggml.model", Value::String("gpt2".to_owned()));
            put("ggml.pre", Value::String((*cut).to_owned()));
        }
        Style::Pieces { space_first } => {
            put("ggml.model", Value::String("llama".to_owned()));
            put("ggml.pre", Value::String("default".to_owned()));
            put("ggml.add_space_prefix", Value::Bool(*space_first));
        }
    }
    put("ggml.tokens", Value::Strings(words.tokens));
    put("ggml.token_type", Value::I32s(words.kinds));
    if let Some(scores) = words.scores {
        put("ggml.scores", Value::F32s(scores));
    }
    if let Some(merges) = words.merges {
        put("ggml.merges", Value::Strings(merges));
    }
    let ids = [
        ("bos", special.first),
        ("eos", Some(special.last)),
        ("eot", special.turn_end),
        ("unknown", special.unknown),
        ("padding", special.padding),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            put(&format!("ggml.{name}_token_id"), Value::U32(id));
        }
    }
    put("ggml.add_bos_token", Value::Bool(special.adds_first));
    if special.adds_last {
        put("ggml.add_eos_token", Value::Bool(true));
    }
    if let Some(template) = template {
        put("chat_template", Value::String(template));
    }
    all
}

/// A refusal that shows the words of the file, cut.
fn shown(words: &str) -> String {
    format!("`{}`", quoted(words))
}
