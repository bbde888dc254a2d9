//! Adapters (LoRA): models of the config that are a base and a file or folder, and share the base's place in memory.
//!
//! An adapter is a [`Slot`] of its own, with the key of its base in the pool: who leases it leases the base. It is put on the base's
//! engine with the first request after that was loaded. One that is replaced is another slot: replies that began with the old one
//! hold it, and the engine forgets it with the last of them.

mod peft;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tollgate_config::{Backend as Kind, Model as Spec, Object};
use tollgate_domain::Parameters;
use tollgate_formats::gguf::{self, Gguf, Tensor};
use tollgate_inference::{Adapter as Handle, AdapterError};

use super::{LeaseError, Slot, SlotStatus, lease_error};
use crate::artifact::{Header, Wanted};
use crate::lifecycle::Denied;
use crate::{Artifact, ArtifactError, Library, LoadError, Model, ModelMetrics, memory};

/// How long an adapter that could not be loaded is not tried again.
const REST: Duration = Duration::from_secs(5);
/// How long a load is waited for by the thread that began it; who asked for the adapter has a deadline of their own.
const LOAD_WAIT: Duration = Duration::from_secs(600);

/// What adapters a model takes.
#[derive(Debug, Clone)]
pub(super) enum Takes {
    /// None.
    Nothing,
    /// Those of the scripted backend.
    Words,
    /// LoRA for tensors such as these.
    Lora(Arc<Gguf>),
    /// LoRA in a folder, as PEFT writes it.
    Peft {
        /// The base's safetensors, where it has some.
        weights: Vec<PathBuf>,
        /// Bytes that each adapter takes beside its own.
        beside: u64,
    },
}

/// What a slot has that is an adapter.
#[derive(Debug)]
pub(super) struct Adapter {
    base: Arc<Slot>,
    library: Library,
    artifact: Artifact,
    /// SHA-256 of its file, or of the list of its files.
    digest: String,
    scale: f32,
    defaults: Parameters,
    state: Mutex<State>,
    /// Held by the one who has it loaded, until that is over.
    loading: Arc<tokio::sync::Mutex<()>>,
    leases: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    loaded: Option<Arc<Worn>>,
    failed: Option<(Instant, Arc<str>)>,
}

/// An adapter on its base's engine.
#[derive(Debug)]
pub(super) struct Worn {
    pub(super) handle: Handle,
    /// The base's digest and its own, with a `+` between them.
    pub(super) digest: String,
}

/// The other names of a model: its aliases, and `BASE:ID` for an adapter.
pub(super) fn aliases(spec: &Object<Spec>) -> Vec<String> {
    let qualified = spec.base.as_ref().map(|base| format!("{base}:{}", spec.id));
    spec.aliases.iter().map(|alias| alias.as_str().to_owned()).chain(qualified).collect()
}

impl Slot {
    /// Finds the adapter's file, reads its header and holds it to its base's. Nothing is loaded. Reads files: not for an async task.
    ///
    /// # Errors
    /// Its file cannot be used, is for another model, or can never fit into the budget beside its base.
    pub fn adapter(spec: &Object<Spec>, base: &Arc<Slot>, library: &Library, now_s: u64) -> Result<Arc<Self>, LoadError> {
        if matches!(base.takes, Takes::Nothing) {
            return Err(LoadError::Start(format!("its base `{}` cannot be used", base.id)));
        }
        let source = spec.artifact.as_ref().ok_or(LoadError::NoArtifact)?;
        let artifact = library.find(source, base.takes.wanted())?;
        let opened = library.open(&artifact)?;
        // What is looked at is what the digest is of, whatever becomes of its name.
        let bytes = base.takes.check(&opened.place_of(&artifact), &artifact.path)?;
        opened.confirm(&artifact)?;
        let digest = Arc::new(OnceLock::new());
        if let Some(of_base) = base.digest() {
            // It was made above.
            let _ = digest.set(format!("{of_base}+{}", opened.digest));
        }
        base.pool.change_adapters(base.key, bytes, true);
        let slot = Slot {
            pool: base.pool.clone(),
            key: base.key,
            id: spec.id.as_str().to_owned(),
            task: base.task,
            aliases: aliases(spec),
            fallback: spec.fallback.iter().map(|name| name.as_str().to_owned()).collect(),
            created_s: now_s,
            deadline: base.deadline,
            predicted: bytes,
            was_asked: AtomicBool::new(false),
            digest,
            metrics: Arc::new(ModelMetrics::new(spec.id.as_str(), spec.task)),
            takes: Takes::Nothing,
            adapter: Some(Arc::new(Adapter {
                base: Arc::clone(base),
                library: library.clone(),
                artifact,
                digest: opened.digest,
                scale: spec.scale.unwrap_or(1.0),
                defaults: crate::defaults(&spec.defaults),
                state: Mutex::default(),
                loading: Arc::default(),
                leases: AtomicU32::new(0),
            })),
        };
        match slot.pool.beyond_budget(slot.key) {
            Some(why) => Err(LoadError::Start(lease_error(&Denied { why, error: None }).to_string())),
            None => Ok(Arc::new(slot)),
        }
    }

    /// The id of the model that it is an adapter of, if it is one.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.adapter.as_ref().map(|adapter| adapter.base.id())
    }
}

impl Takes {
    /// What the model of `spec` takes.
    pub(super) fn of(spec: &Spec, artifact: Option<&Artifact>) -> Self {
        match (spec.backend, artifact.map(|artifact| &artifact.header)) {
            (Kind::Scripted, _) => Takes::Words,
            (Kind::Llama, Some(Header::Gguf(gguf))) => Takes::Lora(Arc::clone(gguf)),
            (Kind::Candle, Some(Header::Safetensors(_))) => {
                Takes::Peft { weights: artifact.map(Artifact::safetensors).unwrap_or_default(), beside: 0 }
            }
            // The graph with the adapter in it is another session, with weights of its own.
            (Kind::Onnx, Some(Header::Onnx { bytes, .. })) => {
                Takes::Peft { weights: Vec::new(), beside: memory::onnx_weights(*bytes) }
            }
            _ => Takes::Nothing,
        }
    }

    /// What its adapters are.
    fn wanted(&self) -> Wanted {
        if matches!(self, Takes::Peft { .. }) { Wanted::Peft } else { Wanted::Adapter }
    }

    /// Whether it takes the adapter in `file`, which people know as `name`; the bytes that this one takes.
    fn check(&self, file: &Path, name: &Path) -> Result<u64, LoadError> {
        if let Takes::Peft { weights, beside } = self {
            return Ok(peft::check(file, weights)?.saturating_add(*beside));
        }
        let io = |error| ArtifactError::Io { path: name.to_owned(), error };
        let file = File::open(file).map_err(io)?;
        let Takes::Lora(base) = self else { return Ok(file.metadata().map_err(io)?.len()) };
        let header = gguf::read(&mut BufReader::new(file)).and_then(|header| gguf::check_adapter(&header).map(|()| header));
        let header = header.map_err(|error| ArtifactError::Format { path: name.to_owned(), error })?;
        fits(base, &header).map_err(|why| LoadError::Start(format!("{}: {why}", name.display())))?;
        Ok(header.tensor_bytes())
    }
}

impl Adapter {
    /// What a request asks for, and the adapter's own way to decode where it does not say.
    pub(super) fn parameters(&self, asked: Parameters) -> Parameters {
        asked.or(&self.defaults)
    }

    /// Counts one who uses it.
    pub(super) fn taken(&self) {
        self.leases.fetch_add(1, Relaxed);
    }

    /// One who used it has left.
    pub(super) fn returned(&self) {
        self.leases.fetch_sub(1, Relaxed);
    }

    /// The adapter on `model`, its base as it is loaded now; it is put there first if need be.
    pub(super) async fn on(self: &Arc<Self>, model: &Arc<Model>, deadline: Instant) -> Result<Arc<Worn>, LeaseError> {
        if let Some(worn) = self.worn(model) {
            return Ok(worn);
        }
        let one = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.loading).lock_owned()).await;
        let one = one.map_err(|_| LeaseError::Late)?;
        if let Some(worn) = self.worn(model) {
            return Ok(worn);
        }
        self.rests()?;
        let (own, model) = (Arc::clone(self), Arc::clone(model));
        // It is loaded to the end, whether or not anybody still waits for it, and until then nobody else begins: the base stands still
        // for each load, and requests that are given up at once would have it loaded again and again.
        let load = tokio::task::spawn_blocking(move || {
            let loaded = own.load(&model, Instant::now() + LOAD_WAIT);
            drop(one);
            loaded
        });
        let loaded = tokio::time::timeout_at(deadline.into(), load).await.map_err(|_| LeaseError::Late)?;
        loaded.unwrap_or(Err(LeaseError::Late))
    }

    /// Whether it is on this model.
    pub(super) fn is_on(&self, model: &Model) -> bool {
        self.worn(model).is_some()
    }

    /// How it is, given how its base is.
    pub(super) fn status(&self, of_base: SlotStatus, bytes: u64) -> SlotStatus {
        let error = self.state().failed.as_ref().map(|(_, why)| Arc::clone(why));
        let is_on = self.base.loaded().is_some_and(|model| self.is_on(&model));
        let state = match of_base.state {
            "ready" if is_on => "ready",
            "ready" if error.is_some() => "failed",
            "ready" => "cold",
            other => other,
        };
        let leases = self.leases.load(Relaxed);
        SlotStatus { state, leases, predicted_bytes: bytes, error: error.or(of_base.error), ..of_base }
    }

    /// It goes when its last reply is over, and comes back with its next request.
    pub(super) fn unload(&self) -> Result<(), u32> {
        match self.leases.load(Relaxed) {
            0 => {
                self.state().loaded = None;
                Ok(())
            }
            leases => Err(leases),
        }
    }

    /// It may be tried again at once.
    pub(super) fn wake(&self) {
        self.state().failed = None;
    }

    fn worn(&self, model: &Model) -> Option<Arc<Worn>> {
        self.state().loaded.clone().filter(|worn| model.engine().is_some_and(|engine| engine.has(Some(&worn.handle))))
    }

    fn rests(&self) -> Result<(), LeaseError> {
        let state = self.state();
        let Some((since, why)) = &state.failed else { return Ok(()) };
        let left = REST.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        let retry_after_s = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        Err(LeaseError::Failed { reason: why.to_string(), retry_after_s })
    }

    fn load(&self, model: &Model, deadline: Instant) -> Result<Arc<Worn>, LeaseError> {
        let opened = self.library.open(&self.artifact).map_err(|error| self.failed(error.to_string()))?;
        let name = self.artifact.path.display();
        if opened.digest != self.digest {
            let reason = format!("{name}: it has changed: it had the digest {}, and has {}", self.digest, opened.digest);
            return Err(self.failed(reason));
        }
        let path = opened.place_of(&self.artifact);
        let began = Instant::now();
        let engine = model.engine().ok_or_else(|| self.failed(format!("{name}: its base does not generate")))?;
        let handle = engine.load_adapter(&path, self.scale, deadline).map_err(|error| match error {
            AdapterError::Late | AdapterError::Stopped => LeaseError::Late,
            AdapterError::Backend(error) => self.failed(format!("{name}: {error}")),
        })?;
        opened.confirm(&self.artifact).map_err(|error| self.failed(error.to_string()))?;
        let load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(model = model.id(), digest = self.digest, load_ms, "adapter loaded");
        let worn = Arc::new(Worn { handle, digest: format!("{}+{}", model.digest(), self.digest) });
        *self.state() = State { loaded: Some(Arc::clone(&worn)), failed: None };
        Ok(worn)
    }

    fn failed(&self, reason: String) -> LeaseError {
        tracing::error!(base = self.base.id(), reason, "the adapter cannot be loaded");
        self.state().failed = Some((Instant::now(), reason.as_str().into()));
        LeaseError::Failed { reason, retry_after_s: u32::try_from(REST.as_secs()).unwrap_or(u32::MAX) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an adapter, whose pairs of tensors are known to multiply, changes tensors that the base has.
fn fits(base: &Gguf, adapter: &Gguf) -> Result<(), String> {
    let (has, wants) = (base.architecture().unwrap_or_default(), adapter.architecture().unwrap_or_default());
    if has != wants {
        return Err(format!("it is an adapter for the architecture {wants:?}, and its base is of {has:?}"));
    }
    if adapter.metadata.contains_key("adapter.alora.invocation_tokens") {
        return Err("it takes effect in the middle of a prompt (aLoRA), which no backend here does".to_owned());
    }
    let (of_base, of_adapter) = (by_name(base), by_name(adapter));
    for (name, a) in &of_adapter {
        let Some(name) = name.strip_suffix(".lora_a") else { continue };
        let Some(target) = of_base.get(name) else {
            return Err(format!("its tensor {name:?} is not in the base: it is an adapter of another model"));
        };
        let Some(b) = of_adapter.get(format!("{name}.lora_b").as_str()) else {
            return Err(format!("its tensor {name:?} has no `lora_b`"));
        };
        let side = |tensor: &Tensor, at: usize| tensor.shape.get(at).copied().unwrap_or(0);
        // Rows are taken out of the table of words, so its pair lies the other way round.
        let is_table = name.ends_with("token_embd.weight");
        let wanted = if is_table { [side(b, 1), side(a, 1)] } else { [side(a, 0), side(b, 1)] };
        if target.shape != wanted {
            let [wanted, found] = [wanted.as_slice(), target.shape.as_slice()].map(shown);
            let why = "it is an adapter of another model";
            return Err(format!("its tensor {name:?} is for one of {wanted}, and that of the base is {found}: {why}"));
        }
    }
    Ok(())
}

fn by_name(gguf: &Gguf) -> BTreeMap<&str, &Tensor> {
    gguf.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect()
}

fn shown(shape: &[u64]) -> String {
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

#[cfg(test)]
mod tests;
