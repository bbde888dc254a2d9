//! What one input says, in words that all kinds of inputs share. Which of several inputs counts is decided in `plan`.

use std::path::PathBuf;

use serde_json::Value;

use super::model::{Draft, Field, Setting};
use super::plan::{Dropped, Paste, Surroundings};
use super::provider::ProviderModel;
use super::secret;
use super::toml_text::shown;
use super::weights::{self, Weights};

/// Characters of a name or a key that are shown.
const SHOWN: usize = 256;

/// A file to import from.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// The file, as the operator named it.
    pub(crate) path: PathBuf,
    /// What it holds.
    pub(crate) text: String,
}

impl Input {
    /// The file's name, fit for a line of output and for a comment.
    pub(super) fn name(&self) -> String {
        shown(&self.path.display().to_string(), SHOWN)
    }
}

/// What one input says.
#[derive(Debug)]
pub(super) struct Reading {
    /// The input's name.
    pub(super) file: String,
    /// The models that it describes.
    pub(super) models: Vec<Draft>,
    /// The model of a provider that it describes.
    pub(super) provider: Option<ProviderModel>,
    /// What it says and a model file cannot.
    pub(super) dropped: Vec<Dropped>,
    /// What has to be pasted by hand.
    pub(super) paste: Vec<Paste>,
}

impl Reading {
    /// Nothing yet, of `input`.
    pub(super) fn of(input: &Input) -> Self {
        Self { file: input.name(), models: Vec::new(), provider: None, dropped: Vec::new(), paste: Vec::new() }
    }

    /// One value of this input.
    pub(super) fn setting(&self, key: &str, value: impl Into<String>) -> Setting {
        Setting { file: self.file.clone(), key: shown(key, SHOWN), value: value.into() }
    }

    /// Notes that `key` is not kept. No value may go into `why` but a number, or a word of a key that holds no secrets.
    pub(super) fn leave_out(&mut self, key: &str, why: impl Into<String>, instead: impl Into<String>) {
        let dropped = Dropped { file: self.file.clone(), key: shown(key, SHOWN), why: why.into(), instead: instead.into() };
        self.dropped.push(dropped);
    }

    /// Takes the number in `text` for `field` of `draft`, or notes why not.
    pub(super) fn number(&mut self, draft: &mut Draft, field: Field, key: &str, text: &str) {
        match field.checked(text) {
            Ok(value) => {
                let setting = self.setting(key, value);
                draft.fields.insert(field, setting);
            }
            Err(why) => self.leave_out(key, why, format!("set `{}` in the model's file", field.name())),
        }
    }

    /// Whether `key` names a secret, which is noted and not read any further. `name` is what of it is shown.
    pub(super) fn is_secret(&mut self, name: &str, key: &str) -> bool {
        let is_secret = secret::is_secret(key);
        if is_secret {
            self.leave_out(name, "is a secret: it is neither shown nor written", secret::instead(key));
        }
        is_secret
    }

    /// Notes a key that means nothing here.
    pub(super) fn unknown(&mut self, key: &str) {
        self.leave_out(key, "is no setting that the import knows", "look in docs/config.md for one that does the same");
    }

    /// Takes `path` as the weights of `draft`, whose kind is known by now, or notes why not.
    pub(super) fn weights(&mut self, draft: &mut Draft, path: Option<Setting>, input: &Input, around: &Surroundings<'_>) {
        let Some(path) = path else { return };
        let kind = draft.kind.as_ref().map(|kind| kind.value.as_str());
        let Some(weights) = weights::of(&path.value, kind, (around.locate)(input, &path.value)) else {
            let why = "is neither a path nor a model's name on a hub";
            self.leave_out(&path.key, why, "name a GGUF file as the model's `artifact`; `tollgate model pull` takes URLs");
            return;
        };
        if weights == Weights::Pickle {
            let why = "names PyTorch pickles, which run code when they are loaded and never are here";
            self.leave_out(&path.key, why, "get the model as safetensors or GGUF, and install that");
        }
        draft.weights = Some((path, weights));
    }
}

/// A value as text, where it is neither a list, a table nor null.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is_set) => Some(is_set.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
