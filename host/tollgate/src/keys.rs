//! `tollgate keys`: list those of a running gateway, add one to a config directory.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, anyhow, bail};
use tollgate_config::{Allowed, Id, Name, Timestamp};
use tollgate_store::hash;

use crate::admin;
use crate::cli::{AddKey, KeysCommand};
use crate::data::new_secret;

pub(crate) fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::List(ask) => admin::client::show(&ask, "keys"),
        KeysCommand::Add(add) => add_key(&add),
    }
}

fn add_key(add: &AddKey) -> anyhow::Result<()> {
    let id: Id = add.id.parse().context("the key's id")?;
    if !add.config.is_dir() {
        bail!("{} is no directory: name the config directory with --config", add.config.display());
    }
    let secret = new_secret()?;
    let text = file_of(add, &secret)?;
    let dir = add.config.join("keys");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let path = dir.join(format!("{}.toml", id.as_str()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => anyhow!("{} is there already: remove it first to replace the key", path.display()),
            _ => anyhow!("{}: {error}", path.display()),
        })?;
    file.write_all(text.as_bytes()).with_context(|| path.display().to_string())?;
    say(&secret);
    Ok(())
}

/// The secret goes to standard output alone, so that a script can take it.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]
fn say(secret: &str) {
    eprintln!("The secret is shown once and kept nowhere; only its hash is in the config. It is valid at once.");
    println!("{secret}");
}

fn file_of(add: &AddKey, secret: &str) -> anyhow::Result<String> {
    let tenant: Name = add.tenant.parse().context("--tenant")?;
    for role in &add.roles {
        role.parse::<Name>().with_context(|| format!("--role {role}"))?;
    }
    for scope in &add.scopes {
        scope.parse::<Name>().with_context(|| format!("--scope {scope}"))?;
    }
    for model in &add.models {
        model.parse::<Allowed>().with_context(|| format!("--model {model}"))?;
    }
    let list = |words: &[String]| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "sha256 = \"{}\"", hex::encode(hash(secret)));
    let _ = writeln!(text, "tenant = {:?}", tenant.as_str());
    let _ = writeln!(text, "roles = [{}]", list(&add.roles));
    let _ = writeln!(text, "scopes = [{}]", list(&add.scopes));
    let _ = writeln!(text, "models = [{}]", list(&add.models));
    if let Some(model) = &add.default_model {
        model.parse::<Name>().with_context(|| format!("--default-model {model}"))?;
        let _ = writeln!(text, "default_model = {model:?}");
    }
    if let Some(expires) = &add.expires {
        expires.parse::<Timestamp>().with_context(|| format!("--expires {expires}"))?;
        let _ = writeln!(text, "expires = {expires:?}");
    }
    Ok(text)
}
