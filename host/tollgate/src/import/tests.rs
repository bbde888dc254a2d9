//! Whole imports: the files of older systems, what comes of them, and that the config takes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::plan::{self, Plan, Surroundings};
use super::reading::Input;
use super::report;
use super::weights::Place;

const MODELS_JSON: &str = r#"{
  "models": {
    "mistral-7b-instruct": {
      "type": "transformers",
      "path": "mistralai/Mistral-7B-Instruct-v0.2",
      "format": "safetensors",
      "device": "auto",
      "quantization": "4bit",
      "max_memory": "8GB"
    },
    "Llama-2-7B-Chat": {
      "type": "gguf",
      "path": "./models/llama-2-7b-chat.Q4_K_M.gguf",
      "quantization": "4bit",
      "context_length": 4096,
      "threads": 8
    }
  }
}"#;

const MODEL_YAML: &str = "
model:
  name: \"deepseek-r1-1.5b\"
  path: ./models/deepseek-r1-1.5b-q4.gguf
  type: llama
inference:
  n_ctx: 2048
  n_batch: 512
  n_threads: 4
  temperature: 0.3
  top_p: 0.9
  top_k: 40
  repeat_penalty: 1.1
prompts:
  system: |
    You help people decide.
    It's \"brief\".
  decision_template: |
    Situation: {situation}
    Context: {context}
    1. Situation
    2. Options
    3. Recommendation
    4. Next steps
";

const DOT_ENV: &str = "
# The model
MODEL_PATH=./models/other.gguf
MODEL_CONTEXT_LENGTH=4096
MODEL_TEMPERATURE=0.3
MODEL_TOP_P=0.9
export MODEL_THREADS=\"6\" # cores
API_HOST=0.0.0.0
API_PORT=8000
LOG_LEVEL=INFO
DEFAULT_MODEL=mistral-7b-instruct
API_KEY_HEADER=X-API-Key
REDIS_URL=redis://:hunter2@localhost:6379
REDIS_PASSWORD=hunter2
GEMINI_API_KEY='hunter2'
RATE_LIMIT_PER_MINUTE=60
AI_PROVIDER=ollama
AI_BASE_URL=http://user:hunter2@10.0.0.1:11434
AI_MODEL_NAME=gemma3:4b
AI_TEMPERATURE=0.7
AI_TIMEOUT=30
SOMETHING_ELSE=hunter2
";

fn input(name: &str, text: &str) -> Input {
    Input { path: name.into(), text: text.to_owned() }
}

fn nowhere(_: &Input, _: &str) -> Option<Place> {
    None
}

fn nobody(_: &str) -> Option<String> {
    None
}

fn planned(inputs: &[(&str, &str)]) -> anyhow::Result<Plan> {
    let inputs = inputs.iter().map(|(name, text)| input(name, text)).collect::<Vec<_>>();
    plan::build(&inputs, &Surroundings { locate: &nowhere, holder: &nobody })
}

/// A config directory that is right, without a model.
fn directory() -> TempDir {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "listeners/main.toml", "authenticators = [\"auth\"]\n");
    write(dir.path(), "plugins/auth.toml", "component = \"builtin:auth-keys\"\n");
    write(dir.path(), "routes/chat.toml", "plugins = []\n");
    dir
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The config with the plan's files in it, as the gateway reads it.
fn loaded(plan: &Plan) -> tollgate_config::Config {
    let dir = directory();
    for file in &plan.files {
        write(dir.path(), &file.path, &file.toml);
        // What only the operator can say yes to.
        if let Some(grant) = file.toml.lines().find_map(|line| Some(&line[line.find("egress = [")?..])) {
            write(dir.path(), "tollgate.toml", &format!("[models]\n{grant}\n"));
        }
    }
    tollgate_config::load(dir.path()).unwrap_or_else(|problems| panic!("{problems}\n{:#?}", plan.files))
}

fn dropped<'a>(plan: &'a Plan, key: &str) -> &'a plan::Dropped {
    plan.dropped.iter().find(|line| line.key == key).unwrap_or_else(|| panic!("{key} in {:#?}", plan.dropped))
}

fn artifact(config: &tollgate_config::Config, id: &str) -> String {
    config.models[id].artifact.as_ref().unwrap().to_string()
}

#[test]
fn models_json_becomes_a_file_per_model() {
    let plan = planned(&[("models.json", MODELS_JSON)]).unwrap();
    let config = loaded(&plan);
    assert_eq!(config.models.len(), 2);
    assert_eq!(artifact(&config, "mistral-7b-instruct"), "installed:mistral-7b-instruct");
    let mistral = plan.files.iter().find(|file| file.path == "models/mistral-7b-instruct.toml").unwrap();
    assert!(
        mistral
            .toml
            .contains("# install it first: tollgate model pull mistralai/Mistral-7B-Instruct-v0.2 --name mistral-7b-instruct"),
        "{}",
        mistral.toml
    );
    assert!(mistral.toml.contains("quantization = \"q4_k_m\""), "{}", mistral.toml);
    assert!(dropped(&plan, "models.mistral-7b-instruct.max_memory").instead.contains("7629"));
    assert_eq!(config.models["mistral-7b-instruct"].quantization, Some(tollgate_config::Quantization::Q4KM));
    assert!(plan.kept.iter().any(|line| line.from == "models.mistral-7b-instruct.quantization"), "{:#?}", plan.kept);

    let llama = config.model("Llama-2-7B-Chat").unwrap();
    assert_eq!(llama.id.as_str(), "llama-2-7b-chat");
    assert_eq!((llama.context_tokens, llama.threads), (Some(4096), Some(8)));
    assert_eq!(artifact(&config, "llama-2-7b-chat"), "models/llama-2-7b-chat.Q4_K_M.gguf");
    assert!(dropped(&plan, "models.Llama-2-7B-Chat.quantization").why.contains("already"));
}

#[test]
fn model_yaml_becomes_a_model_and_prompts_to_paste() {
    let plan = planned(&[("config/model.yaml", MODEL_YAML)]).unwrap();
    let config = loaded(&plan);
    let model = config.model("deepseek-r1-1.5b").unwrap();
    assert_eq!((model.context_tokens, model.threads, model.step_tokens), (Some(2048), Some(4), 512));
    let defaults = &model.defaults;
    assert_eq!((defaults.temperature, defaults.top_p), (Some(0.3), Some(0.9)));
    assert_eq!((defaults.top_k, defaults.repeat_penalty), (Some(40), Some(1.1)));
    assert_eq!(plan.paste.len(), 2);
    for paste in &plan.paste {
        let dir = directory();
        write(dir.path(), &paste.into, &format!("component = \"builtin:template-jinja\"\n{}", paste.text));
        let config = tollgate_config::load(dir.path()).unwrap_or_else(|problems| panic!("{problems}\n{}", paste.text));
        assert!(config.plugins.contains_key("template-jinja"));
    }
    let text = report::told(&plan);
    assert!(text.contains("Situation: {{ message }}\nContext: {{ fields.context }}"), "{text}");
    assert!(text.contains("It's \"brief\"."), "{text}");
}

#[test]
fn dot_env_alone_is_a_model_named_after_its_file() {
    let plan = planned(&[(".env", DOT_ENV)]).unwrap();
    let config = loaded(&plan);
    let model = config.model("other").unwrap();
    assert_eq!((model.context_tokens, model.threads, model.defaults.top_p), (Some(4096), Some(6), Some(0.9)));
    assert!(dropped(&plan, "REDIS_PASSWORD").why.starts_with("is a secret"));
    assert!(dropped(&plan, "GEMINI_API_KEY").instead.contains("[provider]"));
    assert!(dropped(&plan, "AI_BASE_URL").why.contains("holds a user"));
    assert!(dropped(&plan, "AI_MODEL_NAME").instead.contains("tollgate model pull ollama:gemma3:4b"));
    assert!(dropped(&plan, "LOG_LEVEL").instead.contains("level = \"info\""));
    assert!(dropped(&plan, "DEFAULT_MODEL").instead.contains("--default-model mistral-7b-instruct"));
    assert!(dropped(&plan, "SOMETHING_ELSE").why.contains("no setting"));
    assert!(!report::told(&plan).contains("hunter2"));
    assert!(!report::value(&plan, &[]).to_string().contains("hunter2"));
}

#[test]
fn a_provider_in_dot_env_becomes_a_model_and_a_line_to_paste() {
    let text =
        "AI_PROVIDER=ollama\nAI_BASE_URL=http://10.0.0.1:11434\nAI_MODEL_NAME=gemma3:4b\nAI_TEMPERATURE=0.7\nAI_TIMEOUT=30\n";
    let plan = planned(&[(".env", text)]).unwrap();
    assert!(plan.dropped.is_empty(), "{:?}", plan.dropped);
    let dir = directory();
    for file in &plan.files {
        write(dir.path(), &file.path, &file.toml);
    }
    let refused = tollgate_config::load(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("egress = [\"10.0.0.1:11434\"]"), "an import grants nothing: {refused}");
    assert_eq!((plan.paste.len(), plan.paste[0].into.as_str()), (1, "tollgate.toml"));
    write(dir.path(), "tollgate.toml", &plan.paste[0].text);
    let config = tollgate_config::load(dir.path()).unwrap_or_else(|problems| panic!("{problems}\n{:#?}", plan.files));
    let model = config.model("gemma3:4b").unwrap();
    let provider = model.provider.as_ref().unwrap();
    assert_eq!((model.id.as_str(), model.deadline_s, model.defaults.temperature), ("gemma3-4b", 30, Some(0.7)));
    assert_eq!((provider.endpoint.to_string().as_str(), provider.model.as_str()), ("http://10.0.0.1:11434", "gemma3:4b"));

    let text = "AI_PROVIDER=gemini\nAI_MODEL_NAME=gemini-2.0-flash\nGEMINI_API_KEY=hunter2\n";
    let plan = planned(&[(".env", text)]).unwrap();
    let file = &plan.files[0];
    assert!(file.toml.contains("key_file = \"gemini-2.0-flash.key\"") && !file.toml.contains("hunter2"), "{}", file.toml);
    assert!(file.toml.contains("kind = \"openai\"") && plan.paste[0].text.contains("googleapis.com:443"), "{}", file.toml);
}

#[test]
fn model_files_go_before_dot_env_in_any_order() {
    for order in [[(".env", DOT_ENV), ("model.yaml", MODEL_YAML)], [("model.yaml", MODEL_YAML), (".env", DOT_ENV)]] {
        let plan = planned(&order).unwrap();
        let config = loaded(&plan);
        assert_eq!(config.models.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["deepseek-r1-1.5b"]);
        assert_eq!(config.models["deepseek-r1-1.5b"].context_tokens, Some(2048));
        assert_eq!(artifact(&config, "deepseek-r1-1.5b"), "models/deepseek-r1-1.5b-q4.gguf");
        for key in ["MODEL_PATH", "MODEL_CONTEXT_LENGTH", "MODEL_THREADS"] {
            assert!(dropped(&plan, key).why.contains("model.yaml"), "{key}");
        }
        assert!(!plan.dropped.iter().any(|line| line.key == "MODEL_TEMPERATURE"), "both say the same");
    }
}

#[test]
fn dot_env_fills_in_what_the_only_model_leaves_open() {
    let json = r#"{"models": {"a": {"path": "/srv/a.gguf", "threads": 2}}}"#;
    let plan = planned(&[(".env", "MODEL_THREADS=4\nMODEL_TOP_P=0.5\n"), ("models.json", json)]).unwrap();
    let config = loaded(&plan);
    assert_eq!((config.models["a"].threads, config.models["a"].defaults.top_p), (Some(2), Some(0.5)));

    let json = r#"{"models": {"a": {"path": "/srv/a.gguf"}, "b": {"path": "/srv/b.gguf"}}}"#;
    let plan = planned(&[("models.json", json), (".env", "MODEL_THREADS=4\n")]).unwrap();
    assert!(dropped(&plan, "MODEL_THREADS").why.contains("does not name"));
    let plan = planned(&[("models.json", json), (".env", "MODEL_THREADS=4\nMODEL_PATH=/srv/b.gguf\n")]).unwrap();
    let config = loaded(&plan);
    assert_eq!((config.models.len(), config.models["b"].threads), (2, Some(4)));
}

#[test]
fn what_is_out_of_range_is_left_out_with_the_range() {
    let yaml =
        "model: {name: a, path: a.gguf}\ninference: {n_ctx: 64, n_threads: -1, temperature: 3, top_p: high, n_gpu_layers: 35}\n";
    let plan = planned(&[("model.yaml", yaml)]).unwrap();
    loaded(&plan);
    assert_eq!(dropped(&plan, "inference.n_ctx").why, "is 64, but `context_tokens` may be 128 to 1048576");
    assert_eq!(dropped(&plan, "inference.n_threads").why, "is -1, but `threads` may be 1 to 512");
    assert_eq!(dropped(&plan, "inference.temperature").why, "is 3.0, but `temperature` may be 0 to 2");
    assert!(dropped(&plan, "inference.top_p").why.starts_with("is not a number"));
    assert!(dropped(&plan, "inference.n_gpu_layers").why.contains("no setting"));
}

#[test]
fn names_that_clash_get_ids_of_their_own() {
    let json =
        r#"{"models": {"A b": {"path": "x/y"}, "a-b": {"path": "x/y"}, "a-b-2": {"path": "x/y"}, "Demo": {"path": "x/y"}}}"#;
    let inputs = [input("models.json", json)];
    let holder = |name: &str| ["demo", "Demo"].contains(&name).then(|| "shipped".to_owned());
    let plan = plan::build(&inputs, &Surroundings { locate: &nowhere, holder: &holder }).unwrap();
    let config = loaded(&plan);
    let ids = config.models.keys().map(|id| id.as_str()).collect::<BTreeSet<_>>();
    assert_eq!(ids.len(), 4, "{ids:?}");
    assert!(!ids.contains("demo"), "{ids:?}");
    assert_eq!(dropped(&plan, "models.Demo").why, "is a name of another model");
    assert!(dropped(&plan, "models.A b").why.contains("characters"));
}

#[test]
fn paths_are_written_as_they_are_found() {
    let found = |_: &Input, path: &str| Some(Place::File(format!("/srv/app/{path}")));
    let plan =
        plan::build(&[input(".env", "MODEL_PATH=models/a.gguf\n")], &Surroundings { locate: &found, holder: &nobody }).unwrap();
    assert_eq!(artifact(&loaded(&plan), "a"), "/srv/app/models/a.gguf");
    assert!(!plan.files[0].toml.contains("not found"));
}

#[test]
fn files_that_are_not_what_they_are_called_are_refused_without_their_text() {
    let cases = [
        ("models.json", "{\"api_key\": \"hunter2\", }", "models.json: line 1, column"),
        ("models.json", "{\"api_key\": \"hunter2\"}", "models.json: there is no table `models`"),
        ("model.yaml", "password: hunter2\n", "model.yaml: there is none of `model`"),
        ("model.yaml", "password: [hunter2\nmodel: }", "cannot be read as YAML"),
        ("model.yaml", "model: {path: &a \"hunter2\", x: *hunter2}", "cannot be read as YAML"),
    ];
    for (name, text, expected) in cases {
        let error = format!("{:#}", planned(&[(name, text)]).unwrap_err());
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn aliases_of_yaml_cannot_unfold_without_bound() {
    let mut yaml = format!("a0: &a0 [{}]\n", "x".repeat(1_000));
    for level in 1..12 {
        let before = level - 1;
        yaml.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 8].join(", ")));
    }
    yaml.push_str("model: {name: a}\n");
    assert!(planned(&[("model.yaml", yaml.as_str())]).is_err());
}

#[test]
fn files_are_written_once_unless_forced() {
    let (dir, old) = (directory(), TempDir::new().unwrap());
    let old = old.path();
    write(old, ".env", "MODEL_PATH=models/a.gguf\nMODEL_THREADS=3\n");
    write(old, "models/a.gguf", "GGUF");
    let mut ask = crate::cli::Import {
        files: vec![old.join(".env")],
        config: dir.path().to_owned(),
        dry_run: true,
        force: false,
        json: false,
    };
    super::main(&ask).unwrap();
    let written = dir.path().join("models/a.toml");
    assert!(!written.exists(), "a dry run writes nothing");
    ask.dry_run = false;
    super::main(&ask).unwrap();
    let config = tollgate_config::load(dir.path()).unwrap();
    assert_eq!(artifact(&config, "a"), old.join("models/a.gguf").to_str().unwrap());

    fs::write(&written, "backend = \"scripted\"\n").unwrap();
    let error = super::main(&ask).unwrap_err().to_string();
    assert!(error.contains("models/a.toml") && error.contains("--force"), "{error}");
    assert_eq!(fs::read_to_string(&written).unwrap(), "backend = \"scripted\"\n");
    ask.force = true;
    super::main(&ask).unwrap();
    assert!(fs::read_to_string(&written).unwrap().contains("threads = 3"));
    assert_eq!(fs::read_dir(dir.path().join("models")).unwrap().count(), 1, "nothing is left beside it");
}

/// What every secret of the generated inputs holds, and under which keys.
const SECRET: &str = "hunter2";
const SECRETS: &[&str] = &["api_key", "REDIS_PASSWORD", "hfToken", "JWT_SECRET_KEY", "key"];
const QUOTES: &[&str] = &["", "'", "\""];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-10.0..10_000.0f64).prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
        "\\PC{0,70}".prop_map(Value::from),
        "[A-Za-z]{1,4}/[A-Za-z]{1,4}(\\.gguf)?".prop_map(Value::from),
        Just(json!([1, { "x": SECRET }])),
    ]
}

/// A key with its value: one of those that count, a secret, or anything.
fn entry(known: &'static [&'static str]) -> impl Strategy<Value = (String, Value)> {
    let secrets = prop::sample::select(SECRETS);
    let secret = prop_oneof![Just(json!(SECRET)), Just(json!({ "value": SECRET }))];
    prop_oneof![
        6 => (prop::sample::select(known), leaf()).prop_map(|(key, value)| (key.to_owned(), value)),
        1 => (secrets, secret).prop_map(|(key, value)| (key.to_owned(), value)),
        1 => ("\\PC{0,12}", leaf()),
    ]
}

fn table(known: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec(entry(known), 0..10).prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>()))
}

const OF_MODELS: &[&str] =
    &["type", "path", "format", "device", "quantization", "max_memory", "context_length", "threads", "temperature"];
const OF_YAML: &[&str] =
    &["name", "path", "type", "n_ctx", "n_batch", "n_threads", "temperature", "top_p", "top_k", "system", "decision_template"];
const OF_ENV: &[&str] = &["MODEL_PATH", "MODEL_CONTEXT_LENGTH", "MODEL_THREADS", "MODEL_TOP_P", "LOG_LEVEL", "AI_MODEL_NAME"];

fn hold(inputs: &[(&str, &str)]) -> Result<(), TestCaseError> {
    match planned(inputs) {
        Ok(plan) => {
            let told = format!("{}{}", report::told(&plan), report::value(&plan, &[]));
            prop_assert!(!told.contains(SECRET), "{told}");
            loaded(&plan);
        }
        Err(error) => {
            let told = format!("{error:#}");
            prop_assert!(!told.contains(SECRET), "{told}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_models_become_files_that_load_and_hold_no_secret(
        models in prop::collection::vec(("\\PC{0,12}|[aAbB -]{1,3}", table(OF_MODELS)), 0..5),
        sections in (table(OF_YAML), table(OF_YAML), table(OF_YAML)),
        variables in prop::collection::vec((entry(OF_ENV), prop::sample::select(QUOTES)), 0..10),
    ) {
        let models = models.into_iter().collect::<Map<_, _>>();
        let json = json!({ "models": models, "admin_token": SECRET }).to_string();
        // JSON is YAML.
        let yaml = json!({ "model": sections.0, "inference": sections.1, "prompts": sections.2, "secret": SECRET }).to_string();
        let mut env = format!("{SECRET} alone\n");
        // A list is no value of a variable, and the generated one holds a secret under no secret's name.
        for ((key, value), quote) in variables.into_iter().filter(|((_, value), _)| !value.is_array()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace(['\'', '"', '\n'], " ");
            env.push_str(&format!("{key}={quote}{value}{quote}\n"));
        }
        hold(&[("models.json", json.as_str())])?;
        hold(&[("model.yaml", yaml.as_str())])?;
        hold(&[(".env", env.as_str())])?;
        hold(&[(".env", env.as_str()), ("model.yaml", yaml.as_str()), ("models.json", json.as_str())])?;
    }

    #[test]
    fn any_text_is_told_of_without_a_panic(text in "(\\PC|[\n\t:{}\"'&*#=-]){0,200}") {
        for name in ["models.json", "model.yaml", ".env", "settings"] {
            hold(&[(name, text.as_str())])?;
        }
    }
}
