//! The gateway's admin channel, over one connection that stays open: asking costs tens of microseconds, so that it can be asked
//! every millisecond.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(1);

/// A connection to the admin channel.
pub(crate) struct Admin {
    sender: SendRequest<Empty<Bytes>>,
}

impl Admin {
    /// Connects to the gateway whose data directory is `data`.
    pub(crate) async fn connect(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("admin.sock");
        let stream = UnixStream::connect(&path).await.with_context(|| path.display().to_string())?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its error is the request's too.
            let _ = connection.await;
        });
        Ok(Admin { sender })
    }

    /// Asks for `what`.
    pub(crate) async fn get(&mut self, what: &str) -> anyhow::Result<Value> {
        let request = Request::get(format!("/{what}")).header("host", "admin").body(Empty::new())?;
        self.sender.ready().await?;
        let body = self.sender.send_request(request).await?.collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    /// The row of a model.
    pub(crate) async fn model(&mut self, id: &str) -> anyhow::Result<Value> {
        let models = self.get("models").await?;
        let found = models.as_array().into_iter().flatten().find(|model| model["id"] == id);
        found.cloned().with_context(|| format!("no model {id}"))
    }

    /// Asks for the model again and again until it is so; returns what it is then.
    pub(crate) async fn until(
        &mut self,
        id: &str,
        what: &str,
        within: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let end = Instant::now() + within;
        loop {
            let model = self.model(id).await?;
            if is_so(&model) {
                return Ok(model);
            }
            anyhow::ensure!(Instant::now() < end, "not in time: {what}; {model}");
            sleep(PAUSE).await;
        }
    }
}
