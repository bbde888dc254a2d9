//! `tollgate import`: model files from the settings of older systems (`models.json`, `model.yaml`, `.env`). What is understood of
//! them is decided in `import/`, by functions over texts; here are only the reading and the writing of files.

mod dotenv;
mod env_keys;
mod format;
mod model;
mod model_yaml;
mod models_json;
mod plan;
mod prompts;
mod provider;
mod reading;
mod report;
mod secret;
#[cfg(test)]
mod tests;
mod toml_text;
mod weights;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use self::plan::{Plan, PlannedFile, Surroundings};
use self::reading::Input;
use self::weights::Place;
use crate::cli::Import;

/// What a file of the config may have at most is more than any of these had.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// Says what is understood of the files, and writes model files into the config directory.
pub(crate) fn main(ask: &Import) -> anyhow::Result<()> {
    let inputs = ask.files.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    // A directory that is not there yet, or is wrong in itself, holds no names that would have to be avoided.
    let existing = tollgate_config::load(&ask.config).ok();
    let holder = |name: &str| existing.as_ref().and_then(|config| config.model(name)).map(|model| model.id.as_str().to_owned());
    let plan = plan::build(&inputs, &Surroundings { locate: &locate, holder: &holder })?;
    if ask.json {
        let written = if ask.dry_run { Vec::new() } else { write(&ask.config, &plan, ask.force)? };
        return report::json(&plan, &written);
    }
    report::text(&plan, ask.dry_run)?;
    if !ask.dry_run {
        report::written(&write(&ask.config, &plan, ask.force)?, &ask.config)?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Input> {
    let shown = || path.display().to_string();
    // A pipe would not open before somebody writes to it.
    if !fs::metadata(path).with_context(shown)?.is_file() {
        bail!("{} is not a regular file", path.display());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)).with_context(shown)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!("{} is larger than 1 MiB, which no settings file is: name the settings file", path.display());
    }
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{} is not UTF-8: save it as UTF-8", path.display()))?;
    // Editors of some systems put a mark in front, which no parser wants.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    Ok(Input { path: path.to_owned(), text })
}

/// Where a path in an input leads. Older systems took a relative one from the folder that they were started in, which is the
/// folder of `.env`, and the one above `config/model.yaml`.
fn locate(input: &Input, text: &str) -> Option<Place> {
    let folder = input.path.parent().unwrap_or_else(|| Path::new(""));
    let above = folder.parent().filter(|_| folder.ends_with("config"));
    let candidates = [Some(folder), above, Some(Path::new(""))];
    candidates.into_iter().flatten().find_map(|base| {
        let path = base.join(text);
        let metadata = fs::metadata(&path).ok()?;
        let absolute = std::path::absolute(&path).ok()?.to_str()?.to_owned();
        Some(if metadata.is_dir() { Place::Folder(absolute) } else { Place::File(absolute) })
    })
}

/// Writes all of the plan's files, or none where one is there already. Returns their paths.
fn write(config: &Path, plan: &Plan, force: bool) -> anyhow::Result<Vec<PathBuf>> {
    if !config.is_dir() {
        bail!("{} is no directory: name the config directory with --config", config.display());
    }
    let paths = plan.files.iter().map(|file| config.join(&file.path)).collect::<Vec<_>>();
    if !force && let Some(path) = paths.iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        return Err(there_already(path));
    }
    for (file, path) in plan.files.iter().zip(&paths) {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        write_one(path, file, force)?;
    }
    Ok(paths)
}

fn write_one(path: &Path, file: &PlannedFile, force: bool) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    if force {
        // Renamed into place, so that a gateway that watches the directory never sees a half. What begins with `.` it ignores.
        let name = path.file_name().and_then(|name| name.to_str()).context("a planned file has a name")?;
        let unfinished = path.with_file_name(format!(".{name}.part"));
        fs::write(&unfinished, &file.toml).with_context(|| unfinished.display().to_string())?;
        return fs::rename(&unfinished, path).with_context(shown);
    }
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut opened = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => there_already(path),
        _ => anyhow!("{}: {error}", path.display()),
    })?;
    opened.write_all(file.toml.as_bytes()).with_context(shown)
}

fn there_already(path: &Path) -> anyhow::Error {
    anyhow!("{} is there already: --force replaces it, --dry-run shows what would be written", path.display())
}
