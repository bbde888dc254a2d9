//! What a line or an event of a reply says, whichever protocol it is of; and what both send alike.

use serde::Serialize;
use tollgate_domain::{ChatRequest, Content, FinishReason, Parameters, Piece, Usage};

use crate::ProviderError;

/// What one line or event says; nothing by default.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// More of the reply.
    pub(crate) pieces: Vec<Piece>,
    /// Why it ends.
    pub(crate) finish: Option<FinishReason>,
    /// Tokens, as the provider counts them.
    pub(crate) usage: Option<Usage>,
    /// Nothing comes after this.
    pub(crate) is_end: bool,
}

impl Parsed {
    /// The pieces of what was thought and what was said.
    pub(crate) fn of(reasoning: Option<String>, content: Option<String>) -> Self {
        let pieces = [reasoning.map(Piece::Reasoning), content.map(Piece::Text)];
        let pieces = pieces.into_iter().flatten().filter(|piece| !piece.as_str().is_empty());
        Parsed { pieces: pieces.collect(), ..Parsed::default() }
    }
}

/// A message as both protocols write it.
#[derive(Debug, Serialize)]
pub(crate) struct WireMessage {
    role: &'static str,
    content: String,
}

/// The parameters that both protocols write under the same names.
#[derive(Debug, Serialize)]
pub(crate) struct Sampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f32>,
}

impl Sampling {
    pub(crate) fn of(parameters: &Parameters) -> Self {
        Sampling {
            temperature: parameters.temperature,
            top_p: parameters.top_p,
            top_k: parameters.top_k,
            min_p: parameters.min_p,
            frequency_penalty: parameters.frequency_penalty,
            presence_penalty: parameters.presence_penalty,
            repeat_penalty: parameters.repeat_penalty,
        }
    }
}

/// A body as it is sent.
pub(crate) fn written(body: &impl Serialize) -> Result<Vec<u8>, ProviderError> {
    serde_json::to_vec(body).map_err(|_| ProviderError::Setup("the request cannot be written".to_owned()))
}

/// The messages of a request, unless it has what no provider's model is given.
pub(crate) fn messages(request: &ChatRequest) -> Result<Vec<WireMessage>, ProviderError> {
    let unsupported = |field| Err(ProviderError::Unsupported { field });
    let parameters = &request.parameters;
    if !request.tools.is_empty() {
        return unsupported("tools");
    }
    // Tokens have other numbers in other models, and no reply tells all that is told of ours.
    if !parameters.logit_bias.is_empty() {
        return unsupported("logit_bias");
    }
    if parameters.logprobs.is_some() {
        return unsupported("logprobs");
    }
    let is_blob = |content: &Content| matches!(content, Content::Blob(_));
    if request.messages.iter().flat_map(|message| &message.parts).any(|part| is_blob(&part.content)) {
        return unsupported("messages");
    }
    let written = request.messages.iter();
    Ok(written.map(|message| WireMessage { role: message.role.as_str(), content: message.joined_text() }).collect())
}

/// The schema that a reply has to match.
pub(crate) fn schema(request: &ChatRequest) -> Result<Option<serde_json::Value>, ProviderError> {
    let parsed = request.format.as_deref().map(serde_json::from_str).transpose();
    parsed.map_err(|_| ProviderError::Unsupported { field: "response_format" })
}

/// A count that may be absent, too large or of nobody's.
pub(crate) fn count(number: Option<u64>) -> u32 {
    number.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
}
