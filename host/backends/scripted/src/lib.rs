//! A backend that says what it is told, for tests and benches of everything above it.
//!
//! It behaves like a real one where that matters: it has sequences, cells that can run out ([`DecodeError::Full`]), prefixes that can
//! be shared, a cadence, and logits over a vocabulary whose words split characters. The next token depends on the sequence's own
//! tokens alone, so a reply is the same whatever else is in the step.
//!
//! # The contract
//! The prompt is ChatML. The last user message is a command; its first word says which:
//!
//! | command | reply |
//! |---|---|
//! | `say TEXT` | exactly TEXT (what follows the one space) |
//! | `say-hex DIGITS` | the UTF-8 text behind the hex digits, for what a prompt filter would change |
//! | `count N` | `1 2 3 ... N` |
//! | `repeat N TEXT` | TEXT N times |
//! | `utf8 N` | N characters of two to four bytes each |
//! | `think TEXT` | TEXT as a thought (`<think>`...`</think>`), then `done` |
//! | `random N` | N tokens of printable ASCII, flat logits: the sampler decides |
//! | `json` | under a JSON schema, a short value that matches it; without one, nothing |
//! | `forever` | `and on ` without end |
//! | `fail N` | counts; the step of the N-th token is [`DecodeError::Failed`] |
//! | `hang MS` | `done`; the step of its first token takes that many milliseconds longer, 60,000 at most |
//! | `panic` | none; the step of its first token panics, as a backend with a bug would |
//! | `nan` | logits that are not numbers |
//! | anything else | `You said: ` and the message |
//!
//! N is at most 1,000,000, and a reply that is written out in advance at most 1 MiB. The token that comes next has a logit 30 above
//! the others, which are noise in [-1, 1): greedy sampling and temperatures up to 1 follow the script. A reply that was led off its
//! script (by a high temperature or a schema) ends with its next token.
//!
//! An adapter is a file with one word. A reply that is text has it before each of its words; a step whose rows were begun with
//! different adapters fails.

mod adapters;
mod cells;
mod probe;
mod script;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use tollgate_backend::{
    AdapterId, Backend, BackendError, Capabilities, DecodeError, Memory, Owner, Row, SequenceId, State, Tokenizer,
};

use adapters::Adapters;
use cells::Cells;
pub use probe::{Probe, StepRecord};
use script::{Fault, Reply};
use words::{TEMPLATE, Words};

/// How a scripted backend is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// 1 to 256.
    pub max_sequences: u16,
    /// Tokens that all sequences together can hold; one alone can hold as many.
    pub context_tokens: u32,
    /// Rows of one step.
    pub step_rows: u32,
    /// Microseconds that a step takes if anything is sampled from it.
    pub token_us: u64,
    /// Microseconds more for each row that nothing is sampled from.
    pub prefill_us_per_token: u64,
    /// Whether steps take no time, and what they would have taken is only added up ([`Probe::elapsed`]).
    pub virtual_time: bool,
    /// See [`Capabilities::prefix_copy`].
    pub prefix_copy: bool,
    /// See [`Capabilities::copies_share`].
    pub copies_share: bool,
    /// See [`Capabilities::partial_remove`].
    pub partial_remove: bool,
    /// See [`Capabilities::state`].
    pub state: bool,
    /// Bytes that it says it takes.
    pub memory_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_sequences: 16,
            context_tokens: 16_384,
            step_rows: 256,
            token_us: 0,
            prefill_us_per_token: 0,
            virtual_time: false,
            prefix_copy: true,
            copies_share: true,
            partial_remove: true,
            state: true,
            memory_bytes: 0,
        }
    }
}

/// The scripted backend.
pub struct Scripted {
    settings: Settings,
    capabilities: Capabilities,
    words: Arc<Words>,
    cells: Cells,
    adapters: Adapters,
    /// What each sequence is about to say, once that is known.
    replies: Vec<Option<Reply>>,
    /// For each row of the last step, where its logits begin.
    offsets: Vec<Option<usize>>,
    logits: Vec<f32>,
    probe: Probe,
    /// Of what it saves.
    owner: Owner,
}

impl Scripted {
    /// A backend with nothing in it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let max_sequences = settings.max_sequences.clamp(1, 256);
        Scripted {
            capabilities: Capabilities {
                max_sequences,
                context_tokens: settings.context_tokens,
                sequence_tokens: settings.context_tokens,
                step_rows: settings.step_rows.max(1),
                prefix_copy: settings.prefix_copy,
                copies_share: settings.copies_share,
                partial_remove: settings.partial_remove,
                adapters: true,
                state: settings.state,
                images: false,
            },
            words: Arc::new(Words::new()),
            cells: Cells::new(max_sequences),
            adapters: Adapters::new(max_sequences),
            replies: (0..max_sequences).map(|_| None).collect(),
            offsets: Vec::new(),
            logits: Vec::new(),
            probe: Probe::default(),
            owner: Owner::unique(),
            settings,
        }
    }

    /// A handle that sees what was decoded, also after the backend has been given away.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// A caller's mistake is a failed step, as it would be in a real backend.
    fn check(&self, rows: &[Row]) -> Result<(), DecodeError> {
        let failed = |what: &str| Err(DecodeError::Failed(what.to_owned()));
        if rows.is_empty() || rows.len() > to_usize(self.capabilities.step_rows) {
            return failed("a step has 1 to step_rows rows");
        }
        let mut lengths: Vec<usize> = (0..self.capabilities.max_sequences).map(|id| self.cells.length(SequenceId(id))).collect();
        for row in rows {
            let Some(length) = lengths.get_mut(usize::from(row.sequence.0)) else { return failed("no such sequence") };
            if to_usize(row.position) != *length {
                return failed("a row is not at the end of its sequence");
            }
            self.adapters.check(row.sequence, self.cells.length(row.sequence))?;
            *length += 1;
        }
        let room = to_usize(self.capabilities.context_tokens).saturating_sub(self.cells.used());
        if rows.len() > room {
            return Err(DecodeError::Full { rows: rows.len() });
        }
        Ok(())
    }

    /// The logits after a sequence's last token.
    fn speak(&mut self, sequence: SequenceId) -> Result<(), DecodeError> {
        let (tokens, state) = self.cells.read(sequence);
        let Some(slot) = self.replies.get_mut(usize::from(sequence.0)) else { return Ok(()) };
        if slot.is_none() {
            *slot = Reply::find(tokens, &self.words, self.adapters.word());
        }
        let said = slot.as_ref().map_or(0, |reply| tokens.len().saturating_sub(reply.start));
        match slot.as_ref().and_then(|reply| reply.fault) {
            Some(Fault::Fail { at }) if said + 1 == at => return Err(DecodeError::Failed("as it was told to".to_owned())),
            Some(Fault::Hang { ms }) if said == 0 => sleep(Duration::from_millis(ms)),
            Some(Fault::Panic) => told_to_panic(),
            _ => {}
        }
        script::write_logits(slot.as_ref(), tokens, state, &self.words, &mut self.logits);
        Ok(())
    }
}

#[allow(clippy::panic, reason = "what a backend with a bug would do")]
fn told_to_panic() -> ! {
    panic!("as it was told to")
}

impl Backend for Scripted {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.words) as Arc<dyn Tokenizer>
    }

    fn chat_template(&self) -> Option<&str> {
        Some(TEMPLATE)
    }

    fn memory(&self) -> Memory {
        let cache = u64::from(self.capabilities.context_tokens) * 16;
        Memory { weights: self.settings.memory_bytes, cache, compute: 64 * 1024 }
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.check(rows)?;
        self.offsets.clear();
        self.logits.clear();
        for row in rows {
            if self.cells.length(row.sequence) == 0 {
                self.adapters.begin(row.sequence);
            }
            self.cells.push(row.sequence, row.token);
            if self.words.begins_message(row.token) {
                self.forget(row.sequence);
            }
            self.offsets.push(row.wants_logits.then_some(self.logits.len()));
            if row.wants_logits {
                self.speak(row.sequence)?;
            }
        }
        let sampled = rows.iter().filter(|row| row.wants_logits).count();
        self.probe.record(rows, sampled, self.cells.used(), self.adapters.selected());
        let prefilled = u64::try_from(rows.len() - sampled).unwrap_or(u64::MAX);
        let decode_us = if sampled > 0 { self.settings.token_us } else { 0 };
        let us = prefilled.saturating_mul(self.settings.prefill_us_per_token).saturating_add(decode_us);
        if self.settings.virtual_time {
            self.probe.pass(Duration::from_micros(us));
        } else if us > 0 {
            sleep(Duration::from_micros(us));
        }
        Ok(())
    }

    fn logits(&self, row: usize) -> Option<&[f32]> {
        let start = self.offsets.get(row).copied().flatten()?;
        self.logits.get(start..start + self.words.vocabulary().len())
    }

    fn copy_prefix(&mut self, from: SequenceId, to: SequenceId, length: u32) -> Result<(), BackendError> {
        if !self.settings.prefix_copy {
            return Err(BackendError::Unsupported("copying a prefix"));
        }
        if self.cells.length(to) > 0 || self.cells.length(from) < to_usize(length) {
            return Err(BackendError::Unsupported("copying to a full sequence, or more than there is"));
        }
        if self.settings.copies_share {
            self.cells.share(from, to, to_usize(length));
        } else if self.cells.used() + to_usize(length) > to_usize(self.settings.context_tokens) {
            return Err(BackendError::Unsupported("copying more than there is room for"));
        } else {
            self.cells.copy(from, to, to_usize(length));
        }
        self.adapters.copy(from, to);
        self.forget(to);
        Ok(())
    }

    fn truncate(&mut self, sequence: SequenceId, length: u32) -> Result<(), BackendError> {
        let (held, length) = (self.cells.length(sequence), to_usize(length));
        if length > 0 && length < held && !self.settings.partial_remove {
            return Err(BackendError::Unsupported("removing a part of a sequence"));
        }
        self.cells.truncate(sequence, length);
        self.forget(sequence);
        self.probe.record_cells(self.cells.used());
        Ok(())
    }

    fn save(&mut self, sequence: SequenceId, most_bytes: usize) -> Result<Option<State>, BackendError> {
        if !self.settings.state {
            return Err(BackendError::Unsupported("saving a sequence"));
        }
        let tokens = self.cells.read(sequence).0;
        if tokens.is_empty() {
            return Err(BackendError::Failed("an empty sequence cannot be saved".to_owned()));
        }
        let adapter = self.adapters.of(sequence).map_or(0, |adapter| adapter.0);
        let bytes: Vec<u8> = std::iter::once(adapter).chain(tokens.iter().copied()).flat_map(u32::to_le_bytes).collect();
        let length = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        Ok((bytes.len() <= most_bytes).then(|| State::new(self.owner, length, bytes)))
    }

    fn restore(&mut self, sequence: SequenceId, state: &State) -> Result<(), BackendError> {
        let failed = |what: &str| Err(BackendError::Failed(what.to_owned()));
        if !self.settings.state {
            return Err(BackendError::Unsupported("restoring a sequence"));
        }
        let Some(bytes) = state.bytes(self.owner) else { return failed("another model saved it") };
        if self.cells.length(sequence) > 0 {
            return failed("a sequence is restored into one that is not empty");
        }
        if self.cells.used() + to_usize(state.tokens()) > to_usize(self.capabilities.context_tokens) {
            return failed("there is no room for it");
        }
        let (words, _) = bytes.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let adapter = words.next().filter(|adapter| *adapter > 0).map(AdapterId);
        for token in words {
            self.cells.push(sequence, token);
        }
        self.adapters.set(sequence, adapter);
        self.forget(sequence);
        self.probe.record_cells(self.cells.used());
        Ok(())
    }

    fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        let loaded = self.adapters.load(path, scale);
        self.probe.record_adapters(self.adapters.count());
        loaded
    }

    fn drop_adapter(&mut self, adapter: AdapterId) {
        self.adapters.remove(adapter);
        self.probe.record_adapters(self.adapters.count());
    }

    fn select_adapter(&mut self, adapter: Option<AdapterId>) -> Result<(), BackendError> {
        self.adapters.select(adapter)
    }
}

impl Scripted {
    fn forget(&mut self, sequence: SequenceId) {
        if let Some(reply) = self.replies.get_mut(usize::from(sequence.0)) {
            *reply = None;
        }
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
