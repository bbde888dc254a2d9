//! Reads single values of a request, each with the path that an error names: `messages[2].content`.
//!
//! The codes are OpenAI's where OpenAI has one. `null` counts as absent everywhere.

use std::ops::RangeInclusive;

use serde_json::Number;
use tollgate_domain::Refusal;

use crate::json::{Json, shown};

/// What an object held, by name; names are taken out one by one.
#[derive(Debug)]
pub(crate) struct Entries(Vec<(String, Json)>);

impl Entries {
    /// The value of `name`, if there is one that is not `null`.
    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(held, _)| held == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// An object of which every name is in `known`.
pub(crate) fn object(path: &str, json: Json, known: &[&str]) -> Result<Entries, Refusal> {
    let mut entries = match json {
        Json::Object(entries) => entries,
        other => return Err(wrong_type(path, "an object", &other)),
    };
    if let Some((name, _)) = entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(unknown(&format!("{path}.{}", shown(name))));
    }
    entries.retain(|(_, value)| !value.is_null());
    Ok(Entries(entries))
}

/// A request's body: an object of which every name is in `known`.
pub(crate) fn body(json: Json, known: &[&str]) -> Result<Entries, Refusal> {
    let mut entries = match json {
        Json::Object(entries) => entries,
        other => {
            let message = format!("The body has to be an object; it is {}.", other.kind());
            return Err(Refusal::invalid("invalid_type", message));
        }
    };
    if let Some((name, _)) = entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(unknown(&shown(name)));
    }
    entries.retain(|(_, value)| !value.is_null());
    Ok(Entries(entries))
}

/// A list with as many values as `range` says.
pub(crate) fn list(path: &str, json: Json, range: &RangeInclusive<usize>) -> Result<Vec<Json>, Refusal> {
    let values = match json {
        Json::List(values) => values,
        other => return Err(wrong_type(path, "an array", &other)),
    };
    if range.contains(&values.len()) {
        return Ok(values);
    }
    let (from, to, length) = (range.start(), range.end(), values.len());
    Err(invalid(path, &format!("has to have {from} to {to} entries; it has {length}")))
}

/// A string of any length; the body is bounded as a whole.
pub(crate) fn string(path: &str, json: Json) -> Result<String, Refusal> {
    match json {
        Json::Text(text) => Ok(text),
        other => Err(wrong_type(path, "a string", &other)),
    }
}

/// A string with as many bytes as `range` says.
pub(crate) fn short_string(path: &str, json: Json, range: &RangeInclusive<usize>) -> Result<String, Refusal> {
    let text = string(path, json)?;
    if range.contains(&text.len()) {
        return Ok(text);
    }
    let (from, to, length) = (range.start(), range.end(), text.len());
    Err(invalid(path, &format!("has to have {from} to {to} bytes; it has {length}")))
}

/// One of `words`.
pub(crate) fn one_of<'a>(path: &str, json: &Json, words: &[&'a str]) -> Result<&'a str, Refusal> {
    let Json::Text(text) = json else { return Err(wrong_type(path, "a string", json)) };
    words.iter().find(|word| *word == text).copied().ok_or_else(|| {
        let listed = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        invalid(path, &format!("has to be one of {listed}"))
    })
}

/// A boolean.
pub(crate) fn flag(path: &str, json: &Json) -> Result<bool, Refusal> {
    match json {
        Json::Bool(value) => Ok(*value),
        other => Err(wrong_type(path, "a boolean", other)),
    }
}

/// A whole number in `range`.
pub(crate) fn count(path: &str, json: &Json, range: &RangeInclusive<u32>) -> Result<u32, Refusal> {
    let number = whole(path, json)?;
    let value = number.as_u64().and_then(|value| u32::try_from(value).ok());
    value
        .filter(|value| range.contains(value))
        .ok_or_else(|| out_of_range(path, &format!("{} to {}", range.start(), range.end())))
}

/// A seed: any whole number of 64 bits. A negative one is taken for its bits.
pub(crate) fn seed(path: &str, json: &Json) -> Result<u64, Refusal> {
    let number = whole(path, json)?;
    let signed = || number.as_i64().map(i64::cast_unsigned);
    number.as_u64().or_else(signed).ok_or_else(|| out_of_range(path, "a whole number of 64 bits"))
}

/// A number in `range`.
pub(crate) fn number(path: &str, json: &Json, range: &RangeInclusive<f64>) -> Result<f32, Refusal> {
    let Json::Number(number) = json else { return Err(wrong_type(path, "a number", json)) };
    match number.as_f64().filter(|value| range.contains(value)) {
        #[allow(clippy::cast_possible_truncation, reason = "the range is small; what is lost is precision beyond seven digits")]
        Some(value) => Ok(value as f32),
        None => Err(out_of_range(path, &format!("{} to {}", range.start(), range.end()))),
    }
}

/// A number above 0, up to `most`.
pub(crate) fn positive(path: &str, json: &Json, most: f64) -> Result<f32, Refusal> {
    let text = format!("above 0, up to {most}");
    let value = match number(path, json, &(0.0..=most)) {
        Err(refusal) if refusal.code == OUT_OF_RANGE => return Err(out_of_range(path, &text)),
        other => other?,
    };
    if value < f32::MIN_POSITIVE { Err(out_of_range(path, &text)) } else { Ok(value) }
}

fn whole<'a>(path: &str, json: &'a Json) -> Result<&'a Number, Refusal> {
    match json {
        Json::Number(number) if !number.is_f64() => Ok(number),
        Json::Number(_) => Err(Refusal::invalid("invalid_type", format!("`{path}` has to be a whole number.")).field(path)),
        other => Err(wrong_type(path, "a whole number", other)),
    }
}

const OUT_OF_RANGE: &str = "out_of_range";

fn out_of_range(path: &str, range: &str) -> Refusal {
    Refusal::invalid(OUT_OF_RANGE, format!("`{path}` has to be {range}.")).field(path)
}

/// A required field that is absent or `null`.
pub(crate) fn missing(path: &str) -> Refusal {
    Refusal::invalid("missing_required_parameter", format!("`{path}` is missing.")).field(path)
}

/// A value of the wrong type.
pub(crate) fn wrong_type(path: &str, wanted: &str, json: &Json) -> Refusal {
    Refusal::invalid("invalid_type", format!("`{path}` has to be {wanted}; it is {}.", json.kind())).field(path)
}

/// A value that cannot be; `why` completes "`path` ...".
pub(crate) fn invalid(path: &str, why: &str) -> Refusal {
    Refusal::invalid("invalid_value", format!("`{path}` {why}.")).field(path)
}

/// A field that no version of OpenAI's API has, as far as this gateway knows.
pub(crate) fn unknown(path: &str) -> Refusal {
    Refusal::invalid("unknown_parameter", format!("`{path}` is not a field that this gateway knows.")).field(path)
}

/// A field, or a value of it, that OpenAI's API has and this gateway has not.
pub(crate) fn unsupported(path: &str, why: &str) -> Refusal {
    Refusal::invalid("unsupported_parameter", format!("`{path}` is not supported: {why}.")).field(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        crate::json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn numbers_keep_to_their_ranges() {
        for (text, taken) in [("0", true), ("2", true), ("1.5", true), ("2.0001", false), ("-1e-9", false), ("1e300", false)] {
            assert_eq!(number("t", &json(text), &(0.0..=2.0)).is_ok(), taken, "{text}");
        }
        for (text, taken) in [("1", true), ("2", true), ("0", false), ("1e-300", false), ("2.1", false)] {
            assert_eq!(positive("t", &json(text), 2.0).is_ok(), taken, "{text}");
        }
        let refusal = positive("t", &json("3"), 2.0).unwrap_err();
        assert_eq!(refusal.message, "`t` has to be above 0, up to 2.");
        assert_eq!(positive("t", &json("\"1\""), 2.0).unwrap_err().code, "invalid_type");
    }

    #[test]
    fn whole_numbers_are_whole() {
        for (text, taken) in
            [("1", true), ("4294967295", true), ("0", false), ("-1", false), ("4294967296", false), ("1.0", false)]
        {
            assert_eq!(count("t", &json(text), &(1..=u32::MAX)).is_ok(), taken, "{text}");
        }
        assert_eq!(seed("s", &json("-1")), Ok(u64::MAX));
        assert_eq!(seed("s", &json("18446744073709551615")), Ok(u64::MAX));
        assert!(seed("s", &json("18446744073709551616")).is_err());
        assert!(seed("s", &json("1.5")).is_err());
    }

    #[test]
    fn an_error_names_the_path_the_type_and_the_range() {
        let refusal = string("a[1].b", json("[]")).unwrap_err();
        assert_eq!(
            (refusal.message.as_str(), refusal.field.as_deref()),
            ("`a[1].b` has to be a string; it is an array.", Some("a[1].b"))
        );
        let refusal = count("max_tokens", &json("0"), &(1..=9)).unwrap_err();
        assert_eq!(refusal.message, "`max_tokens` has to be 1 to 9.");
        let refusal = one_of("v", &json("\"c\""), &["a", "b"]).unwrap_err();
        assert_eq!(refusal.message, "`v` has to be one of `a`, `b`.");
    }

    #[test]
    fn a_body_refuses_what_it_does_not_know_and_forgets_null() {
        let mut entries = body(json(r#"{"a":null,"b":1}"#), &["a", "b"]).unwrap();
        assert!(entries.take("a").is_none() && entries.take("b").is_some());
        assert_eq!(body(json(r#"{"c":null}"#), &["a"]).unwrap_err().field.as_deref(), Some("c"));
        assert_eq!(body(json("[]"), &["a"]).unwrap_err().code, "invalid_type");
    }

    #[test]
    fn objects_refuse_what_they_do_not_know_and_forget_null() {
        let mut entries = object("o", json(r#"{"a":null,"b":1}"#), &["a", "b"]).unwrap();
        assert!(entries.take("a").is_none() && entries.take("b").is_some() && entries.take("b").is_none());
        assert_eq!(object("o", json(r#"{"c":null}"#), &["a"]).unwrap_err().field.as_deref(), Some("o.c"));
    }
}
