//! How likely tokens were, in OpenAI's shape.
//!
//! A token's bytes may be a part of a character: `token` shows U+FFFD for what is none, and `bytes` has them as they are.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use tollgate_domain::TokenLogprobs;

/// A choice's `logprobs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Logprobs<'a>(pub(crate) &'a [TokenLogprobs]);

/// One token of a choice.
struct Token<'a>(&'a TokenLogprobs);

/// A token, what it is made of, and how likely it was.
#[derive(serde::Serialize)]
struct Word<'a> {
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> Word<'a> {
    fn new((bytes, logprob): (&'a [u8], f32)) -> Self {
        Word { token: String::from_utf8_lossy(bytes), logprob, bytes }
    }
}

impl Serialize for Logprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Logprobs", 2)?;
        fields.serialize_field("content", &self.0.iter().map(Token).collect::<Vec<_>>())?;
        fields.serialize_field("refusal", &None::<()>)?;
        fields.end()
    }
}

impl Serialize for Token<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Word { token, logprob, bytes } = Word::new(self.0.own());
        let mut fields = serializer.serialize_struct("Token", 4)?;
        fields.serialize_field("token", &token)?;
        fields.serialize_field("logprob", &logprob)?;
        fields.serialize_field("bytes", bytes)?;
        fields.serialize_field("top_logprobs", &self.0.likeliest().map(Word::new).collect::<Vec<_>>())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn openais_shape() {
        let mut half = TokenLogprobs::new(b"\xf0\x9f", -0.5, 1);
        half.push("é\"".as_bytes(), -9_999.0);
        let tokens = [half, TokenLogprobs::new(b"a", 0.0, 0)];
        let expected = json!({
            "content": [
                {
                    "token": "\u{fffd}",
                    "logprob": -0.5,
                    "bytes": [240, 159],
                    "top_logprobs": [{"token": "é\"", "logprob": -9_999.0, "bytes": [195, 169, 34]}],
                },
                {"token": "a", "logprob": 0.0, "bytes": [97], "top_logprobs": []},
            ],
            "refusal": null,
        });
        let text = serde_json::to_string(&Logprobs(&tokens)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }
}
