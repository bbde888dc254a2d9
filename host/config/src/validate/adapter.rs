//! Adapters: models with a base, from which they have everything but their artifact, their names and how to sample.

use crate::config::{Config, Object};
use crate::model::{Backend, Model};
use crate::problem::{Problem, suggest};

/// What the base decides for its adapters as well.
const OF_THE_BASE: [&str; 13] = [
    "task",
    "context_tokens",
    "sequences",
    "threads",
    "step_tokens",
    "queue",
    "deadline_s",
    "prefix_cache",
    "kv_cache",
    "deterministic",
    "pin",
    "keep_alive_s",
    "scripted",
];

/// The name under which clients ask for an adapter by its base: `BASE:ID`.
pub(crate) fn qualified(id: &str, model: &Model) -> Option<String> {
    model.base.as_ref().map(|base| format!("{base}:{id}"))
}

/// Reports what is wrong with an adapter in itself; whether it is one.
pub(super) fn adapter(model: &Object<Model>, problems: &mut Vec<Problem>) -> bool {
    let backend = model.backend;
    if model.base.is_none() {
        if model.scale.is_some() {
            let message = "`scale` has no effect on a model that is no adapter";
            problems.push(model.problem("scale", message, "remove it, or name the adapter's `base`"));
        }
        return false;
    }
    if backend == Backend::Provider {
        let message = format!("the backend `{backend}` runs no adapters");
        problems.push(model.problem("base", message, "remove `base`, or set the backend of a model that runs here"));
    }
    if model.artifact.is_none() {
        let message = "`artifact` is missing, which an adapter needs";
        problems.push(model.problem(
            "artifact",
            message,
            "add it: `installed:NAME`, the path of a GGUF file with a LoRA adapter, or that of a PEFT folder",
        ));
    }
    for field in OF_THE_BASE.into_iter().filter(|field| model.is_written(field)) {
        let message = format!("`{field}` has no effect on an adapter: it shares its base's place in memory and its queue");
        problems.push(model.problem(field, message, "remove it, or set it in the base's file"));
    }
    true
}

/// Reports an adapter whose base is not there, or is none.
pub(super) fn base(config: &Config, model: &Object<Model>, problems: &mut Vec<Problem>) {
    let Some(name) = &model.base else { return };
    let Some(base) = config.models.get(name) else {
        let ids = config.models.iter().filter(|(id, other)| **id != model.id && other.base.is_none()).map(|(id, _)| id.as_str());
        let cure = suggest(name.as_str(), ids, || format!("add models/{name}.toml, or name another model by its id"));
        problems.push(model.problem("base", format!("there is no model `{name}`"), cure));
        return;
    };
    if base.base.is_some() {
        let message = format!("`{name}` is an adapter itself");
        problems.push(model.problem("base", message, "name the model that both are adapters of"));
    } else if base.backend != model.backend {
        let message = format!("the backend is `{}`, and that of the base `{name}` is `{}`", model.backend, base.backend);
        problems.push(model.problem("backend", message, format!("set `backend = \"{}\"`", base.backend)));
    }
}
