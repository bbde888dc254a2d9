//! What a factory does: `pack` makes an artifact, `key` the key that signs it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use serde_json::json;
use tollgate_artifacts::SigningKey;
use tollgate_artifacts::manifest::KnownAnswer;
use tollgate_artifacts::pack::{self, PackOptions, PackTo};

use super::cli::{Key, Pack};
use super::progress::{Shown, tell};
use super::{answer, probe};

const ARCHIVE: &str = "model.zip";

pub(super) fn pack(ask: Pack) -> anyhow::Result<()> {
    let key = ask.key.as_deref().map(SigningKey::read).transpose()?;
    let check = ask.check_prompt.map(|prompt| known_answer(&ask.path, prompt)).transpose()?;
    let to = if ask.in_place { PackTo::InPlace } else { PackTo::Zip(ask.out.unwrap_or_else(|| PathBuf::from(ARCHIVE))) };
    let options = PackOptions {
        name: ask.name,
        version: ask.version,
        expires_days: ask.expires_days,
        base: ask.base,
        description: ask.description,
        source: ask.source,
        check,
        now: SystemTime::now(),
        key: key.as_ref(),
    };
    let packed = pack::pack(&ask.path, &options, &to, &Shown::new()).with_context(|| ask.path.display().to_string())?;
    let out = match &to {
        PackTo::Zip(path) => path.display().to_string(),
        PackTo::InPlace if ask.path.is_dir() => ask.path.join("manifest.json").display().to_string(),
        PackTo::InPlace => ask.path.with_file_name("manifest.json").display().to_string(),
    };
    let manifest = &packed.manifest;
    let value = json!({
        "name": manifest.name,
        "version": manifest.version,
        "format": manifest.format,
        "digest": packed.digest,
        "bytes": manifest.total_bytes(),
        "files": manifest.files.len(),
        "signed": packed.is_signed,
        "check": manifest.check,
        "out": out,
    });
    let mut text = format!("{out}: version {} of `{}`, digest {}\n", manifest.version, manifest.name, packed.digest);
    if let Some(check) = &manifest.check {
        text.push_str(&format!("asked {:?} it says {:?}\n", check.prompt, check.reply));
    }
    if !packed.is_signed {
        text.push_str("it is not signed, so a gateway takes it with `unsigned` only; --key signs it\n");
    }
    answer(ask.json, &value, &text)
}

/// What the model says now to `prompt`.
fn known_answer(path: &Path, prompt: String) -> anyhow::Result<KnownAnswer> {
    let (format, file, bytes) = pack::look(path).with_context(|| path.display().to_string())?;
    if format.is_adapter() {
        bail!("an adapter answers nothing without its base: leave --check-prompt out");
    }
    let reply = probe::ask(file, format, &prompt, bytes).with_context(|| path.display().to_string())?;
    Ok(KnownAnswer { prompt, reply })
}

pub(super) fn key(ask: &Key) -> anyhow::Result<()> {
    let is_made = !ask.file.exists();
    let key = if is_made { SigningKey::generate()? } else { SigningKey::read(&ask.file)? };
    if is_made {
        key.write(&ask.file)?;
        if !ask.json {
            tell(&format!("{} is the secret half: keep it where models are made, and nowhere else", ask.file.display()));
            tell("this is the public half, for [models] in the gateways' tollgate.toml:");
        }
    }
    let public = key.public();
    let value = json!({
        "file": ask.file.display().to_string(),
        "made": is_made,
        "public_key": public.to_string(),
        "id": public.id(),
    });
    answer(ask.json, &value, &format!("trusted_keys = [\"{public}\"]\n"))
}
