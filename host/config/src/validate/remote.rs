//! What is checked of models that other servers answer for, and of those that answer in the place of others.

use std::collections::BTreeSet;

use crate::config::{Config, Object};
use crate::model::{Backend, Model};
use crate::problem::{Problem, suggest};
use crate::provider::HostPort;
use crate::text::Id;

/// Reports what is wrong with the provider of `model`, or that it has one and no use for it. `with_egress`: what `tollgate.toml`
/// grants is known.
pub(super) fn provider(config: &Config, model: &Object<Model>, with_egress: bool, problems: &mut Vec<Problem>) {
    let is_remote = model.backend == Backend::Provider;
    let provider = match &model.provider {
        None if is_remote => {
            let message = "`provider` is missing, which the backend `provider` needs";
            problems.push(model.problem("provider", message, "add `[provider]` with `kind`, `endpoint` and `model`"));
            return;
        }
        None => return,
        Some(_) if !is_remote => {
            let message = format!("`provider` has no effect with the backend `{}`", model.backend);
            problems.push(model.problem("provider", message, "remove it, or set `backend = \"provider\"`"));
            return;
        }
        Some(provider) => provider,
    };
    idle_fields(model, problems);
    let endpoint = &provider.endpoint;
    if provider.ca.is_some() && !endpoint.is_tls() {
        let message = "`provider.ca` has no effect with an `http` endpoint";
        problems.push(model.problem("provider.ca", message, "remove it, or use an `https` endpoint"));
    }
    if !endpoint.is_tls() && !endpoint.is_private() && !provider.insecure {
        let message = "prompts and key would go unencrypted to a host that is no address of loopback or a private range";
        let cure = "use an `https` endpoint, or set `insecure = true` under `[provider]` where the network itself is trusted";
        problems.push(model.problem("provider.endpoint", message, cure));
    }
    let to = HostPort::of(endpoint);
    if with_egress && !config.settings.models.egress.contains(&to) {
        let message = format!("nothing may be sent to {to}: tollgate.toml does not grant it");
        let cure = format!("add the line `egress = [\"{to}\"]` under `[models]` in tollgate.toml, or the entry to that line");
        problems.push(model.problem("provider.endpoint", message, cure));
    }
}

/// Reports fields that are about a model in memory.
fn idle_fields(model: &Object<Model>, problems: &mut Vec<Problem>) {
    let fields = [
        ("artifact", model.artifact.is_some()),
        ("context_tokens", model.context_tokens.is_some()),
        ("threads", model.threads.is_some()),
        ("kv_cache", model.is_written("kv_cache")),
        ("deterministic", model.deterministic),
        ("pin", model.pin),
        ("keep_alive_s", model.keep_alive_s.is_some()),
        ("scripted", model.scripted.is_some()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, is_set)| *is_set) {
        let message = format!("`{field}` has no effect with the backend `provider`");
        problems.push(model.problem(field, message, "remove it"));
    }
}

/// Reports fallbacks that are no models, or lead back to where they began.
pub(super) fn fallbacks(config: &Config, problems: &mut Vec<Problem>) {
    for model in config.models.values() {
        for (index, name) in model.fallback.iter().enumerate() {
            if config.model(name.as_str()).is_none() {
                let names = config.models.keys().map(Id::as_str);
                let cure = suggest(name.as_str(), names, || format!("add models/{name}.toml, or name another model"));
                problems.push(model.problem(&format!("fallback[{index}]"), format!("there is no model `{name}`"), cure));
            }
        }
        if leads_back(config, model) {
            let message = format!("`fallback` leads back to `{}` itself", model.id);
            problems.push(model.problem("fallback", message, "remove one of the models on the way"));
        }
    }
}

/// Whether `model` is among its own fallbacks, or theirs.
fn leads_back(config: &Config, model: &Object<Model>) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![model];
    while let Some(next) = open.pop() {
        for name in &next.fallback {
            let Some(found) = config.model(name.as_str()) else { continue };
            if found.id == model.id {
                return true;
            }
            // Each is looked at once, so that this ends.
            if seen.insert(&found.id) {
                open.push(found);
            }
        }
    }
    false
}
