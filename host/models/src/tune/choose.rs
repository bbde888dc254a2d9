//! Which of the candidates is best: a pure function of what was measured.

use std::time::Duration;

use super::{Candidate, Measured, TuneReport};

/// How many times better than the best before it a candidate has to be: less is noise.
const MARGIN: f64 = 1.03;

/// What is told of a table, which took so long; nothing of an empty one.
pub(super) fn report(table: Vec<Measured>, is_complete: bool, busy_percent: u8, took: Duration) -> Option<TuneReport> {
    let chosen = best(&table)?.candidate;
    let (gained_prompt_percent, gained_decode_percent) = gained(&table, chosen);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Some(TuneReport { table, chosen, gained_prompt_percent, gained_decode_percent, is_complete, busy_percent, took_ms })
}

/// The place of the best in the table; the first stays unless one is better by the margin.
pub(super) fn best(table: &[Measured]) -> Option<&Measured> {
    let mut rows = table.iter();
    let first = rows.next()?;
    Some(rows.fold(first, |best, row| if is_better(row, best) { row } else { best }))
}

/// Whether `one` is better than `other` by more than noise.
fn is_better(one: &Measured, other: &Measured) -> bool {
    score(one) > score(other) * MARGIN
}

/// How much faster the chosen one is than the first, in percent: prompts, and decoding.
fn gained(table: &[Measured], chosen: Candidate) -> (f64, f64) {
    let chosen = table.iter().find(|row| row.candidate == chosen);
    let (Some(first), Some(chosen)) = (table.first(), chosen) else { return (0.0, 0.0) };
    let percent = |now: f64, before: f64| if before > 0.0 { (now / before - 1.0) * 100.0 } else { 0.0 };
    (percent(chosen.prompt_tps, first.prompt_tps), percent(decode(chosen), decode(first)))
}

/// Decoding counts twice as much as reading prompts: that is what people wait for.
fn score(row: &Measured) -> f64 {
    (decode(row).powi(2) * row.prompt_tps).cbrt()
}

/// One reply and four at once count the same.
fn decode(row: &Measured) -> f64 {
    row.decode4_tps.map_or(row.decode_tps, |four| (row.decode_tps * four).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(threads: u16, prompt_tps: f64, decode_tps: f64, decode4_tps: Option<f64>) -> Measured {
        let candidate = Candidate { repack: true, threads, micro_batch: 512, spin: true };
        Measured { candidate, prompt_tps, decode_tps, decode4_tps, load_ms: 1, bytes: 1 }
    }

    fn threads_of_best(table: &[Measured]) -> u16 {
        best(table).unwrap().candidate.threads
    }

    #[test]
    fn the_first_stays_unless_another_is_better_by_the_margin() {
        let first = row(1, 100.0, 10.0, Some(20.0));
        assert_eq!(threads_of_best(&[first]), 1);
        assert_eq!(threads_of_best(&[first, row(2, 100.0, 10.0, Some(20.0))]), 1, "a tie");
        assert_eq!(threads_of_best(&[first, row(2, 102.0, 10.2, Some(20.4))]), 1, "noise");
        assert_eq!(threads_of_best(&[first, row(2, 104.0, 10.4, Some(20.8))]), 2);
        assert_eq!(threads_of_best(&[first, row(2, 104.0, 10.4, Some(20.8)), row(3, 105.0, 10.5, Some(21.0))]), 2);
        assert!(best(&[]).is_none());
    }

    #[test]
    fn decoding_counts_twice_as_much_as_prompts() {
        let first = row(1, 100.0, 10.0, None);
        assert_eq!(threads_of_best(&[first, row(2, 150.0, 9.0, None)]), 2, "1.5 * 0.81 > 1.03^3");
        assert_eq!(threads_of_best(&[first, row(2, 150.0, 8.0, None)]), 1, "1.5 * 0.64 < 1");
        assert_eq!(threads_of_best(&[first, row(2, 70.0, 13.0, None)]), 2);
    }

    #[test]
    fn what_is_gained_is_against_the_first() {
        let table = [row(1, 100.0, 10.0, Some(40.0)), row(2, 135.0, 11.0, Some(44.0))];
        let (prompt, decode) = gained(&table, table[1].candidate);
        assert!((prompt - 35.0).abs() < 1e-9 && (decode - 10.0).abs() < 1e-9, "{prompt} {decode}");
        assert_eq!(gained(&table, table[0].candidate), (0.0, 0.0));
        assert_eq!(gained(&[], table[0].candidate), (0.0, 0.0));
    }
}
