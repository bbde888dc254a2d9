//! `proof bench`: the numbers that the product stands on (`rows`), against peers that really run (`bench/peers.rs`).

mod admin;
pub(crate) mod bare;
mod cancel;
mod embeddings;
mod generation;
mod latency;
pub(crate) mod limited;
mod lora;
mod model;
mod models;
pub(crate) mod pair;
pub(crate) mod peers;
mod plugin;
mod reload;
mod standing;
mod tuned;

use std::process::ExitCode;

use crate::rows::{Driver, Selection, Spec};
use crate::verify::models::swap;
use cancel::Stage;
use generation::Load;
use plugin::Which;
use reload::Change;

const PREFACE: &str = "# Benchmarks

Written by `make bench` from what each row last measured (`proof/records`); not to be edited. Where a peer is named, both ran on the
same machine in the same run, in turn, and figures are medians. `make bench ROW=decode` runs the rows whose names begin so; raw samples
are in `target/bench/ROW.json` then, and `proof/src/bench` has the code. A row over tokens uses a random-weight model of
Qwen2.5-1.5B's shape in Q4_K_M (984 MB) that the bench makes: speed does not depend on what the weights say.
";

/// Runs rows.
pub(crate) fn run(selection: &Selection) -> anyhow::Result<ExitCode> {
    driver().run(selection)
}

fn driver() -> Driver {
    let notes = include_str!("bench/notes.toml");
    Driver { command: "bench", document: "BENCHMARKS.md", preface: PREFACE, notes, rows: rows() }
}

/// A row of the table below.
macro_rules! row {
    ($id:literal, $what:literal, $aim:literal, $minutes:literal, $here:ident => $run:expr) => {
        Spec { id: $id, what: $what, aim: $aim, minutes: $minutes, run: |$here| Box::pin($run) }
    };
}

/// Every row: its name, what it shows, its aim, the minutes it may take.
fn rows() -> Vec<Spec> {
    let mut rows = token_rows();
    rows.extend(gateway_rows());
    rows.extend(plugin_rows());
    rows.extend(process_rows());
    rows.extend(model_rows());
    rows
}

fn load(streams: usize, is_busy: bool) -> Load {
    Load { streams, is_busy, aim: if is_busy { 2.0 } else { 1.0 } }
}

fn token_rows() -> Vec<Spec> {
    vec![
        row!("decode-1", "decode, 1 stream", "1.0x of llama-server", 20, here => generation::decode(here, load(1, false))),
        row!("decode-8", "decode, 8 streams, all together", "1.0x", 20, here => generation::decode(here, load(8, false))),
        row!("decode-16", "decode, 16 streams, all together", "1.0x", 20, here => generation::decode(here, load(16, false))),
        row!("prefill-1", "prefill, 1 stream", "1.0x", 20, here => generation::prefill(here, load(1, false))),
        row!("prefill-8", "prefill, 8 streams, all together", "1.0x", 20, here => generation::prefill(here, load(8, false))),
        row!("prefill-16", "prefill, 16 streams, all together", "1.0x", 30, here => generation::prefill(here, load(16, false))),
        row!("first-token", "time to first token while 8 streams decode", "1.0x or less", 20, here => generation::first_token(here)),
        row!("busy-decode-1", "decode, 1 stream, three busy loops beside", "2.0x", 30, here => generation::decode(here, load(1, true))),
        row!("busy-decode-8", "decode, 8 streams, three busy loops beside", "2.0x", 40, here => generation::decode(here, load(8, true))),
        row!("busy-decode-16", "decode, 16 streams, three busy loops beside", "2.0x", 50, here => generation::decode(here, load(16, true))),
        row!("busy-prefill-1", "prefill, 1 stream, three busy loops beside", "2.0x", 30, here => generation::prefill(here, load(1, true))),
        row!("busy-prefill-8", "prefill, 8 streams, three busy loops beside", "2.0x", 50, here => generation::prefill(here, load(8, true))),
        row!("busy-prefill-16", "prefill, 16 streams, three busy loops beside", "2.0x", 90, here => generation::prefill(here, load(16, true))),
    ]
}

fn gateway_rows() -> Vec<Spec> {
    vec![
        row!("added-0", "added to a request over a bare hyper + rustls server, no plugin on the route", "", 10, here => latency::added(here, 0)),
        row!("added-1", "added to a request, one plugin on the route", "", 10, here => latency::added(here, 1)),
        row!("added-5", "added to a request, five plugins on the route", "p50 250 us, p99 1 ms", 10, here => latency::added(here, 5)),
        row!("litellm-1", "added to llama-server's time for one token, one client", "less than LiteLLM", 20, here => latency::litellm(here, 1)),
        row!("litellm-16", "added to llama-server's time for one token, 16 clients", "less than LiteLLM", 20, here => latency::litellm(here, 16)),
        row!("clients-100", "100 clients at once", "all answered", 20, here => standing::hundred(here)),
        row!("cancel-queue", "client gone in the queue to place free", "1 step", 10, here => cancel::cancel(here, Stage::Queue)),
        row!("cancel-prefill", "client gone in prefill to slot free", "1 step", 10, here => cancel::cancel(here, Stage::Prefill)),
        row!("cancel-decode", "client gone in decode to slot free", "1 step", 10, here => cancel::cancel(here, Stage::Decode)),
    ]
}

fn plugin_rows() -> Vec<Spec> {
    vec![
        row!("plugin-auth-keys", "fresh instance of auth-keys, 13 headers", "60 us, start 20 us", 5, here => plugin::call(here, Which::AuthKeys)),
        row!("plugin-filter-pii", "fresh instance of filter-pii, a prompt", "60 us, start 20 us", 5, here => plugin::call(here, Which::FilterPii)),
        row!("plugin-template-jinja", "fresh instance of template-jinja (0.9 MB), a prompt", "60 us, start 20 us", 5, here => plugin::call(here, Which::TemplateJinja)),
        row!("plugin-stream", "filter-pii over a streamed reply", "3 us a piece", 5, here => plugin::stream(here)),
        row!("reload-plugin", "changed Rust plugin to active", "2 s, no failure", 10, here => reload::reload(here, Change::Component)),
        row!("reload-config", "changed plugin config to active", "500 ms, no failure", 10, here => reload::reload(here, Change::Config)),
        row!("reload-cached", "changed plugin config to active, built before", "50 ms, no failure", 10, here => reload::reload(here, Change::Cached)),
    ]
}

fn process_rows() -> Vec<Spec> {
    vec![
        row!("start-cold", "start to ready, nothing made before", "", 10, here => standing::start(here, true)),
        row!("start-warm", "start to ready, plugins built before", "500 ms", 10, here => standing::start(here, false)),
        row!("memory-alone", "resident memory with the authenticator alone", "", 10, here => standing::memory(here, 1)),
        row!("memory-plugins", "resident memory with six plugins, no model", "120 MB", 10, here => standing::memory(here, 6)),
        row!("memory-model", "1.5B model, 4 streams, plugins, inside 2 GB", "all answered", 20, here => standing::limited(here)),
    ]
}

fn model_rows() -> Vec<Spec> {
    vec![
        row!("load", "load time of a generated model of 299 MB, against llama-server", "no slower than llama-server", 30, here => models::load(here)),
        row!("model-memory", "memory of six generated models of 56 to 299 MB, predicted and measured", "within 10 % each", 20, here => models::memory(here)),
        row!("tuned", "decode and prefill as measured best on this machine, over the default", "0.97x over all, decode counted twice", 40, here => tuned::tuned(here)),
        row!("swap", "a model exchanged under 50 streams", "0 failed, 0 of two versions", 20, here => swap::timed(here)),
        row!("lora-switch", "replies with an adapter or another or none, by turns, against one kind after the other", "", 20, here => lora::switch(here)),
        row!("embeddings", "embeddings of all-MiniLM-L6-v2 through each backend", "cosine above 0.99 between backends", 30, here => embeddings::rate(here)),
    ]
}

/// Keeps one core busy for as long as the parent lives.
pub(crate) fn busy() -> anyhow::Result<ExitCode> {
    let parent = std::os::unix::process::parent_id();
    let mut number = 1_u64;
    while std::os::unix::process::parent_id() == parent {
        for _ in 0..10_000_000 {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_written_from_records() {
        super::driver().check_document().unwrap();
    }
}
