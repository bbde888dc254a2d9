//! The folder of a model: its settings, tokenizer and chat template.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tollgate_backend::BackendError;

use crate::config::{Config, read};
use crate::tokenizer::{HfTokenizer, Named, Roles};

/// The largest vocabularies take 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// No template has as many.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// A Hugging Face folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    config: Config,
    tokenizer_config: Config,
    generation_config: Config,
    template: Option<String>,
}

impl Folder {
    /// Reads the settings of a folder.
    ///
    /// # Errors
    /// There is no `config.json`, or a file is not what it should be.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let config = Config::read(&path.join("config.json"))?.ok_or_else(|| {
            BackendError::Load(format!("{} has no config.json: it is no Hugging Face model folder", path.display()))
        })?;
        let or_empty = |name: &str| Config::read(&path.join(name)).map(|config| config.unwrap_or_else(|| Config::empty(name)));
        let tokenizer_config = or_empty("tokenizer_config.json")?;
        let generation_config = or_empty("generation_config.json")?;
        let template = match read(&path.join("chat_template.jinja"), MAX_TEMPLATE_BYTES)? {
            Some(bytes) => {
                Some(String::from_utf8(bytes).map_err(|_| BackendError::Load("chat_template.jinja is no UTF-8".to_owned()))?)
            }
            None => default_template(&tokenizer_config)?,
        };
        Ok(Folder { path: path.to_owned(), config, tokenizer_config, generation_config, template })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The chat template, in Jinja.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// Another JSON file of it; `None` if there is none.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn read(&self, name: &str) -> Result<Option<Config>, BackendError> {
        Config::read(&self.path.join(name))
    }

    /// Reads `tokenizer.json`. The vocabulary has as many words as the model has logits, where that is known: what the tokenizer
    /// lacks is unused, what the model lacks is left out.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn tokenizer(&self, words: Option<usize>) -> Result<Arc<HfTokenizer>, BackendError> {
        let json = read(&self.path.join("tokenizer.json"), MAX_TOKENIZER_BYTES)?.ok_or_else(|| {
            BackendError::Load(format!("{} has no tokenizer.json; other tokenizer files are not read", self.path.display()))
        })?;
        let mut ends = self.generation_config.tokens("eos_token_id")?;
        ends.extend(self.config.tokens("eos_token_id")?);
        let bos = self.config.tokens("bos_token_id")?.first().copied().map(Named::Id);
        let roles = Roles {
            words,
            bos: self.named("bos_token").or(bos),
            adds_bos: self.tokenizer_config.flag("add_bos_token")?,
            eos: self.named("eos_token"),
            ends,
        };
        Ok(Arc::new(HfTokenizer::new(&json, roles)?))
    }

    /// Tokens that a text for an encoder may have: what `sentence_bert_config.json` says, or as many as the model has
    /// `positions`, without those that the tokenizer's template puts around it.
    ///
    /// # Errors
    /// None are left for a text.
    pub fn longest_text(&self, tokenizer: &HfTokenizer, positions: usize) -> Result<usize, BackendError> {
        let most = match self.read("sentence_bert_config.json")? {
            Some(config) => config.count("max_seq_length", 1..=16_777_216)?.map_or(positions, |most| most.min(positions)),
            None => positions,
        };
        match most.saturating_sub(tokenizer.frame_tokens()) {
            0 => Err(BackendError::Load(format!("the model reads {most} tokens, which leaves none for a text"))),
            left => Ok(left),
        }
    }

    /// A token that `tokenizer_config.json` names, as a text or as an object.
    fn named(&self, key: &str) -> Option<Named> {
        let value = self.tokenizer_config.get(key)?;
        let name = value.as_str().or_else(|| value.get("content").and_then(Value::as_str))?;
        Some(Named::Name(name.to_owned()))
    }
}

/// `chat_template` is a text, or a list of templates with names.
fn default_template(config: &Config) -> Result<Option<String>, BackendError> {
    let text = match config.get("chat_template") {
        None => return Ok(None),
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Array(list)) => list
            .iter()
            .find(|one| one.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|one| one.get("template").and_then(Value::as_str)),
        Some(_) => None,
    };
    let wrong = || BackendError::Load("`chat_template` has to be a text, or a list with one named `default`".to_owned());
    text.map(|text| Some(text.to_owned())).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
