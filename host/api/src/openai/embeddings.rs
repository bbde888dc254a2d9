//! `POST /v1/embeddings`.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use tollgate_domain::{Refusal, Usage};
use tollgate_pipeline::{EmbedInput, EmbedRequest, Embedded, Session};

use super::{DIALECT, headers, read};
use crate::failure::Failure;
use crate::json::Json;
use crate::middleware::Access;
use crate::state::ApiState;
use crate::{body, respond};

/// Fields of a request.
const FIELDS: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "user"];
/// Texts of a request.
const MAX_TEXTS: usize = 2_048;
/// Numbers of a vector that a client may ask for; which of them is the model's to say.
const MAX_DIMENSIONS: u32 = 65_536;
/// More numbers are written off the async workers, which should not be held up for milliseconds.
const WRITTEN_INLINE: usize = 8_192;

/// A request, and how its vectors are to be written.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    request: EmbedRequest,
    is_base64: bool,
}

#[derive(Debug, Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
    model: &'a str,
    usage: Tokens,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    object: &'static str,
    index: usize,
    embedding: Numbers<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Floats(&'a [f32]),
    /// Little-endian, four bytes a number.
    Base64(String),
}

/// Tokens of a request that is answered without any.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Tokens {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Tokens { prompt_tokens: usage.prompt, total_tokens: usage.total() }
    }
}

/// Answers with a vector for each text. The body is read here, when it is known who asks.
pub(crate) async fn embeddings(
    api: &ApiState,
    mut session: Session,
    parts: &Parts,
    body: Body,
    access: &Access,
) -> Result<Response, Failure> {
    session.may_chat()?;
    let (json, memory) = body::read_json(api, &parts.headers, body, session.body()).await?;
    session.hold(memory);
    let Decoded { request, is_base64 } = decode(json)?;
    let reply = session.embed(request, DIALECT).await?;
    access.model(&reply.model);
    access.usage(reply.usage);
    let Embedded::Vectors(vectors) = reply.embedded else {
        return Err(Failure::Internal("texts were given scores and not vectors"));
    };
    let numbers = vectors.iter().map(Vec::len).sum::<usize>();
    let (model, usage, memory) = (reply.model, reply.usage, reply.memory);
    let write = move || text_of(&vectors, is_base64, &model, usage);
    let text = if numbers <= WRITTEN_INLINE {
        write()
    } else {
        tokio::task::spawn_blocking(write).await.map_err(|_| Failure::Internal("writing vectors panicked"))?
    };
    let response = respond::holding(respond::json(StatusCode::OK, text), memory);
    Ok(headers::described(response, &reply.model_digest, reply.fallback.as_deref(), &reply.server_timing))
}

/// Reads a request.
///
/// # Errors
/// Always of the kind `Invalid`, naming a field that is wrong.
fn decode(json: Json) -> Result<Decoded, Refusal> {
    let mut fields = read::body(json, &FIELDS)?;
    let model = model(fields.take("model"))?;
    let input = texts("input", fields.take("input").ok_or_else(|| read::missing("input"))?)?;
    let format = fields.take("encoding_format");
    let format = format.map(|json| read::one_of("encoding_format", &json, &["float", "base64"])).transpose()?;
    let dimensions = fields.take("dimensions");
    let dimensions = dimensions.map(|json| read::count("dimensions", &json, &(1..=MAX_DIMENSIONS))).transpose()?;
    // Who asks is known by the key.
    if let Some(user) = fields.take("user") {
        read::string("user", user)?;
    }
    let request = EmbedRequest { model, input: EmbedInput::Texts(input), dimensions };
    Ok(Decoded { request, is_base64: format == Some("base64") })
}

/// Reads the model's name; it is empty where the key's default model answers.
pub(super) fn model(json: Option<Json>) -> Result<String, Refusal> {
    json.map_or_else(|| Ok(String::new()), |json| read::short_string("model", json, &(1..=256)))
}

/// Reads a text that is not empty.
pub(super) fn text(path: &str, json: Json) -> Result<String, Refusal> {
    let text = read::string(path, json)?;
    if text.is_empty() { Err(read::invalid(path, "is empty")) } else { Ok(text) }
}

/// Reads one text or several.
fn texts(path: &str, json: Json) -> Result<Vec<String>, Refusal> {
    if let Json::List(values) = &json
        && matches!(values.first(), Some(Json::Number(_) | Json::List(_)))
    {
        // Another model's numbers would be taken for this one's, and no filter could read them.
        let message = format!("`{path}` has to be text: numbers of tokens are not taken.");
        return Err(Refusal::invalid("unsupported_content", message).field(path));
    }
    match json {
        Json::Text(_) => Ok(vec![text(path, json)?]),
        Json::List(_) => {
            let values = read::list(path, json, &(1..=MAX_TEXTS))?;
            values.into_iter().enumerate().map(|(at, value)| text(&format!("{path}[{at}]"), value)).collect()
        }
        other => Err(read::wrong_type(path, "a string or an array of strings", &other)),
    }
}

fn text_of(vectors: &[Vec<f32>], is_base64: bool, model: &str, usage: Usage) -> String {
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = numbers(vector, is_base64);
        Entry { object: "embedding", index, embedding }
    });
    let data = data.collect();
    let list = List { object: "list", data, model, usage: usage.into() };
    serde_json::to_string(&list).expect("vectors can be written")
}

fn numbers(vector: &[f32], is_base64: bool) -> Numbers<'_> {
    if is_base64 {
        let bytes = vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        Numbers::Base64(STANDARD.encode(bytes))
    } else {
        Numbers::Floats(vector)
    }
}

#[cfg(test)]
mod tests;
