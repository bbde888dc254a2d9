//! Adapters and their bases.

use super::{lines, loaded, refused};

const ADAPTER: &str = "base = \"demo\"\nbackend = \"llama\"\nartifact = \"pirate.gguf\"\n";

#[test]
fn an_adapter_answers_by_its_own_names_and_by_its_bases() {
    let more = format!("{ADAPTER}scale = 0.5\naliases = [\"captain\"]\n");
    let route = "plugins = []\nmodel = \"demo:pirate\"\n[match]\nmodel = \"sea\"\n";
    let config = loaded(&[("models/pirate.toml", &more), ("routes/sea.toml", route)]);
    for name in ["pirate", "captain", "demo:pirate"] {
        assert_eq!(config.model(name).map(|model| model.id.as_str()), Some("pirate"), "{name}");
    }
    assert_eq!(config.model("demo").map(|model| model.id.as_str()), Some("demo"));
    assert_eq!(config.models["pirate"].scale, Some(0.5));
}

#[test]
fn every_backend_that_runs_models_here_runs_adapters() {
    for backend in ["candle", "onnx"] {
        let base = format!("backend = \"{backend}\"\nartifact = \"folder\"\n");
        let adapter = format!("base = \"own\"\nbackend = \"{backend}\"\nartifact = \"adapter\"\n");
        let config = loaded(&[("models/own.toml", &base), ("models/pirate.toml", &adapter)]);
        assert_eq!(config.model("own:pirate").map(|model| model.id.as_str()), Some("pirate"), "{backend}");
    }
}

#[test]
fn what_an_adapter_cannot_have_is_refused() {
    for (content, path) in [
        ("base = \"demo\"\nbackend = \"llama\"\n", "artifact"),
        ("base = \"demo\"\nbackend = \"candle\"\nartifact = \"a\"\n", "backend"),
        ("base = \"demo\"\nbackend = \"scripted\"\nartifact = \"a\"\n", "backend"),
        ("base = \"dmo\"\nbackend = \"llama\"\nartifact = \"a\"\n", "base"),
        ("base = \"pirate\"\nbackend = \"llama\"\nartifact = \"a\"\n", "base"),
        ("base = \"demo\"\nbackend = \"llama\"\nartifact = \"a\"\nscale = 4.5\n", "scale"),
        ("base = \"demo\"\nbackend = \"llama\"\nartifact = \"a\"\nsequences = 16\n", "sequences"),
        ("base = \"demo\"\nbackend = \"llama\"\nartifact = \"a\"\npin = false\n", "pin"),
        ("base = \"demo\"\nbackend = \"llama\"\nartifact = \"a\"\naliases = [\"demo:pirate\"]\n", "aliases[0]"),
        ("backend = \"llama\"\nartifact = \"a\"\nscale = 1.0\n", "scale"),
    ] {
        let problems = refused(&[("models/pirate.toml", content)]);
        assert_eq!(problems.0.first().map(|problem| problem.path.as_str()), Some(path), "{content}: {problems}");
    }
    let problems = refused(&[("models/pirate.toml", "base = \"dmo\"\nbackend = \"llama\"\nartifact = \"a\"\n")]);
    assert_eq!(lines(&problems.0), ["models/pirate.toml:1: there is no model `dmo`; did you mean `demo`?"]);
}
