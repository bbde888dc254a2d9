//! How far long work has come, on standard error: a bar on a terminal, else a line now and then.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tollgate_artifacts::Progress;

const KNOWN: &str = "{msg:36!} {bar:24} {bytes:>11} of {total_bytes:11} {bytes_per_sec:>13}  {eta} left";
const UNKNOWN: &str = "{msg:36!} {spinner} {bytes:>11} {bytes_per_sec:>13}";
/// Between two lines of the same work at least so long passes, and at most so long if it goes on.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(5);

/// Shows work as standard error allows.
#[derive(Debug)]
pub(super) enum Shown {
    /// On a terminal.
    Bar(Mutex<Option<ProgressBar>>),
    /// Elsewhere.
    Lines(Mutex<Option<Lines>>),
}

/// A piece of work that is told in lines.
#[derive(Debug)]
pub(super) struct Lines {
    what: String,
    total: Option<u64>,
    done: u64,
    began: Instant,
    told_at: Instant,
    told: u64,
}

impl Shown {
    /// For the standard error of this process.
    pub(super) fn new() -> Self {
        if std::io::stderr().is_terminal() { Shown::Bar(Mutex::default()) } else { Shown::Lines(Mutex::default()) }
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total_bytes: Option<u64>) {
        match self {
            Shown::Bar(bar) => {
                let style = ProgressStyle::with_template(if total_bytes.is_some() { KNOWN } else { UNKNOWN });
                let new = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr())
                    .with_style(style.expect("the templates here are templates"))
                    .with_message(what.to_owned());
                *lock(bar) = Some(new);
            }
            Shown::Lines(lines) => *lock(lines) = Some(Lines::new(what, total_bytes, Instant::now())),
        }
    }

    fn advance(&self, bytes: u64) {
        match self {
            Shown::Bar(bar) => {
                if let Some(bar) = lock(bar).as_ref() {
                    bar.inc(bytes);
                }
            }
            Shown::Lines(lines) => {
                let line = lock(lines).as_mut().and_then(|lines| lines.advance(bytes, Instant::now()));
                line.iter().for_each(|line| tell(line));
            }
        }
    }

    fn end(&self) {
        match self {
            Shown::Bar(bar) => {
                if let Some(bar) = lock(bar).take() {
                    bar.finish_and_clear();
                }
            }
            Shown::Lines(lines) => {
                let line = lock(lines).take().and_then(|lines| lines.end(Instant::now()));
                line.iter().for_each(|line| tell(line));
            }
        }
    }
}

impl Lines {
    fn new(what: &str, total: Option<u64>, now: Instant) -> Self {
        Lines { what: what.to_owned(), total, done: 0, began: now, told_at: now, told: 0 }
    }

    /// Another tenth is done, or five seconds have passed.
    fn advance(&mut self, bytes: u64, now: Instant) -> Option<String> {
        self.done = self.done.saturating_add(bytes);
        let since = now.saturating_duration_since(self.told_at);
        let has_grown = self.total.is_some_and(|total| self.done.saturating_sub(self.told) >= total / 10);
        if since < LEAST || (since < MOST && !has_grown) {
            return None;
        }
        (self.told_at, self.told) = (now, self.done);
        Some(self.line(now))
    }

    /// Work that took no time is not told.
    fn end(self, now: Instant) -> Option<String> {
        (now.saturating_duration_since(self.began) >= LEAST).then(|| self.line(now))
    }

    fn line(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.began).as_secs().max(1);
        let (done, rate) = (HumanBytes(self.done), HumanBytes(self.done / seconds));
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let percent = self.done.min(total).saturating_mul(100) / total;
                let left = total.saturating_sub(self.done).saturating_mul(seconds).checked_div(self.done).unwrap_or(0);
                format!("{}: {done} of {} ({percent} %), {rate}/s, {left} s left", self.what, HumanBytes(total))
            }
            None => format!("{}: {done}, {rate}/s", self.what),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something beside the answer of a command.
#[allow(clippy::print_stderr, reason = "a command line tool prints")]
pub(super) fn tell(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_by_tenths_or_after_five_seconds_and_never_thick() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::new("reading model.gguf", Some(1000 << 20), start);
        assert_eq!(lines.advance(500 << 20, start), None, "no second has passed");
        let line = lines.advance(0, at(2)).unwrap();
        assert_eq!(line, "reading model.gguf: 500.00 MiB of 1000.00 MiB (50 %), 250.00 MiB/s, 2 s left");
        assert_eq!(lines.advance(10 << 20, at(4)), None, "no tenth");
        assert!(lines.advance(10 << 20, at(7)).unwrap().contains("(52 %)"), "five seconds");
        assert!(lines.advance(100 << 20, at(8)).unwrap().contains("(62 %)"), "a tenth");
        assert!(lines.end(at(9)).is_some());
        assert_eq!(Lines::new("small", Some(1), start).end(start), None);
    }

    #[test]
    fn a_length_that_nobody_knows_is_not_needed() {
        let start = Instant::now();
        let mut lines = Lines::new("fetching x", None, start);
        assert_eq!(lines.advance(5 << 20, start + Duration::from_secs(1)), None);
        assert_eq!(lines.advance(5 << 20, start + Duration::from_secs(5)).unwrap(), "fetching x: 10.00 MiB, 2.00 MiB/s");
        let empty = Lines::new("empty", Some(0), start);
        assert_eq!(empty.end(start + Duration::from_secs(2)).unwrap(), "empty: 0 B, 0 B/s");
    }
}
