//! Adapters of a stepper's model: their numbers, and which one the next steps are decoded with.

use std::collections::BTreeSet;
use std::path::Path;

use tollgate_backend::{AdapterId, BackendError};

use super::{Serial, Stepper};
use crate::lora::Lora;

/// The adapters that are loaded.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    loaded: BTreeSet<AdapterId>,
    /// The highest number that was used.
    last: u32,
    selected: Option<AdapterId>,
}

impl Adapters {
    pub(super) fn selected(&self) -> Option<AdapterId> {
        self.selected
    }
}

impl<M: Serial> Stepper<M> {
    /// See [`tollgate_backend::Backend::load_adapter`]. The path is that of a folder as PEFT writes it.
    ///
    /// # Errors
    /// As there.
    pub fn load_adapter(&mut self, folder: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        let load = |what: &str| BackendError::Load(format!("{}: {what}", folder.display()));
        let lora = Lora::read(folder, scale)?;
        let number = self.adapters.last.checked_add(1).ok_or_else(|| load("too many adapters were loaded"))?;
        let id = AdapterId(number);
        self.model.load_adapter(id, lora).map_err(|why| load(&why))?;
        self.adapters.last = number;
        self.adapters.loaded.insert(id);
        Ok(id)
    }

    /// See [`tollgate_backend::Backend::drop_adapter`].
    pub fn drop_adapter(&mut self, adapter: AdapterId) {
        if self.adapters.selected == Some(adapter) {
            self.adapters.selected = None;
        }
        if self.adapters.loaded.remove(&adapter) {
            self.model.drop_adapter(adapter);
        }
    }

    /// See [`tollgate_backend::Backend::select_adapter`].
    ///
    /// # Errors
    /// As there; what was selected before stays.
    pub fn select_adapter(&mut self, adapter: Option<AdapterId>) -> Result<(), BackendError> {
        if let Some(unknown) = adapter.filter(|adapter| !self.adapters.loaded.contains(adapter)) {
            return Err(BackendError::Failed(format!("there is no adapter {}", unknown.0)));
        }
        self.adapters.selected = adapter;
        Ok(())
    }
}
