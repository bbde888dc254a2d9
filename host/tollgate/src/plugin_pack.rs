//! `tollgate plugin pack`: what a compiler wrote, as a component with its golden cases.

use std::fs;

use anyhow::{Context, anyhow};
use tollgate_plugins::Manifest;

use crate::cli::PackPlugin;

/// Packs it and says what came of it.
pub(crate) fn main(ask: &PackPlugin) -> anyhow::Result<()> {
    let wasm = fs::read(&ask.wasm).with_context(|| ask.wasm.display().to_string())?;
    let cases = ask.cases.as_deref().map(tollgate_cases::sources).transpose()?.unwrap_or_default();
    let packed = tollgate_pack::pack(&wasm, &cases).with_context(|| ask.wasm.display().to_string())?;
    Manifest::read(&packed).map_err(|reason| anyhow!("{}: {reason}", ask.wasm.display()))?;
    // Renamed into place, so that a gateway that watches it never sees a half.
    let unfinished = ask.out.with_extension("wasm.part");
    fs::write(&unfinished, &packed).with_context(|| unfinished.display().to_string())?;
    fs::rename(&unfinished, &ask.out).with_context(|| ask.out.display().to_string())?;
    tell(ask, packed.len(), cases.len());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a command line tool prints")]
fn tell(ask: &PackPlugin, bytes: usize, files: usize) {
    println!(
        "{}: {} KiB, {files} {} of cases",
        ask.out.display(),
        bytes.div_ceil(1024),
        if files == 1 { "file" } else { "files" }
    );
}
