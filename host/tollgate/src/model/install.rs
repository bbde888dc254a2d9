//! `import` and `pull`: fetched, verified, installed, tried out, made current, and taken in by a running gateway, in this order.
//! Whatever fails leaves what is current as it is.

use std::fmt::Display;
use std::str::FromStr;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use tollgate_artifacts::pull::{Fetched, PullSettings, PullSource, Puller, Token};
use tollgate_artifacts::store::{Activated, Installed, Store, Version};
use tollgate_artifacts::trust::TrustError;
use tollgate_artifacts::{
    Format, ImportError, ImportOptions, Manifest, Progress, Signed, StoreError, Trust, Which, import as install, import_described,
};
use tollgate_models::{ProbeReport, Task};

use super::cli::{Import, Pull, Then};
use super::convert::{self, Before, Made, Wish};
use super::interrupt::Advice;
use super::progress::{Shown, tell};
use super::switch::now_current;
use super::{Gateway, Opened, answer, open, probe, trust};

/// The hub's token is read from here alone: an argument would be seen by everybody on the machine.
const TOKEN: &str = "TOLLGATE_HUB_TOKEN";

const WHILE_PULLING: &str = "what was fetched is kept for seven days; the same command goes on where this one ended";
const WHILE_INSTALLING: &str = "nothing was changed; the same command begins again";
const WHILE_TRYING: &str = "the model is installed and not current; `tollgate model activate` makes it so";

/// Installs a model from this machine.
pub(super) fn import(ask: &Import, advice: &Advice) -> anyhow::Result<()> {
    advice.set(WHILE_INSTALLING);
    let trust = trust(&ask.trusted)?;
    let opened = open(&ask.local)?;
    let before = Before::of(&opened);
    let options =
        ImportOptions { version: ask.version, base: ask.base.clone(), trust: &trust, now: SystemTime::now(), is_moved: false };
    let installed = install(&opened.store, &ask.path, ask.name.as_ref(), &options, &Shown::new()).map_err(advised)?;
    let wish = Wish { convert: ask.convert, base: ask.base.as_ref(), config: &ask.trusted.config };
    let converted = convert::after(&opened, installed, &wish, &before, advice)?;
    advice.set(WHILE_TRYING);
    finish(&opened, converted, ask.then, ask.local.json)
}

/// Downloads a model and installs it.
pub(super) fn pull(ask: &Pull, advice: &Advice) -> anyhow::Result<()> {
    advice.set(WHILE_PULLING);
    let trust = trust(&ask.trusted)?;
    if !may_be_signed(&ask.source) {
        // It is not downloaded first and refused then.
        trust.allows_unsigned().map_err(ImportError::from).map_err(advised)?;
    }
    let puller = Puller::new(settings(ask)?)?;
    let opened = open(&ask.local)?;
    // What an interrupted installation staged is part of the download that it left.
    opened.store.heal_if_free()?;
    let progress = Shown::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetched = runtime
        .block_on(puller.pull(&ask.source, &opened.store.partial(), &progress))
        .with_context(|| format!("cannot pull {}", ask.source))?;
    advice.set(WHILE_INSTALLING);
    let before = Before::of(&opened);
    let installed = install_fetched(&opened.store, &fetched, ask, &trust, &progress).map_err(advised)?;
    if let Err(error) = fetched.discard() {
        tell(&format!("the download cannot be removed, and is after seven days: {error}"));
    }
    let wish = Wish { convert: ask.convert, base: ask.base.as_ref(), config: &ask.trusted.config };
    let converted = convert::after(&opened, installed, &wish, &before, advice)?;
    advice.set(WHILE_TRYING);
    finish(&opened, converted, ask.then, ask.local.json)
}

/// Only a manifest is signed, and only archives and folders bring one.
fn may_be_signed(source: &PullSource) -> bool {
    let text = source.to_string();
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    is_url && !text.ends_with(".gguf")
}

fn settings(ask: &Pull) -> anyhow::Result<PullSettings> {
    let mut settings = PullSettings::default();
    if let Some(hub) = &ask.hub {
        settings.hub = address(hub)?;
    }
    if let Some(registry) = &ask.registry {
        settings.registry = address(registry)?;
    }
    for url in [&settings.hub, &settings.registry] {
        if !url.username().is_empty() || url.password().is_some() {
            bail!("the address of a hub or registry has a user or a password; a hub's token is taken from {TOKEN} alone");
        }
        if !url.has_host() || !matches!(url.scheme(), "https" | "http") {
            bail!("{url} is no address of a hub or registry: it begins with https:// and a host");
        }
    }
    if let Some(token) = std::env::var_os(TOKEN).filter(|token| !token.is_empty()) {
        settings.token = Some(Token::new(&token.to_string_lossy())?);
    }
    Ok(settings)
}

fn address<T: FromStr<Err: Display>>(text: &str) -> anyhow::Result<T> {
    // What stands before an @ may be a password.
    let shown = if text.contains('@') { "what was given" } else { text };
    text.parse().map_err(|error| anyhow!("{shown} is no address of a hub or registry: {error}"))
}

fn install_fetched(
    store: &Store,
    fetched: &Fetched,
    ask: &Pull,
    trust: &Trust,
    progress: &dyn Progress,
) -> Result<Installed, ImportError> {
    let options = ImportOptions { version: None, base: ask.base.clone(), trust, now: SystemTime::now(), is_moved: true };
    match (&fetched.manifest, &fetched.zip) {
        (Some((manifest, signature)), _) => {
            let manifest = (manifest.as_slice(), signature.as_deref());
            import_described(store, &fetched.folder, manifest, ask.name.as_ref(), &options, progress)
        }
        (None, Some(archive)) => install(store, archive, ask.name.as_ref(), &options, progress),
        (None, None) => {
            let name = ask.name.as_ref().unwrap_or(&fetched.suggested_name);
            install(store, &fetched.folder, Some(name), &options, progress)
        }
    }
}

/// Says what else can be done about a refusal.
fn advised(error: ImportError) -> anyhow::Error {
    let is_unsigned =
        matches!(error, ImportError::Trust(TrustError::Unsigned) | ImportError::Store(StoreError::Trust(TrustError::Unsigned)));
    if is_unsigned { anyhow!("{error}, and --unsigned does for this one alone") } else { error.into() }
}

/// Tries what was installed, makes it current, and tells the gateway.
fn finish(opened: &Opened, (installed, made): (Installed, Option<Made>), then: Then, is_json: bool) -> anyhow::Result<()> {
    let Installed { digest, manifest, folder, signed, summary } = installed;
    let (name, version) = (manifest.name.clone(), Version { digest, folder, manifest });
    let failed = |error: anyhow::Error| {
        anyhow!(
            "`{name}` was not changed, because the new version failed when it was tried: {error:#}. It stays installed: `tollgate model \
             remove {digest}` removes it, `tollgate model activate {name} {digest} --no-probe` uses it all the same"
        )
    };
    let probe = if then.no_probe { None } else { Some(probe::version(&version).map_err(failed)?) };
    let is_unknown = probe.as_ref().is_some_and(|probe| probe.tokens == 0) && version.manifest.format == Format::Safetensors;
    let activated =
        if then.no_activate || is_unknown { None } else { Some(opened.store.hold()?.activate(&name, Some(&digest))?) };
    let gateway = if activated.is_some() { Gateway::reload(&opened.data) } else { Gateway(None) };
    let signed_by = match signed {
        Signed::By(key) => Some(key),
        Signed::Nobody => None,
    };
    let came =
        Came { version: &version, architecture: summary.architecture, signed_by, made, probe, is_unknown, activated, gateway };
    answer(is_json, &came.json(), &came.text())
}

/// What came of an installation.
struct Came<'a> {
    version: &'a Version,
    architecture: Option<String>,
    signed_by: Option<String>,
    /// Of what and how it was made here, if it was.
    made: Option<Made>,
    probe: Option<ProbeReport>,
    /// It was tried, and candle does not compute models of its type.
    is_unknown: bool,
    activated: Option<Activated>,
    gateway: Gateway,
}

impl Came<'_> {
    fn json(&self) -> Value {
        let manifest = &self.version.manifest;
        json!({
            "name": manifest.name,
            "version": manifest.version,
            "digest": self.version.digest,
            "format": manifest.format,
            "architecture": self.architecture,
            "bytes": manifest.total_bytes(),
            "signed_by": self.signed_by,
            "folder": self.version.folder.display().to_string(),
            "converted": self.made.as_ref().map(|made| json!({ "from": made.from, "report": made.report })),
            "probe": self.probe,
            "current": self.activated.is_some(),
            "previous": self.activated.as_ref().and_then(|activated| activated.previous),
            "gateway": self.gateway.json(),
            "config": self.config(),
        })
    }

    fn text(&self) -> String {
        let (manifest, digest) = (&self.version.manifest, self.version.digest);
        let name = &manifest.name;
        let signed = match (&self.made, &self.signed_by) {
            (Some(made), _) => format!("converted here from {} {}", made.from, convert::became(&made.report)),
            (None, Some(key)) => format!("signed by {key}"),
            (None, None) => "not signed".to_owned(),
        };
        let size = HumanBytes(manifest.total_bytes());
        let mut text =
            format!("installed version {} of `{name}` ({}, {size}, {signed})\n  {digest}\n", manifest.version, manifest.format);
        text.extend(self.made.iter().map(|made| convert::notes(&made.report)));
        match &self.probe {
            None => text.push_str("it was not tried\n"),
            Some(_) if self.is_unknown => text.push_str(
                "its header was checked; the candle backend does not compute models of its type or its weights, so it was not made \
                 current: import it again with --convert, or fetch a GGUF of it\n",
            ),
            Some(probe) if probe.tokens == 0 => text.push_str("its header was checked; models of this format are not tried\n"),
            Some(probe) => {
                let does = match probe.task {
                    Some(Task::Embed) => "embeds texts".to_owned(),
                    Some(Task::Rerank) => "ranks documents".to_owned(),
                    Some(Task::Generate) | None => format!("says {:?}", probe.reply),
                };
                let memory = HumanBytes(probe.memory_bytes);
                text.push_str(&format!("tried: loaded in {} ms, takes {memory}, {does}\n", probe.load_ms));
            }
        }
        match &self.activated {
            Some(activated) => text.push_str(&now_current(name, activated)),
            None => text.push_str(&format!("it is not current: `tollgate model activate {name} {digest}` makes it so\n")),
        }
        text.push_str(&self.gateway.text());
        match self.config() {
            Some(config) => text.push_str(&format!("\nto serve it, write into config/models/{name}.toml:\n\n{config}")),
            None if self.is_unknown => {}
            None => text.push_str("\nit serves once it is converted for its base: import it again with --base NAME\n"),
        }
        text
    }

    /// The model's file in the config, for formats that a backend serves.
    fn config(&self) -> Option<String> {
        let Manifest { name, format, base, .. } = &self.version.manifest;
        let backend = match format {
            _ if self.is_unknown => return None,
            Format::Gguf | Format::LoraGguf => "llama",
            Format::Safetensors => "candle",
            Format::Onnx => "onnx",
            Format::LoraPeft => return None,
        };
        let mut config = format!("backend = \"{backend}\"\nartifact = \"installed:{name}\"\n");
        if let Some(task) = self.probe.as_ref().and_then(|probe| probe.task).filter(|task| *task != Task::Generate) {
            config.push_str(&format!("task = \"{task}\"\n"));
        }
        if format.is_adapter() {
            // A digest is no id of the config's.
            let id = base.as_ref().and_then(|base| if let Which::Name(name) = base { Some(name.as_str()) } else { None });
            config.push_str(&format!("base = \"{}\"\n", id.unwrap_or("ID-OF-ITS-BASE")));
        }
        Some(config)
    }
}
