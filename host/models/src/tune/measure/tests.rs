//! That measuring measures: figures of the demo model, and how busy a machine is.

use std::path::{Path, PathBuf};

use super::*;

fn request() -> TuneRequest {
    TuneRequest {
        path: Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model/demo.gguf"),
        mapped: false,
        context_tokens: None,
        sequences: 16,
        step_rows: 512,
        threads: None,
        kv_cache: tollgate_config::KvCache::F16,
        budget_ms: 1_000,
        is_forced: true,
    }
}

/// What is told at last, and what before.
fn tuned(request: &TuneRequest) -> (TuneLine, Vec<Measured>) {
    let (mut rows, mut last) = (Vec::new(), None);
    tune(request, &mut |line| match line {
        TuneLine::Measured(measured) => rows.push(measured),
        line => last = Some(line),
    });
    (last.unwrap(), rows)
}

#[test]
fn a_model_is_measured() {
    let (TuneLine::Done(report), rows) = tuned(&request()) else { unreachable!("it is a model") };
    assert_eq!(report.table, rows);
    assert!(rows.iter().any(|row| row.candidate == report.chosen));
    for row in &rows {
        let figures = [row.prompt_tps, row.decode_tps, row.decode4_tps.unwrap()];
        assert!(figures.iter().all(|figure| figure.is_finite() && *figure > 0.0), "{row:?}");
    }
    let first = rows[0].candidate;
    assert_eq!(first, Candidate { repack: true, threads: 1, micro_batch: 512, spin: true }, "the default of a small model");
    assert!(rows.iter().skip(1).all(|row| row.candidate != first), "{rows:?}");
}

#[test]
fn the_default_is_measured_whatever_the_time() {
    let (TuneLine::Done(report), _) = tuned(&TuneRequest { budget_ms: 1, sequences: 1, ..request() }) else {
        unreachable!("it is a model")
    };
    assert_eq!((report.table.len(), report.is_complete), (1, false));
    assert_eq!(report.table[0].decode4_tps, None, "one sequence");
    assert!(report.gained_decode_percent.abs() < f64::EPSILON);
}

#[test]
fn short_steps_do_not_bind_longer_ones_of_another_config() {
    let request = TuneRequest { step_rows: 16, budget_ms: 1, ..request() };
    let (TuneLine::Done(report), _) = tuned(&request) else { unreachable!("it is a model") };
    assert_eq!(report.chosen.micro_batch, 512);
}

#[test]
fn threads_that_were_given_are_not_measured() {
    let (TuneLine::Done(report), rows) = tuned(&TuneRequest { threads: Some(2), ..request() }) else {
        unreachable!("it is a model")
    };
    assert!(report.chosen.threads == 2 && rows.iter().all(|row| row.candidate.threads == 2));
}

#[test]
fn what_is_no_model_is_said() {
    let (TuneLine::Failed(reason), rows) = tuned(&TuneRequest { path: PathBuf::from("/nowhere"), ..request() }) else {
        unreachable!("there is no file")
    };
    assert!(reason.contains("/nowhere") && rows.is_empty());
}

#[test]
fn what_others_take_is_seen_in_two_readings() {
    let reading = |busy: u64, idle: u64| format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 0 0 1\ncpu1 1 0 0 1\nintr 5\n");
    let before = reading(100, 100);
    assert_eq!(taken(&before, &reading(100, 140), 2), Some(0), "idle");
    assert_eq!(taken(&before, &reading(120, 120), 2), Some(50), "one of two cores");
    assert_eq!(taken(&before, &reading(120, 120), 1), Some(0), "one core is enough");
    assert_eq!(taken(&before, &reading(140, 100), 2), Some(100));
    assert_eq!(taken(&before, &before, 2), None);
    assert_eq!(taken("", "", 2), None);
}
