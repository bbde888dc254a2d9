//! What several modules of the suite need: polling with a deadline, replies as they stream, the gateway's gauges. No test is here.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::{Client, Connection, Gateway, Place, repository};

/// The longest that anything is waited for; the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The path of chats.
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// The header of a JSON body.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// More tokens than any test lets a reply have.
pub(crate) const LONG: u32 = 100_000;

/// Asks again and again until it is so, and fails at the deadline.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A gauge of a model, by its name in `tollgate models`.
pub(crate) async fn gauge(gateway: &Gateway, model: &str, name: &str) -> u64 {
    let models = gateway.admin(&["models"]).await;
    let found = models.as_array().unwrap().iter().find(|entry| entry["id"] == model).unwrap();
    found[name].as_u64().unwrap()
}

/// Runs a command of the binary to its end.
pub(crate) async fn tollgate(arguments: &[&str]) -> std::process::Output {
    tokio::process::Command::new(repository().join("target/release/tollgate")).args(arguments).output().await.unwrap()
}

/// Makes a key and returns its secret.
pub(crate) async fn add_key(place: &Place, id: &str, more: &[&str]) -> String {
    let config = place.config();
    let mut arguments = vec!["keys", "add", id, "--config", config.to_str().unwrap()];
    arguments.extend(more);
    let output = tollgate(&arguments).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The port that a gateway listens on.
pub(crate) fn port(gateway: &Gateway) -> u16 {
    gateway.url.rsplit(':').next().unwrap().parse().unwrap()
}

/// A reply on its way.
pub(crate) struct Stream {
    body: Incoming,
    unread: Vec<u8>,
    connection: Connection,
}

/// A streamed reply, whole.
#[derive(Debug)]
pub(crate) struct Told {
    /// All deltas in a row.
    pub(crate) content: String,
    /// The chunks.
    pub(crate) chunks: Vec<Value>,
    /// Whether `[DONE]` came, after everything else.
    pub(crate) is_done: bool,
}

impl Stream {
    /// Asks on a connection of its own.
    pub(crate) async fn open(client: &Client, model: &str, text: &str, more: Value) -> Self {
        Self::over(client.connect().await, model, text, more).await
    }

    /// Asks on a connection that is open; returns when the headers are there.
    pub(crate) async fn over(mut connection: Connection, model: &str, text: &str, more: Value) -> Self {
        let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": text }], "stream": true });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let (status, headers, body) = connection.open("POST", CHAT, &[JSON], body.to_string().as_bytes()).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "text/event-stream");
        Stream { body, unread: Vec::new(), connection }
    }

    /// The next event's data; `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let event = String::from_utf8(self.unread.drain(..end + 2).collect()).unwrap();
                // Anything else is a comment that keeps the line alive.
                if let Some(data) = event.trim_end().strip_prefix("data: ") {
                    return Some(data.to_owned());
                }
                continue;
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("the stream goes on")?.unwrap();
            self.unread.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    /// What is left, to the end.
    pub(crate) async fn rest(&mut self) -> Told {
        let mut told = Told { content: String::new(), chunks: Vec::new(), is_done: false };
        while let Some(data) = self.next().await {
            assert!(!told.is_done, "after [DONE]: {data}");
            if data == "[DONE]" {
                told.is_done = true;
                continue;
            }
            let chunk = serde_json::from_str::<Value>(&data).unwrap();
            told.content.push_str(chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default());
            told.chunks.push(chunk);
        }
        assert!(self.unread.is_empty(), "a part of an event is left");
        told
    }

    /// The connection, for the next request.
    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }
}
