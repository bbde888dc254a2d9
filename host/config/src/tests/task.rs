//! Models that do not generate.

use super::{loaded, refused};
use crate::Task;

#[test]
fn a_model_generates_where_nothing_else_is_said() {
    let embedder = "backend = \"candle\"\nartifact = \"minilm\"\ntask = \"embed\"\n";
    let config = loaded(&[("models/embedder.toml", embedder)]);
    assert_eq!((config.models["demo"].task, config.models["embedder"].task), (Task::Generate, Task::Embed));
}

#[test]
fn what_a_backend_does_not_do_is_refused() {
    for (content, path) in [
        ("backend = \"scripted\"\ntask = \"embed\"\n", "task"),
        ("backend = \"onnx\"\nartifact = \"a\"\ntask = \"rerank\"\n", "task"),
        ("backend = \"candle\"\nartifact = \"a\"\ntask = \"rerank\"\n", "task"),
        ("backend = \"llama\"\nartifact = \"a\"\ntask = \"chat\"\n", "task"),
        ("backend = \"llama\"\nartifact = \"a\"\ntask = \"rerank\"\ncontext_tokens = 512\n", "context_tokens"),
        ("backend = \"llama\"\nartifact = \"a\"\ntask = \"embed\"\ndeterministic = true\n", "deterministic"),
        ("backend = \"llama\"\nartifact = \"a\"\ntask = \"embed\"\nfallback = [\"demo\"]\n", "fallback[0]"),
        ("base = \"demo\"\nbackend = \"llama\"\nartifact = \"a\"\ntask = \"embed\"\n", "task"),
    ] {
        let problems = refused(&[("models/other.toml", content)]);
        assert_eq!(problems.0.first().map(|problem| problem.path.as_str()), Some(path), "{content}: {problems}");
    }
    let embedder = "backend = \"llama\"\nartifact = \"a\"\ntask = \"embed\"\n";
    let adapter = "base = \"embedder\"\nbackend = \"llama\"\nartifact = \"b\"\n";
    let problems = refused(&[("models/embedder.toml", embedder), ("models/pirate.toml", adapter)]);
    assert_eq!(problems.0.first().map(|problem| problem.path.as_str()), Some("base"), "{problems}");
}
