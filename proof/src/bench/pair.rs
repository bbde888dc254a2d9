//! The gateway and `llama-server` side by side on one model file, each told the same.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;
use tollgate_tests::{Gateway, Place};

use super::model::{self, LARGE, Shape, TINY};
use super::peers::{self, LlamaServer, Setting};
use crate::load::Target;
use crate::process::Process;
use crate::rows::Here;

/// The id of the model that [`place`] serves.
pub(crate) const MODEL: &str = "large";
/// What both are told in the rows over tokens.
pub(crate) const SETTING: Setting = Setting { threads: 0, sequences: 16, context_tokens: 16_384 };

/// Both, running.
pub(crate) struct Pair {
    /// Tollgate, then llama-server.
    pub(crate) targets: [Target; 2],
    /// How both were set up, for the report.
    pub(crate) method: String,
    _gateway: Gateway,
    _server: Process,
    _place: Place,
    /// Logs.
    pub(crate) folder: TempDir,
}

impl Pair {
    /// Starts both on the random model.
    pub(crate) async fn start(here: &Here) -> anyhow::Result<Self> {
        let server = LlamaServer::ensure(&here.root).await?;
        let file = random_model(here)?;
        Self::on(&server, &file, SETTING).await
    }

    /// Starts both on `file`.
    pub(crate) async fn on(server: &LlamaServer, file: &Path, setting: Setting) -> anyhow::Result<Self> {
        let setting = Setting { threads: cores(), ..setting };
        let folder = tempfile::tempdir()?;
        let place = place(file, setting);
        let gateway = place.start().await;
        let ours = target(&gateway, &place, MODEL)?;
        let (process, theirs) = server.start(file, setting, folder.path()).await?;
        let method = format!(
            "{}; `llama-server {}`, else at its defaults; Tollgate with the same threads, sequences and context, TLS and a key; \
             both through HTTP on loopback, run in turn, medians of the runs.",
            server.versions,
            server.arguments(setting).join(" ")
        );
        Ok(Pair { targets: [ours, theirs], method, _gateway: gateway, _server: process, _place: place, folder })
    }
}

/// The random model for a full or a short run.
pub(crate) fn random_model(here: &Here) -> anyhow::Result<PathBuf> {
    let shape: Shape = here.pick(LARGE, TINY);
    model::ensure(&peers::folder()?, shape)
}

/// The directories of a gateway with a model from `file`, called [`MODEL`], and no plugins but the authenticator.
pub(crate) fn place(file: &Path, setting: Setting) -> Place {
    let place = Place::new();
    // As its peer, it is computed as the settings say, and not as measured best.
    place.write("tollgate.toml", "[models]\ntune = false\n");
    let Setting { threads, sequences, context_tokens } = setting;
    place.write(
        &format!("models/{MODEL}.toml"),
        &format!(
            "backend = \"llama\"\nartifact = {:?}\nthreads = {threads}\nsequences = {sequences}\ncontext_tokens = {context_tokens}\n",
            file.display().to_string()
        ),
    );
    place
}

/// Speaks to a gateway with its admin key.
pub(crate) fn target(gateway: &Gateway, place: &Place, model: &str) -> anyhow::Result<Target> {
    let port = gateway.url.rsplit(':').next().and_then(|port| port.parse().ok()).context("the gateway's port")?;
    let key = std::fs::read_to_string(place.data().join("admin.key"))?;
    Target::tls("Tollgate", port, &place.data().join("tls/ca.pem"), key.trim(), model)
}

/// What both get as threads: the cores that there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
