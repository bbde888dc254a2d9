//! The peers: `llama-server`, built whole from the source package of llama-cpp-python, and LiteLLM's proxy from PyPI. Both are kept
//! outside the checkout. A peer that cannot be had fails its rows, with what is missing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::load::Target;
use crate::process::{Process, free_port};

/// llama-cpp-python, whose source package carries llama.cpp with its server.
const LLAMA_PACKAGE: &str = "0.3.36";
const LITELLM_PACKAGE: &str = "1.106.2";
/// What llama-cpp-sys-2 asks of llama.cpp's build under our Cargo config, as far as it concerns speed; [`same_flags`] checks it.
const FLAGS: [&str; 10] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_SERVER=ON",
];
/// Both load a model of a gigabyte, or a few hundred Python modules, on a machine that may be busy.
const START: Duration = Duration::from_secs(180);

/// `$XDG_CACHE_HOME/tollgate-bench`, where peers and models are kept.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).context("HOME is not set")?;
    let folder = cache.join("tollgate-bench");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// llama.cpp's own server.
#[derive(Debug, Clone)]
pub(crate) struct LlamaServer {
    program: PathBuf,
    /// Its version, and that of the library in the gateway.
    pub(crate) versions: String,
}

impl LlamaServer {
    /// Finds it in the cache, or fetches and builds it.
    pub(crate) async fn ensure(root: &Path) -> anyhow::Result<Self> {
        let place = folder()?.join(format!("llama-server-{LLAMA_PACKAGE}"));
        let program = place.join("build/bin/llama-server");
        if !program.exists() {
            build(root, &place).await.context(
                "llama-server, the peer, cannot be built: this needs python3 with pip, cmake, a C++ compiler, and PyPI \
                 (or a mirror that pip is set to use)",
            )?;
        }
        let ours = our_build(root)?;
        same_flags(&ours, &place.join("build/CMakeCache.txt"))?;
        let home = cache_entry(&std::fs::read_to_string(&ours)?, "CMAKE_HOME_DIRECTORY").context("CMAKE_HOME_DIRECTORY")?;
        let (theirs, our) = (version(&place.join("llama.cpp"))?, version(Path::new(&home))?);
        let versions = format!(
            "llama-server {theirs} (from llama-cpp-python {LLAMA_PACKAGE}) against {our} (from llama-cpp-sys-2 {})",
            home.rsplit('/').find_map(|part| part.strip_prefix("llama-cpp-sys-2-")).unwrap_or("of unknown version")
        );
        eprintln!("   {versions}");
        Ok(LlamaServer { program, versions })
    }

    /// Starts it with `model` and waits until it is ready.
    pub(crate) async fn start(&self, model: &Path, setting: Setting, logs: &Path) -> anyhow::Result<(Process, Target)> {
        self.start_at(free_port()?, model, setting, logs).await
    }

    /// The same on a port that it had before.
    pub(crate) async fn start_at(
        &self,
        port: u16,
        model: &Path,
        setting: Setting,
        logs: &Path,
    ) -> anyhow::Result<(Process, Target)> {
        let mut command = Command::new(&self.program);
        command.arg("--model").arg(model).args(self.arguments(setting)).args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        let mut process = Process::spawn("llama-server", &mut command, &logs.join("llama-server.log"))?;
        let target = Target::plain("llama-server", port, "model");
        process.until(START, || is_up(&target, "/health")).await?;
        Ok((process, target))
    }

    /// How it is started, but for the model and the address.
    pub(crate) fn arguments(&self, setting: Setting) -> Vec<String> {
        let threads = setting.threads.to_string();
        let (slots, context) = (setting.sequences.to_string(), setting.context_tokens.to_string());
        let pairs =
            [("--threads", threads.clone()), ("--threads-batch", threads), ("--parallel", slots), ("--ctx-size", context)];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

/// What a model's server is told, here and there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Threads that decode.
    pub(crate) threads: usize,
    /// Sequences at once.
    pub(crate) sequences: usize,
    /// Tokens of all sequences together.
    pub(crate) context_tokens: usize,
}

async fn build(root: &Path, place: &Path) -> anyhow::Result<()> {
    eprintln!("   building llama-server in {} (once; about 10 minutes on 2 cores)", place.display());
    std::fs::create_dir_all(place)?;
    let package = format!("llama-cpp-python=={LLAMA_PACKAGE}");
    let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python", &package, "--dest", "."];
    step(place, "python3", &download).await?;
    let archive = format!("llama_cpp_python-{LLAMA_PACKAGE}.tar.gz");
    let vendor = format!("llama_cpp_python-{LLAMA_PACKAGE}/vendor/llama.cpp");
    step(place, "tar", &["-xzf", &archive, "--strip-components=2", &vendor]).await?;
    // What our build leaves out of the processor's instructions: AMX, which GCC before 12.4 sets up wrongly.
    let ours = std::fs::read_to_string(our_build(root)?)?;
    let flags = cache_entry(&ours, "CMAKE_CXX_FLAGS").unwrap_or_default();
    let without = flags.split(' ').filter(|flag| flag.starts_with("-mno-")).collect::<Vec<_>>().join(" ");
    let without = format!("-DCMAKE_CXX_FLAGS={without}");
    let made = ["-S", "llama.cpp", "-B", "build", &without];
    step(place, "cmake", &[made.as_slice(), FLAGS.as_slice()].concat()).await?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    step(place, "cmake", &["--build", "build", "--target", "llama-server", "--parallel", &jobs]).await
}

/// Runs a command of a set-up to its end, with its output in a file.
async fn step(place: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    eprintln!("   {program} {}", arguments.join(" "));
    let log = place.join("setup.log");
    let out = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
    let mut command = Command::new(program);
    command.current_dir(place).args(arguments).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).kill_on_drop(true);
    let status = command.status().await.with_context(|| program.to_owned())?;
    ensure!(status.success(), "`{program} {}` failed ({status}); {} has its output", arguments.join(" "), log.display());
    Ok(())
}

/// The newest build of llama-cpp-sys-2 in this tree.
fn our_build(root: &Path) -> anyhow::Result<PathBuf> {
    let builds = root.join("target/release/build");
    let entries = std::fs::read_dir(&builds).with_context(|| builds.display().to_string())?;
    let caches = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("llama-cpp-sys-2-"));
    let caches = caches.map(|entry| entry.path().join("out/build/CMakeCache.txt")).filter(|path| path.exists());
    let newest = caches.max_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    newest.context("llama.cpp has not been built here: run `make build`")
}

/// A value of a `CMakeCache.txt`.
fn cache_entry(cache: &str, name: &str) -> Option<String> {
    let line = cache.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_once('=').map(|(_, value)| value.trim().to_owned())
}

/// Fails where a switch of GGML that both builds know is set otherwise in one.
fn same_flags(ours: &Path, theirs: &Path) -> anyhow::Result<()> {
    let (ours, theirs) = (std::fs::read_to_string(ours)?, std::fs::read_to_string(theirs)?);
    let names = ours.lines().filter(|line| line.starts_with("GGML_") && line.contains(":BOOL="));
    for name in names.filter_map(|line| line.split(':').next()) {
        let (our, their) = (cache_entry(&ours, name), cache_entry(&theirs, name));
        ensure!(their.is_none() || our == their, "{name} is {our:?} in the gateway and {their:?} in llama-server");
    }
    Ok(())
}

/// llama.cpp's and GGML's version, from their build files.
fn version(llama: &Path) -> anyhow::Result<String> {
    let read = |file: &str, name: &str| -> anyhow::Result<String> {
        let path = llama.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let part = |part: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("set({name}_VERSION_{part} ")));
            line.map_or("?", |rest| rest.trim_end_matches(')')).to_owned()
        };
        Ok(format!("{}.{}.{}", part("MAJOR"), part("MINOR"), part("PATCH")))
    };
    Ok(format!("llama.cpp {} with ggml {}", read("CMakeLists.txt", "LLAMA")?, read("ggml/CMakeLists.txt", "GGML")?))
}

async fn is_up(target: &Target, path: &str) -> bool {
    matches!(target.get(path).await, Ok(answer) if answer.status == http::StatusCode::OK)
}

/// LiteLLM's proxy.
#[derive(Debug, Clone)]
pub(crate) struct LiteLlm {
    program: PathBuf,
    /// Its version.
    pub(crate) version: &'static str,
}

impl LiteLlm {
    /// Finds it in the cache, or installs it.
    pub(crate) async fn ensure() -> anyhow::Result<Self> {
        let place = folder()?.join(format!("litellm-{LITELLM_PACKAGE}"));
        let (program, done) = (place.join("bin/litellm"), place.join("installed"));
        if !done.exists() {
            eprintln!("   installing LiteLLM in {} (once)", place.display());
            let install = async {
                std::fs::create_dir_all(&place)?;
                step(&place, "python3", &["-m", "venv", "."]).await?;
                step(&place, "bin/python", &["-m", "pip", "install", "--quiet", &format!("litellm[proxy]=={LITELLM_PACKAGE}")])
                    .await
            };
            let needs = "LiteLLM's proxy, the peer, cannot be installed: this needs python3 with venv, and PyPI (or a mirror that pip is set to use)";
            install.await.context(needs)?;
            std::fs::write(&done, LITELLM_PACKAGE)?;
        }
        Ok(LiteLlm { program, version: LITELLM_PACKAGE })
    }

    /// Starts it in front of the server on `upstream_port` and waits until it is ready.
    pub(crate) async fn start(&self, upstream_port: u16, logs: &Path) -> anyhow::Result<(Process, Target)> {
        let (port, config) = (free_port()?, logs.join("litellm.yaml"));
        let upstream = format!("{{model: openai/model, api_base: 'http://127.0.0.1:{upstream_port}/v1', api_key: none}}");
        std::fs::write(&config, format!("model_list:\n  - model_name: model\n    litellm_params: {upstream}\n"))?;
        let mut command = Command::new(&self.program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--telemetry", "False", "--config"]).arg(&config);
        // It would fetch a list of prices else.
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").current_dir(logs);
        // Only this machine reaches it, and keys are not what is measured.
        command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
        let mut process = Process::spawn("LiteLLM", &mut command, &logs.join("litellm.log"))?;
        let target = Target::plain("LiteLLM", port, "model");
        process.until(START, || is_up(&target, "/health/liveliness")).await?;
        Ok((process, target))
    }
}
