//! What was installed as safetensors, or as a PEFT adapter, becomes a GGUF file that llama.cpp serves: whether, into what, by a child
//! process, and in the store under the same name. The source was verified and trusted before; the result says what it was made of.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use indicatif::HumanBytes;
use serde_json::json;
use tollgate_artifacts::store::{Installed, Store, Version};
use tollgate_artifacts::{Digest, Format, FromVersion, StoreError, Which, import_converted, pack, space};
use tollgate_config::{Backend, Config, Source};
use tollgate_models::{ConvertReport, ConvertRequest, Quantization, default_budget};

use super::cli::{Convert, ConvertFolder};
use super::interrupt::Advice;
use super::progress::{Shown, tell};
use super::{Opened, answer, converting};

const WHILE_CONVERTING: &str = "what was fetched is installed as it is, and not current; the same command converts it";
const NOTHING: &str = "nothing was changed; the same command begins again";
/// What [`import_converted`] takes.
const FILE: &str = "model.gguf";

/// What the operator wants of a conversion.
pub(super) struct Wish<'a> {
    /// What was asked for, if anything.
    pub(super) convert: Option<Convert>,
    /// The base of an adapter.
    pub(super) base: Option<&'a Which>,
    /// The config directory.
    pub(super) config: &'a Path,
}

/// An installed version was converted, and this is what it is now.
pub(super) struct Made {
    /// What it was made of.
    pub(super) from: Digest,
    /// How.
    pub(super) report: ConvertReport,
}

/// What is to be done.
struct Task {
    quantization: Quantization,
    /// The base of an adapter: as its manifest will name it, and where it is.
    base: Option<(Which, PathBuf)>,
    budget_bytes: u64,
}

/// The versions that are there before something is installed.
pub(super) struct Before(Option<Vec<Digest>>);

impl Before {
    pub(super) fn of(opened: &Opened) -> Self {
        Before(opened.store.list().ok().map(|entries| entries.into_iter().map(|entry| entry.digest).collect()))
    }

    /// Whether a version came with this command, as far as that is known.
    fn is_new(&self, digest: &Digest) -> bool {
        self.0.as_ref().is_some_and(|there| !there.contains(digest))
    }
}

/// Converts what was just installed, if it is to be; answers what is to be tried and made current.
pub(super) fn after(
    opened: &Opened,
    installed: Installed,
    wish: &Wish<'_>,
    before: &Before,
    advice: &Advice,
) -> anyhow::Result<(Installed, Option<Made>)> {
    let (digest, folder) = (installed.digest, installed.folder.display().to_string());
    let name = installed.manifest.name.clone();
    let failed = |error: anyhow::Error| {
        anyhow!(
            "`{name}` was not changed, because it could not be converted: {error:#}. What it was to be made of stays installed: \
             `tollgate model import {folder}` tries again, `tollgate model remove {digest}` removes it"
        )
    };
    let Some(task) = decide(opened, &installed, wish).map_err(failed)? else { return Ok((installed, None)) };
    advice.set(WHILE_CONVERTING);
    perform(opened, installed, &task, wish, before).map_err(failed)
}

/// Whether and how: what was asked for, or what the config says, or what fits.
fn decide(opened: &Opened, installed: &Installed, wish: &Wish<'_>) -> anyhow::Result<Option<Task>> {
    let manifest = &installed.manifest;
    let config = wish.config.exists().then(|| tollgate_config::load(wish.config).ok()).flatten();
    if wish.convert == Some(Convert::Off) {
        return Ok(None);
    }
    let configured = config.as_ref().map_or(Convert::Auto, |config| configured(config, manifest.name.as_str()));
    let budget_bytes = config
        .as_ref()
        .and_then(|config| config.settings.models.memory_mib)
        .map_or_else(default_budget, |memory_mib| u64::from(memory_mib) << 20);
    if wish.convert.is_none()
        && matches!(manifest.format, Format::Safetensors | Format::LoraPeft)
        && let Some(id) = config.as_ref().and_then(|config| served_as_it_is(config, manifest.name.as_str()))
    {
        tell(&format!("it stays {}, as models/{id}.toml in the config has it", manifest.format));
        return Ok(None);
    }
    let base = match manifest.format {
        Format::Safetensors => {
            if wish.convert.is_none() && configured == Convert::Off {
                tell("it stays safetensors, as `quantization` in the config has it");
                return Ok(None);
            }
            None
        }
        Format::LoraPeft => match (manifest.base.as_ref().or(wish.base), wish.convert) {
            (None, None) => return Ok(None),
            (None, Some(_)) => bail!("an adapter is converted for its base: name that with --base"),
            (Some(which), asked) => match base_path(opened, config.as_ref(), which) {
                Ok(path) => Some((which.clone(), path)),
                // A base that the command names has to be there.
                Err(error) if asked.is_none() && wish.base.is_none() => {
                    tell(&format!("it stays as PEFT wrote it: {error:#}"));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        },
        Format::Gguf | Format::LoraGguf | Format::Onnx => {
            if wish.convert.is_some() {
                tell(&format!("it is {}, which is not converted", manifest.format));
            }
            return Ok(None);
        }
    };
    let quantization = wish.convert.unwrap_or(configured).quantization();
    Ok(Some(Task { quantization, base, budget_bytes }))
}

/// What the config has safetensors of this name become: what a model that serves them says, or else what is said for all.
fn configured(config: &Config, name: &str) -> Convert {
    let mut of_name = config.models.values().filter(|model| model.artifact.as_ref().is_some_and(|source| is_of(source, name)));
    of_name.find_map(|model| model.quantization).unwrap_or(config.settings.models.quantization).into()
}

/// Whether a model is made of what is installed under this name.
fn is_of(source: &Source, name: &str) -> bool {
    matches!(source, Source::Installed(installed) if installed.as_str() == name)
}

/// The model of the config that serves the safetensors of this name, or the adapter, as they are.
fn served_as_it_is<'a>(config: &'a Config, name: &str) -> Option<&'a str> {
    let is_of_name = |source: &Source| is_of(source, name);
    let runs_it = |backend: Backend, is_adapter| backend == Backend::Candle || (is_adapter && backend == Backend::Onnx);
    let mut models = config.models.values();
    let found =
        models.find(|model| runs_it(model.backend, model.base.is_some()) && model.artifact.as_ref().is_some_and(is_of_name));
    found.map(|model| model.id.as_str())
}

/// Where the base of an adapter is: an installed version, or what a model of the config is made of.
fn base_path(opened: &Opened, config: Option<&Config>, which: &Which) -> anyhow::Result<PathBuf> {
    let (missing, name) = match (opened.store.find(which), which) {
        (Ok(version), _) => return path_of(&version, which),
        (Err(error @ StoreError::Missing(_)), Which::Name(name)) => (error, name.as_str()),
        (Err(error), _) => return Err(anyhow!(error).context("the adapter's base")),
    };
    let configured = config.and_then(|config| {
        let model = config
            .models
            .values()
            .find(|model| model.id.as_str() == name || model.aliases.iter().any(|alias| alias.as_str() == name))?;
        Some((config.dir.as_path(), model.artifact.clone()?))
    });
    match configured {
        Some((dir, Source::File(path))) => Ok(dir.join(path)),
        Some((_, Source::Installed(installed))) => {
            let which =
                installed.as_str().parse::<Which>().map_err(|error| anyhow!("the adapter's base, `{installed}`: {error}"))?;
            path_of(&opened.store.find(&which)?, &which)
        }
        Some((_, Source::Builtin(_))) => {
            bail!("the adapter's base, `{name}`, is inside the binary; install the model as a file and name that with --base")
        }
        None => Err(anyhow!(missing).context("the adapter's base")),
    }
}

fn path_of(version: &Version, which: &Which) -> anyhow::Result<PathBuf> {
    match version.manifest.format {
        Format::Gguf => Ok(version.folder.join(version.manifest.main_file().path.as_str())),
        Format::Safetensors => Ok(version.folder.clone()),
        other => bail!("the adapter's base, `{which}`, is {other}; a base is gguf or safetensors"),
    }
}

fn perform(
    opened: &Opened,
    installed: Installed,
    task: &Task,
    wish: &Wish<'_>,
    before: &Before,
) -> anyhow::Result<(Installed, Option<Made>)> {
    let work = Work::take(&opened.store.partial(), &installed.digest)?;
    let bytes = installed.manifest.total_bytes();
    check_space(&work.folder, bytes)?;
    let shown = Shown::new();
    let request = ConvertRequest {
        folder: installed.folder.clone(),
        out: work.folder.join(FILE),
        name: installed.manifest.name.to_string(),
        quantization: task.quantization,
        base: task.base.as_ref().map(|(_, path)| path.clone()),
        budget_bytes: task.budget_bytes,
    };
    let report = match converting::run(&request, bytes, &shown)? {
        Ok(report) => report,
        Err(refusal) if refusal.is_unsupported && wish.convert.is_none() => {
            tell(&format!("it stays {}: {}", installed.manifest.format, refusal.reason));
            return Ok((installed, None));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let source = Version { digest: installed.digest, folder: installed.folder, manifest: installed.manifest };
    let from = FromVersion {
        version: &source,
        how: &became(&report),
        base: task.base.as_ref().map(|(which, _)| which.clone()),
        is_exact: matches!(report.quantization.as_str(), "f16" | "bf16"),
        now: SystemTime::now(),
    };
    let installed = import_converted(&opened.store, &work.folder, &from, &shown)?;
    if before.is_new(&source.digest) {
        drop_source(&opened.store, &source.digest);
    }
    Ok((installed, Some(Made { from: source.digest, report })))
}

/// What the model was made of is of no more use, and big.
fn drop_source(store: &Store, digest: &Digest) {
    if let Err(error) = store.hold().and_then(|held| held.remove(&Which::Digest(*digest), false)) {
        tell(&format!("what it was made of stays installed: {error}"));
    }
}

/// At most all of it in 16 bits, and a third of that once more in 4.
fn check_space(folder: &Path, source_bytes: u64) -> anyhow::Result<()> {
    Ok(space::check(folder, source_bytes.saturating_add(source_bytes / 2))?)
}

/// A folder of its own on the store's disk, held against a second conversion of the same version, and removed in the end.
struct Work {
    folder: PathBuf,
    /// The lock (flock) is on this handle.
    _lock: File,
}

impl Work {
    fn take(partial: &Path, digest: &Digest) -> anyhow::Result<Self> {
        let folder = partial.join(format!("convert-{digest}"));
        let failed = || folder.display().to_string();
        fs::create_dir_all(&folder).with_context(failed)?;
        let lock = File::open(&folder).with_context(failed)?;
        lock.try_lock().map_err(|error| anyhow!("another process converts this model ({error}); wait until it is done"))?;
        // A process that was killed may have left its file.
        match fs::remove_file(folder.join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(failed),
            _ => Ok(Work { folder, _lock: lock }),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tell(&format!("{} cannot be removed: {error}", self.folder.display()));
        }
    }
}

/// `tollgate model convert`: a folder to a file, and nothing is installed.
pub(super) fn folder(ask: &ConvertFolder, advice: &Advice) -> anyhow::Result<()> {
    advice.set(NOTHING);
    if ask.quantization == Convert::Off {
        bail!("with `none` there is nothing to convert");
    }
    let (format, _, bytes) = pack::look(&ask.folder).with_context(|| ask.folder.display().to_string())?;
    match (format, &ask.base) {
        (Format::Safetensors, None) | (Format::LoraPeft, Some(_)) => {}
        (Format::LoraPeft, None) => bail!("an adapter is converted for its base: name its file or folder with --base"),
        (Format::Safetensors, Some(_)) => bail!("--base is for adapters, and {} is a model", ask.folder.display()),
        (other, _) => bail!("{} is {other}; safetensors and PEFT adapters are converted", ask.folder.display()),
    }
    let parent = ask.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_space(parent, bytes)?;
    let stem = ask.out.file_stem().unwrap_or_default().to_string_lossy();
    let request = ConvertRequest {
        folder: ask.folder.clone(),
        out: ask.out.clone(),
        name: ask.name.clone().unwrap_or_else(|| stem.into_owned()),
        quantization: ask.quantization.quantization(),
        base: ask.base.clone(),
        budget_bytes: default_budget(),
    };
    let report = converting::run(&request, bytes, &Shown::new())?.with_context(|| ask.folder.display().to_string())?;
    let out = ask.out.display();
    let mut text = format!("{out}: {}, {}, {}\n", report.architecture, report.quantization, HumanBytes(report.bytes));
    text.push_str(&notes(&report));
    let value = json!({ "out": out.to_string(), "report": report });
    answer(ask.json, &value, &text)
}

/// What the operator should know of a result, a line each.
pub(super) fn notes(report: &ConvertReport) -> String {
    report.notes.iter().map(|note| format!("  note: {}\n", converting::plain(note))).collect()
}

/// What a source became, to follow "converted from ...". The numbers of an adapter stay as they are.
pub(super) fn became(report: &ConvertReport) -> String {
    if report.quantization == "unchanged" { "for its base".to_owned() } else { format!("to {}", report.quantization) }
}
