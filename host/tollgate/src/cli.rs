//! The command line.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::model::cli::ModelCommand;

/// An edge inference gateway: TLS, in-process models, policy as WASM components.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway.
    Serve(Serve),
    /// Check a config directory and say everything that is wrong with it.
    Check {
        /// The config directory.
        #[arg(long, env = "TOLLGATE_CONFIG", default_value = "config")]
        config: PathBuf,
    },
    /// Write JSON schemas of the config files, for editors.
    Schemas {
        /// The directory to write into.
        #[arg(long, default_value = "schemas")]
        out: PathBuf,
    },
    /// Write completions for a shell to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// How the running gateway is: generation, quarantine, connections.
    ///
    /// `generation` is the config that serves, counted from the start, `live_generations` how many still serve a request, `reloads`
    /// how often a change was taken in. `quarantined` are files that were refused, with why: what they replaced serves on. `plugin_slots` are
    /// places for instances of plugins, one for each that a request uses. Of a listener, `connections` and `requests` are open now,
    /// `accepted` and `refused` are connections since the start.
    Status(Ask),
    /// The running gateway's plugins.
    ///
    /// `hooks` are what it does in a request, `capabilities` what it may ask of the host, `snapshot` whether requests start from
    /// memory in which its `init` has run already, `cases` how many golden cases it passed when it was built, `digest` the
    /// SHA-256 of component, config and engine together.
    Plugins(Ask),
    /// A plugin in the making.
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// The running gateway's models.
    ///
    /// `state` is `cold`, `loading`, `ready`, `draining` (it goes when its last request ends), `unloading` or `failed`; `leases` are requests
    /// that use it; `predicted_bytes` is what it was predicted to take, `memory_bytes` what it takes. `sequences` are replies at once, `context_tokens` what prompts and replies of all of them may have together. Of requests,
    /// `waiting` are in the queue, `running` are decoded, `parked` have a reader that has stalled. `steps` are batches; `prefilled_tokens` were read
    /// from prompts, `cached_tokens` did not have to be, `decoded_tokens` were written.
    Models(Ask),
    /// Install, switch and verify models; load and unload one of a running gateway.
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Make model files from an older system's settings: `models.json`, `model.yaml`, `.env`.
    Import(Import),
    /// The running gateway's routes, and every path that it answers.
    Routes(Ask),
    /// The running gateway's metrics, in Prometheus' text format.
    Metrics {
        /// The running gateway's data directory.
        #[arg(long, env = "TOLLGATE_DATA", default_value = "data")]
        data: PathBuf,
    },
    /// Take in changes of the config directory now.
    Reload(Ask),
    /// Keys: list those of a running gateway, add one to a config directory.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// The build step of a plugin; the gateway calls it.
    #[command(name = "__build-plugin", hide = true)]
    BuildPlugin {
        /// Writable memory.
        memory_bytes: u64,
        /// CPU time.
        time_s: u64,
    },
    /// The step that tries a model before it becomes current; `tollgate model` calls it.
    #[command(name = "__probe-model", hide = true)]
    ProbeModel {
        /// Writable memory.
        memory_bytes: u64,
        /// CPU time.
        time_s: u64,
    },
    /// The step that measures how a model is computed fastest; the gateway calls it, and `tollgate model tune`.
    #[command(name = "__tune-model", hide = true)]
    TuneModel {
        /// Writable memory.
        memory_bytes: u64,
        /// CPU time.
        time_s: u64,
    },
    /// The step that makes a GGUF file of a model; `tollgate model` calls it.
    #[command(name = "__convert-model", hide = true)]
    ConvertModel {
        /// Writable memory.
        memory_bytes: u64,
        /// CPU time.
        time_s: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The files; what they are is seen from their names, or their first lines.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The config directory.
    #[arg(long, env = "TOLLGATE_CONFIG", default_value = "config")]
    pub(crate) config: PathBuf,
    /// Show what would be written, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace files that are there already.
    #[arg(long)]
    pub(crate) force: bool,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The config directory.
    #[arg(long, env = "TOLLGATE_CONFIG", default_value = "config")]
    pub(crate) config: PathBuf,
    /// Where the gateway keeps what it makes: certificates, keys, compiled plugins.
    #[arg(long, env = "TOLLGATE_DATA", default_value = "data")]
    pub(crate) data: PathBuf,
}

/// Whose gateway or models are asked for, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// The gateway's data directory. Models are in `models` below it.
    #[arg(long, env = "TOLLGATE_DATA", default_value = "data")]
    pub(crate) data: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Run a plugin's golden cases on its component.
    Test(TestPlugin),
    /// Make a component of what a compiler wrote, and put the plugin's golden cases into it.
    ///
    /// A core module becomes a component by the WIT that wit-bindgen left in it; a component is taken as it is.
    Pack(PackPlugin),
}

#[derive(Debug, Args)]
pub(crate) struct TestPlugin {
    /// A component, or a folder with one component (`*.wasm`) and its cases in `cases/`.
    pub(crate) plugin: PathBuf,
    /// The folder of cases; without it those that the component brings.
    #[arg(long)]
    pub(crate) cases: Option<PathBuf>,
    /// The config, in JSON, of cases that hold under any.
    #[arg(long, default_value = "{}")]
    pub(crate) config: String,
    /// Run those cases that have this in their name.
    #[arg(long, default_value = "")]
    pub(crate) filter: String,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PackPlugin {
    /// A core module or a component.
    pub(crate) wasm: PathBuf,
    /// The folder of golden cases; without it the component brings none.
    #[arg(long)]
    pub(crate) cases: Option<PathBuf>,
    /// Where the component goes.
    #[arg(long, short)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// The running gateway's keys; never their secrets.
    List(Ask),
    /// Make a key: prints the secret once and writes its hash to the config directory. To withdraw it, delete that file.
    Add(AddKey),
}

#[derive(Debug, Args)]
pub(crate) struct AddKey {
    /// The key's id, and the name of its file.
    pub(crate) id: String,
    /// The config directory.
    #[arg(long, env = "TOLLGATE_CONFIG", default_value = "config")]
    pub(crate) config: PathBuf,
    /// Whose it is.
    #[arg(long, default_value = "default")]
    pub(crate) tenant: String,
    /// What routes match on; may be repeated.
    #[arg(long = "role", default_values = ["user"])]
    pub(crate) roles: Vec<String>,
    /// What it may do; may be repeated.
    #[arg(long = "scope", default_values = ["chat"])]
    pub(crate) scopes: Vec<String>,
    /// The models it may use; may be repeated.
    #[arg(long = "model", default_values = ["*"])]
    pub(crate) models: Vec<String>,
    /// The model for requests that name none.
    #[arg(long)]
    pub(crate) default_model: Option<String>,
    /// When it ends: RFC 3339, e.g. 2027-01-31T00:00:00Z.
    #[arg(long)]
    pub(crate) expires: Option<String>,
}

/// Writes what `shell` has to know to complete a command line.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tollgate", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
