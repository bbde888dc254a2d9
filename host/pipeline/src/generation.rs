//! One immutable build of what decides over requests.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tollgate_models::Models;
use tollgate_plugins::{Hook, Plugin};

/// One immutable build of listeners' policy, routes, plugins and models. A request keeps the one it started with.
pub struct Generation {
    /// Counts up from 1; in every answer's `x-tollgate-generation`.
    pub number: u64,
    /// Policy by listener id.
    pub listeners: HashMap<String, Listener>,
    /// What applies to whom.
    pub routes: Box<dyn RouteTable>,
    /// All plugins, by id.
    pub plugins: Vec<Arc<Plugin>>,
    /// All models.
    pub models: Models,
    /// Cancelled when the generation's drain deadline has passed, so that what still runs on it ends, and when it is dropped.
    pub retired: CancellationToken,
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Nothing runs on it: who waits for its end need not wait for its deadline.
        self.retired.cancel();
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A listener's policy.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Asked in this order; the first that does not abstain decides.
    pub authenticators: Vec<Arc<Plugin>>,
}

/// What applies to a kind of request.
#[derive(Debug)]
pub struct Route {
    /// Its id in the config.
    pub id: String,
    /// Take part in this order.
    pub plugins: Vec<Arc<Plugin>>,
    /// The model that answers; `None` is the one that was asked for.
    pub model: Option<String>,
    /// The template's name for compose hooks.
    pub template: Option<String>,
    /// Most tokens of a reply.
    pub max_tokens: Option<u32>,
    /// Requests at once.
    pub concurrency: Option<Arc<Semaphore>>,
}

impl Route {
    /// The plugins with this hook, in order.
    pub(crate) fn with(&self, hook: Hook) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.iter().filter(move |plugin| plugin.has(hook))
    }
}

/// Which route a request takes: the most specific one.
pub trait RouteTable: Send + Sync {
    /// The route for these, if any.
    fn find(&self, dialect: &str, model: &str, roles: &[String], tenant: &str) -> Option<&Arc<Route>>;

    /// All routes.
    fn all(&self) -> &[Arc<Route>];
}

impl Generation {
    /// Plugin instances that a request on this listener may need at most.
    #[must_use]
    pub fn instances_for(&self, listener: &str) -> u32 {
        let authenticators = self.authenticators_of(listener);
        let longest = self.routes.all().iter().map(|route| route.plugins.len()).max().unwrap_or(0);
        u32::try_from(longest).unwrap_or(u32::MAX).saturating_add(authenticators)
    }

    /// Plugin instances that finding out who asks may need.
    pub(crate) fn authenticators_of(&self, listener: &str) -> u32 {
        let authenticators = self.listeners.get(listener).map_or(0, |listener| listener.authenticators.len());
        u32::try_from(authenticators).unwrap_or(u32::MAX)
    }
}
