//! JSON as clients send it, read strictly: bounded in depth and number of values, no name twice, the order of names kept.
//!
//! Two readers of one body must not understand it differently (P-E5), so a name that occurs twice is an error anywhere, and not
//! "the last one wins". It knows no field of any dialect.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Number;

/// Values inside each other, at most.
pub(crate) const MAX_DEPTH: usize = 64;

/// Values in one body, at most: `[1,1,1,...` takes twelve times its size in memory.
pub(crate) const MAX_VALUES: usize = 100_000;

/// Characters of a client's text that an error repeats, at most.
const MAX_SHOWN: usize = 64;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    /// No name occurs twice.
    Object(Vec<(String, Json)>),
}

/// Why bytes are not taken as JSON. All of it may be shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("The body is not UTF-8: the byte at offset {offset} is wrong.")]
    NotUtf8 { offset: usize },
    #[error("The body is not JSON: {reason}.")]
    Syntax { reason: String },
    #[error("The body has more than {MAX_DEPTH} values inside each other.")]
    TooDeep,
    #[error("The body has more than {MAX_VALUES} values.")]
    TooMany,
    #[error("The body has the field `{name}` twice in one object.")]
    Duplicate { name: String },
}

impl Json {
    /// What it is, for an error's text.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::Text(_) => "a string",
            Json::List(_) => "an array",
            Json::Object(_) => "an object",
        }
    }

    /// Whether it is `null`, which OpenAI's dialect takes as absent.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// As one JSON text, names in the order in which they came.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a JSON value can be written")
    }
}

impl JsonError {
    /// Stable and machine-readable.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            JsonError::NotUtf8 { .. } => "invalid_utf8",
            JsonError::Syntax { .. } => "invalid_json",
            JsonError::TooDeep => "json_too_deep",
            JsonError::TooMany => "json_too_large",
            JsonError::Duplicate { .. } => "duplicate_field",
        }
    }
}

/// Reads one JSON text (RFC 8259) and nothing after it.
///
/// # Errors
/// It is no JSON, or beyond the limits above. What is too deep is noticed at that depth, not at the end.
pub(crate) fn parse(bytes: &[u8]) -> Result<Json, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 { offset: error.valid_up_to() })?;
    let bounds = Bounds { left: Cell::new(MAX_VALUES), broken: RefCell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Walk { bounds: &bounds, depth: 0 }.deserialize(&mut deserializer);
    let whole = value.and_then(|value| deserializer.end().map(|()| value));
    whole.map_err(|error| match bounds.broken.take() {
        Some(broken) => broken,
        None => JsonError::Syntax { reason: error.to_string() },
    })
}

/// A client's text as an error may repeat it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(number) => number.serialize(serializer),
            Json::Text(text) => serializer.serialize_str(text),
            Json::List(values) => serializer.collect_seq(values),
            Json::Object(entries) => serializer.collect_map(entries.iter().map(|(name, value)| (name, value))),
        }
    }
}

/// What may still come, and what was broken first.
struct Bounds {
    left: Cell<usize>,
    broken: RefCell<Option<JsonError>>,
}

impl Bounds {
    /// Keeps the reason, which serde's own error type has no place for.
    fn refuse<E: serde::de::Error>(&self, error: JsonError) -> E {
        let text = error.code();
        self.broken.replace(Some(error));
        E::custom(text)
    }
}

/// Reads one value at a depth.
#[derive(Clone, Copy)]
struct Walk<'a> {
    bounds: &'a Bounds,
    depth: usize,
}

impl Walk<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH { Err(self.bounds.refuse(JsonError::TooDeep)) } else { Ok(Walk { depth, ..self }) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self.bounds.left.get().checked_sub(1) {
            Some(left) => self.bounds.left.set(left),
            None => return Err(self.bounds.refuse(JsonError::TooMany)),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut list = Vec::new();
        while let Some(value) = values.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut object = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            object.push((name, entries.next_value_seed(inner)?));
        }
        match twice(&object) {
            Some(name) => Err(self.bounds.refuse(JsonError::Duplicate { name: shown(name) })),
            None => Ok(Json::Object(object)),
        }
    }
}

/// A name that occurs twice.
fn twice(object: &[(String, Json)]) -> Option<&str> {
    let mut names = object.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    names.sort_unstable();
    names.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, JsonError> {
        parse(text.as_bytes()).map(|value| value.to_text())
    }

    #[test]
    fn what_comes_goes_in_its_order() {
        for text in [r#"{"z":1,"a":[true,null,-2,1.5,"\n\"ü"],"m":{}}"#, "18446744073709551615", "-9223372036854775808", "[]"] {
            assert_eq!(parsed(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        // P-E5: a depth of 1e5 is refused, and at that depth already.
        assert!(parsed(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
        assert_eq!(parsed(&"[".repeat(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
        assert_eq!(parsed(&"[".repeat(100_000)), Err(JsonError::TooDeep));
        assert_eq!(parsed(&"{\"a\":".repeat(100_000)), Err(JsonError::TooDeep));
        let of = |count: usize| format!("[{}1]", "1,".repeat(count - 2));
        assert!(parsed(&of(MAX_VALUES)).is_ok());
        assert_eq!(parsed(&of(MAX_VALUES + 1)), Err(JsonError::TooMany));
    }

    #[test]
    fn a_name_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"b":2,"a":3}"#, r#"[{"x":{"a":1,"\u0061":1}}]"#] {
            assert_eq!(parsed(text), Err(JsonError::Duplicate { name: "a".to_owned() }), "{text}");
        }
        assert!(parsed(r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_their_offset() {
        let error = parse(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(error, JsonError::NotUtf8 { offset: 6 });
        assert_eq!(error.to_string(), "The body is not UTF-8: the byte at offset 6 is wrong.");
    }

    #[test]
    fn what_is_no_json_is_a_syntax_error() {
        for text in
            ["", " ", "{", "{}{}", "[1,]", "{'a':1}", "nul", "01", "1e999", "NaN", r#""\ud800""#, "\"\u{1}\"", "\u{feff}{}"]
        {
            assert!(matches!(parsed(text), Err(JsonError::Syntax { .. })), "{text}: {:?}", parsed(text));
        }
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn serde_json_agrees_on_what_is_taken(text in "[\\[\\]{}:,\"a-c0-9.eE+ -]{0,40}") {
            if parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
