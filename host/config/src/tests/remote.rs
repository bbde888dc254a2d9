//! Models behind providers, and models that answer in the place of others.

use super::{lines, loaded, refused};

const GRANTED: (&str, &str) = ("tollgate.toml", "[models]\negress = [\"api.example.com:443\", \"10.0.0.5:11434\"]\n");

fn provider(endpoint: &str, more: &str) -> String {
    format!("backend = \"provider\"\n{more}\n[provider]\nkind = \"openai\"\nendpoint = \"{endpoint}\"\nmodel = \"big\"\n")
}

#[test]
fn a_provider_needs_two_yeses() {
    let remote = provider("https://api.example.com/v1", "");
    let config = loaded(&[GRANTED, ("models/remote.toml", remote.as_str())]);
    let spec = config.models["remote"].provider.clone().unwrap();
    assert_eq!((spec.connect_s, spec.first_token_s, spec.idle_s, spec.tries), (5, 60, 30, 2));
    assert_eq!(
        lines(&refused(&[("models/remote.toml", remote.as_str())]).0),
        ["models/remote.toml:5: nothing may be sent to api.example.com:443: tollgate.toml does not grant it; \
          add the line `egress = [\"api.example.com:443\"]` under `[models]` in tollgate.toml, or the entry to that line"]
    );
    let other = refused(&[GRANTED, ("models/remote.toml", provider("https://api.example.com:8443", "").as_str())]);
    assert!(other.to_string().contains("api.example.com:8443"), "a grant is of one port: {other}");
}

#[test]
fn prompts_go_unencrypted_only_where_that_was_said() {
    loaded(&[GRANTED, ("models/remote.toml", provider("http://10.0.0.5:11434", "").as_str())]);
    let granted = ("tollgate.toml", "[models]\negress = [\"ollama:11434\"]\n");
    let problems = refused(&[granted, ("models/remote.toml", provider("http://ollama:11434", "").as_str())]);
    assert_eq!(problems.0[0].path, "provider.endpoint", "{problems}");
    let said = provider("http://ollama:11434", "") + "insecure = true\n";
    loaded(&[granted, ("models/remote.toml", said.as_str())]);
}

#[test]
fn what_a_provider_cannot_have_is_refused() {
    for (more, path) in [
        ("artifact = \"a.gguf\"", "artifact"),
        ("context_tokens = 4096", "context_tokens"),
        ("threads = 2", "threads"),
        ("pin = true", "pin"),
        ("keep_alive_s = 1", "keep_alive_s"),
        ("deterministic = true", "deterministic"),
        ("kv_cache = \"q8_0\"", "kv_cache"),
    ] {
        let problems = refused(&[GRANTED, ("models/remote.toml", provider("https://api.example.com", more).as_str())]);
        assert_eq!(problems.0.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), [path], "{problems}");
    }
    let without = refused(&[("models/remote.toml", "backend = \"provider\"\n")]);
    assert_eq!(without.0[0].path, "provider", "{without}");
    let local = provider("https://api.example.com", "").replace("\"provider\"", "\"scripted\"");
    assert_eq!(refused(&[GRANTED, ("models/local.toml", local.as_str())]).0[0].path, "provider");
    let with_key = provider("https://key:secret@api.example.com", "");
    let problems = refused(&[GRANTED, ("models/remote.toml", with_key.as_str())]);
    assert!(problems.0[0].path == "provider.endpoint" && !problems.to_string().contains("secret"), "{problems}");
}

#[test]
fn fallbacks_are_models_and_never_lead_back() {
    let model = |fallback: &str| format!("backend = \"scripted\"\nfallback = [{fallback}]\n");
    let config =
        loaded(&[("models/a.toml", model("\"b\", \"default\"").as_str()), ("models/b.toml", model("\"demo\"").as_str())]);
    assert_eq!(config.models["a"].fallback.len(), 2);
    let unknown = refused(&[("models/a.toml", model("\"dem\"").as_str())]);
    assert_eq!(lines(&unknown.0), ["models/a.toml:2: there is no model `dem`; did you mean `demo`?"]);
    let own = refused(&[("models/a.toml", model("\"a\"").as_str())]);
    assert_eq!(own.0[0].message, "`fallback` leads back to `a` itself");
    let ring = refused(&[
        ("models/a.toml", model("\"b\"").as_str()),
        ("models/b.toml", model("\"c\"").as_str()),
        ("models/c.toml", model("\"demo\", \"a\"").as_str()),
        ("models/d.toml", model("\"a\"").as_str()),
    ]);
    assert_eq!(
        ring.0.iter().map(|problem| problem.file.as_str()).collect::<Vec<_>>(),
        ["models/a.toml", "models/b.toml", "models/c.toml"]
    );
}
