//! The config's routes with what they name in place of names.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_config::{Config, Dialect};
use tollgate_pipeline::{Route, RouteTable};

/// Finds routes by the config's own rule.
pub(crate) struct Table {
    config: Config,
    by_id: HashMap<String, Arc<Route>>,
    all: Vec<Arc<Route>>,
}

impl Table {
    pub(crate) fn new(config: Config, routes: Vec<Arc<Route>>) -> Self {
        let by_id = routes.iter().map(|route| (route.id.clone(), Arc::clone(route))).collect();
        Table { config, by_id, all: routes }
    }
}

impl RouteTable for Table {
    fn find(&self, dialect: &str, model: &str, roles: &[String], tenant: &str) -> Option<&Arc<Route>> {
        let dialect = [Dialect::OpenAi].into_iter().find(|known| known.as_str() == dialect)?;
        let route = self.config.most_specific(dialect, model, roles, tenant)?;
        self.by_id.get(route.id.as_str())
    }

    fn all(&self) -> &[Arc<Route>] {
        &self.all
    }
}
