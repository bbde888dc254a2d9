//! `tollgate model tune`: a model of the config is measured, and the table of what was found is shown.

use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::HumanBytes;
use serde_json::json;
use tollgate_models::{Candidate, Library, Measured, TuneReport, Tuned, tune_again};

use super::cli::Tune;
use super::interrupt::Advice;
use super::progress::tell;
use super::show::table;
use super::{Opened, answer, open, probe};
use crate::data::Data;
use crate::{builtin, tune_step};

const WHILE_MEASURING: &str = "nothing was changed; what was measured before still counts";
/// Where others take more of the cores than this, in percent, the figures say little.
const BUSY: u8 = 25;

pub(super) fn tune(ask: &Tune, advice: &Advice) -> anyhow::Result<()> {
    advice.set(WHILE_MEASURING);
    let config = tollgate_config::load(&ask.config).map_err(|problems| {
        let list = problems.0.iter().map(|problem| format!("\n  {problem}")).collect::<String>();
        anyhow!("the model is in a config that cannot be used; mend it, or name another with --config:{list}")
    })?;
    let known = || config.models.values().map(|model| model.id.as_str()).collect::<Vec<_>>().join(", ");
    let spec = config
        .model(&ask.name)
        .with_context(|| format!("no model of the config is called `{}`; there are: {}", ask.name, known()))?;
    let Opened { data, store } = open(&ask.local)?;
    let laid_out = Data { root: data }.builtin();
    let library = Library::new(builtin::MODELS, laid_out, config.dir.clone(), store).with_tuner(Some(tune_step::tuner()));
    let id = spec.id.as_str();
    tell(&format!("measuring `{id}` for {} s", ask.seconds));
    let budget = Duration::from_secs(u64::from(ask.seconds));
    let tuned = tune_again(spec, &library, budget, &mut |measured| tell(&line(measured)))
        .map_err(|error| anyhow!("`{id}` was not measured: {}", probe::plain(&error.to_string())))?;
    let is_used = config.settings.models.tune;
    let Tuned { report, digest, file } = &tuned;
    let value = json!({
        "model": id,
        "digest": digest,
        "file": file.display().to_string(),
        "used": is_used,
        "report": report,
    });
    answer(ask.local.json, &value, &text(id, &tuned, is_used, spec.threads.is_some()))
}

/// A candidate in a few words.
fn words(candidate: Candidate) -> String {
    let Candidate { repack, threads, micro_batch, spin } = candidate;
    let order = if repack { "repacked" } else { "as in file" };
    let waits = if spin { "spin" } else { "sleep" };
    format!("{order}, threads {threads}, rows {micro_batch}, {waits}")
}

fn line(measured: &Measured) -> String {
    format!("  {}: prompt {:.1} t/s, decode {:.1} t/s", words(measured.candidate), measured.prompt_tps, measured.decode_tps)
}

fn text(id: &str, tuned: &Tuned, is_used: bool, has_threads: bool) -> String {
    let Tuned { report, file, .. } = tuned;
    let head = ["", "CANDIDATE", "PROMPT T/S", "DECODE T/S", "DECODE X4 T/S", "LOAD", "MEMORY"].map(str::to_owned);
    let rows = report.table.iter().map(|row| {
        [
            if row.candidate == report.chosen { "*" } else { "" }.to_owned(),
            words(row.candidate),
            format!("{:.1}", row.prompt_tps),
            format!("{:.1}", row.decode_tps),
            row.decode4_tps.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
            format!("{} ms", row.load_ms),
            HumanBytes(row.bytes).to_string(),
        ]
    });
    let mut text = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    text.push_str(&summary(report));
    if has_threads {
        text.push_str("threads were not measured: its config gives them\n");
    }
    text.push_str(&format!("kept in {}\n", file.display()));
    text.push_str(&if is_used {
        format!("a running gateway uses it from the model's next load on: `tollgate model unload {id}` has it loaded anew\n")
    } else {
        "it is not used: `tune = false` is in [models] of tollgate.toml\n".to_owned()
    });
    text
}

fn summary(report: &TuneReport) -> String {
    let TuneReport { gained_prompt_percent, gained_decode_percent, is_complete, busy_percent, took_ms, chosen, table } = report;
    let mut text = if table.first().is_some_and(|first| first.candidate == *chosen) {
        "the default is best here: no other is 3 % better\n".to_owned()
    } else {
        format!("chosen: {}; prompt {gained_prompt_percent:+.0} %, decode {gained_decode_percent:+.0} %\n", words(*chosen))
    };
    if !is_complete {
        text.push_str(&format!("not all candidates were measured in {took_ms} ms: --seconds gives it more time\n"));
    }
    if *busy_percent > BUSY {
        text.push_str(&format!("other programs took {busy_percent} % of the cores: the figures say little\n"));
    }
    text
}
