//! What answers under a name: a model that runs here, or one that somebody else runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tollgate_config::Task;
use tollgate_providers::BreakerState;

use crate::{ModelMetrics, Remote, Slot};

/// Models that may take over from one, with those that take over from them.
const MAX_FALLBACKS: usize = 16;

/// A model of a generation.
#[derive(Debug, Clone)]
pub enum Served {
    /// It runs here.
    Local(Arc<Slot>),
    /// A provider has it.
    Remote(Arc<Remote>),
}

impl Served {
    /// Its id in the config.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Served::Local(slot) => slot.id(),
            Served::Remote(remote) => remote.id(),
        }
    }

    /// What it is asked for. Providers generate.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Served::Local(slot) => slot.task(),
            Served::Remote(_) => Task::Generate,
        }
    }

    /// Its other names.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        match self {
            Served::Local(slot) => slot.aliases(),
            Served::Remote(remote) => remote.aliases(),
        }
    }

    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id()).chain(self.aliases().iter().map(String::as_str))
    }

    /// Models that answer in its place where it cannot, in order.
    #[must_use]
    pub fn fallback(&self) -> &[String] {
        match self {
            Served::Local(slot) => slot.fallback(),
            Served::Remote(remote) => remote.fallback(),
        }
    }

    /// Since when it is in the config, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn created_s(&self) -> u64 {
        match self {
            Served::Local(slot) => slot.created_s(),
            Served::Remote(remote) => remote.created_s(),
        }
    }

    /// SHA-256 of its artifact; `None` while nobody has had to take it, and of a model that is not here.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match self {
            Served::Local(slot) => slot.digest(),
            Served::Remote(_) => None,
        }
    }

    /// The longest that a request may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        match self {
            Served::Local(slot) => slot.deadline(),
            Served::Remote(remote) => remote.deadline(),
        }
    }

    /// Where its replies are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        match self {
            Served::Local(slot) => slot.metrics(),
            Served::Remote(remote) => remote.metrics(),
        }
    }

    /// Whether requests for it are served, as far as is known.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        match self {
            Served::Local(slot) => slot.is_healthy(),
            Served::Remote(remote) => remote.state() == BreakerState::Closed,
        }
    }

    /// Tries again at once what failed to load the last time. A provider is tried by its breaker's rule.
    pub fn retry(&self) {
        if let Served::Local(slot) = self {
            slot.retry();
        }
    }
}

/// The models of one generation.
#[derive(Debug, Default)]
pub struct Models {
    by_name: BTreeMap<String, Served>,
}

impl Models {
    /// Names have to be unique; the config's check sees to it.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = Served>) -> Self {
        let named = |model: Served| model.names().map(|name| (name.to_owned(), model.clone())).collect::<Vec<_>>();
        Models { by_name: models.into_iter().flat_map(named).collect() }
    }

    /// The model of this id or alias.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Served> {
        self.by_name.get(name)
    }

    /// The models, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Served> {
        self.by_name.iter().filter(|(name, model)| **name == model.id()).map(|(_, model)| model)
    }

    /// Those that may answer in the place of `model`, in order: its own fallbacks, each followed by those of its own.
    #[must_use]
    pub fn fallbacks(&self, model: &Served) -> Vec<Served> {
        let mut found: Vec<Served> = Vec::new();
        let mut open = model.fallback().iter().rev().collect::<Vec<_>>();
        while let Some(name) = open.pop() {
            let Some(next) = self.find(name) else { continue };
            // Each counts once, so that this ends.
            if next.id() == model.id() || found.iter().any(|known| known.id() == next.id()) {
                continue;
            }
            found.push(next.clone());
            if found.len() >= MAX_FALLBACKS {
                break;
            }
            open.extend(next.fallback().iter().rev());
        }
        found
    }
}
