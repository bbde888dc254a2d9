//! A reply on its way from a provider: pulled by its reader, so that one who stops holds nothing but the connection.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;
use tollgate_domain::{FinishReason, Piece, Usage};

use crate::lines::Lines;
use crate::parsed::Parsed;
use crate::sse::Events;
use crate::{ProviderError, ollama, openai};

/// Bytes of a reply with all that is around its text.
const MAX_BODY: usize = 64 << 20;
/// Bytes of its text.
const MAX_TEXT: usize = 16 << 20;
/// After a reply's last event its body may take this long to end, so that the connection can be used again.
const LINGER: Duration = Duration::from_millis(20);

/// What comes out of a reply: any number of pieces, then exactly one `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum RemoteEvent {
    /// More of it.
    Piece(Piece),
    /// It is whole.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens, as the provider counts them; zero where it does not.
        usage: Usage,
    },
    /// It ends here, unfinished.
    Failed(ProviderError),
}

/// How the body is to be read.
#[derive(Debug)]
pub(crate) enum Reader {
    /// Server-sent events.
    OpenAi(Events),
    /// JSON lines.
    Ollama,
}

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// From one piece to the next.
    pub(crate) idle: Duration,
    /// For the whole reply.
    pub(crate) deadline: Instant,
    /// When it was asked for.
    pub(crate) sent: Instant,
}

/// A reply on its way. Dropping it ends the connection, and with it the provider's work.
pub struct RemoteReply {
    body: Response,
    lines: Lines,
    reader: Reader,
    times: Times,
    ready: VecDeque<Piece>,
    finish: Option<FinishReason>,
    usage: Usage,
    body_bytes: usize,
    text_bytes: usize,
    /// The text so far, where it has to be JSON.
    json: Option<String>,
    /// The provider has said all.
    is_end: bool,
    /// The last event is out.
    is_over: bool,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl fmt::Debug for RemoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteReply").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl RemoteReply {
    pub(crate) fn new(body: Response, reader: Reader, times: Times, is_json: bool) -> Self {
        RemoteReply {
            body,
            lines: Lines::default(),
            reader,
            times,
            ready: VecDeque::new(),
            finish: None,
            usage: Usage::default(),
            body_bytes: 0,
            text_bytes: 0,
            json: is_json.then(String::new),
            is_end: false,
            is_over: false,
            first_token: None,
            last_token: None,
        }
    }

    /// Waits for the first piece, or for the end of a reply without any.
    pub(crate) async fn begin(&mut self) -> Result<(), ProviderError> {
        if let Some(first) = self.read().await? {
            self.ready.push_front(first);
        }
        Ok(())
    }

    /// The next event; `None` after the last. Safe to cancel.
    pub async fn next(&mut self) -> Option<RemoteEvent> {
        if self.is_over {
            return None;
        }
        let Times { idle, deadline, .. } = self.times;
        let by = deadline.min(Instant::now() + idle);
        let read = tokio::time::timeout_at(by.into(), self.read()).await;
        let event = match read {
            Ok(Ok(Some(piece))) => return Some(RemoteEvent::Piece(piece)),
            Ok(Ok(None)) => self.done(),
            Ok(Err(error)) => RemoteEvent::Failed(error),
            // Why it ended is known: what is missing are words of the protocol.
            Err(_) if self.finish.is_some() => self.done(),
            Err(_) if by == deadline => RemoteEvent::Failed(ProviderError::Deadline),
            Err(_) => RemoteEvent::Failed(ProviderError::Stalled),
        };
        self.is_over = true;
        Some(event)
    }

    /// Tokens up to now, as far as the provider has told.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// When it was asked for.
    #[must_use]
    pub fn sent(&self) -> Instant {
        self.times.sent
    }

    /// When its first piece was here.
    #[must_use]
    pub fn first_token(&self) -> Option<Instant> {
        self.first_token
    }

    /// When its last piece so far was here.
    #[must_use]
    pub fn last_token(&self) -> Option<Instant> {
        self.last_token
    }

    fn done(&self) -> RemoteEvent {
        let reason = self.finish.unwrap_or(FinishReason::Stop);
        // What was cut by its length is no whole JSON, and the client is told why.
        let is_whole = reason != FinishReason::Length;
        let is_json = |text: &String| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        if is_whole && self.json.as_ref().is_some_and(|text| !is_json(text)) {
            return RemoteEvent::Failed(ProviderError::NotJson);
        }
        RemoteEvent::Done { reason, usage: self.usage }
    }

    /// The next piece, or `None` at the end. Safe to cancel: the one wait is for bytes, and whatever came is kept.
    async fn read(&mut self) -> Result<Option<Piece>, ProviderError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.is_end {
                return Ok(None);
            }
            if let Some(line) = self.lines.next()? {
                self.take(&line)?;
                if self.is_end {
                    // A connection whose body is read to its end is used again. More than that nobody wants to know of it.
                    let _ = tokio::time::timeout(LINGER, self.body.chunk()).await;
                }
                continue;
            }
            match self.body.chunk().await {
                Ok(Some(bytes)) => self.push(&bytes)?,
                Ok(None) => self.ended()?,
                Err(error) => return Err(ProviderError::Cut(crate::provider::chain(error))),
            }
        }
    }

    fn push(&mut self, bytes: &Bytes) -> Result<(), ProviderError> {
        self.body_bytes = self.body_bytes.saturating_add(bytes.len());
        if self.body_bytes > MAX_BODY {
            return Err(ProviderError::TooLarge { limit: MAX_BODY });
        }
        self.lines.push(bytes);
        Ok(())
    }

    /// The body is over: what is left of it is a last line.
    fn ended(&mut self) -> Result<(), ProviderError> {
        let rest = self.lines.rest();
        self.take(&rest)?;
        if self.finish.is_none() && !self.is_end {
            return Err(ProviderError::Cut("its end is missing".to_owned()));
        }
        self.is_end = true;
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), ProviderError> {
        let parsed = match &mut self.reader {
            Reader::Ollama => ollama::line(line)?,
            Reader::OpenAi(events) => match events.line(line)? {
                Some(data) => openai::event(&data)?,
                None => return Ok(()),
            },
        };
        let Parsed { pieces, finish, usage, is_end } = parsed;
        if !pieces.is_empty() {
            let now = Instant::now();
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
        }
        for piece in pieces {
            self.text_bytes = self.text_bytes.saturating_add(piece.as_str().len());
            if self.text_bytes > MAX_TEXT {
                return Err(ProviderError::TooLarge { limit: MAX_TEXT });
            }
            if let (Some(json), Piece::Text(text)) = (&mut self.json, &piece) {
                json.push_str(text);
            }
            self.ready.push_back(piece);
        }
        self.finish = finish.or(self.finish);
        self.usage = usage.unwrap_or(self.usage);
        self.is_end |= is_end;
        Ok(())
    }
}
