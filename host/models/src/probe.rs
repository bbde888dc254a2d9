//! Tries a model file out before it becomes current: loads it, has it answer once or embed a text, and looks at what it computes. Meant for a
//! child process: a file that a native library ends the process over then ends the child. What no model needs is not done here:
//! no pool, no budget, no metrics.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tollgate_backend::{Backend, BackendError, Embedder};
use tollgate_backend_candle::{Candle, CandleEmbedder};
use tollgate_backend_llama::{KvCache, Llama, LlamaEmbedder};
use tollgate_config::Task;
use tollgate_domain::{ChatRequest, Message, Origin, Parameters, Role};
use tollgate_formats::FormatError;
use tollgate_formats::gguf::{self, Gguf};
use tollgate_inference::{Engine, Event, Generation, Job, Settings};

use crate::{memory, select};

/// Asked where nothing else is to be asked.
const PROMPT: &str = "Hello";
/// Tokens that prompt and reply may have together.
const CONTEXT_TOKENS: u32 = 512;
const STEP_ROWS: u32 = 64;
/// For a reply that does not end; whoever runs the child has a shorter one.
const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of a reply that an error tells.
const MAX_SHOWN: usize = 200;

/// What is to be tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// The file of a model in GGUF, or else the folder of an installed version.
    pub path: PathBuf,
    /// What it is, in the words of a manifest: `gguf`, `safetensors`, `onnx`, `lora-gguf` or `lora-peft`.
    pub format: String,
    /// What it is asked; `Hello` if absent.
    pub prompt: Option<String>,
    /// What its greedy reply has to begin with.
    pub expected: Option<String>,
    /// How long the reply may be, in tokens, from 1.
    pub max_tokens: u32,
}

/// A model was tried, and nothing is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What its file calls its family, where it was looked at.
    pub architecture: Option<String>,
    /// What it is there for, where it was tried.
    pub task: Option<Task>,
    /// How many tokens were decoded, those of the prompt included, or embedded; 0 for what was checked by its header only.
    pub tokens: u32,
    /// What it said; nothing, if it embeds.
    pub reply: String,
    /// How long loading took, in milliseconds.
    pub load_ms: u64,
    /// Bytes that it takes with a context of 512 tokens.
    pub memory_bytes: u64,
}

impl ProbeReport {
    fn of_header(architecture: Option<&str>) -> Self {
        let architecture = architecture.map(str::to_owned);
        ProbeReport { architecture, task: None, tokens: 0, reply: String::new(), load_ms: 0, memory_bytes: 0 }
    }
}

/// Tries a model. It takes as long as loading it does, and this process may not outlive it.
///
/// # Errors
/// It is damaged, cannot be loaded, computes what is not a number, or does not say what is expected. The text is for an operator.
pub fn probe(request: &ProbeRequest) -> Result<ProbeReport, String> {
    let report = match request.format.as_str() {
        "gguf" => try_gguf(request),
        "lora-gguf" => {
            let header = read(&request.path, gguf::check_adapter)?;
            Ok(ProbeReport::of_header(header.architecture()))
        }
        "safetensors" => try_folder(request),
        // Their headers were checked when they were installed, and nothing here runs them.
        "onnx" | "lora-peft" => Ok(ProbeReport::of_header(None)),
        other => Err(format!("a model of the format `{other}` cannot be tried")),
    }?;
    if report.tokens == 0 && request.expected.is_some() {
        return Err(format!(
            "its manifest has a known answer, and a model of this kind ({}) answers nothing here",
            request.format
        ));
    }
    Ok(report)
}

pub(crate) fn read(path: &Path, check: fn(&Gguf) -> Result<(), FormatError>) -> Result<Gguf, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let header = gguf::read(&mut BufReader::new(file)).and_then(|header| check(&header).map(|()| header));
    header.map_err(|error| format!("{}: {error}", path.display()))
}

/// Safetensors, where candle computes their type: others were checked by their headers when they were installed.
fn try_folder(request: &ProbeRequest) -> Result<ProbeReport, String> {
    let settings = tollgate_backend_candle::Settings {
        folder: request.path.clone(),
        context_tokens: Some(CONTEXT_TOKENS),
        sequences: 1,
        step_rows: STEP_ROWS,
        threads: None,
    };
    if CandleEmbedder::is_known(&settings.folder).map_err(|error| error.to_string())? {
        return embed_with(request, None, || Ok(Box::new(CandleEmbedder::load(&settings)?)));
    }
    if !tollgate_backend_candle::is_known(&settings.folder).map_err(|error| error.to_string())? {
        return Ok(ProbeReport::of_header(None));
    }
    decode_with(request, None, || Ok(Box::new(Candle::load(&settings)?)))
}

fn try_gguf(request: &ProbeRequest) -> Result<ProbeReport, String> {
    let header = read(&request.path, gguf::check_model)?;
    let settings = tollgate_backend_llama::Settings {
        path: request.path.clone(),
        mapped: false,
        context_tokens: Some(CONTEXT_TOKENS),
        sequences: 1,
        step_rows: STEP_ROWS,
        threads: None,
        apart: false,
        kv_cache: KvCache::F16,
        tuning: tollgate_backend_llama::Tuning::default(),
    };
    if header.is_embedder() {
        return embed_with(request, header.architecture(), || Ok(Box::new(LlamaEmbedder::load(&settings)?)));
    }
    decode_with(request, header.architecture(), || Ok(Box::new(Llama::load(&settings)?)))
}

/// Has a model embed a text, or rank it: it has no reply that could be known.
fn embed_with(
    request: &ProbeRequest,
    architecture: Option<&str>,
    load: impl FnOnce() -> Result<Box<dyn Embedder>, BackendError>,
) -> Result<ProbeReport, String> {
    if request.expected.is_some() {
        return Err("its manifest has a known answer, and a model that embeds texts or ranks them says nothing".to_owned());
    }
    let (began, before) = (Instant::now(), memory::resident().unwrap_or(0));
    let mut embedder = load().map_err(|error| error.to_string())?;
    let load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let tokens = select::warm_up_embedder(embedder.as_mut()).map_err(|error| error.to_string())?;
    let grown = memory::resident().unwrap_or(0).saturating_sub(before);
    let memory_bytes = embedder.memory().total().max(grown);
    let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    let task = Some(if embedder.ranks() { Task::Rerank } else { Task::Embed });
    Ok(ProbeReport { architecture: architecture.map(str::to_owned), task, tokens, reply: String::new(), load_ms, memory_bytes })
}

fn decode_with(
    request: &ProbeRequest,
    architecture: Option<&str>,
    load: impl FnOnce() -> Result<Box<dyn Backend>, BackendError>,
) -> Result<ProbeReport, String> {
    let (began, before) = (Instant::now(), memory::resident().unwrap_or(0));
    let backend = load().map_err(|error| error.to_string())?;
    let load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let grown = memory::resident().unwrap_or(0).saturating_sub(before);
    let memory_bytes = backend.memory().total().max(grown);
    let (reply, tokens) = answer(backend, request)?;
    if let Some(expected) = &request.expected
        && !reply.starts_with(expected.as_str())
    {
        return Err(format!("it says {}, and the known answer in its manifest is {}", shown(&reply), shown(expected)));
    }
    let task = Some(Task::Generate);
    Ok(ProbeReport { architecture: architecture.map(str::to_owned), task, tokens, reply, load_ms, memory_bytes })
}

/// The greedy reply, through the engine that serves: its template, its sampler, which fails on a row that is not of numbers.
/// Answers how many tokens were decoded, too.
fn answer(backend: Box<dyn Backend>, request: &ProbeRequest) -> Result<(String, u32), String> {
    let settings = Settings { step_rows: STEP_ROWS, prefix_cache: false, deadline: DEADLINE, ..Settings::default() };
    let engine = Engine::start("probe", backend, settings).map_err(|error| error.to_string())?;
    let prompt = request.prompt.as_deref().unwrap_or(PROMPT);
    let parameters = Parameters { temperature: Some(0.0), max_tokens: Some(request.max_tokens.max(1)), ..Parameters::default() };
    let chat = ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, prompt)],
        tools: Vec::new(),
        parameters: parameters.clone(),
        format: None,
        model: engine.name().to_owned(),
        fields: Vec::new(),
    };
    let job = Job {
        prompt: engine.codec().encode(&chat, None).map_err(|error| error.to_string())?,
        parameters,
        adapter: None,
        ticket: engine.reserve("probe").map_err(|error| error.to_string())?,
        weight: 1,
        deadline: Instant::now() + DEADLINE,
        is_whole: true,
    };
    let generation = engine.submit(job).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let heard = runtime.block_on(listen(generation));
    engine.shutdown(Instant::now());
    heard
}

async fn listen(mut generation: Generation) -> Result<(String, u32), String> {
    let mut reply = String::new();
    while let Some(event) = generation.next().await {
        match event {
            Event::Piece(piece) => reply.push_str(piece.as_str()),
            Event::Logprobs(_) => {}
            Event::Done(finish) => return Ok((reply, finish.usage.total())),
            Event::Failed(error) => return Err(error.to_string()),
        }
    }
    Err("its reply ended without an end".to_owned())
}

/// The beginning of a text in quotes, with nothing in it that a terminal would obey.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model/demo.gguf")
    }

    fn request(path: PathBuf) -> ProbeRequest {
        ProbeRequest { path, format: "gguf".to_owned(), prompt: None, expected: None, max_tokens: 16 }
    }

    #[test]
    fn a_model_answers_and_its_answer_is_known() {
        let first = probe(&request(demo())).unwrap();
        assert_eq!(first.architecture.as_deref(), Some("llama"));
        assert!(first.tokens > 1 && !first.reply.is_empty() && first.memory_bytes > 1 << 20, "{first:?}");
        let known = ProbeRequest { expected: Some(first.reply.clone()), ..request(demo()) };
        assert_eq!(probe(&known).unwrap().reply, first.reply);
        let other = ProbeRequest { expected: Some("Something else".to_owned()), ..request(demo()) };
        let error = probe(&other).unwrap_err();
        assert!(error.starts_with("it says \"") && error.contains("Something else"), "{error}");
    }

    #[test]
    fn weights_that_are_not_numbers_are_found() {
        // With q8_0 what is computed is rounded to bytes on its way, which are always numbers.
        let demo = demo().with_file_name("demo-f16.gguf");
        let mut bytes = std::fs::read(&demo).unwrap();
        let header = read(&demo, gguf::check_model).unwrap();
        let at = usize::try_from(header.data_offset + header.tensor("output_norm.weight").unwrap().offset).unwrap();
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        let error = probe(&request(path)).unwrap_err();
        assert!(error.contains("not a number"), "{error}");
    }

    #[test]
    fn what_is_no_model_is_named() {
        let readme = demo().with_file_name("README.md");
        for (request, words) in [
            (request(readme.clone()), "it is not GGUF"),
            (request(demo().with_file_name("missing.gguf")), "No such file"),
            (ProbeRequest { format: "lora-gguf".to_owned(), ..request(demo()) }, "demo.gguf: "),
            (ProbeRequest { format: "pickle".to_owned(), ..request(readme) }, "the format `pickle`"),
        ] {
            let error = probe(&request).unwrap_err();
            assert!(error.contains(words), "{error} should say {words}");
        }
    }

    #[test]
    fn other_types_are_checked_by_their_headers_only_and_broken_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let safetensors = ProbeRequest { format: "safetensors".to_owned(), ..request(folder.path().to_owned()) };
        let config = |text: &str| std::fs::write(folder.path().join("config.json"), text).unwrap();
        assert!(probe(&safetensors).unwrap_err().contains("config.json"));
        config(r#"{"model_type": "mamba"}"#);
        let report = probe(&safetensors).unwrap();
        assert_eq!((report.tokens, report.reply.as_str()), (0, ""));
        let error = probe(&ProbeRequest { expected: Some("Hi".to_owned()), ..safetensors.clone() }).unwrap_err();
        assert!(error.contains("a known answer"), "{error}");
        config(r#"{"model_type": "llama"}"#);
        assert!(probe(&safetensors).is_err(), "a llama without its numbers");
    }
}
