//! The command line of `tollgate model`. What the verbs do is in the modules beside it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, value_parser};
use tollgate_artifacts::pull::PullSource;
use tollgate_artifacts::{ArtifactName, Digest, Which};
use tollgate_models::Quantization;

use crate::cli::Ask;

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Install a model from this machine: a GGUF file, a folder or a `model.zip`.
    ///
    /// It is verified, tried out in a process of its own, and made current under its name. A gateway that runs on the data
    /// directory takes it in at once.
    Import(Import),
    /// Download a model and install it.
    ///
    /// SOURCE is `https://...` (a `.gguf`, a `.zip`, or a folder with a manifest), `OWNER/NAME[:FILE][@REVISION]` on the hub, or
    /// `ollama:NAME[:TAG]`. A download that was cut off goes on where it ended. The token for the hub is taken from
    /// `TOLLGATE_HUB_TOKEN`.
    Pull(Pull),
    /// The installed models.
    ///
    /// `current` is what a name stands for, `rollback` what it stood for before.
    List(Ask),
    /// One installed version, with its files.
    Show(Show),
    /// Read every byte of installed models again, and name what is damaged.
    Verify(Verify),
    /// Make an installed version current; the one before becomes the rollback.
    Activate(Activate),
    /// Make the version current again that was so before.
    Rollback(Rollback),
    /// Remove a version, or all versions of a name.
    Remove(Remove),
    /// Make a GGUF file of a folder of safetensors or of a PEFT adapter, and install nothing.
    Convert(ConvertFolder),
    /// Make an artifact of a GGUF file or a folder: a manifest, its signature, and a `model.zip`.
    Pack(Pack),
    /// Make a key that artifacts are signed with, or show the public half of one.
    Key(Key),
    /// Measure again how this machine computes a model of the config fastest, and keep it for the model's next load.
    ///
    /// One candidate after another, in a process of its own: weights in another order or as they are in the file, threads, rows that
    /// are computed at once, spinning. Nothing else should run on the machine meanwhile.
    Tune(Tune),
    /// Load a model of a running gateway now, and wait for that.
    Warm(Named),
    /// Unload it; refused while a request uses it.
    Unload(Named),
    /// Keep it in memory until the next change of its config or `unpin`.
    Pin(Named),
    /// Let it go when its memory is needed.
    Unpin(Named),
}

/// A model of a running gateway.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its id or an alias.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Tune {
    /// The model's id in the config, or an alias.
    pub(crate) name: String,
    /// The config directory.
    #[arg(long, env = "TOLLGATE_CONFIG", default_value = "config")]
    pub(crate) config: PathBuf,
    /// For how long to measure, in seconds. The default is measured whatever it takes.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=120))]
    pub(crate) seconds: u32,
    #[command(flatten)]
    pub(crate) local: Ask,
}

/// Whose models are taken.
#[derive(Debug, Args)]
pub(crate) struct Trusted {
    /// The config directory, for `trusted_keys` and `unsigned` of `[models]` in tollgate.toml.
    #[arg(long, env = "TOLLGATE_CONFIG", default_value = "config")]
    pub(crate) config: PathBuf,
    /// Take this model without a signature.
    #[arg(long)]
    pub(crate) unsigned: bool,
}

/// What follows the installation.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Then {
    /// Leave what is current as it is.
    #[arg(long)]
    pub(crate) no_activate: bool,
    /// Do not load it once in a process of its own first.
    #[arg(long)]
    pub(crate) no_probe: bool,
}

/// What becomes of safetensors when they are installed. An adapter's numbers stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Convert {
    /// GGUF: 16 bits below 100 million values, else q8_0 if that takes half of the memory for models at most, else q4_k_m.
    Auto,
    /// GGUF with about 4.8 bits a value.
    #[value(name = "q4_k_m")]
    Q4KM,
    /// GGUF with 8.5 bits a value.
    #[value(name = "q8_0")]
    Q8_0,
    /// GGUF with 16 bits a value.
    #[value(name = "f16")]
    F16,
    /// They stay as they are, for candle.
    #[value(name = "none")]
    Off,
}

impl From<tollgate_config::Quantization> for Convert {
    fn from(configured: tollgate_config::Quantization) -> Self {
        match configured {
            tollgate_config::Quantization::Auto => Self::Auto,
            tollgate_config::Quantization::Q4KM => Self::Q4KM,
            tollgate_config::Quantization::Q8_0 => Self::Q8_0,
            tollgate_config::Quantization::F16 => Self::F16,
            tollgate_config::Quantization::Off => Self::Off,
        }
    }
}

impl Convert {
    /// How numbers are to be stored. `Off` has no say in that.
    pub(crate) fn quantization(self) -> Quantization {
        match self {
            Self::Auto | Self::Off => Quantization::Auto,
            Self::Q4KM => Quantization::Q4KM,
            Self::Q8_0 => Quantization::Q8_0,
            Self::F16 => Quantization::F16,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConvertFolder {
    /// A folder with `config.json`, `tokenizer.json` and safetensors, or with a PEFT adapter.
    pub(crate) folder: PathBuf,
    /// The GGUF file to write; it must not be there.
    pub(crate) out: PathBuf,
    /// How numbers are stored; an adapter's stay as they are.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) quantization: Convert,
    /// The base of an adapter: its GGUF file, or its folder.
    #[arg(long)]
    pub(crate) base: Option<PathBuf>,
    /// The name in the file; by default after the file.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A GGUF file, a folder with a model, or a `model.zip`.
    pub(crate) path: PathBuf,
    /// Under what name; by default the manifest's, or else after the file.
    #[arg(long)]
    pub(crate) name: Option<ArtifactName>,
    /// The version of a model without a manifest; by default one more than the last.
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    pub(crate) version: Option<u64>,
    /// The model that an adapter without a manifest was made for: a name or a digest.
    #[arg(long)]
    pub(crate) base: Option<Which>,
    /// What becomes of safetensors and PEFT adapters; by default what `quantization` in the config says, or `auto`, unless the config
    /// serves them by candle.
    #[arg(long, value_enum)]
    pub(crate) convert: Option<Convert>,
    #[command(flatten)]
    pub(crate) trusted: Trusted,
    #[command(flatten)]
    pub(crate) then: Then,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Where it is.
    pub(crate) source: PullSource,
    /// Under what name; by default the manifest's, or else after the file or the repository.
    #[arg(long)]
    pub(crate) name: Option<ArtifactName>,
    /// The hub that `OWNER/NAME` is on.
    #[arg(long, env = "TOLLGATE_HUB", value_name = "URL")]
    pub(crate) hub: Option<String>,
    /// The registry that `ollama:NAME` is on.
    #[arg(long, env = "TOLLGATE_REGISTRY", value_name = "URL")]
    pub(crate) registry: Option<String>,
    /// The model that an adapter without a manifest was made for: a name or a digest.
    #[arg(long)]
    pub(crate) base: Option<Which>,
    /// What becomes of safetensors and PEFT adapters; by default what `quantization` in the config says, or `auto`, unless the config
    /// serves them by candle.
    #[arg(long, value_enum)]
    pub(crate) convert: Option<Convert>,
    #[command(flatten)]
    pub(crate) trusted: Trusted,
    #[command(flatten)]
    pub(crate) then: Then,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A name, for its current version, or a digest.
    #[arg(value_name = "NAME|DIGEST")]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A name, for its current version, or a digest; without it everything that is installed.
    #[arg(value_name = "NAME|DIGEST")]
    pub(crate) which: Option<Which>,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// The name that is to stand for it.
    pub(crate) name: ArtifactName,
    /// Which version; by default the highest of the name.
    pub(crate) digest: Option<Digest>,
    /// Do not load it once in a process of its own first.
    #[arg(long)]
    pub(crate) no_probe: bool,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The name that is to stand for what it stood for before.
    pub(crate) name: ArtifactName,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// A name, for all its versions, or a digest.
    #[arg(value_name = "NAME|DIGEST")]
    pub(crate) which: Which,
    /// Also if it is current.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) local: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// A GGUF file or a folder with a model.
    pub(crate) path: PathBuf,
    /// Under what name it is offered.
    #[arg(long)]
    pub(crate) name: ArtifactName,
    /// Its version, which has to be higher than all before it.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    pub(crate) version: u64,
    /// For an adapter, the model that it was made for: a name or a digest.
    #[arg(long)]
    pub(crate) base: Option<Which>,
    /// For how many days it may be installed; for ever if absent.
    #[arg(long, value_parser = value_parser!(u32).range(1..=36_500))]
    pub(crate) expires_days: Option<u32>,
    /// The key to sign it with, as `tollgate model key` makes one.
    #[arg(long)]
    pub(crate) key: Option<PathBuf>,
    /// A few words for people.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Where it came from, for people.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Ask it this now, and keep its answer in the manifest: a gateway asks the same before it makes the model current.
    #[arg(long, value_name = "TEXT")]
    pub(crate) check_prompt: Option<String>,
    /// The archive to write; by default model.zip.
    #[arg(long, conflicts_with = "in_place")]
    pub(crate) out: Option<PathBuf>,
    /// Write manifest and signature beside the files, and no archive.
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The file of the key; it is made if it is not there.
    pub(crate) file: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
