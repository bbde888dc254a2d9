//! A reply in OpenAI's shapes: one completion, or chunks of one. Pure: from our words to JSON texts.

use serde::Serialize;
use tollgate_domain::{FinishReason, Piece, TokenLogprobs, Usage};

use super::logprobs::Logprobs;

/// What all objects of one reply share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    id: String,
    created_s: u64,
    model: String,
    fingerprint: String,
}

/// A reply as it grows, where it leaves as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Said {
    content: String,
    reasoning: String,
    /// Of the tokens of the content, where the client asked.
    logprobs: Option<Vec<TokenLogprobs>>,
}

/// What a chunk adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: [Choice<'a>; 1],
    usage: Tokens,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    /// Always `null`: who is refused gets an error.
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [ChunkChoice<'a>],
    /// Absent where the client did not ask for it, else `null` on all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Tokens>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Tokens {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokens,
    completion_tokens_details: CompletionTokens,
}

#[derive(Debug, Serialize)]
struct PromptTokens {
    cached_tokens: u32,
    audio_tokens: u32,
}

/// Not told apart: what is thought aloud counts as completion.
#[derive(Debug, Serialize)]
struct CompletionTokens {
    reasoning_tokens: u32,
    audio_tokens: u32,
    accepted_prediction_tokens: u32,
    rejected_prediction_tokens: u32,
}

impl Answer {
    /// `digest` is the model artifact's; what it begins with tells one artifact from another.
    pub(crate) fn new(request_id: &str, received_at_ms: u64, model: &str, digest: &str) -> Self {
        Answer {
            id: format!("chatcmpl-{request_id}"),
            created_s: received_at_ms / 1_000,
            model: model.to_owned(),
            fingerprint: format!("fp_{}", digest.get(..12).unwrap_or(digest)),
        }
    }

    /// The whole reply.
    pub(crate) fn completion(&self, said: &Said, reason: FinishReason, usage: Usage) -> String {
        let reasoning_content = Some(said.reasoning.as_str()).filter(|text| !text.is_empty());
        let message = Message { role: ROLE, content: &said.content, reasoning_content, refusal: None };
        text_of(&Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created_s,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices: [Choice { index: 0, message, logprobs: said.logprobs(), finish_reason: name_of(reason) }],
            usage: tokens(usage),
        })
    }

    /// A chunk with more of the reply, and what is told of its tokens, or with its end. `with_usage`: the client asked for a last
    /// chunk that counts.
    pub(crate) fn chunk(
        &self,
        delta: Delta<'_>,
        tokens: &[TokenLogprobs],
        reason: Option<FinishReason>,
        with_usage: bool,
    ) -> String {
        let logprobs = (!tokens.is_empty()).then_some(Logprobs(tokens));
        let choice = ChunkChoice { index: 0, delta, logprobs, finish_reason: reason.map(name_of) };
        self.chunk_of(&[choice], with_usage.then_some(None))
    }

    /// The last chunk, which counts.
    pub(crate) fn usage_chunk(&self, usage: Usage) -> String {
        self.chunk_of(&[], Some(Some(tokens(usage))))
    }

    fn chunk_of(&self, choices: &[ChunkChoice<'_>], usage: Option<Option<Tokens>>) -> String {
        text_of(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created_s,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage,
        })
    }
}

impl Said {
    /// Nothing yet. `with_logprobs`: the client asked for them.
    pub(crate) fn new(with_logprobs: bool) -> Self {
        Said { logprobs: with_logprobs.then(Vec::new), ..Said::default() }
    }

    /// Takes in what is told of tokens.
    pub(crate) fn tell(&mut self, tokens: Vec<TokenLogprobs>) {
        self.logprobs.get_or_insert_default().extend(tokens);
    }

    /// Nothing is known of the tokens of a reply that a policy gave in the model's place.
    fn logprobs(&self) -> Option<Logprobs<'_>> {
        let tokens = self.logprobs.as_deref()?;
        (self.content.is_empty() || !tokens.is_empty()).then_some(Logprobs(tokens))
    }

    /// Takes a piece in.
    pub(crate) fn push(&mut self, piece: &Piece) {
        let Some(delta) = Delta::of(piece) else { return };
        self.content.push_str(delta.content.unwrap_or_default());
        self.reasoning.push_str(delta.reasoning_content.unwrap_or_default());
    }
}

impl<'a> Delta<'a> {
    /// What a first chunk says: who speaks, and nothing yet.
    pub(crate) const BEGIN: Delta<'static> = Delta { role: Some(ROLE), content: Some(""), reasoning_content: None };

    /// What a last chunk says.
    pub(crate) const END: Delta<'static> = Delta { role: None, content: None, reasoning_content: None };

    /// What `piece` adds. Calls of tools have no place: requests with tools are refused.
    pub(crate) fn of(piece: &'a Piece) -> Option<Self> {
        match piece {
            Piece::Text(text) => Some(Delta { content: Some(text), ..Delta::default() }),
            Piece::Reasoning(text) => Some(Delta { reasoning_content: Some(text), ..Delta::default() }),
            Piece::ToolName(_) | Piece::ToolArguments(_) => None,
        }
    }
}

const ROLE: &str = "assistant";

fn name_of(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::ToolCalls => "tool_calls",
    }
}

fn tokens(usage: Usage) -> Tokens {
    Tokens {
        prompt_tokens: usage.prompt,
        completion_tokens: usage.completion,
        total_tokens: usage.total(),
        prompt_tokens_details: PromptTokens { cached_tokens: usage.cached, audio_tokens: 0 },
        completion_tokens_details: CompletionTokens {
            reasoning_tokens: 0,
            audio_tokens: 0,
            accepted_prediction_tokens: 0,
            rejected_prediction_tokens: 0,
        },
    }
}

fn text_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a reply can be written")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const USAGE: Usage = Usage { prompt: 5, cached: 3, completion: 2 };

    fn answer() -> Answer {
        Answer::new("r1", 1_700_000_000_999, "demo", DIGEST)
    }

    fn usage() -> Value {
        json!({
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_completion() {
        let mut said = Said::default();
        let tool = Piece::ToolName("f".to_owned());
        for piece in [Piece::Reasoning("hm".to_owned()), Piece::Text("Hel".to_owned()), tool, Piece::Text("lo\n\"é".to_owned())]
        {
            said.push(&piece);
        }
        let expected = json!({
            "id": "chatcmpl-r1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "demo",
            "system_fingerprint": "fp_0123456789ab",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "Hello\n\"é", "reasoning_content": "hm", "refusal": null},
                "logprobs": null,
                "finish_reason": "length",
            }],
            "usage": usage(),
        });
        assert_eq!(value(&answer().completion(&said, FinishReason::Length, USAGE)), expected);
    }

    #[test]
    fn an_empty_completion_has_an_empty_content() {
        let text = answer().completion(&Said::default(), FinishReason::ContentFilter, Usage::default());
        let completion = value(&text);
        let choice = &completion["choices"][0];
        let message = json!({"role": "assistant", "content": "", "refusal": null});
        assert_eq!((&choice["message"], &choice["finish_reason"]), (&message, &json!("content_filter")));
    }

    #[test]
    fn chunks() {
        let chunk = |choices: Value| {
            json!({
                "id": "chatcmpl-r1",
                "object": "chat.completion.chunk",
                "created": 1_700_000_000,
                "model": "demo",
                "system_fingerprint": "fp_0123456789ab",
                "choices": choices,
            })
        };
        let choice =
            |delta: Value, reason: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]);
        let begin = answer().chunk(Delta::BEGIN, &[], None, false);
        assert_eq!(value(&begin), chunk(choice(json!({"role": "assistant", "content": ""}), Value::Null)));
        let piece = Piece::Reasoning("hm".to_owned());
        let more = answer().chunk(Delta::of(&piece).unwrap(), &[], None, false);
        assert_eq!(value(&more), chunk(choice(json!({"reasoning_content": "hm"}), Value::Null)));
        let end = answer().chunk(Delta::END, &[], Some(FinishReason::Stop), false);
        assert_eq!(value(&end), chunk(choice(json!({}), json!("stop"))));

        let mut counted = chunk(choice(json!({}), json!("stop")));
        counted["usage"] = Value::Null;
        assert_eq!(value(&answer().chunk(Delta::END, &[], Some(FinishReason::Stop), true)), counted);
        let mut last = chunk(json!([]));
        last["usage"] = usage();
        assert_eq!(value(&answer().usage_chunk(USAGE)), last);
    }

    #[test]
    fn log_probabilities_stand_beside_what_they_are_of() {
        let token = || vec![TokenLogprobs::new(b"hi", -1.5, 0)];
        let expected = json!([{"token": "hi", "logprob": -1.5, "bytes": [104, 105], "top_logprobs": []}]);
        let mut said = Said::new(true);
        said.tell(token());
        said.push(&Piece::Text("hi".to_owned()));
        let whole = value(&answer().completion(&said, FinishReason::Stop, USAGE));
        assert_eq!(whole["choices"][0]["logprobs"]["content"], expected);
        let piece = Piece::Text("hi".to_owned());
        let chunk = value(&answer().chunk(Delta::of(&piece).unwrap(), &token(), None, false));
        assert_eq!(chunk["choices"][0]["logprobs"]["content"], expected);

        // Nothing said, and something said by a policy.
        let whole = |said: &Said| value(&answer().completion(said, FinishReason::Stop, USAGE))["choices"][0]["logprobs"].clone();
        let mut said = Said::new(true);
        assert_eq!(whole(&said)["content"], json!([]));
        said.push(&piece);
        assert_eq!(whole(&said), Value::Null);
    }

    #[test]
    fn a_short_digest_is_taken_whole() {
        assert_eq!(Answer::new("r", 0, "m", "ab").fingerprint, "fp_ab");
    }
}
