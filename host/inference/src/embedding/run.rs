//! The model thread: commands, slices, and sleep where there is nothing to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use tollgate_backend::{BackendError, Embedder};

use super::answer::EmbedError;
use super::turns::{Computed, Running, Slice, Turns};
use crate::gauges::Gauges;

/// What the thread is told.
pub(super) enum Command {
    /// A job.
    Submit(Box<Running>),
    /// Finish by then, and end.
    Stop(Instant),
}

/// What computes, and the jobs that it has.
pub(super) struct Worker {
    name: String,
    embedder: Box<dyn Embedder>,
    /// Tokens and texts of a slice.
    batch: (u32, u16),
    gauges: Arc<Gauges>,
    turns: Turns,
    stop_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(name: &str, embedder: Box<dyn Embedder>, batch: (u32, u16), gauges: Arc<Gauges>) -> Self {
        Worker { name: name.to_owned(), embedder, batch, gauges, turns: Turns::default(), stop_at: None }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(job) => self.turns.push(*job),
            Command::Stop(at) => self.stop_at = Some(at),
        }
    }

    /// Computes a slice of the job whose turn it is.
    fn turn(&mut self) {
        self.turns.sweep(Instant::now());
        let Some(mut job) = self.turns.pop() else { return };
        if !job.is_done() {
            self.gauges.set_sequences(1, 0, 0);
            let slice = job.slice(self.batch);
            let (texts, tokens) = (slice.texts.len(), slice.tokens);
            let computed = compute(self.embedder.as_mut(), &slice);
            self.gauges.set_sequences(0, 0, 0);
            match computed {
                Ok(computed) => job.advance(computed),
                Err(error) => {
                    tracing::error!(model = %self.name, texts, tokens, reason = %error, "the model could not compute its texts");
                    job.fail(error);
                    return;
                }
            }
            self.gauges.count_step(texts, tokens);
        }
        if job.is_done() {
            self.gauges.count_served(job.submitted().elapsed());
            job.finish();
        } else {
            self.turns.push(job);
        }
    }
}

/// The thread's life, until it is told to stop. Jobs that are left then are answered by being dropped.
pub(super) fn run(mut worker: Worker, commands: &Receiver<Command>) {
    loop {
        loop {
            match commands.try_recv() {
                Ok(command) => worker.obey(command),
                Err(TryRecvError::Empty) => break,
                // The handles say so before they go; without one nobody is left to answer.
                Err(TryRecvError::Disconnected) => return,
            }
        }
        if worker.stop_at.is_some_and(|at| at <= Instant::now() || worker.turns.is_empty()) {
            return;
        }
        if worker.turns.is_empty() {
            match commands.recv() {
                Ok(command) => worker.obey(command),
                Err(_) => return,
            }
        } else {
            worker.turn();
        }
    }
}

/// What a slice comes to, of as many numbers as there should be. A panic in the backend is the slice's failure: the next one begins
/// from nothing, as every one does.
fn compute(embedder: &mut dyn Embedder, slice: &Slice<'_>) -> Result<Computed, EmbedError> {
    let failed = |error: BackendError| match error {
        BackendError::Unsupported(what) => EmbedError::Unsupported(what),
        other => EmbedError::Failed(other.to_string()),
    };
    let dimensions = usize::try_from(embedder.dimensions()).unwrap_or(usize::MAX);
    let computed = catch_unwind(AssertUnwindSafe(|| match slice.query {
        Some(query) => embedder.rank(query, slice.texts).map(Computed::Scores),
        None => embedder.embed(slice.texts).map(Computed::Vectors),
    }));
    let computed = computed.map_err(|_| EmbedError::Failed("its code has panicked".to_owned()))?.map_err(failed)?;
    let (count, are_numbers) = match &computed {
        Computed::Scores(scores) => (scores.len(), scores.iter().all(|score| score.is_finite())),
        Computed::Vectors(vectors) => {
            let is_good = |vector: &Vec<f32>| vector.len() == dimensions && vector.iter().all(|number| number.is_finite());
            (vectors.len(), vectors.iter().all(is_good))
        }
    };
    if count != slice.texts.len() || !are_numbers {
        return Err(EmbedError::Failed("what it computed is not made of numbers, or not for every text".to_owned()));
    }
    Ok(computed)
}
