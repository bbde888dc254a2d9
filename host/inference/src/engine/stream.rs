//! The stream from the model thread to one reader: bounded by bytes, never blocking the thread.
//!
//! The thread's end is [`Writer`], the reader's end [`Generation`]. A full stream parks its row; an abandoned one ends it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tollgate_domain::{FinishReason, Piece, TokenLogprobs, Usage};

use super::command::Doorbell;
use super::timing::Timing;

/// A reader that wants a reply whole is woken this often while it grows, so that it can still end what it does not want.
const WHOLE_WAKE_EVERY: Duration = Duration::from_millis(50);

/// What comes out of a generation: any number of pieces, then exactly one `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The tokens of the text that comes next, where their log-probabilities were asked for.
    Logprobs(Vec<TokenLogprobs>),
    /// More of the reply.
    Piece(Piece),
    /// The reply is whole.
    Done(Finish),
    /// The reply ends here, unfinished.
    Failed(GenerateError),
}

/// How a reply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Tokens, exactly. The token that ends a reply is not counted; the tokens of a stop string are, for they were decoded.
    pub usage: Usage,
    /// The stop string that was met.
    pub stop: Option<String>,
}

/// Why a reply ended unfinished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The deadline passed, in the queue or after.
    #[error("the deadline has passed")]
    Deadline,
    /// Nobody read the reply for too long.
    #[error("the reply was not read")]
    Stalled,
    /// The engine is stopping.
    #[error("the model is being stopped")]
    Stopped,
    /// The backend could not decode.
    #[error("the model failed: {0}")]
    Backend(String),
    /// The model's numbers are not numbers.
    #[error("the model computed something that is not a number")]
    NotANumber,
    /// The schema could not be followed further.
    #[error("the schema cannot be followed: {0}")]
    Constraint(String),
}

/// A reply in the making. Dropping it ends the decoding: the row is out of the next step, and its memory is free.
pub struct Generation {
    shared: Arc<Shared>,
}

/// The model thread's end of a stream.
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Bytes that may wait for the reader.
    limit: usize,
    /// Whether the reader wants it whole: pieces that wait are joined, and it is seldom woken before the end.
    is_whole: bool,
    state: Mutex<State>,
    changed: Notify,
    gone: AtomicBool,
    bell: Doorbell,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    ended: bool,
    /// The row is parked until the reader has caught up.
    is_parked: bool,
    /// Tokens up to now.
    usage: Usage,
    timing: Timing,
    /// When the reader was last woken, where it is not woken for every piece.
    woken: Option<Instant>,
}

/// What a reader finds.
enum Taken {
    Event(Event),
    Nothing,
    End,
}

/// The two ends of a stream that holds `limit` bytes. `is_whole`: its reader waits for the end anyway.
pub(crate) fn stream(limit: usize, is_whole: bool, bell: Doorbell) -> (Writer, Generation) {
    let (state, changed, gone) = (Mutex::default(), Notify::new(), AtomicBool::new(false));
    let shared = Arc::new(Shared { limit, is_whole, state, changed, gone, bell });
    (Writer { shared: Arc::clone(&shared) }, Generation { shared })
}

impl Generation {
    /// The next event; `None` after the last. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.take() {
                Taken::Event(event) => return Some(event),
                Taken::End => return None,
                // A notification between the look and the wait is kept by `Notify`.
                Taken::Nothing => self.shared.changed.notified().await,
            }
        }
    }

    /// Tokens up to now, for a reply that is left before its end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.lock().usage
    }

    /// When it reached its stages, up to now.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.shared.lock().timing
    }

    /// What is there now, without waiting.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        match self.take() {
            Taken::Event(event) => Some(event),
            Taken::Nothing | Taken::End => None,
        }
    }

    fn take(&mut self) -> Taken {
        let mut state = self.shared.lock();
        let Some(event) = state.events.pop_front() else {
            return if state.ended { Taken::End } else { Taken::Nothing };
        };
        state.bytes = state.bytes.saturating_sub(cost(&event));
        let has_caught_up = state.is_parked && state.bytes <= self.shared.limit / 2;
        if has_caught_up {
            state.is_parked = false;
        }
        drop(state);
        if has_caught_up {
            self.shared.bell.ring();
        }
        Taken::Event(event)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").finish_non_exhaustive()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.shared.gone.store(true, SeqCst);
        let ended = self.shared.lock().ended;
        if !ended {
            self.shared.bell.ring();
        }
    }
}

impl Writer {
    /// Whether the reader has left.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.gone.load(SeqCst)
    }

    /// Appends to the reply, which has so many tokens by now. It always fits: the row is parked afterwards if [`Writer::park`]
    /// says so.
    pub(crate) fn push(&self, piece: Option<Piece>, logprobs: Vec<TokenLogprobs>, usage: Usage) {
        let told = (!logprobs.is_empty()).then_some(Event::Logprobs(logprobs));
        let mut state = self.shared.lock();
        if usage.completion > state.usage.completion {
            state.timing.token();
        }
        state.usage = usage;
        if let Some(piece) = piece {
            self.tell(state, told.into_iter().chain([Event::Piece(piece)]));
        }
    }

    /// It has a place for the first time: its prompt is decoded from now on.
    pub(crate) fn placed(&self) {
        self.shared.lock().timing.placed();
    }

    /// Whether the reader is behind by more than the stream holds; if so, the bell rings when it has caught up by half.
    pub(crate) fn park(&self) -> bool {
        let mut state = self.shared.lock();
        state.is_parked = state.bytes >= self.shared.limit;
        state.is_parked
    }

    /// Whether a parked reader is still behind.
    pub(crate) fn is_parked(&self) -> bool {
        self.shared.lock().is_parked
    }

    /// Ends the stream well.
    pub(crate) fn finish(&self, finish: Finish) {
        self.append(Event::Done(finish));
    }

    /// Ends the stream badly.
    pub(crate) fn fail(&self, error: GenerateError) {
        self.append(Event::Failed(error));
    }

    fn append(&self, event: Event) {
        self.tell(self.shared.lock(), [event]);
    }

    /// Appends, and wakes the reader if it is time to.
    fn tell(&self, mut state: MutexGuard<'_, State>, events: impl IntoIterator<Item = Event>) {
        let is_new = state.append(events, self.shared.is_whole);
        let wakes = is_new && (!self.shared.is_whole || state.is_due(self.shared.limit));
        drop(state);
        if wakes {
            self.shared.changed.notify_one();
        }
    }
}

impl State {
    /// Returns whether there is anything new: nothing follows the end. `joins`: text is added to text that still waits.
    fn append(&mut self, events: impl IntoIterator<Item = Event>, joins: bool) -> bool {
        if self.ended {
            return false;
        }
        for event in events {
            self.ended = matches!(event, Event::Done(_) | Event::Failed(_));
            match (&event, self.events.back_mut()) {
                (Event::Piece(Piece::Text(more)), Some(Event::Piece(Piece::Text(text)))) if joins => {
                    text.push_str(more);
                    self.bytes = self.bytes.saturating_add(more.len());
                }
                _ => {
                    self.bytes = self.bytes.saturating_add(cost(&event));
                    self.events.push_back(event);
                }
            }
        }
        true
    }

    /// Whether a reader that wants it whole has to be woken: at the end, before the row is parked, and now and then.
    fn is_due(&mut self, limit: usize) -> bool {
        let now = Instant::now();
        let woken = *self.woken.get_or_insert(now);
        let is_due = self.ended || self.bytes >= limit / 2 || now.saturating_duration_since(woken) >= WHOLE_WAKE_EVERY;
        if is_due {
            self.woken = Some(now);
        }
        is_due
    }
}

impl Drop for Writer {
    /// Whoever waits is answered, however the thread came to an end.
    fn drop(&mut self) {
        self.fail(GenerateError::Stopped);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, so the state is whole even behind poison.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The least that an allocation takes.
const BLOCK: usize = 32;

/// Bytes of memory that an event takes while it waits, about.
fn cost(event: &Event) -> usize {
    let own = match event {
        Event::Logprobs(tokens) => tokens.iter().map(|token| token.size().saturating_add(2 * BLOCK)).sum::<usize>(),
        Event::Piece(piece) => piece.as_str().len(),
        Event::Done(_) | Event::Failed(_) => 0,
    };
    own.saturating_add(size_of::<Event>()).saturating_add(BLOCK)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn text(bytes: usize) -> Piece {
        Piece::Text("x".repeat(bytes))
    }

    impl Writer {
        fn say(&self, piece: Piece) {
            self.push(Some(piece), Vec::new(), Usage::default());
        }
    }

    #[test]
    fn a_full_stream_parks_until_half_is_read() {
        let (writer, mut reader) = stream(4_000, false, Doorbell::silent());
        writer.say(text(1_900));
        assert!(!writer.park());
        writer.say(text(1_900));
        writer.say(text(1_900));
        assert!(writer.park() && writer.is_parked());
        assert!(reader.try_next().is_some());
        assert!(writer.is_parked(), "3,800 bytes and more are still unread");
        assert!(reader.try_next().is_some());
        assert!(!writer.is_parked());
    }

    #[test]
    fn a_dropped_writer_answers_and_a_dropped_reader_is_seen() {
        let (writer, mut reader) = stream(100, false, Doorbell::silent());
        writer.say(text(1));
        drop(writer);
        assert_eq!(reader.try_next(), Some(Event::Piece(text(1))));
        assert_eq!(reader.try_next(), Some(Event::Failed(GenerateError::Stopped)));
        assert_eq!(reader.try_next(), None);

        let (writer, reader) = stream(100, false, Doorbell::silent());
        assert!(!writer.is_gone());
        drop(reader);
        assert!(writer.is_gone());
    }

    /// What is told of tokens takes room like text, and comes just before its own.
    #[test]
    fn log_probabilities_count_too() {
        let (writer, mut reader) = stream(2_000, false, Doorbell::silent());
        let mut token = TokenLogprobs::new(b"x", -1.0, 20);
        (0..20).for_each(|_| token.push(b"a long word", -2.0));
        for _ in 0..4 {
            assert!(!writer.park());
            writer.push(Some(text(1)), vec![token.clone()], Usage::default());
        }
        assert!(writer.park());
        assert_eq!((reader.try_next(), reader.try_next()), (Some(Event::Logprobs(vec![token])), Some(Event::Piece(text(1)))));
    }

    /// A reader of whole replies finds text joined, is woken before the row would be parked, and at the end.
    #[test]
    fn a_whole_reply_wakes_its_reader_seldom() {
        let woken = |reader: &Generation| {
            let mut context = Context::from_waker(Waker::noop());
            pin!(reader.shared.changed.notified()).poll(&mut context).is_ready()
        };
        let (writer, mut reader) = stream(10_000, true, Doorbell::silent());
        writer.say(text(3));
        writer.say(text(4));
        assert!(!woken(&reader));
        assert_eq!((reader.try_next(), reader.try_next()), (Some(Event::Piece(text(7))), None));
        writer.say(text(2_000));
        writer.say(text(3_000));
        assert!(woken(&reader) && !writer.park());
        while reader.try_next().is_some() {}
        writer.say(text(1));
        assert!(!woken(&reader));
        reader.shared.lock().woken = Instant::now().checked_sub(WHOLE_WAKE_EVERY);
        writer.say(text(1));
        assert!(woken(&reader), "it is told now and then");
        writer.fail(GenerateError::Stopped);
        assert!(woken(&reader));
    }

    #[tokio::test]
    async fn nothing_follows_the_end() {
        let (writer, mut reader) = stream(100, false, Doorbell::silent());
        let finish = Finish { reason: FinishReason::Stop, usage: Usage::default(), stop: None };
        writer.finish(finish.clone());
        writer.say(text(1));
        writer.fail(GenerateError::Stalled);
        assert_eq!(reader.next().await, Some(Event::Done(finish)));
        assert_eq!(reader.next().await, None);
        assert_eq!(reader.next().await, None);
    }
}
