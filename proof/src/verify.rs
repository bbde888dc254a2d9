//! `proof verify`: the long forms of what is promised. A row is named after its promise; `--quick` runs its short form.
//!
//! This file has the list of rows. How one is run, kept and resumed is `rows.rs`.

mod attack;
mod bodies;
mod canaries;
pub(crate) mod chance;
mod checks;
mod closed;
mod fallback;
mod floods;
mod forwarded;
mod fuzz;
mod good;
mod handshakes;
mod leaks;
mod load;
pub(crate) mod models;
mod pii;
mod process;
mod raw;
mod reload;
mod routes;
mod sandbox;
mod scrape;
mod series;
mod signals;
mod slow;
mod smuggling;
mod stalled;
mod wire;

use std::process::ExitCode;

use crate::rows::{Driver, Selection, Spec};

const PREFACE: &str = "# Verification

Written by `make verify` from `proof/records`; do not edit. Rows are named after the promises of [SECURITY.md](SECURITY.md).
";

macro_rules! row {
    ($id:literal, $minutes:literal, $run:path, $what:literal, $aim:literal) => {
        Spec { id: $id, what: $what, aim: $aim, minutes: $minutes, run: |here| Box::pin($run(here)) }
    };
}

/// Runs rows.
pub(crate) fn run(selection: &Selection) -> anyhow::Result<ExitCode> {
    driver().run(selection)
}

fn driver() -> Driver {
    let notes = include_str!("verify/notes.toml");
    Driver { command: "verify", document: "VERIFICATION.md", preface: PREFACE, notes, rows: rows() }
}

fn rows() -> Vec<Spec> {
    [operation_rows(), edge_rows(), load_rows(), auth_rows(), stranger_rows(), sandbox_rows(), model_rows()].concat()
}

/// What operators do: changes and signals.
fn operation_rows() -> Vec<Spec> {
    vec![
        row!(
            "P-U1-edits",
            90,
            reload::edits,
            "1,000 edits of the config by six writers' styles at 500 requests/s, 200 of them builds",
            "0 failed requests, 0 mixed generations"
        ),
        row!(
            "P-U2-unannounced",
            40,
            reload::unannounced,
            "changes that nobody announces: link swaps, a new folder, a storm of events",
            "each applied within 12 s"
        ),
        row!(
            "P-U3-swaps",
            60,
            reload::swaps,
            "1,000 swaps of a plugin at 500 requests/s with streams under way",
            "0 failures; old generations gone by their drain deadline"
        ),
        row!(
            "P-U6-signals",
            60,
            signals::run,
            "500 storms of signals, with reloads and a stream",
            "0 hangs; the end within the grace period + 5 s"
        ),
    ]
}

/// What becomes of models.
fn model_rows() -> Vec<Spec> {
    vec![
        row!(
            "fallback",
            45,
            fallback::run,
            "the server of a model killed under 32 streams and started again, a second one behind it",
            "0 failed but streams under way then, each with one error event; back within 61 s"
        ),
        row!(
            "lifecycle",
            180,
            models::lifecycle::run,
            "10,000 requests at random for 6 generated models of 56 to 299 MB, with memory for 2",
            "0 out of memory, 0 aborted; memory within 10 % of what was predicted for each"
        ),
        row!(
            "P-U4-swaps",
            120,
            models::swap::run,
            "1,000 exchanges of a model under 50 streams",
            "0 failed, 0 replies of two versions"
        ),
        row!(
            "P-M4-mutants",
            180,
            models::mutants::run,
            "10,000 mutated models while a gateway serves, 1,000 of them imported into it",
            "every crash in the process that tries models; the gateway up throughout"
        ),
        row!(
            "P-M9-downloads",
            120,
            models::downloads::run,
            "500 downloads from a server that fails at random",
            "0 bad installs; each comes to its end once the server is well"
        ),
        row!(
            "P-M10-kills",
            60,
            models::kills::run,
            "300 kill -9 during pull, import, verify, activate and rollback",
            "`current` always whole; a rollback within 5 s"
        ),
    ]
}

/// What attackers send.
fn edge_rows() -> Vec<Spec> {
    vec![
        row!(
            "P-E1-slow",
            20,
            slow::run,
            "8,000 slow connections of six kinds for 5 minutes",
            "others' p99 < 2x and 0 errors; each closed by its deadline + 2 s; 32 KiB each"
        ),
        row!(
            "P-E2-resets",
            15,
            floods::resets,
            "HTTP/2 rapid reset and MadeYouReset on 4 connections, 60 s each",
            "RSS +16 MiB at most, 0 in flight after 5 s, others' p99 < 3x"
        ),
        row!(
            "P-E3-floods",
            25,
            floods::others,
            "CONTINUATION, empty DATA, PING, SETTINGS, HPACK bomb, window 0: 60 s each",
            "RSS +16 MiB at most, 0 in flight after 5 s, others' p99 < 3x"
        ),
        row!(
            "P-E5-fuzz",
            90,
            fuzz::run,
            "1,000,000 inputs for every parser of foreign bytes",
            "no panic, none over 10 s or 2 GiB"
        ),
    ]
}

/// What many clients do; and what must hold in all of it.
fn load_rows() -> Vec<Spec> {
    vec![
        row!("P-L1-clients", 25, load::clients, "100 clients of the demo model for 10 minutes", "all answered, none refused"),
        row!(
            "P-L3-leavers",
            30,
            load::leavers,
            "200 cancelled calls, then one; 10,000 random disconnects",
            "the last < 5 s; 0 sequences, requests, slots, descriptors left"
        ),
        row!(
            "P-L4-stalled",
            15,
            stalled::run,
            "1,000 streams that nobody reads",
            "RSS +128 MiB at most; others' token gap p99 < 2x"
        ),
        row!(
            "P-L6-soak",
            90,
            load::soak,
            "an hour of traffic with reloads and faults",
            "RSS slope < 1 MiB/h; descriptors and threads flat; 0 errors that were not asked for"
        ),
        row!(
            "P-W9-pii",
            60,
            pii::run,
            "100,000 texts with planted personal data through streamed replies",
            "every reply masked exactly"
        ),
        row!("P-E11-errors", 5, leaks::run, "every error body that any row has seen", "0 name internals"),
    ]
}

/// Who is let in, and what is kept to itself.
fn auth_rows() -> Vec<Spec> {
    vec![
        row!(
            "P-A1-routes",
            15,
            routes::run,
            "every route of the router's table in 30 variants, over HTTP/1.1 and 2, with keys that open nothing",
            "0 let in outside a public list of 6 at most; only 401, 403, 404, 405 from routes"
        ),
        row!(
            "P-A5-closed",
            20,
            closed::run,
            "an authenticator that fails in 20 ways, through hot reloads, at as many requests/s as two cores hold",
            "0 admitted"
        ),
        row!(
            "P-A8-canaries",
            10,
            canaries::run,
            "canaries for every secret and text, through a gateway at log level trace with traces and metrics",
            "0 hits outside their own places; core dumps off"
        ),
    ]
}

/// What strangers say, in bytes that no client would send.
fn stranger_rows() -> Vec<Spec> {
    vec![
        row!(
            "P-E4-smuggling",
            20,
            smuggling::run,
            "150 and more smuggling payloads, direct and behind haproxy and nginx",
            "0 disagreements on the number of requests"
        ),
        row!(
            "P-E6-tls",
            25,
            handshakes::run,
            "testssl.sh, hellos in fragments, 100,000 mutated hellos, 500 new connections/s for 2 minutes",
            "0 HIGH or CRITICAL; 0 panics; others' p99 < 2x"
        ),
        row!(
            "P-E9-series",
            25,
            series::run,
            "1,000,000 requests with random paths, models, keys and methods",
            "no new series, memory flat; 0 operator's routes on a public address"
        ),
        row!(
            "P-E10-forwarded",
            15,
            forwarded::run,
            "100,000 generated forwarding headers through trusted and other peers",
            "0 believed; the cap per address holds"
        ),
    ]
}

/// What plugins do.
fn sandbox_rows() -> Vec<Spec> {
    [hostile_rows(), build_rows()].concat()
}

/// What plugins do in a request.
fn hostile_rows() -> Vec<Spec> {
    vec![
        row!(
            "P-W1-limits",
            45,
            sandbox::limits::run,
            "hostile guests of classes 1 to 14 and 21, 1,000 calls each, beside 500 good requests/s",
            "each stopped within 60 ms of CPU, logged once; others' p99 < 2x; memory back within 5 %"
        ),
        row!(
            "P-W2-blocked",
            20,
            sandbox::blocked::run,
            "guests that wait for the host for ever, and callers that leave at any moment",
            "released by their deadline + 50 ms; 0 instances kept"
        ),
        row!(
            "P-W7-residue",
            20,
            sandbox::residue::run,
            "100,000 calls of 8 tenants that look for what others left, and leave something",
            "0 foreign bytes"
        ),
        row!(
            "P-W8-lift",
            20,
            sandbox::lift::run,
            "1,000,000 arbitrary answers of a plugin",
            "0 panics, nothing raw in a head that leaves"
        ),
        row!(
            "P-W10-leak",
            15,
            sandbox::parallel::leak,
            "8 plugins on a route at the highest rate held here",
            "RSS slope < 1 MiB/h"
        ),
        row!(
            "P-W11-traps",
            20,
            sandbox::parallel::traps,
            "the hostile guests while llama.cpp generates",
            "the same ends as alone, and the model goes on"
        ),
    ]
}

/// What becomes of components that are not what they should be.
fn build_rows() -> Vec<Spec> {
    vec![
        row!(
            "P-W3-imports",
            5,
            sandbox::imports::grants,
            "guests that import what nobody granted, or reach through the standard interfaces",
            "0 let in, 0 reach anything; first-party imports as written down"
        ),
        row!(
            "P-W4-opens",
            15,
            sandbox::imports::opens,
            "the hostile suite under strace",
            "0 files opened, 0 sockets made, 0 programs run"
        ),
        row!(
            "P-W5-compile",
            45,
            sandbox::compile::run,
            "compile bombs, 1,500 random components and 800 spoiled ones put into a running gateway",
            "others' p99.9 + 10 ms at most; every refusal in status and log; what served serves"
        ),
        row!(
            "P-W6-tamper",
            30,
            sandbox::tamper::run,
            "4,096 bytes of compiled plugins changed, one at a time",
            "100 % refused and built again"
        ),
    ]
}

/// What good traffic felt: its failures, and its p99 against the one before, `most` times at most.
fn compare(checks: &mut checks::Checks, alone: &good::Tally, under: &good::Tally, most: f64) {
    let ratio = under.quantile_ms(0.99) / alone.quantile_ms(0.99).max(0.001);
    checks.check(format!("{} failed of {} good requests", under.failed, under.count()), under.failed == 0);
    checks.check(
        format!("their p99 {:.1} ms against {:.1} ms alone ({ratio:.2}x)", under.quantile_ms(0.99), alone.quantile_ms(0.99)),
        ratio < most,
    );
    checks.sample("alone", alone.json());
    checks.sample("under", under.json());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_written_from_records() {
        super::driver().check_document().unwrap();
    }
}
