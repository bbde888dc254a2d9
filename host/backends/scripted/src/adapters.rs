//! Adapters of the scripted backend: a file with one word, which then stands before each word of a reply.

use std::collections::BTreeMap;
use std::path::Path;

use tollgate_backend::{AdapterId, BackendError, DecodeError, SequenceId};

/// Bytes of an adapter's file.
const MAX_BYTES: usize = 64;

/// Which adapters there are, which one is selected, and which one each sequence was computed with.
pub(crate) struct Adapters {
    words: BTreeMap<AdapterId, String>,
    selected: Option<AdapterId>,
    last: u32,
    /// By sequence; means nothing for one that holds no tokens.
    of: Vec<Option<AdapterId>>,
}

impl Adapters {
    pub(crate) fn new(sequences: u16) -> Self {
        Adapters { words: BTreeMap::new(), selected: None, last: 0, of: vec![None; usize::from(sequences)] }
    }

    /// How many are loaded.
    pub(crate) fn count(&self) -> usize {
        self.words.len()
    }

    pub(crate) fn selected(&self) -> Option<AdapterId> {
        self.selected
    }

    /// What stands before each word now; nothing without an adapter.
    pub(crate) fn word(&self) -> &str {
        self.selected.and_then(|id| self.words.get(&id)).map_or("", String::as_str)
    }

    pub(crate) fn load(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        let load = |what: String| BackendError::Load(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| load(error.to_string()))?;
        let word = text.trim();
        if word.is_empty() || word.len() > MAX_BYTES || word.contains(char::is_whitespace) {
            return Err(load(format!("an adapter of the scripted backend is one word of 1 to {MAX_BYTES} bytes")));
        }
        let id = AdapterId(self.last.checked_add(1).ok_or_else(|| load("too many adapters were loaded".to_owned()))?);
        self.last = id.0;
        self.words.insert(id, if scale > 0.0 { word.to_owned() } else { String::new() });
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: AdapterId) {
        self.words.remove(&id);
        self.selected = self.selected.filter(|selected| *selected != id);
    }

    pub(crate) fn select(&mut self, id: Option<AdapterId>) -> Result<(), BackendError> {
        if let Some(id) = id.filter(|id| !self.words.contains_key(id)) {
            return Err(BackendError::Failed(format!("there is no adapter {}", id.0)));
        }
        self.selected = id;
        Ok(())
    }

    /// A sequence that holds `length` tokens gets more. It has to go on with the adapter that it began with.
    pub(crate) fn check(&self, sequence: SequenceId, length: usize) -> Result<(), DecodeError> {
        let of = self.of(sequence);
        if length > 0 && of != self.selected {
            return Err(DecodeError::Failed(format!("sequence {} was begun with another adapter", sequence.0)));
        }
        Ok(())
    }

    /// What a sequence holds from now on was computed with the selected one.
    pub(crate) fn begin(&mut self, sequence: SequenceId) {
        self.set(sequence, self.selected);
    }

    /// `to` holds what `from` computed.
    pub(crate) fn copy(&mut self, from: SequenceId, to: SequenceId) {
        self.set(to, self.of(from));
    }

    /// What a sequence that holds tokens was computed with.
    pub(crate) fn of(&self, sequence: SequenceId) -> Option<AdapterId> {
        self.of.get(usize::from(sequence.0)).copied().flatten()
    }

    /// What a sequence holds was computed with `adapter`.
    pub(crate) fn set(&mut self, sequence: SequenceId, adapter: Option<AdapterId>) {
        if let Some(of) = self.of.get_mut(usize::from(sequence.0)) {
            *of = adapter;
        }
    }
}
