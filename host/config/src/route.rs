//! `routes/ID.toml`: which requests get which plugins, limits and model, and the choice between routes.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Object};
use crate::listener::Dialect;
use crate::text::{Id, Name};

/// A route: a condition, and what holds for the requests that meet it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The plugins of the route, in order. Required even where it is empty, so that a file cut short while it is being
    /// written is refused instead of serving requests past their filters.
    #[schemars(length(max = 32))]
    pub plugins: Vec<Id>,
    /// Which requests the route is for. Without it, all of them.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// The model that answers, by id or alias. Default: the one that was asked for.
    #[serde(default)]
    pub model: Option<Name>,
    /// The template that compose plugins should use; it wins over one that the request names.
    #[serde(default)]
    pub template: Option<Name>,
    /// Limits of the route.
    #[serde(default)]
    pub limits: RouteLimits,
}

/// Which requests a route is for: those that meet every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The protocol that the request came by.
    pub dialect: Option<Dialect>,
    /// A model's id or alias, which means the model under all its names; or a name that only this route gives a meaning,
    /// and then the route's `model` says what answers.
    pub model: Option<Name>,
    /// A role that the principal holds, among others.
    pub role: Option<Name>,
    /// The principal's tenant.
    pub tenant: Option<Name>,
}

/// Limits of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteLimits {
    /// Tokens of a reply at most, 1 to 131072; a request that asks for more gets this many.
    #[schemars(range(min = 1, max = 131_072))]
    pub max_tokens: Option<u32>,
    /// Requests at once on the route, 1 to 10000; more are answered 429.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
}

impl Match {
    /// How specific the condition is: the pattern of fields that are set, tenant before role before model before dialect.
    /// So a route for one tenant goes before any route that names no tenant, whatever else that one sets.
    pub(crate) fn specificity(&self) -> [bool; 4] {
        [self.tenant.is_some(), self.role.is_some(), self.model.is_some(), self.dialect.is_some()]
    }
}

impl Config {
    /// The route of a request: of those whose conditions it meets, the one with the most specific pattern of set fields,
    /// compared in the order tenant, role, model, dialect. `None` refuses the request.
    ///
    /// `model` is the name that was asked for; a model's id and aliases are one and the same here, so that no alias leads
    /// past a route. Two routes with equal conditions are a config error. That leaves one tie: routes for different roles
    /// that one principal holds both of. The route whose id sorts first wins it.
    #[must_use]
    pub fn most_specific(&self, dialect: Dialect, model: &str, roles: &[String], tenant: &str) -> Option<&Object<Route>> {
        let asked = self.canonical_model(model);
        let is_met = |route: &&Object<Route>| {
            let condition = &route.matches;
            condition.dialect.is_none_or(|wanted| wanted == dialect)
                && condition.model.as_ref().is_none_or(|wanted| self.canonical_model(wanted.as_str()) == asked)
                && condition.role.as_ref().is_none_or(|wanted| roles.iter().any(|held| held == wanted.as_str()))
                && condition.tenant.as_ref().is_none_or(|wanted| wanted.as_str() == tenant)
        };
        // Routes are visited by id, and `min_by_key` keeps the first of equals.
        self.routes.values().filter(is_met).min_by_key(|route| Reverse(route.matches.specificity()))
    }
}
