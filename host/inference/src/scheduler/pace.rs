//! How many rows of prompts a step may have beside streams, so that nobody's stream stutters when somebody's prompt is read.
//!
//! It is learnt from the steps themselves: how long one takes with streams alone, and what each row of a prompt adds. The rest
//! follows: so many rows that a step takes at most [`SLOWER`] times as long as without any.
//!
//! A short prompt would wait for many such steps, each of them too small for the backend to be at its best; it is read in bursts
//! instead, of as many rows as a burst may have. What a burst costs the streams comes out of a credit in seconds, which their own
//! steps fill up again: however many short prompts come, streams get half of the time. Pure: durations come as arguments.

use std::time::Duration;

/// How much longer a step with prompts may take. What is measured wavers, and a stream's gap is to stay below twice its usual.
const SLOWER: f64 = 1.6;
/// Prompts of so many rows at most are short.
pub(super) const SHORT_ROWS: usize = 256;
/// Rows of a burst: most short prompts in one step, at the backend's best rate.
const BURST_ROWS: usize = 128;
/// What each second of the streams' own steps adds to the credit: with [`SLOWER`], prompts have as much time as streams.
const REFILL: f64 = 2.0 - SLOWER;
/// The most that streams can be held up by bursts that come at once, but for the last of them, in seconds. Sixteen short prompts
/// that come together on a slow machine fit in; a flood of them does not.
const MOST_CREDIT_S: f64 = 20.0;
/// Rows of a prompt, the first time that nothing is known.
const FIRST_ROWS: usize = 4;
/// After so many steps with prompts, one without any is measured again: streams get longer and the machine busier.
const MEASURE_EVERY: u32 = 32;
/// How much a new measure counts against all before.
const NEW: f64 = 0.25;
/// A measure this much above what is known is an accident, and counts as no more.
const WILD: f64 = 4.0;

/// What a step may have of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// So many rows.
    pub(super) rows: usize,
    /// Only of short ones: it is a burst.
    pub(super) is_burst: bool,
}

/// What is known of a model's steps.
#[derive(Debug)]
pub(super) struct Pace {
    /// Seconds of a step with so many streams and nothing else; 0 is not known yet. The first is for one stream.
    alone_s: Vec<f64>,
    /// Seconds that a row of a prompt adds, but for bursts; 0 is not known yet.
    row_s: f64,
    /// Rows that were tried: more than twice as many are not, before these are measured.
    tried: usize,
    /// What the next step may have.
    allowed: Allowance,
    /// Steps with prompts beside streams since the last without.
    mixed: u32,
    /// Seconds that bursts may take; below 0 they have taken more.
    credit_s: f64,
}

impl Pace {
    /// With nothing known, and all credit.
    pub(super) fn new() -> Self {
        let allowed = Allowance { rows: 0, is_burst: false };
        Pace { alone_s: Vec::new(), row_s: 0.0, tried: 0, allowed, mixed: 0, credit_s: MOST_CREDIT_S }
    }

    /// What may go into a step beside this many streams: at least one row, but for now and then none, to measure.
    pub(super) fn allow(&mut self, streams: usize, has_short: bool) -> Allowance {
        self.allowed = match self.alone(streams) {
            Some(_) if has_short && self.credit_s > 0.0 => Allowance { rows: BURST_ROWS, is_burst: true },
            Some(alone_s) if self.mixed < MEASURE_EVERY => Allowance { rows: self.fitting(alone_s), is_burst: false },
            _ => Allowance { rows: 0, is_burst: false },
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
        }
        let Some(alone_s) = self.alone(streams) else { return };
        self.credit_s = (self.credit_s + REFILL * alone_s).min(MOST_CREDIT_S);
        if prompt_rows == 0 {
            return;
        }
        if self.allowed.is_burst {
            self.credit_s -= (took_s - alone_s).max(0.0);
            return;
        }
        self.mixed = self.mixed.saturating_add(1);
        if prompt_rows >= self.allowed.rows {
            self.tried = prompt_rows;
        }
        // A row costs something, even where it is lost in the noise.
        let row_s = ((took_s - alone_s) / prompt_rows as f64).max(alone_s * 1e-4);
        self.row_s = blend(self.row_s, row_s);
    }

    /// A step with prompts alone was decoded, and so many streams waited for it: it counts as if they had been in it.
    pub(super) fn learn_apart(&mut self, streams: usize, prompt_rows: usize, took: Duration) {
        let Some(alone_s) = self.alone(streams) else { return };
        self.learn(streams, prompt_rows, took.saturating_add(Duration::from_secs_f64(alone_s)));
        // The streams' own step fills the credit, when it comes.
        self.credit_s -= REFILL * alone_s;
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
            let allowed = pace.allow(streams, false);
            assert!(!allowed.is_burst, "no short prompt waits");
            pace.learn(streams, allowed.rows, Duration::from_micros(alone_us + row_us * allowed.rows as u64));
            rows.push(allowed.rows);
        }
        rows
    }

    #[test]
    fn it_measures_first_and_then_keeps_to_the_share() {
        let mut pace = Pace::new();
        let rows = run(&mut pace, 1, 200, (10_000, 100));
        assert_eq!(rows[..3], [0, FIRST_ROWS, FIRST_ROWS * 2], "what is not known is tried in small steps");
        // 1.6 times 10 ms leaves room for 60 rows of 0.1 ms.
        assert!(rows[10..].iter().all(|rows| *rows == 0 || (59..=60).contains(rows)), "{rows:?}");
        let measures = rows.iter().filter(|rows| **rows == 0).count();
        assert!((2..=10).contains(&measures), "{measures}");
    }

    #[test]
    fn a_slow_machine_still_reads_prompts() {
        let rows = run(&mut Pace::new(), 1, 40, (1_000, 50_000));
        assert!(rows[3..].iter().filter(|rows| **rows == 1).count() >= 35, "{rows:?}");
    }

    #[test]
    fn it_follows_the_machine_and_forgets_an_accident() {
        let mut pace = Pace::new();
        run(&mut pace, 2, 40, (10_000, 100));
        pace.allow(2, false);
        pace.learn(2, 60, Duration::from_secs(60));
        assert!(run(&mut pace, 2, 60, (10_000, 100)).iter().rev().take(3).any(|rows| *rows >= 55));
        let slower = run(&mut pace, 2, 60, (10_000, 600));
        assert!(slower[20..].iter().all(|rows| *rows <= 12), "{slower:?}");
        // More streams than ever are measured first.
        let more = run(&mut pace, 8, 20, (40_000, 600));
        assert!(more[0] == 0 && more[10..].iter().all(|rows| (35..=41).contains(rows)), "{more:?}");
    }

    /// Seconds of streams' own steps, and of all, while short prompts never cease.
    fn flood(pace: &mut Pace, steps: usize, (alone_us, row_us): (u64, u64)) -> (f64, f64) {
        let (mut own_s, mut all_s) = (0.0, 0.0);
        for _ in 0..steps {
            let allowed = pace.allow(1, true);
            let took = Duration::from_micros(alone_us + row_us * allowed.rows as u64);
            pace.learn(1, allowed.rows, took);
            own_s += alone_us as f64 / 1e6;
            all_s += took.as_secs_f64();
        }
        (own_s, all_s)
    }

    #[test]
    fn short_prompts_come_in_bursts_and_leave_streams_half_of_the_time() {
        for machine in [(70_000, 30_000), (10_000, 100), (1_000, 50_000)] {
            let mut pace = Pace::new();
            assert_eq!(pace.allow(1, true).rows, 0, "the streams' own step is measured first");
            pace.learn(1, 0, Duration::from_micros(machine.0));
            assert_eq!(pace.allow(1, true), Allowance { rows: BURST_ROWS, is_burst: true });
            let (own_s, all_s) = flood(&mut pace, 20_000, machine);
            let burst_s = (machine.1 * BURST_ROWS as u64) as f64 / 1e6;
            // What a single row costs on the slowest of these machines is more than the share; it is let through all the same.
            let least_s = 20_000.0 * machine.1.saturating_sub(machine.0) as f64 / 1e6;
            assert!(all_s - own_s - MOST_CREDIT_S - burst_s - least_s <= own_s * 1.05, "{machine:?}: {own_s} of {all_s}");
        }
    }

    /// Prompts with one adapter and streams with another: their steps take turns, and the share is the same.
    #[test]
    fn prompts_apart_from_the_streams_keep_to_the_share_too() {
        let (mut pace, mut own_s, mut other_s) = (Pace::new(), 0.0, 0.0);
        for _ in 0..400 {
            pace.learn(1, 0, Duration::from_millis(10));
            own_s += 0.01;
            let rows = pace.allow(1, false).rows.max(1);
            let took = Duration::from_micros(100 * rows as u64);
            pace.learn_apart(1, rows, took);
            other_s += took.as_secs_f64();
        }
        assert!(other_s <= own_s * (SLOWER - 1.0) * 1.05 && other_s >= own_s * (SLOWER - 1.0) * 0.8, "{other_s} beside {own_s}");
        for _ in 0..20_000 {
            pace.learn(1, 0, Duration::from_millis(10));
            own_s += 0.01;
            let rows = pace.allow(1, true).rows.max(1);
            let took = Duration::from_micros(1_000 * rows as u64);
            pace.learn_apart(1, rows, took);
            other_s += took.as_secs_f64();
        }
        assert!(other_s - MOST_CREDIT_S <= own_s * 1.1, "{other_s} beside {own_s}");
    }

    #[test]
    fn the_credit_comes_back() {
        let mut pace = Pace::new();
        run(&mut pace, 1, 40, (10_000, 1_000));
        let bursts = |pace: &mut Pace| {
            (0..600)
                .filter(|_| {
                    let allowed = pace.allow(1, true);
                    pace.learn(1, allowed.rows, Duration::from_micros(10_000 + 1_000 * allowed.rows as u64));
                    allowed.is_burst
                })
                .count()
        };
        assert!((156..190).contains(&bursts(&mut pace)), "20 s and what comes back, at 128 ms each");
        run(&mut pace, 1, 5_500, (10_000, 1_000));
        assert!((156..190).contains(&bursts(&mut pace)));
    }
}
