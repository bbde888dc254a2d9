//! The gateway's side of the build step: the cache, and the child process.

mod prune;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::build::{BuildFailure, BuildReport, BuildRequest, BuildStage};
use crate::{Artifact, CONTRACT_VERSION, MacKey, Spec};

/// Components are small; Python's are 18 MB.
const MAX_COMPONENT_BYTES: u64 = 128 << 20;
/// What the child may answer.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// What is read of a child's last words, and how many characters of them are told.
const MAX_WORDS_BYTES: u64 = 64 << 10;
const MAX_WORDS: usize = 400;
/// Seconds by the clock for a second of CPU time: beside busy models the child, which has low priority, gets little.
const CLOCK_FACTOR: u64 = 15;

/// Stands in place of a config in the name under which passed cases are noted: they are run again by another version.
const PASSED: &str = concat!("golden cases, ", env!("CARGO_PKG_VERSION"));

/// What a build may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildLimits {
    /// Writable memory of the child, in bytes.
    pub memory_bytes: u64,
    /// CPU time of the child, in seconds; by the clock it has fifteen times as long.
    pub time_s: u64,
}

/// Builds plugins, or finds what was built before.
#[derive(Debug, Clone)]
pub struct Builder {
    program: PathBuf,
    argument: &'static str,
    cache: PathBuf,
    key: MacKey,
    limits: BuildLimits,
    /// Who compiles: its version and settings are part of every digest.
    engine: String,
}

impl Builder {
    /// `program argument` is the build step: it reads a [`BuildRequest`] and answers with its result, both as JSON. `cache` is a
    /// directory that only this user may enter.
    ///
    /// # Errors
    /// The compiler's settings are not for this machine.
    pub fn new(
        program: PathBuf,
        argument: &'static str,
        cache: PathBuf,
        key: MacKey,
        limits: BuildLimits,
    ) -> Result<Self, BuildFailure> {
        let error = |error: wasmtime::Error| BuildFailure { stage: BuildStage::Process, reason: format!("{error:#}") };
        let engine = wasmtime::Engine::new(&crate::engine::config(crate::engine::Allocation::OnDemand)).map_err(error)?;
        let mut hasher = EngineHasher(Sha256::new());
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
        Ok(Builder { program, argument, cache, key, limits, engine: hex::encode(hasher.0.finalize()) })
    }

    /// The digest that a component and config have here, 64 hex digits.
    #[must_use]
    pub fn digest(&self, component: &[u8], config_json: &str) -> String {
        let mut hasher = Sha256::new();
        for part in [component, config_json.as_bytes(), self.engine.as_bytes(), CONTRACT_VERSION.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hex::encode(hasher.finalize())
    }

    /// Builds the component at `path` for `spec`, or finds it in the cache.
    ///
    /// # Errors
    /// What is wrong with it, by stage.
    pub async fn build(&self, path: &Path, spec: &Spec) -> Result<Artifact, BuildFailure> {
        let io = |error: std::io::Error| failure(BuildStage::Check, format!("{}: {error}", path.display()));
        let size = tokio::fs::metadata(path).await.map_err(io)?.len();
        if size > MAX_COMPONENT_BYTES {
            let reason = format!("{} has {size} bytes; {MAX_COMPONENT_BYTES} at most", path.display());
            return Err(failure(BuildStage::Check, reason));
        }
        let component = tokio::fs::read(path).await.map_err(io)?;
        // Digests and signatures over megabytes take milliseconds, which the async workers do not have (P-L8).
        let (builder, config_json) = (self.clone(), spec.config_json.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let digest = builder.digest(&component, &config_json);
            let out = builder.cache.join(format!("{digest}.plugin"));
            let found = builder.cached(&out, &digest);
            let functions = hex::encode(Sha256::digest(&component));
            let passed = builder.digest(&component, PASSED);
            (component, functions, passed, digest, out, found)
        });
        let panicked = |error: tokio::task::JoinError| failure(BuildStage::Process, error.to_string());
        let (component, functions, passed, digest, out, found) = looked.await.map_err(panicked)?;
        if let Some(found) = found {
            return Ok(found);
        }
        // The child reads the very bytes whose digest was taken, whatever happens to the file meanwhile.
        let copy = self.cache.join(format!("{digest}.{}.wasm", std::process::id()));
        let process = |error: std::io::Error| failure(BuildStage::Process, format!("{}: {error}", copy.display()));
        tokio::fs::write(&copy, &component).await.map_err(process)?;
        let request = BuildRequest {
            id: spec.id.clone(),
            component: copy.clone(),
            digest: digest.clone(),
            config_json: spec.config_json.clone(),
            grants: spec.grants.clone(),
            out: out.clone(),
            incremental: self.cache.join(format!("{functions}.functions")),
            quick: self.cache.join(format!("{functions}.quick")),
            passed: self.cache.join(format!("{passed}.cases")),
            key: hex::encode(self.key.bytes()),
            time_s: self.limits.time_s,
        };
        let built = self.run(&request).await;
        // A copy left behind costs space until the cache is cleared, nothing more.
        let _ = tokio::fs::remove_file(&copy).await;
        let report = built?;
        let snapshot = report.snapshot;
        tracing::info!(
            plugin = spec.id,
            version = report.manifest.version,
            digest,
            snapshot,
            init_ms = report.init_ms,
            compile_ms = report.compile_ms,
            cases = report.cases,
            cases_ms = report.cases_ms,
            "plugin built"
        );
        let (key, cache) = (self.key.clone(), self.cache.clone());
        let read = tokio::task::spawn_blocking(move || {
            prune::prune(&cache);
            Artifact::read(&out, &key, &digest)
        });
        read.await.map_err(panicked)?.map_err(|error| failure(BuildStage::Process, error.to_string()))
    }

    fn cached(&self, path: &Path, digest: &str) -> Option<Artifact> {
        match Artifact::read(path, &self.key, digest) {
            Ok(artifact) => {
                prune::touch(path);
                Some(artifact)
            }
            Err(crate::ArtifactError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "compiled plugin refused; building it again");
                None
            }
        }
    }

    async fn run(&self, request: &BuildRequest) -> Result<BuildReport, BuildFailure> {
        let process = |error: std::io::Error| failure(BuildStage::Process, error.to_string());
        let mut child = Command::new(&self.program)
            .arg(self.argument)
            .arg(self.limits.memory_bytes.to_string())
            .arg(self.limits.time_s.to_string())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(process)?;
        let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let talk = async {
            let text = serde_json::to_vec(request)?;
            if let Some(stdin) = &mut stdin {
                // A child that ends before it has read all of it says why, or its status does.
                let _ = stdin.write_all(&text).await;
            }
            drop(stdin);
            let (answer, words) = tokio::try_join!(read(stdout, MAX_ANSWER_BYTES), read(stderr, MAX_WORDS_BYTES))?;
            Ok::<_, std::io::Error>((answer, words, child.wait().await?))
        };
        // The child's CPU limit ends it first; the clock is for one that waits.
        let deadline = Duration::from_secs(self.limits.time_s.saturating_mul(CLOCK_FACTOR));
        match tokio::time::timeout(deadline, talk).await {
            Err(_) => Err(failure(BuildStage::Process, format!("the build took more than {} s", deadline.as_secs()))),
            Ok(Err(error)) => Err(process(error)),
            Ok(Ok((answer, words, status))) => serde_json::from_slice::<Result<BuildReport, BuildFailure>>(&answer)
                .unwrap_or_else(|_| {
                    let (memory, time) = (self.limits.memory_bytes >> 20, self.limits.time_s);
                    let limits = format!("it may use {memory} MiB and {time} s (`[build]` in tollgate.toml)");
                    let reason = format!("the build ended without an answer ({status}): {limits}{}", last_words(&words));
                    Err(failure(BuildStage::Process, reason))
                }),
        }
    }
}

/// All that a pipe brings, up to `limit` bytes; then it is closed.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// What a child said before it ended, on one line.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split_whitespace().take_while(|word| *word != "stack").collect::<Vec<_>>().join(" ");
    if words.is_empty() { words } else { format!("; it said: {}", words.chars().take(MAX_WORDS).collect::<String>()) }
}

fn failure(stage: BuildStage, reason: String) -> BuildFailure {
    BuildFailure { stage, reason }
}

/// wasmtime tells its version and settings as a `Hash`; its own hasher has no fixed result.
struct EngineHasher(Sha256);

impl std::hash::Hasher for EngineHasher {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
