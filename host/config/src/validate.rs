//! The second stage: what the files say of each other, and what no single field can say. Pure functions over parsed data.

mod adapter;
mod remote;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::config::{Config, Object};
use crate::files::Kind;
use crate::listener::Listener;
use crate::model::{Backend, Model, Quantization};
use crate::plugin::OnFailure;
use crate::problem::{Problem, suggest};
use crate::route::Route;
use crate::source::Source;
use crate::telemetry::Endpoint;
use crate::text::Id;

/// Every id and alias, to its model's id. Reports names that two models have.
pub(crate) fn names(models: &BTreeMap<Id, Object<Model>>, problems: &mut Vec<Problem>) -> BTreeMap<String, Id> {
    let mut names: BTreeMap<String, Id> = models.keys().map(|id| (id.as_str().to_owned(), id.clone())).collect();
    // An id has no colon, so that these are nobody's ids.
    names.extend(models.iter().filter_map(|(id, model)| Some((adapter::qualified(id.as_str(), model)?, id.clone()))));
    for (id, model) in models {
        for (index, alias) in model.aliases.iter().enumerate() {
            if let Some(holder) = names.get(alias.as_str()) {
                let message = format!("`{alias}` is already a name of models/{holder}.toml");
                problems.push(model.problem(&format!("aliases[{index}]"), message, "choose another alias"));
            } else {
                names.insert(alias.as_str().to_owned(), id.clone());
            }
        }
    }
    names
}

/// Reports what is wrong between the objects. References to a kind in `broken`, some files of which could not be parsed, are
/// left for the next time.
pub(crate) fn validate(config: &Config, broken: &BTreeSet<Kind>, problems: &mut Vec<Problem>) {
    let with_egress = !problems.iter().any(|problem| problem.file == "tollgate.toml");
    for listener in config.listeners.values() {
        self::listener(listener, problems);
    }
    addresses(config, problems);
    telemetry(config, problems);
    for model in config.models.values() {
        self::model(model, problems);
        task::task(model, problems);
        remote::provider(config, model, with_egress, problems);
    }
    if !broken.contains(&Kind::Plugin) {
        plugin_references(config, problems);
    }
    if !broken.contains(&Kind::Model) {
        model_references(config, problems);
        remote::fallbacks(config, problems);
        for model in config.models.values() {
            adapter::base(config, model, problems);
            task::others(config, model, problems);
        }
        ties(config, problems);
    }
    if config.listeners.is_empty() && !broken.contains(&Kind::Listener) {
        let cure = "add a file, such as the default directory's `listeners/main.toml`";
        problems.push(Problem::new("listeners", None, "", "there is no listener, so nobody could connect", cure));
    }
}

/// A collector's key does not go over the network in the clear.
fn telemetry(config: &Config, problems: &mut Vec<Problem>) {
    let telemetry = &config.settings.telemetry;
    let is_open = |endpoint: &Endpoint| !endpoint.is_tls() && !endpoint.is_loopback();
    if telemetry.headers_file.is_some() && telemetry.endpoint.as_ref().is_some_and(is_open) {
        let message = "`telemetry.headers_file` would be sent unencrypted over the network";
        let cure = "use an `https` endpoint, or a collector on loopback";
        problems.push(Problem::new("tollgate.toml", None, "telemetry.headers_file", message, cure));
    }
}

/// What is allowed and probably not meant.
pub(crate) fn warnings(config: &Config) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if config.routes.is_empty() {
        let cure = "add a file; with `plugins = []` alone it takes every request";
        warnings.push(Problem::new("routes", None, "", "there is no route: every request will be refused", cure));
    }
    if config.models.is_empty() {
        let cure = "add a file, such as the default directory's `models/demo.toml`";
        warnings.push(Problem::new("models", None, "", "there is no model: every request will be refused", cure));
    }
    warnings
}

fn listener(listener: &Object<Listener>, problems: &mut Vec<Problem>) {
    if !listener.plain_http {
        return;
    }
    if listener.tls.is_some() {
        let message = "`tls` has no effect with `plain_http = true`";
        problems.push(listener.problem("tls", message, "remove one of the two"));
    }
    if let Some(address) = listener.address.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
        let message = format!("`plain_http` is for loopback addresses, and {address} is none");
        problems.push(listener.problem("plain_http", message, "remove `plain_http`, or listen on 127.0.0.1 or [::1]"));
    }
}

/// Reports addresses that two sockets would want.
fn addresses(config: &Config, problems: &mut Vec<Problem>) {
    let mut taken: Vec<(SocketAddr, &str)> = Vec::new();
    for listener in config.listeners.values() {
        for address in listener.address.iter() {
            if let Some((other, file)) = taken.iter().find(|(other, _)| collide(*other, *address)) {
                let message = format!("{address} cannot be listened on beside {other} of {file}");
                problems.push(listener.problem("address", message, "choose another port or address"));
            }
            taken.push((*address, listener.file.as_str()));
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    // Port 0 takes a free one each time.
    a.port() != 0 && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && same_ip
}

fn model(model: &Object<Model>, problems: &mut Vec<Problem>) {
    let backend = model.backend;
    quantization(model, problems);
    if adapter::adapter(model, problems) || backend == Backend::Provider {
        return;
    }
    if backend != Backend::Llama && model.is_written("kv_cache") {
        let message = format!("`kv_cache` has no effect with the backend `{backend}`");
        problems.push(model.problem("kv_cache", message, "remove it"));
    }
    if backend == Backend::Scripted {
        if model.artifact.is_some() {
            let message = "`artifact` has no effect with the backend `scripted`";
            problems.push(model.problem("artifact", message, "remove it, or set `backend = \"llama\"`"));
        }
        return;
    }
    if model.artifact.is_none() {
        let what = if backend == Backend::Llama { "`builtin:demo`, or the path of a GGUF file" } else { "the path of a folder" };
        let message = format!("`artifact` is missing, which the backend `{backend}` needs");
        problems.push(model.problem("artifact", message, format!("add it: `installed:NAME`, {what}")));
    }
    if model.scripted.is_some() {
        let message = format!("`scripted` has no effect with the backend `{backend}`");
        problems.push(model.problem("scripted", message, "remove it, or set `backend = \"scripted\"`"));
    }
    if model.deterministic && backend != Backend::Llama {
        let message = format!("`deterministic` has no effect with the backend `{backend}`");
        problems.push(model.problem("deterministic", message, "remove it"));
    }
}

/// Reports what is to become of safetensors that are not installed for this model.
fn quantization(model: &Object<Model>, problems: &mut Vec<Problem>) {
    let is_installed = matches!(model.artifact, Some(Source::Installed(_)));
    if model.quantization.is_some() && (model.backend != Backend::Llama || model.base.is_some() || !is_installed) {
        let message = "`quantization` has an effect only on what is installed for the backend `llama`, adapters excepted";
        problems.push(model.problem("quantization", message, "remove it, or set `artifact = \"installed:NAME\"`"));
    } else if model.quantization == Some(Quantization::Off) {
        let message = "`quantization = \"none\"` leaves safetensors as they are, which the backend `llama` does not run";
        problems.push(model.problem("quantization", message, "set another, or remove it and set `backend = \"candle\"`"));
    }
}

fn plugin_references(config: &Config, problems: &mut Vec<Problem>) {
    for listener in config.listeners.values() {
        plugin_list(config, listener, "authenticators", &listener.authenticators, problems);
        for (index, id) in listener.authenticators.iter().enumerate() {
            let Some(plugin) = config.plugins.get(id) else { continue };
            if plugin.on_failure == OnFailure::Skip {
                let path = format!("authenticators[{index}]");
                let message = format!("the authenticator `{id}` has `on_failure = \"skip\"`, but authenticators always refuse");
                let cure = format!("set `on_failure = \"refuse\"` in {}", plugin.file);
                problems.push(listener.problem(&path, message, cure));
            }
        }
    }
    for route in config.routes.values() {
        plugin_list(config, route, "plugins", &route.plugins, problems);
    }
}

/// Reports plugins in the list at `field` that do not exist, or are named twice.
fn plugin_list<T>(config: &Config, object: &Object<T>, field: &str, list: &[Id], problems: &mut Vec<Problem>) {
    let mut seen: BTreeSet<&Id> = BTreeSet::new();
    for (index, id) in list.iter().enumerate() {
        let path = format!("{field}[{index}]");
        if !config.plugins.contains_key(id) {
            let cure = suggest(id.as_str(), config.plugins.keys().map(Id::as_str), || {
                format!("add plugins/{id}.toml, or remove the name")
            });
            problems.push(object.problem(&path, format!("there is no plugin `{id}`"), cure));
        }
        if !seen.insert(id) {
            problems.push(object.problem(&path, format!("the plugin `{id}` is named twice"), "remove one of the two"));
        }
    }
}

fn model_references(config: &Config, problems: &mut Vec<Problem>) {
    let names = || {
        config
            .models
            .iter()
            .flat_map(|(id, model)| std::iter::once(id.as_str()).chain(model.aliases.iter().map(|alias| alias.as_str())))
    };
    for route in config.routes.values() {
        if let Some(model) = &route.model
            && config.model(model.as_str()).is_none()
        {
            let cure = suggest(model.as_str(), names(), || format!("add models/{model}.toml, or name another model"));
            problems.push(route.problem("model", format!("there is no model `{model}`"), cure));
        }
        // A name of the route's own needs a model behind it.
        if let Some(asked) = &route.matches.model
            && route.model.is_none()
            && config.model(asked.as_str()).is_none()
        {
            let message = format!("there is no model `{asked}`, and the route names none that answers in its place");
            let cure = suggest(asked.as_str(), names(), || "set `model` to the model that answers".to_owned());
            problems.push(route.problem("match.model", message, cure));
        }
    }
}

/// Reports routes with equal conditions. A model's names count as one.
fn ties(config: &Config, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<_, &Object<Route>> = BTreeMap::new();
    for route in config.routes.values() {
        let condition = &route.matches;
        let model = condition.model.as_ref().map(|name| config.canonical_model(name.as_str()));
        let key = (condition.dialect, model, condition.role.as_ref(), condition.tenant.as_ref());
        if let Some(first) = seen.get(&key) {
            let message = format!("the route matches the same requests as {}", first.file);
            problems.push(route.problem("match", message, "change the condition of one of the two, or remove it"));
        } else {
            seen.insert(key, route);
        }
    }
}
