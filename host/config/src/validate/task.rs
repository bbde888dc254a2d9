//! What is checked of models that turn texts into vectors, or rank documents.

use crate::config::{Config, Object};
use crate::model::{Backend, Model, Task};
use crate::problem::Problem;

/// Reports a task that the backend of `model` does not do, and what has no effect with it.
pub(super) fn task(model: &Object<Model>, problems: &mut Vec<Problem>) {
    let (task, backend) = (model.task, model.backend);
    // An adapter has none of its own; that one is set is reported with the rest that it cannot have.
    if task == Task::Generate || model.base.is_some() {
        return;
    }
    let does = match backend {
        Backend::Llama => true,
        Backend::Candle | Backend::Onnx => task == Task::Embed,
        Backend::Provider | Backend::Scripted => false,
    };
    if !does {
        let message = format!("the backend `{backend}` does not {task}");
        let cure = if task == Task::Rerank {
            "remove `task`, or set `backend = \"llama\"`"
        } else {
            "remove `task`, or set `backend` to `llama`, `candle` or `onnx`"
        };
        problems.push(model.problem("task", message, cure));
        return;
    }
    for field in ["context_tokens", "deterministic", "kv_cache"] {
        if model.is_written(field) {
            let message = format!("`{field}` has no effect with `task = \"{task}\"`");
            problems.push(model.problem(field, message, "remove it"));
        }
    }
}

/// Reports other models that `model` needs, and that are for another task.
pub(super) fn others(config: &Config, model: &Object<Model>, problems: &mut Vec<Problem>) {
    if let Some(base) = model.base.as_ref().and_then(|name| config.models.get(name))
        && base.task != Task::Generate
    {
        let message = format!("`{}` is there to {}, and adapters are for models that generate", base.id, base.task);
        problems.push(model.problem("base", message, "name a model that generates"));
    }
    for (index, name) in model.fallback.iter().enumerate() {
        let Some(other) = config.model(name.as_str()).filter(|other| other.task != model.task) else { continue };
        let message = format!("`{name}` is there to {}, and cannot answer for one that is there to {}", other.task, model.task);
        problems.push(model.problem(&format!("fallback[{index}]"), message, "name a model with the same `task`"));
    }
}
