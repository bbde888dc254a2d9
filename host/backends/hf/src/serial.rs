//! The step-level trait on top of models that know one sequence at a time.
//!
//! Every sequence has a state of its own; the rows of a step are grouped by sequence, and each group is one forward pass. Weights
//! are read once for each sequence of a step, so this suits small models and few sequences.

mod adapters;

use tollgate_backend::{AdapterId, BackendError, Capabilities, DecodeError, Row, SequenceId, Token};

use self::adapters::Adapters;
use crate::lora::Lora;

/// Tokens that follow what a sequence holds.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [Token],
    /// The position of the first.
    pub position: u32,
    /// Which of them want logits, by their index in `tokens`, ascending.
    pub wanted: &'a [usize],
    /// One of those that were loaded; `None` is the model alone.
    pub adapter: Option<AdapterId>,
}

/// A model that decodes one sequence at a time.
pub trait Serial: Send {
    /// What it keeps of a sequence.
    type State: Send;

    /// The state of a sequence without tokens.
    ///
    /// # Errors
    /// There is no memory for it.
    fn empty(&self) -> Result<Self::State, String>;

    /// Decodes, and appends the logits of each wanted row in their order.
    ///
    /// # Errors
    /// The model failed; the state is not used again.
    fn forward(&mut self, state: &mut Self::State, part: &Part<'_>, logits: &mut Vec<f32>) -> Result<(), String>;

    /// A state that holds the first `length` tokens as well.
    ///
    /// # Errors
    /// It cannot be copied.
    fn fork(&self, state: &Self::State, length: u32) -> Result<Self::State, String>;

    /// Forgets what a state holds from `length` on, which is at least 1.
    ///
    /// # Errors
    /// The model failed; the state is not used again.
    fn truncate(&self, state: &mut Self::State, length: u32) -> Result<(), String>;

    /// Takes in an adapter under a number that no other had.
    ///
    /// # Errors
    /// It does not fit the model, which is as before then; the text says where.
    fn load_adapter(&mut self, adapter: AdapterId, lora: Lora) -> Result<(), String>;

    /// Frees an adapter.
    fn drop_adapter(&mut self, adapter: AdapterId);
}

/// How much a model may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences alive at once, 1 to 256.
    pub sequences: u16,
    /// Tokens of all sequences together.
    pub context_tokens: u32,
    /// Tokens of one sequence.
    pub sequence_tokens: u32,
    /// Rows of a step.
    pub step_rows: u32,
    /// Words of the vocabulary: logits of a row.
    pub words: usize,
    /// Whether [`Serial::fork`] and [`Serial::truncate`] work at any length.
    pub can_cut: bool,
}

/// What a sequence holds.
struct Held<S> {
    /// `None` if that is nothing.
    state: Option<S>,
    length: u32,
    /// A step failed, and nothing is known of the state.
    is_broken: bool,
}

impl<S> Held<S> {
    const EMPTY: Self = Held { state: None, length: 0, is_broken: false };
}

/// The rows of one sequence in a step.
struct Group {
    sequence: SequenceId,
    position: u32,
    tokens: Vec<Token>,
    /// Which of the tokens want logits, and which rows of the step those are.
    wanted: Vec<usize>,
    rows: Vec<usize>,
}

/// Sequences over a [`Serial`] model. A copied prefix counts in full against [`Limits::context_tokens`]: the models' caches are
/// contiguous, and the next token makes them apart.
pub struct Stepper<M: Serial> {
    model: M,
    capabilities: Capabilities,
    words: usize,
    held: Vec<Held<M::State>>,
    /// For each row of the last step, where its logits begin.
    offsets: Vec<Option<usize>>,
    logits: Vec<f32>,
    adapters: Adapters,
}

impl<M: Serial> Stepper<M> {
    /// Sequences with nothing in them.
    pub fn new(model: M, limits: Limits) -> Self {
        let sequences = limits.sequences.clamp(1, 256);
        let capabilities = Capabilities {
            max_sequences: sequences,
            context_tokens: limits.context_tokens.max(1),
            sequence_tokens: limits.sequence_tokens.clamp(1, limits.context_tokens.max(1)),
            step_rows: limits.step_rows.max(1),
            prefix_copy: limits.can_cut,
            copies_share: false,
            partial_remove: limits.can_cut,
            adapters: true,
            state: false,
            images: false,
        };
        let held = (0..sequences).map(|_| Held::EMPTY).collect();
        Stepper {
            model,
            capabilities,
            words: limits.words,
            held,
            offsets: Vec::new(),
            logits: Vec::new(),
            adapters: Adapters::default(),
        }
    }

    /// See [`tollgate_backend::Backend::capabilities`].
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// See [`tollgate_backend::Backend::decode`].
    ///
    /// # Errors
    /// As there. A row that is not at the end of its sequence, or that the model cannot have, fails the step before anything is
    /// decoded.
    pub fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.offsets.clear();
        self.logits.clear();
        let groups = self.group(rows)?;
        if !self.has_room(u64::try_from(rows.len()).unwrap_or(u64::MAX)) {
            return Err(DecodeError::Full { rows: rows.len() });
        }
        self.offsets.resize(rows.len(), None);
        for group in &groups {
            if let Err(reason) = self.forward(group) {
                self.offsets.clear();
                for group in &groups {
                    if let Some(held) = self.held.get_mut(usize::from(group.sequence.0)) {
                        held.is_broken = true;
                    }
                }
                return Err(DecodeError::Failed(reason));
            }
        }
        Ok(())
    }

    /// See [`tollgate_backend::Backend::logits`].
    pub fn logits(&self, row: usize) -> Option<&[f32]> {
        let start = self.offsets.get(row).copied().flatten()?;
        self.logits.get(start..start.saturating_add(self.words))
    }

    /// See [`tollgate_backend::Backend::copy_prefix`].
    ///
    /// # Errors
    /// As there; also if `to` is not empty, `from` holds less, or the copy does not fit.
    pub fn copy_prefix(&mut self, from: SequenceId, to: SequenceId, length: u32) -> Result<(), BackendError> {
        if !self.capabilities.prefix_copy {
            return Err(BackendError::Unsupported("copying a prefix"));
        }
        let (Some(source), Some(target)) = (self.held.get(usize::from(from.0)), self.held.get(usize::from(to.0))) else {
            return Err(BackendError::Unsupported("a sequence beyond the last"));
        };
        if source.is_broken || source.length < length || target.is_broken || target.length > 0 {
            return Err(BackendError::Unsupported("copying to a full sequence, or more than there is"));
        }
        if !self.has_room(u64::from(length)) {
            return Err(BackendError::Unsupported("copying more than there is room for"));
        }
        let Some(state) = source.state.as_ref().filter(|_| length > 0) else { return Ok(()) };
        let state = self.model.fork(state, length).map_err(BackendError::Failed)?;
        if let Some(target) = self.held.get_mut(usize::from(to.0)) {
            *target = Held { state: Some(state), length, is_broken: false };
        }
        Ok(())
    }

    /// See [`tollgate_backend::Backend::truncate`].
    ///
    /// # Errors
    /// As there; also if a step of the sequence has failed and `length` is not 0.
    pub fn truncate(&mut self, sequence: SequenceId, length: u32) -> Result<(), BackendError> {
        let Some(held) = self.held.get_mut(usize::from(sequence.0)) else {
            return Err(BackendError::Unsupported("a sequence beyond the last"));
        };
        if length == 0 {
            *held = Held::EMPTY;
            return Ok(());
        }
        if held.is_broken {
            return Err(BackendError::Unsupported("keeping a part of a sequence whose step has failed"));
        }
        if length >= held.length {
            return Ok(());
        }
        if !self.capabilities.partial_remove {
            return Err(BackendError::Unsupported("removing a part of a sequence"));
        }
        if let Some(state) = &mut held.state
            && let Err(reason) = self.model.truncate(state, length)
        {
            held.is_broken = true;
            return Err(BackendError::Failed(reason));
        }
        held.length = length;
        Ok(())
    }

    fn has_room(&self, tokens: u64) -> bool {
        let used: u64 = self.held.iter().map(|held| u64::from(held.length)).sum();
        used.saturating_add(tokens) <= u64::from(self.capabilities.context_tokens)
    }

    /// The rows of a step by sequence. A caller's mistake is a failed step.
    fn group(&self, rows: &[Row]) -> Result<Vec<Group>, DecodeError> {
        let failed = |what: &str| DecodeError::Failed(what.to_owned());
        if rows.is_empty() || u32::try_from(rows.len()).map_or(true, |count| count > self.capabilities.step_rows) {
            return Err(failed("a step has 1 to step_rows rows"));
        }
        let mut groups: Vec<Group> = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let held = self.held.get(usize::from(row.sequence.0)).ok_or_else(|| failed("no such sequence"))?;
            if held.is_broken {
                return Err(failed("a step of the sequence has failed before, and it was not emptied"));
            }
            if usize::try_from(row.token).map_or(true, |token| token >= self.words) {
                return Err(failed("the model does not know this token"));
            }
            let known = groups.iter().position(|group| group.sequence == row.sequence);
            let index = known.unwrap_or(groups.len());
            if known.is_none() {
                groups.push(Group {
                    sequence: row.sequence,
                    position: held.length,
                    tokens: Vec::new(),
                    wanted: Vec::new(),
                    rows: Vec::new(),
                });
            }
            let Some(group) = groups.get_mut(index) else { continue };
            let new = u32::try_from(group.tokens.len()).unwrap_or(u32::MAX);
            if row.position != held.length.saturating_add(new) {
                return Err(failed("a row is not at the end of its sequence"));
            }
            if row.position >= self.capabilities.sequence_tokens {
                return Err(failed("a sequence is longer than the model reads"));
            }
            if row.wants_logits {
                group.wanted.push(group.tokens.len());
                group.rows.push(at);
            }
            group.tokens.push(row.token);
        }
        Ok(groups)
    }

    fn forward(&mut self, group: &Group) -> Result<(), String> {
        let Some(held) = self.held.get_mut(usize::from(group.sequence.0)) else { return Err("no such sequence".to_owned()) };
        if held.state.is_none() {
            held.state = Some(self.model.empty()?);
        }
        let Some(state) = &mut held.state else { return Err("a sequence has no state".to_owned()) };
        let start = self.logits.len();
        let adapter = self.adapters.selected();
        let part = Part { tokens: &group.tokens, position: group.position, wanted: &group.wanted, adapter };
        self.model.forward(state, &part, &mut self.logits)?;
        let made = self.logits.len().saturating_sub(start);
        if made != group.wanted.len().saturating_mul(self.words) {
            return Err(format!("the model made {made} logits for {} rows of {} words", group.wanted.len(), self.words));
        }
        held.length = held.length.saturating_add(u32::try_from(group.tokens.len()).unwrap_or(u32::MAX));
        for (number, row) in group.rows.iter().enumerate() {
            if let Some(offset) = self.offsets.get_mut(*row) {
                *offset = Some(start.saturating_add(number.saturating_mul(self.words)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
