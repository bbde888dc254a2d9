//! Measures candidates one after another, in the process that calls it: repacking, threads, micro-batch, spinning, each with the best
//! of those before it. All do the same work, which is chosen by how fast the first one is.

use std::time::{Duration, Instant};

use tollgate_backend::{Backend, DecodeError, Row, SequenceId, Token};
use tollgate_backend_llama::{Llama, Settings};
use tollgate_formats::gguf;

use super::{Candidate, Measured, TuneLine, TuneRequest, choose};
use crate::{memory, probe, select};

/// Tokens of the context at most: what is measured needs no more.
const CONTEXT_TOKENS: u32 = 1_024;
/// Tokens of a prompt.
const MAX_PROMPT: u32 = 512;
const LEAST_PROMPT: u32 = 16;
/// Tokens of a reply.
const MAX_REPLY: u32 = 64;
const LEAST_REPLY: u32 = 4;
/// Replies at once, where there may be so many.
const AT_ONCE: u16 = 4;
/// Each is done so often, and the median counts.
const REPEATS: u32 = 3;
/// A candidate's share of the time.
const CANDIDATES: u32 = 8;
/// Micro-batches that are tried.
const MICRO_BATCHES: [u32; 3] = [128, 256, 512];
/// For how long the cores are looked at before.
const LOOK: Duration = Duration::from_millis(200);
/// Where others take more of the cores than this, in percent, nothing is measured unless it has to be.
const MOST_BUSY: u8 = 25;
/// Weights below this are computed by one thread by default, in bytes; as in the backend.
const ONE_THREAD_BYTES: u64 = 32 << 20;

/// What every candidate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Workload {
    prompt: u32,
    reply: u32,
    /// Replies at once; 1 if the model has no four.
    at_once: u16,
}

/// What a candidate may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Repack,
    Threads,
    MicroBatch,
    Spin,
}

/// A measurement under way.
struct Bench<'a> {
    request: &'a TuneRequest,
    end: Instant,
    /// Bytes of this process before anything was loaded.
    base: u64,
    workload: Option<Workload>,
    /// What is loaded, and with what.
    loaded: Option<(Llama, Candidate)>,
    load_time: Duration,
    /// How long the slowest took to be measured, without loading.
    slowest: Duration,
    table: Vec<Measured>,
}

/// Measures, and tells of each candidate. What comes last says how it ended. This process may not outlive it: a damaged file can end
/// it.
pub fn tune(request: &TuneRequest, told: &mut dyn FnMut(TuneLine)) {
    let last = run(request, told).unwrap_or_else(TuneLine::Failed);
    told(last);
}

fn run(request: &TuneRequest, told: &mut dyn FnMut(TuneLine)) -> Result<TuneLine, String> {
    let header = probe::read(&request.path, gguf::check_model)?;
    let busy_percent = busy();
    if busy_percent > MOST_BUSY && !request.is_forced {
        return Ok(TuneLine::Busy(busy_percent));
    }
    told(TuneLine::Began(busy_percent));
    let began = Instant::now();
    let mut bench = Bench {
        request,
        end: began + Duration::from_millis(request.budget_ms),
        base: memory::resident().unwrap_or(0),
        workload: None,
        loaded: None,
        load_time: Duration::ZERO,
        slowest: Duration::ZERO,
        table: Vec::new(),
    };
    let first = default_of(request, header.tensor_bytes());
    let is_complete = bench.all(first, told)?;
    let report = choose::report(bench.table, is_complete, busy_percent, began.elapsed());
    report.map(TuneLine::Done).ok_or_else(|| "nothing was measured".to_owned())
}

impl Bench<'_> {
    /// Measures the first, and the others as far as there is time; whether there was enough.
    fn all(&mut self, first: Candidate, told: &mut dyn FnMut(TuneLine)) -> Result<bool, String> {
        let measured = self.one(first)?;
        self.add(measured, told);
        let mut is_complete = true;
        for axis in [Axis::Repack, Axis::Threads, Axis::MicroBatch, Axis::Spin] {
            let best = self.best(first);
            for candidate in self.others(axis, best) {
                // One that needs no load may still fit in.
                if !self.has_time(candidate) {
                    is_complete = false;
                    continue;
                }
                // One that cannot be loaded, for want of memory perhaps, is not chosen.
                let Ok(measured) = self.one(candidate) else {
                    self.loaded = None;
                    continue;
                };
                self.add(measured, told);
                if axis == Axis::Threads && candidate.threads < best.threads && self.best(first) == best {
                    // Fewer still would be slower still, and take the longer.
                    break;
                }
            }
        }
        Ok(is_complete)
    }

    fn add(&mut self, measured: Measured, told: &mut dyn FnMut(TuneLine)) {
        self.table.push(measured);
        told(TuneLine::Measured(measured));
    }

    fn best(&self, first: Candidate) -> Candidate {
        choose::best(&self.table).map_or(first, |best| best.candidate)
    }

    /// The candidates that differ from the best in this alone.
    fn others(&self, axis: Axis, best: Candidate) -> Vec<Candidate> {
        let prompt = self.workload.map_or(MAX_PROMPT, |workload| workload.prompt);
        match axis {
            Axis::Repack => vec![Candidate { repack: !best.repack, ..best }],
            Axis::Threads if self.request.threads.is_some() => Vec::new(),
            Axis::Threads => {
                let mut counts = vec![cores(), cores() / 2, 1];
                counts.retain(|count| *count > 0);
                counts.dedup();
                counts.retain(|count| *count != best.threads);
                counts.into_iter().map(|threads| Candidate { threads, ..best }).collect()
            }
            Axis::MicroBatch => {
                // What is larger than the prompt makes no difference to it.
                let counts = |rows: u32| rows.min(prompt);
                let differ = |rows: &u32| *rows <= self.request.step_rows && *rows < prompt && *rows != counts(best.micro_batch);
                MICRO_BATCHES.into_iter().filter(differ).map(|micro_batch| Candidate { micro_batch, ..best }).collect()
            }
            Axis::Spin if best.threads > 1 => vec![Candidate { spin: !best.spin, ..best }],
            Axis::Spin => Vec::new(),
        }
    }

    /// Whether there is time to measure one more.
    fn has_time(&self, candidate: Candidate) -> bool {
        let is_loaded = self.loaded.as_ref().is_some_and(|(_, with)| with.repack == candidate.repack);
        let load = if is_loaded { Duration::ZERO } else { self.load_time };
        // Fewer threads take so many times as long at most.
        let with = self.table.first().map_or(1, |first| first.candidate.threads);
        let factor = u32::from(with.div_ceil(candidate.threads.max(1)).max(1));
        Instant::now() + load + self.slowest * factor <= self.end
    }

    fn one(&mut self, candidate: Candidate) -> Result<Measured, String> {
        let mut llama = self.load(candidate)?;
        let failed = |error: DecodeError| format!("it does not decode: {error}");
        // The first step lays the graph out and brings the weights into memory.
        pass(&mut llama, LEAST_PROMPT.min(self.request.step_rows)).map_err(failed)?;
        let bytes = memory::resident().unwrap_or(0).saturating_sub(self.base);
        let workload = match self.workload {
            Some(workload) => workload,
            None => *self.workload.insert(plan(&mut llama, self.request).map_err(failed)?),
        };
        let began = Instant::now();
        let Workload { prompt, reply, at_once } = workload;
        let prompt_tps = rate(prompt, || pass(&mut llama, prompt)).map_err(failed)?;
        let decode_tps = rate(reply, || replies(&mut llama, reply, 1)).map_err(failed)?;
        let decode4_tps = if at_once > 1 {
            Some(rate(reply * u32::from(at_once), || replies(&mut llama, reply, at_once)).map_err(failed)?)
        } else {
            None
        };
        self.slowest = self.slowest.max(began.elapsed());
        self.loaded = Some((llama, candidate));
        let load_ms = millis(self.load_time);
        Ok(Measured { candidate, prompt_tps, decode_tps, decode4_tps, load_ms, bytes })
    }

    /// The model as the candidate has it; weights that are there are not read again.
    fn load(&mut self, candidate: Candidate) -> Result<Llama, String> {
        let settings = settings(self.request, candidate);
        let loaded = match self.loaded.take() {
            Some((llama, with)) if with.repack == candidate.repack => llama.reshaped(&settings),
            other => {
                // Two at once would take twice the memory.
                drop(other);
                let began = Instant::now();
                let llama = Llama::load(&settings);
                self.load_time = began.elapsed();
                llama
            }
        };
        loaded.map_err(|error| error.to_string())
    }
}

fn settings(request: &TuneRequest, candidate: Candidate) -> Settings {
    Settings {
        path: request.path.clone(),
        mapped: request.mapped,
        context_tokens: Some(request.context_tokens.unwrap_or(CONTEXT_TOKENS).min(CONTEXT_TOKENS)),
        sequences: request.sequences.min(AT_ONCE),
        step_rows: request.step_rows,
        threads: Some(candidate.threads),
        apart: false,
        kv_cache: select::kv_cache(request.kv_cache),
        tuning: candidate.tuning(),
    }
}

/// What a model is computed with where nothing was measured.
fn default_of(request: &TuneRequest, weights: u64) -> Candidate {
    let by_default = if weights < ONE_THREAD_BYTES { 1 } else { cores() };
    let tuning = tollgate_backend_llama::Tuning::default();
    Candidate {
        repack: tuning.repack,
        threads: request.threads.unwrap_or(by_default),
        // Not cut to the step's rows, which the context does: it is kept, and the config may have longer steps one day.
        micro_batch: tuning.micro_batch,
        spin: true,
    }
}

/// How much work a candidate is given, so that it takes its share of the time: two parts of five for prompts, three for replies.
fn plan(llama: &mut Llama, request: &TuneRequest) -> Result<Workload, DecodeError> {
    let capabilities = llama.capabilities().clone();
    let at_once = if capabilities.max_sequences >= AT_ONCE { AT_ONCE } else { 1 };
    let tokens = capabilities.context_tokens.min(capabilities.sequence_tokens);
    let part = Duration::from_millis(request.budget_ms) / CANDIDATES / 5 / REPEATS;
    let short = LEAST_PROMPT.min(capabilities.step_rows);
    let most = MAX_PROMPT.min(capabilities.step_rows).min(tokens / 2).max(1);
    let prompt = fitting(part * 2, pass(llama, short)? / short).clamp(LEAST_PROMPT.min(most), most);
    let most = MAX_REPLY.min(tokens / 8).max(1);
    let step = replies(llama, LEAST_REPLY.min(most), 1)? / LEAST_REPLY.min(most);
    let reply = fitting(part, step).clamp(LEAST_REPLY.min(most), most);
    Ok(Workload { prompt, reply, at_once })
}

/// Tokens per second, of so many at a time: the median of a few times.
fn rate(tokens: u32, mut once: impl FnMut() -> Result<Duration, DecodeError>) -> Result<f64, DecodeError> {
    let mut times = (0..REPEATS).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(f64::from(tokens) / median.max(Duration::from_nanos(1)).as_secs_f64())
}

/// How often something that takes so long fits into a time.
fn fitting(time: Duration, one: Duration) -> u32 {
    u32::try_from(time.as_nanos() / one.as_nanos().max(1)).unwrap_or(u32::MAX)
}

/// How long a prompt of so many tokens takes, in one step.
fn pass(llama: &mut Llama, tokens: u32) -> Result<Duration, DecodeError> {
    let words = words(llama);
    let row =
        |position| Row { token: word(position, words), position, sequence: SequenceId(0), wants_logits: position + 1 == tokens };
    let rows = (0..tokens).map(row).collect::<Vec<_>>();
    let began = Instant::now();
    llama.decode(&rows)?;
    let took = began.elapsed();
    forget(llama, 1)?;
    Ok(took)
}

/// How long so many tokens take in each of so many replies at once.
fn replies(llama: &mut Llama, tokens: u32, at_once: u16) -> Result<Duration, DecodeError> {
    let words = words(llama);
    let began = Instant::now();
    for position in 0..tokens {
        let row = |sequence: u16| Row {
            token: word(position + u32::from(sequence), words),
            position,
            sequence: SequenceId(sequence),
            wants_logits: true,
        };
        llama.decode(&(0..at_once).map(row).collect::<Vec<_>>())?;
    }
    let took = began.elapsed();
    forget(llama, at_once)?;
    Ok(took)
}

fn forget(llama: &mut Llama, sequences: u16) -> Result<(), DecodeError> {
    let forget = |sequence| llama.truncate(SequenceId(sequence), 0);
    (0..sequences).try_for_each(forget).map_err(|error| DecodeError::Failed(error.to_string()))
}

fn words(llama: &Llama) -> u32 {
    u32::try_from(llama.tokenizer().vocabulary().len()).unwrap_or(u32::MAX).max(1)
}

/// Some token that exists: what is said does not matter, and words in a row would.
fn word(position: u32, words: u32) -> Token {
    position.wrapping_mul(2_654_435_761).rotate_left(13) % words
}

fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX)).min(512)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How much of the cores that this process may use others take, in percent; 0 where the kernel does not tell.
fn busy() -> u8 {
    let read = || std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let before = read();
    std::thread::sleep(LOOK);
    taken(&before, &read(), u64::from(cores())).unwrap_or(0)
}

/// Of two readings of `/proc/stat`: what is missing of so many cores.
fn taken(before: &str, after: &str, cores: u64) -> Option<u8> {
    let (all_before, idle_before) = times(before)?;
    let (all_after, idle_after) = times(after)?;
    let all = all_after.checked_sub(all_before).filter(|all| *all > 0)?;
    let idle = idle_after.checked_sub(idle_before)?;
    let machine = after.lines().filter(|line| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '))).count();
    let machine = u64::try_from(machine).ok()?;
    let free = idle.saturating_mul(machine).saturating_mul(100) / all / cores.max(1);
    u8::try_from(100 - free.min(100)).ok()
}

/// All ticks, and those that the cores did nothing in or waited for a disk.
fn times(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // Those for guests are counted in the first two already.
    let ticks = line.split_ascii_whitespace().take(8).map_while(|word| word.parse::<u64>().ok()).collect::<Vec<_>>();
    Some((ticks.iter().sum(), ticks.iter().skip(3).take(2).sum()))
}

#[cfg(test)]
mod tests;
