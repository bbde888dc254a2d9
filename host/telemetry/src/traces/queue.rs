//! Between the spans that end and the collector: a bounded queue, and one thread that sends what is in it.
//!
//! A span that finds the queue full is dropped and counted; nothing here ever makes a request wait. The thread has its own small
//! runtime, so that neither needs the other: a busy gateway exports, and a collector that hangs holds up nobody.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{Counter, counter};
use tokio::runtime::{Builder, Runtime};

use super::client::{Client, Failure};
use super::otlp;
use super::span::{Span, Value};

/// Spans sent together.
const BATCH: usize = 512;

/// Tries at one batch, and how long after each the next one is.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// A collector that is down is worth a line this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What sends.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) client: Client,
    pub(super) resource: Vec<(&'static str, Value)>,
    pub(super) interval: Duration,
    /// For a batch, all tries together.
    pub(super) timeout: Duration,
}

/// The end of the queue that spans go in at. Clones are the same queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    control: Arc<Control>,
    dropped: Counter,
}

/// The handle to the thread.
#[derive(Debug)]
pub(super) struct Worker {
    sender: SyncSender<Message>,
    control: Arc<Control>,
}

#[derive(Debug)]
enum Message {
    Span(Box<Span>),
    /// Look at [`Control`].
    Wake,
}

#[derive(Debug, Default)]
struct Control {
    closing: AtomicBool,
    /// When the thread has to be done.
    deadline: Mutex<Option<Instant>>,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Queue {
    /// A queue for `capacity` spans and the thread that empties it.
    pub(super) fn start(exporter: Exporter, capacity: usize) -> io::Result<(Self, Worker)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, receiver) = sync_channel(capacity);
        let control = Arc::new(Control::default());
        let counted = |outcome: &'static str| counter!("tollgate_trace_spans_total", "outcome" => outcome);
        let sending = Sending {
            exporter,
            runtime,
            receiver,
            control: Arc::clone(&control),
            exported: counted("exported"),
            failed: counted("failed"),
            said: None,
        };
        std::thread::Builder::new().name("traces".to_owned()).spawn(move || sending.run())?;
        let worker = Worker { sender: sender.clone(), control: Arc::clone(&control) };
        Ok((Queue { sender, control, dropped: counted("dropped") }, worker))
    }

    /// Takes a span, or drops and counts it. It never waits.
    pub(super) fn push(&self, span: Span) {
        let is_closing = self.control.closing.load(SeqCst);
        if is_closing || self.sender.try_send(Message::Span(Box::new(span))).is_err() {
            self.dropped.increment(1);
        }
    }
}

impl Worker {
    /// Has the thread send what waits, and waits for it until `deadline`.
    pub(super) fn finish(&self, deadline: Instant) {
        *self.control.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.control.closing.store(true, SeqCst);
        // A full queue wakes it as well; without a thread there is nobody to wait for.
        if let Err(TrySendError::Disconnected(_)) = self.sender.try_send(Message::Wake) {
            return;
        }
        let mut is_done = self.control.is_done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.control.done.wait_timeout(is_done, left);
            is_done = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(is_done, _)| is_done);
        }
    }
}

/// The thread.
struct Sending {
    exporter: Exporter,
    runtime: Runtime,
    receiver: Receiver<Message>,
    control: Arc<Control>,
    exported: Counter,
    failed: Counter,
    /// When a failure was last logged, and how many spans were lost since.
    said: Option<(Instant, u64)>,
}

impl Sending {
    fn run(mut self) {
        loop {
            let batch = self.gather();
            if !batch.is_empty() {
                self.send(&batch);
            } else if self.control.closing.load(SeqCst) {
                break;
            }
        }
        *self.control.is_done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.control.done.notify_all();
    }

    /// A batch: full, or what came within the interval, which may be nothing.
    fn gather(&self) -> Vec<Span> {
        let mut batch = Vec::new();
        let until = Instant::now() + self.exporter.interval;
        while batch.len() < BATCH {
            // At the end what is there is taken, and no more is waited for.
            let is_closing = self.control.closing.load(SeqCst);
            let wait = if is_closing { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            match self.receiver.recv_timeout(wait) {
                Ok(Message::Span(span)) => batch.push(*span),
                Ok(Message::Wake) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        batch
    }

    fn send(&mut self, batch: &[Span]) {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let body = otlp::export(&self.exporter.resource, env!("CARGO_PKG_VERSION"), batch);
        let deadline = *self.control.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let patience = self.exporter.timeout.min(left);
        let (client, control) = (&mut self.exporter.client, &self.control);
        let sending = async { tokio::time::timeout(patience, tries(client, body, patience, control)).await };
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => self.exported.increment(spans),
            Ok(Err(failure)) => self.lost(&failure.reason, spans),
            Err(_) => self.lost("the collector did not answer in time", spans),
        }
    }

    /// Counts them, and says so in one line, and then none for a minute.
    fn lost(&mut self, reason: &str, spans: u64) {
        self.failed.increment(spans);
        let now = Instant::now();
        let lost = self.said.map_or(0, |(_, lost)| lost).saturating_add(spans);
        match self.said {
            Some((at, _)) if now.saturating_duration_since(at) < SAY_EVERY => self.said = Some((at, lost)),
            _ => {
                let hint = "the next line of this kind comes in a minute at the earliest";
                tracing::warn!(reason, spans = lost, hint, "traces cannot be exported");
                self.said = Some((now, 0));
            }
        }
    }
}

/// Sends, and tries again where that may help and there is time for it; not while the gateway stops.
async fn tries(client: &mut Client, body: Vec<u8>, patience: Duration, control: &Control) -> Result<(), Failure> {
    let (began, body) = (Instant::now(), Bytes::from(body));
    let mut tried = 1;
    loop {
        let failure = match client.send(body.clone()).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let wait = BETWEEN_TRIES * tried;
        let is_last = tried >= TRIES || began.elapsed().saturating_add(wait) >= patience;
        if !failure.may_pass || is_last || control.closing.load(SeqCst) {
            return Err(failure);
        }
        tokio::time::sleep(wait).await;
        tried += 1;
    }
}
