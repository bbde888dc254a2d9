//! `POST /v1/chat/completions`.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tollgate_pipeline::{Reply, ReplyEvent, RequestIds, Session};

use super::request::{self, Decoded};
use super::response::{Answer, Said};
use super::stream::{self as sse, Frames};
use super::{DIALECT, headers};
use crate::body;
use crate::failure::Failure;
use crate::middleware::Access;
use crate::respond;
use crate::state::ApiState;

/// Until then a failure has its real status; after it the headers of a stream leave, so that the client knows it is heard.
const FIRST_EVENT_WAIT: Duration = Duration::from_secs(2);

/// Answers a chat request. The body is read here, when it is known who asks.
pub(crate) async fn chat(
    api: &ApiState,
    mut session: Session,
    parts: &Parts,
    body: Body,
    access: &Access,
) -> Result<Response, Failure> {
    session.may_chat()?;
    let (json, memory) = body::read_json(api, &parts.headers, body, session.body()).await?;
    session.hold(memory);
    let Decoded { chat, is_stream, include_usage, keep_alive } = request::decode(json)?;
    session.keep_alive(keep_alive);
    let ids = parts.extensions.get::<RequestIds>().ok_or(Failure::Internal("the request came without its ids"))?;
    let with_logprobs = chat.parameters.logprobs.is_some();
    let reply = session.chat(chat, DIALECT, is_stream).await?;
    access.model(reply.model());
    let answer = Answer::new(&ids.request_id, ids.received_at_ms, reply.model(), reply.model_digest());
    if is_stream {
        streamed(reply, answer, include_usage, access).await
    } else {
        whole(reply, Said::new(with_logprobs), &answer, access).await
    }
}

/// The reply as one JSON text.
async fn whole(mut reply: Reply, mut said: Said, answer: &Answer, access: &Access) -> Result<Response, Failure> {
    loop {
        match reply.next().await {
            Some(ReplyEvent::Logprobs(tokens)) => said.tell(tokens),
            Some(ReplyEvent::Piece(piece)) => said.push(&piece),
            Some(ReplyEvent::Done { reason, usage }) => {
                access.usage(usage);
                let response = respond::json(StatusCode::OK, answer.completion(&said, reason, usage));
                return Ok(described(response, &reply));
            }
            Some(ReplyEvent::Failed(refusal)) => return Err(refusal.into()),
            None => return Err(Failure::unfinished()),
        }
    }
}

/// The reply as it comes.
async fn streamed(mut reply: Reply, answer: Answer, include_usage: bool, access: &Access) -> Result<Response, Failure> {
    let first = match tokio::time::timeout(FIRST_EVENT_WAIT, reply.next()).await {
        Ok(Some(ReplyEvent::Failed(refusal))) => return Err(refusal.into()),
        Ok(Some(event)) => Some(event),
        Ok(None) => return Err(Failure::unfinished()),
        Err(_) => None,
    };
    let is_waiting = first.is_none();
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let response = described(response, &reply);
    let rest = stream::unfold(reply, |mut reply| async move { reply.next().await.map(|event| (event, reply)) });
    let events = Box::pin(stream::iter(first).chain(rest));
    let frames = Frames::new(events, answer, include_usage, is_waiting, access.clone());
    Ok(response.map(|_| sse::body(frames)))
}

/// `response`, saying what answers and how long it took to begin.
fn described(response: Response, reply: &Reply) -> Response {
    headers::described(response, reply.model_digest(), reply.fallback(), &reply.server_timing())
}
