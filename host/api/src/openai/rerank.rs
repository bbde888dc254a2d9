//! `POST /v1/rerank`, in the shape that Cohere, Jina and llama-server share.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use tollgate_domain::{Refusal, Usage};
use tollgate_pipeline::{EmbedInput, EmbedRequest, Embedded, Session};

use super::embeddings::{Tokens, model, text};
use super::{DIALECT, headers, read};
use crate::failure::Failure;
use crate::json::Json;
use crate::middleware::Access;
use crate::state::ApiState;
use crate::{body, respond};

/// Fields of a request.
const FIELDS: [&str; 5] = ["model", "query", "documents", "top_n", "return_documents"];
/// Documents of a request.
const MAX_DOCUMENTS: u32 = 1_024;
/// More bytes of documents are written off the async workers, which should not be held up for milliseconds.
const WRITTEN_INLINE: usize = 64 * 1_024;

/// A request, and what of its documents is to come back.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    request: EmbedRequest,
    /// The nearest so many.
    top_n: usize,
    /// The texts, where they come back with their scores.
    texts: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Ranked<'a> {
    object: &'static str,
    model: &'a str,
    results: Vec<Entry<'a>>,
    usage: Tokens,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document<'a>>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    text: &'a str,
}

/// Answers with the documents' scores, the nearest first. The body is read here, when it is known who asks.
pub(crate) async fn rerank(
    api: &ApiState,
    mut session: Session,
    parts: &Parts,
    body: Body,
    access: &Access,
) -> Result<Response, Failure> {
    session.may_chat()?;
    let (json, memory) = body::read_json(api, &parts.headers, body, session.body()).await?;
    session.hold(memory);
    let Decoded { request, top_n, texts } = decode(json)?;
    let reply = session.embed(request, DIALECT).await?;
    access.model(&reply.model);
    access.usage(reply.usage);
    let Embedded::Scores(scores) = reply.embedded else {
        return Err(Failure::Internal("documents were given vectors and not scores"));
    };
    let bytes = texts.iter().flatten().map(String::len).sum::<usize>();
    let (model, usage) = (reply.model, reply.usage);
    let write = move || text_of(&scores, top_n, texts.as_deref(), &model, usage);
    let text = if bytes <= WRITTEN_INLINE {
        write()
    } else {
        tokio::task::spawn_blocking(write).await.map_err(|_| Failure::Internal("writing documents panicked"))?
    };
    let response = respond::json(StatusCode::OK, text);
    Ok(headers::described(response, &reply.model_digest, reply.fallback.as_deref(), &reply.server_timing))
}

/// Reads a request.
///
/// # Errors
/// Always of the kind `Invalid`, naming a field that is wrong.
fn decode(json: Json) -> Result<Decoded, Refusal> {
    let mut fields = read::body(json, &FIELDS)?;
    let model = model(fields.take("model"))?;
    let query = text("query", fields.take("query").ok_or_else(|| read::missing("query"))?)?;
    let documents = documents("documents", fields.take("documents").ok_or_else(|| read::missing("documents"))?)?;
    let top_n = fields.take("top_n").map(|json| read::count("top_n", &json, &(1..=MAX_DOCUMENTS))).transpose()?;
    let is_wanted = fields.take("return_documents").map(|json| read::flag("return_documents", &json)).transpose()?;
    Ok(Decoded {
        top_n: top_n.map_or(documents.len(), |top_n| top_n as usize),
        texts: is_wanted.unwrap_or(false).then(|| documents.clone()),
        request: EmbedRequest { model, input: EmbedInput::Rank { query, documents }, dimensions: None },
    })
}

/// Reads the documents, each a string or an object with a text.
fn documents(path: &str, json: Json) -> Result<Vec<String>, Refusal> {
    let values = read::list(path, json, &(1..=MAX_DOCUMENTS as usize))?;
    values.into_iter().enumerate().map(|(at, value)| document(&format!("{path}[{at}]"), value)).collect()
}

fn document(path: &str, json: Json) -> Result<String, Refusal> {
    match json {
        Json::Text(_) => text(path, json),
        Json::Object(_) => {
            let of = format!("{path}.text");
            let mut fields = read::object(path, json, &["text"])?;
            text(&of, fields.take("text").ok_or_else(|| read::missing(&of))?)
        }
        other => Err(read::wrong_type(path, "a string or an object with a `text`", &other)),
    }
}

fn text_of(scores: &[f32], top_n: usize, texts: Option<&[String]>, model: &str, usage: Usage) -> String {
    let mut order = scores.iter().copied().enumerate().collect::<Vec<_>>();
    // Equal ones stay in the client's order.
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let document = |index: usize| texts.and_then(|texts| texts.get(index)).map(|text| Document { text });
    let entry = |(index, relevance_score)| Entry { index, relevance_score, document: document(index) };
    let results = order.into_iter().take(top_n).map(entry).collect();
    let ranked = Ranked { object: "list", model, results, usage: usage.into() };
    serde_json::to_string(&ranked).expect("scores can be written")
}

#[cfg(test)]
mod tests;
