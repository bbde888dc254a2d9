//! A reply as server-sent events (WHATWG HTML, 9.2), in OpenAI's order: who speaks, what is said, why it ended, `[DONE]`.
//!
//! The body owns the events and with them the reply: a client that goes away drops both, and the decoding stops. Nothing is
//! read ahead of the client but what is ready when a frame is made, so a reader that stops holds up its own reply alone (P-L4).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tollgate_domain::TokenLogprobs;
use tollgate_pipeline::ReplyEvent;

use super::error;
use super::response::{Answer, Delta};
use crate::failure::Failure;
use crate::middleware::Access;

/// A silent line gets a comment this often, so that no proxy between takes it for dead.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// Events that are ready together leave in one frame, which ends with the event that makes it this long.
const FRAME_BYTES: usize = 16 * 1024;

/// Makes frames of events.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    events: S,
    answer: Answer,
    include_usage: bool,
    access: Access,
    stage: Stage,
    /// What is told of the tokens of the text that comes next.
    tokens: Vec<TokenLogprobs>,
}

/// What has left already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing, and there is nothing yet: a comment takes the headers along.
    Waiting,
    /// Nothing, or comments.
    Silent,
    /// Who speaks.
    Begun,
    /// All.
    Over,
}

impl<S: Stream<Item = ReplyEvent> + Unpin> Frames<S> {
    /// `is_waiting`: the first event is not there yet, and the headers leave without it.
    pub(crate) fn new(events: S, answer: Answer, include_usage: bool, is_waiting: bool, access: Access) -> Self {
        let stage = if is_waiting { Stage::Waiting } else { Stage::Silent };
        Frames { events, answer, include_usage, access, stage, tokens: Vec::new() }
    }

    /// The next frame; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if self.stage == Stage::Waiting {
            self.stage = Stage::Silent;
            return Some(Bytes::from_static(KEEP_ALIVE.as_bytes()));
        }
        let mut frame = String::new();
        while self.stage != Stage::Over && frame.is_empty() {
            match tokio::time::timeout(KEEP_ALIVE_EVERY, self.events.next()).await {
                Ok(event) => self.write(event, &mut frame),
                Err(_) => frame.push_str(KEEP_ALIVE),
            }
            while self.stage != Stage::Over && frame.len() < FRAME_BYTES {
                // What is not ready now is not waited for: a token is never held back for the next one.
                let Some(event) = self.events.next().now_or_never() else { break };
                self.write(event, &mut frame);
            }
        }
        (!frame.is_empty()).then(|| Bytes::from(frame))
    }

    fn write(&mut self, event: Option<ReplyEvent>, frame: &mut String) {
        match event {
            Some(ReplyEvent::Logprobs(tokens)) => self.tokens.extend(tokens),
            Some(ReplyEvent::Piece(piece)) => {
                if let Some(delta) = Delta::of(&piece) {
                    self.begin(frame);
                    let tokens = std::mem::take(&mut self.tokens);
                    put(frame, &self.answer.chunk(delta, &tokens, None, self.include_usage));
                }
            }
            Some(ReplyEvent::Done { reason, usage }) => {
                self.begin(frame);
                put(frame, &self.answer.chunk(Delta::END, &[], Some(reason), self.include_usage));
                if self.include_usage {
                    put(frame, &self.answer.usage_chunk(usage));
                }
                put(frame, "[DONE]");
                self.access.usage(usage);
                self.stage = Stage::Over;
            }
            Some(ReplyEvent::Failed(refusal)) => self.fail(&refusal.into(), frame),
            None => self.fail(&Failure::unfinished(), frame),
        }
    }

    /// The status has left already, so the error is an event; without `[DONE]` no client takes the reply for whole.
    fn fail(&mut self, failure: &Failure, frame: &mut String) {
        self.access.failure(failure);
        put(frame, &error::event(failure));
        self.stage = Stage::Over;
    }

    fn begin(&mut self, frame: &mut String) {
        if self.stage != Stage::Begun {
            self.stage = Stage::Begun;
            put(frame, &self.answer.chunk(Delta::BEGIN, &[], None, self.include_usage));
        }
    }
}

/// The body of a streamed answer.
pub(crate) fn body<S>(frames: Frames<S>) -> Body
where
    S: Stream<Item = ReplyEvent> + Unpin + Send + 'static,
{
    Body::from_stream(stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    }))
}

/// One event. JSON has no line break of its own, so one line is enough.
fn put(frame: &mut String, data: &str) {
    frame.push_str("data: ");
    frame.push_str(data);
    frame.push_str("\n\n");
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{iter, pending};
    use serde_json::{Value, json};
    use tollgate_domain::{FinishReason, Piece, Refusal, Usage};

    use super::*;

    const USAGE: Usage = Usage { prompt: 3, cached: 0, completion: 2 };

    fn frames<S: Stream<Item = ReplyEvent> + Unpin>(events: S, include_usage: bool, is_waiting: bool) -> Frames<S> {
        Frames::new(events, Answer::new("r", 1_000, "demo", "abc"), include_usage, is_waiting, Access::default())
    }

    fn text(text: &str) -> ReplyEvent {
        ReplyEvent::Piece(Piece::Text(text.to_owned()))
    }

    fn done() -> ReplyEvent {
        ReplyEvent::Done { reason: FinishReason::Stop, usage: USAGE }
    }

    /// The events of a frame: JSON, or a string where it is none.
    fn parse(frame: &Bytes) -> Vec<Value> {
        let text = std::str::from_utf8(frame).unwrap();
        assert!(text.ends_with("\n\n"), "{text}");
        let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap_or(event));
        events.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
    }

    fn deltas(events: &[Value]) -> Vec<Value> {
        events.iter().map(|event| event.pointer("/choices/0/delta").cloned().unwrap_or(Value::Null)).collect()
    }

    #[tokio::test]
    async fn what_is_ready_together_leaves_together() {
        let mut frames = frames(iter([text("a"), text("b"), done()]), false, false);
        let events = parse(&frames.next().await.unwrap());
        let expected = [
            json!({"role": "assistant", "content": ""}),
            json!({"content": "a"}),
            json!({"content": "b"}),
            json!({}),
            Value::Null,
        ];
        assert_eq!(deltas(&events), expected);
        assert_eq!(events.last(), Some(&json!("[DONE]")));
        assert!(events.iter().all(|event| event.get("usage").is_none()));
        assert_eq!(frames.next().await, None);
    }

    #[tokio::test]
    async fn log_probabilities_leave_with_their_text() {
        let told = |bytes: &[u8]| ReplyEvent::Logprobs(vec![TokenLogprobs::new(bytes, -1.0, 0)]);
        let mut frames = frames(iter([told(b"a"), text("a"), told(b"b"), text("b"), done()]), false, false);
        let events = parse(&frames.next().await.unwrap());
        let tokens = |event: &Value| event.pointer("/choices/0/logprobs/content/0/token").cloned();
        assert_eq!(events.iter().map(tokens).collect::<Vec<_>>(), [None, Some(json!("a")), Some(json!("b")), None, None]);
    }

    #[tokio::test]
    async fn what_is_not_ready_is_not_waited_for() {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let events = stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|event| (event, receiver)) });
        let mut frames = frames(Box::pin(events), false, false);
        sender.send(text("a")).await.unwrap();
        assert_eq!(parse(&frames.next().await.unwrap()).len(), 2);
        sender.send(text("b")).await.unwrap();
        sender.send(text("c")).await.unwrap();
        assert_eq!(deltas(&parse(&frames.next().await.unwrap())), [json!({"content": "b"}), json!({"content": "c"})]);
        sender.send(done()).await.unwrap();
        assert_eq!(parse(&frames.next().await.unwrap()).len(), 2);
        assert_eq!(frames.next().await, None);
    }

    #[tokio::test]
    async fn usage_is_null_until_the_last_chunk() {
        let mut frames = frames(iter([text("a"), done()]), true, false);
        let events = parse(&frames.next().await.unwrap());
        let totals = events.iter().map(|event| event.pointer("/usage/total_tokens").cloned()).collect::<Vec<_>>();
        assert_eq!(totals, [None, None, None, Some(json!(5)), None]);
        let chunks = events.iter().filter(|event| event.is_object()).collect::<Vec<_>>();
        assert!(chunks.iter().all(|event| event.get("usage").is_some()));
        assert_eq!(chunks.last().unwrap()["choices"], json!([]));
    }

    #[tokio::test]
    async fn a_late_failure_is_an_event_and_there_is_no_done() {
        let refusal = Refusal::unavailable("model_failed", "The model failed.", 1).detail("0x7f0012");
        let mut frames = frames(iter([text("a"), ReplyEvent::Failed(refusal), text("never")]), false, false);
        let events = parse(&frames.next().await.unwrap());
        let error =
            json!({"error": {"message": "The model failed.", "type": "server_error", "param": null, "code": "model_failed"}});
        assert_eq!(events.last(), Some(&error));
        assert_eq!(events.len(), 3);
        assert_eq!(frames.next().await, None);
    }

    #[tokio::test]
    async fn events_that_stop_without_an_end_are_a_failure() {
        let mut frames = frames(iter([text("a")]), false, false);
        let events = parse(&frames.next().await.unwrap());
        assert_eq!(events.last().unwrap().pointer("/error/code"), Some(&json!("internal_error")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_line_is_kept_alive() {
        let mut frames = frames(pending(), false, true);
        // The first comment leaves at once, with the headers.
        let began = tokio::time::Instant::now();
        assert_eq!(frames.next().await.as_deref(), Some(KEEP_ALIVE.as_bytes()));
        assert_eq!(began.elapsed(), Duration::ZERO);
        for turn in 1..=3 {
            assert_eq!(frames.next().await.as_deref(), Some(KEEP_ALIVE.as_bytes()));
            assert!(began.elapsed() >= KEEP_ALIVE_EVERY * turn);
        }
    }

    #[tokio::test]
    async fn a_frame_is_bounded() {
        let long = "x".repeat(FRAME_BYTES);
        let mut frames = frames(iter([text(&long), text(&long), done()]), false, false);
        assert_eq!(parse(&frames.next().await.unwrap()).len(), 2);
        assert_eq!(parse(&frames.next().await.unwrap()).len(), 1);
        assert_eq!(parse(&frames.next().await.unwrap()).len(), 2);
    }

    #[tokio::test]
    async fn dropping_the_body_drops_the_events() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<ReplyEvent>(1);
        let events = stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|event| (event, receiver)) });
        let body = body(frames(Box::pin(events), false, true));
        assert!(!sender.is_closed());
        drop(body);
        assert!(sender.is_closed());
    }
}
