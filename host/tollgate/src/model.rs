//! `tollgate model`: what is installed in a data directory, how it comes there, and which version of it is current; and what a
//! running gateway does with one of its models. Verifying and storing are `tollgate-artifacts`' matter; here are the order of the
//! steps, the questions to the gateway, and the words.

pub(crate) mod cli;
mod convert;
mod converting;
mod install;
mod interrupt;
mod make;
mod probe;
mod progress;
mod show;
mod switch;
mod tune;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tollgate_artifacts::{PublicKey, Store, Trust};

use self::cli::{ModelCommand, Trusted};
use self::interrupt::Ended;
use self::progress::tell;
use crate::admin;
use crate::cli::Ask;
use crate::data::Data;

/// What a process that Ctrl-C ended exits with, by custom.
const INTERRUPTED: u8 = 130;

/// Runs a verb of `tollgate model`.
pub(crate) fn main(command: ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::Import(ask) => Ok(watched(interrupt::watch(move |advice| install::import(&ask, advice))?)),
        ModelCommand::Pull(ask) => Ok(watched(interrupt::watch(move |advice| install::pull(&ask, advice))?)),
        ModelCommand::List(local) => done(show::list(&local)),
        ModelCommand::Show(ask) => done(show::show(&ask)),
        ModelCommand::Verify(ask) => show::verify(&ask),
        ModelCommand::Activate(ask) => done(switch::activate(&ask)),
        ModelCommand::Rollback(ask) => done(switch::rollback(&ask)),
        ModelCommand::Remove(ask) => done(switch::remove(&ask)),
        ModelCommand::Convert(ask) => Ok(watched(interrupt::watch(move |advice| convert::folder(&ask, advice))?)),
        ModelCommand::Pack(ask) => done(make::pack(ask)),
        ModelCommand::Key(ask) => done(make::key(&ask)),
        ModelCommand::Tune(ask) => Ok(watched(interrupt::watch(move |advice| tune::tune(&ask, advice))?)),
        ModelCommand::Warm(named) => done(admin::client::model(&named, "warm")),
        ModelCommand::Unload(named) => done(admin::client::model(&named, "unload")),
        ModelCommand::Pin(named) => done(admin::client::model(&named, "pin")),
        ModelCommand::Unpin(named) => done(admin::client::model(&named, "unpin")),
    }
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

fn watched(ended: Ended<()>) -> ExitCode {
    match ended {
        Ended::Done(()) => ExitCode::SUCCESS,
        Ended::Interrupted(advice) => {
            // A bar may stand in this line.
            tell(&format!("\ninterrupted: {advice}"));
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// The data directory and the models in it.
struct Opened {
    data: PathBuf,
    store: Store,
}

fn open(local: &Ask) -> anyhow::Result<Opened> {
    let data = Data::open(&local.data)?;
    let store = Store::open(&data.models())?;
    Ok(Opened { data: data.root, store })
}

/// Whose models the config takes. Without a config directory it is nobody's, as by default.
fn trust(trusted: &Trusted) -> anyhow::Result<Trust> {
    let Trusted { config, unsigned } = trusted;
    if !config.exists() {
        return Ok(Trust { keys: Vec::new(), unsigned: *unsigned });
    }
    let models = tollgate_config::load(config).map(|config| config.settings.models).map_err(|problems| {
        let list = problems.0.iter().map(|problem| format!("\n  {problem}")).collect::<String>();
        anyhow!("whom to trust is in a config that cannot be used; mend it, or name another with --config:{list}")
    })?;
    let keys = models.trusted_keys.iter().map(|key| key.as_str().parse::<PublicKey>().with_context(|| key.as_str().to_owned()));
    Ok(Trust { keys: keys.collect::<anyhow::Result<_>>()?, unsigned: *unsigned || models.unsigned })
}

/// What became of the question to the gateway that runs on this data directory: nothing where none does.
struct Gateway(Option<anyhow::Result<Value>>);

impl Gateway {
    /// Has it look at its config and its models now.
    fn reload(data: &Path) -> Self {
        Gateway(admin::client::reload_if_running(data).transpose())
    }

    fn json(&self) -> Value {
        match &self.0 {
            None => Value::Null,
            Some(Ok(status)) => json!({ "generation": status.get("generation"), "quarantined": status.get("quarantined") }),
            Some(Err(error)) => json!({ "error": format!("{error:#}") }),
        }
    }

    /// In words; empty without a gateway.
    fn text(&self) -> String {
        let status = match &self.0 {
            None => return String::new(),
            Some(Err(error)) => return format!("the running gateway could not be asked to reload: {error:#}\n"),
            Some(Ok(status)) => status,
        };
        let generation = status.get("generation").and_then(Value::as_u64).unwrap_or_default();
        let mut text = format!("the running gateway has reloaded and serves generation {generation}\n");
        for entry in status.get("quarantined").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            text.push_str(&format!("  in quarantine: {}: {}\n", field("file"), field("reason")));
        }
        text
    }
}

/// Prints the answer of a command: as JSON, or else the words.
fn answer(is_json: bool, value: &Value, text: &str) -> anyhow::Result<()> {
    let json = format!("{value:#}\n");
    admin::client::write(if is_json { json.as_bytes() } else { text.as_bytes() })
}
