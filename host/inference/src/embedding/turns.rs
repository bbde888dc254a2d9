//! Whose turn it is: tenants one after the other, and the jobs of each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tollgate_backend::Token;

use super::EmbedWork;
use super::answer::{Answer, EmbedError, Embedded};
use crate::tickets::Ticket;

/// A job in the thread's hands.
pub(super) struct Running {
    /// What every document is compared with, of a job that ranks.
    query: Option<Vec<Token>>,
    texts: Vec<Vec<Token>>,
    /// How many of the texts are done.
    done: usize,
    vectors: Vec<Vec<f32>>,
    scores: Vec<f32>,
    /// Its place, until it is gone.
    ticket: Ticket,
    deadline: Instant,
    submitted: Instant,
    answer: Answer,
}

/// A part of a job.
pub(super) struct Slice<'a> {
    /// The query, of a job that ranks.
    pub(super) query: Option<&'a [Token]>,
    /// Texts or documents.
    pub(super) texts: &'a [Vec<Token>],
    /// Tokens that are computed for it.
    pub(super) tokens: u64,
}

/// What a slice comes to.
pub(super) enum Computed {
    Vectors(Vec<Vec<f32>>),
    Scores(Vec<f32>),
}

impl Running {
    pub(super) fn new(work: EmbedWork, ticket: Ticket, deadline: Instant, submitted: Instant, answer: Answer) -> Self {
        let (query, texts) = match work {
            EmbedWork::Texts(texts) => (None, texts),
            EmbedWork::Rank { query, documents } => (Some(query), documents),
        };
        let (vectors, scores) = (Vec::new(), Vec::new());
        Running { query, texts, done: 0, vectors, scores, ticket, deadline, submitted, answer }
    }

    /// When it came.
    pub(super) fn submitted(&self) -> Instant {
        self.submitted
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.answer.is_unwanted()
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// Whether everything is computed.
    pub(super) fn is_done(&self) -> bool {
        self.done >= self.texts.len()
    }

    /// What is computed next: at most so many texts, of at most `tokens` together, but one at least.
    pub(super) fn slice(&self, (tokens, texts): (u32, u16)) -> Slice<'_> {
        let most = u64::from(tokens);
        let rest = self.texts.get(self.done..).unwrap_or_default();
        let before = self.query.as_ref().map_or(0, Vec::len);
        let (mut held, mut count) = (0_u64, 0_usize);
        for text in rest.iter().take(usize::from(texts)) {
            let cost = u64::try_from(text.len().saturating_add(before)).unwrap_or(u64::MAX);
            let with = held.saturating_add(cost);
            if count > 0 && with > most {
                break;
            }
            (held, count) = (with, count + 1);
        }
        Slice { query: self.query.as_deref(), texts: rest.get(..count).unwrap_or(rest), tokens: held }
    }

    /// Takes in what a slice came to.
    pub(super) fn advance(&mut self, computed: Computed) {
        match computed {
            Computed::Vectors(vectors) => {
                self.done = self.done.saturating_add(vectors.len());
                self.vectors.extend(vectors);
            }
            Computed::Scores(scores) => {
                self.done = self.done.saturating_add(scores.len());
                self.scores.extend(scores);
            }
        }
    }

    /// Answers with what was computed. Its place is free before it is told.
    pub(super) fn finish(self) {
        let Running { query, vectors, scores, ticket, answer, .. } = self;
        drop(ticket);
        answer.give(Ok(if query.is_some() { Embedded::Scores(scores) } else { Embedded::Vectors(vectors) }));
    }

    /// Answers with why there is nothing.
    pub(super) fn fail(self, error: EmbedError) {
        let Running { ticket, answer, .. } = self;
        drop(ticket);
        answer.give(Err(error));
    }
}

/// The jobs that are there, by tenant: who was served last is last, and so is a tenant's job that was.
#[derive(Default)]
pub(super) struct Turns(VecDeque<(Arc<str>, VecDeque<Running>)>);

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A job comes, or comes back after a slice.
    pub(super) fn push(&mut self, job: Running) {
        let tenant = Arc::clone(job.ticket.tenant());
        if let Some((_, jobs)) = self.0.iter_mut().find(|(name, _)| *name == tenant) {
            jobs.push_back(job);
            return;
        }
        self.0.push_back((tenant, VecDeque::from([job])));
    }

    /// The job whose turn it is. Its tenant is the last one then.
    pub(super) fn pop(&mut self) -> Option<Running> {
        let (tenant, mut jobs) = self.0.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.0.push_back((tenant, jobs));
        }
        job
    }

    /// Takes out the jobs that nobody waits for, and those whose time is over, which are told so.
    pub(super) fn sweep(&mut self, now: Instant) {
        for (_, jobs) in &mut self.0 {
            for job in std::mem::take(jobs) {
                if job.is_unwanted() {
                    continue;
                }
                if job.is_late(now) {
                    job.fail(EmbedError::Late);
                } else {
                    jobs.push_back(job);
                }
            }
        }
        self.0.retain(|(_, jobs)| !jobs.is_empty());
    }
}
