//! How many rows of prompts a step may have beside streams, so that nobody's stream stutters when somebody's prompt is read.
//!
//! It is learnt from the steps themselves: how long one takes with streams alone, and what each row of a prompt adds. The rest
//! follows: so many rows that a step takes at most [`SLOWER`] times as long as without any. Pure: durations come as arguments.

use std::time::Duration;

/// How much longer a step with prompts may take. What is measured wavers, and a stream's gap is to stay below twice its usual.
const SLOWER: f64 = 1.6;
/// Rows of a prompt, the first time that nothing is known.
const FIRST_ROWS: usize = 4;
/// After so many steps with prompts, one without any is measured again: streams get longer and the machine busier.
const MEASURE_EVERY: u32 = 32;
/// How much a new measure counts against all before.
const NEW: f64 = 0.25;
/// A measure this much above what is known is an accident, and counts as no more.
const WILD: f64 = 4.0;

/// What is known of a model's steps.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Seconds of a step with so many streams and nothing else; 0 is not known yet. The first is for one stream.
    alone_s: Vec<f64>,
    /// Seconds that a row of a prompt adds; 0 is not known yet.
    row_s: f64,
    /// Rows that were tried: more than twice as many are not, before these are measured.
    tried: usize,
    /// Rows that may be in the next step.
    allowed: usize,
    /// Steps with prompts beside streams since the last without.
    mixed: u32,
}

impl Pace {
    /// Rows of prompts that may go into a step beside this many streams, at least one; now and then none, to measure.
    pub(super) fn allow(&mut self, streams: usize) -> usize {
        self.allowed = match self.alone(streams) {
            Some(alone_s) if self.mixed < MEASURE_EVERY => self.fitting(alone_s),
            _ => 0,
        };
        self.allowed
    }

    /// A step was decoded.
    pub(super) fn learn(&mut self, streams: usize, prompt_rows: usize, took: Duration) {
        if streams == 0 {
            return;
        }
        // A step takes some time, even where no clock sees it.
        let took_s = took.as_secs_f64().max(1e-9);
        if prompt_rows == 0 {
            self.mixed = 0;
            if self.alone_s.len() < streams {
                self.alone_s.resize(streams, 0.0);
            }
            if let Some(known) = self.alone_s.get_mut(streams - 1) {
                *known = blend(*known, took_s);
            }
            return;
        }
        self.mixed = self.mixed.saturating_add(1);
        if prompt_rows >= self.allowed {
            self.tried = prompt_rows;
        }
        if let Some(alone_s) = self.alone(streams) {
            // A row costs something, even where it is lost in the noise.
            let row_s = ((took_s - alone_s) / prompt_rows as f64).max(alone_s * 1e-4);
            self.row_s = blend(self.row_s, row_s);
        }
    }

    /// What a step of this many streams takes.
    fn alone(&self, streams: usize) -> Option<f64> {
        self.alone_s.get(streams.checked_sub(1)?).copied().filter(|seconds| *seconds > 0.0)
    }

    fn fitting(&self, alone_s: f64) -> usize {
        let most = self.tried.saturating_mul(2).max(FIRST_ROWS);
        if self.row_s <= 0.0 {
            return FIRST_ROWS;
        }
        let rows = (SLOWER - 1.0) * alone_s / self.row_s;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0, and cut to what is allowed")]
        let rows = rows as usize;
        rows.clamp(1, most)
    }
}

fn blend(known: f64, new: f64) -> f64 {
    if known > 0.0 { known + (new.min(known * WILD) - known) * NEW } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a step takes so many microseconds, and each row of a prompt so many more.
    fn run(pace: &mut Pace, streams: usize, steps: usize, (alone_us, row_us): (u64, u64)) -> Vec<usize> {
        let mut rows = Vec::new();
        for _ in 0..steps {
            let allowed = pace.allow(streams);
            pace.learn(streams, allowed, Duration::from_micros(alone_us + row_us * allowed as u64));
            rows.push(allowed);
        }
        rows
    }

    #[test]
    fn it_measures_first_and_then_keeps_to_the_share() {
        let mut pace = Pace::default();
        let rows = run(&mut pace, 1, 200, (10_000, 100));
        assert_eq!(rows[..3], [0, FIRST_ROWS, FIRST_ROWS * 2], "what is not known is tried in small steps");
        // 1.6 times 10 ms leaves room for 60 rows of 0.1 ms.
        assert!(rows[10..].iter().all(|rows| *rows == 0 || (59..=60).contains(rows)), "{rows:?}");
        let measures = rows.iter().filter(|rows| **rows == 0).count();
        assert!((2..=10).contains(&measures), "{measures}");
    }

    #[test]
    fn a_slow_machine_still_reads_prompts() {
        let rows = run(&mut Pace::default(), 1, 40, (1_000, 50_000));
        assert!(rows[3..].iter().filter(|rows| **rows == 1).count() >= 35, "{rows:?}");
    }

    #[test]
    fn it_follows_the_machine_and_forgets_an_accident() {
        let mut pace = Pace::default();
        run(&mut pace, 2, 40, (10_000, 100));
        pace.allow(2);
        pace.learn(2, 60, Duration::from_secs(60));
        assert!(run(&mut pace, 2, 60, (10_000, 100)).iter().rev().take(3).any(|rows| *rows >= 55));
        let slower = run(&mut pace, 2, 60, (10_000, 600));
        assert!(slower[20..].iter().all(|rows| *rows <= 12), "{slower:?}");
        // More streams than ever are measured first.
        let more = run(&mut pace, 8, 20, (40_000, 600));
        assert!(more[0] == 0 && more[10..].iter().all(|rows| (35..=41).contains(rows)), "{more:?}");
    }
}
