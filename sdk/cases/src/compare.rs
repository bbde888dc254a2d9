//! Where two values differ, and how to show it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Differences of one case that are worth reading.
const MAX_MISMATCHES: usize = 8;
/// Characters of a value in a line of text.
const MAX_SHOWN: usize = 160;
/// Characters in front of the first difference that are shown.
const IN_FRONT: usize = 40;

/// One difference between what was expected and what came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mismatch {
    /// Which value: `filter-prompt.replace.messages[0].text`.
    pub field: String,
    /// What was expected; `None`: nothing.
    pub expected: Option<Value>,
    /// What came; `None`: nothing.
    pub got: Option<Value>,
}

impl Mismatch {
    pub(crate) fn new(field: impl Into<String>, expected: impl Into<Value>, got: impl Into<Value>) -> Self {
        Mismatch { field: field.into(), expected: Some(expected.into()), got: Some(got.into()) }
    }

    /// Both values as text that stays one line, about 160 characters each around the first difference.
    #[must_use]
    pub fn shown(&self) -> (String, String) {
        let (expected, got) = (line(self.expected.as_ref()), line(self.got.as_ref()));
        let same = expected.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
        let longest = expected.chars().count().max(got.chars().count());
        let skip = if longest > MAX_SHOWN { same.saturating_sub(IN_FRONT) } else { 0 };
        (window(&expected, skip), window(&got, skip))
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, got) = self.shown();
        write!(f, "{}: expected {expected}, got {got}", self.field)
    }
}

fn line(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string().chars().flat_map(visible).collect())
}

/// The beginning of a text, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    window(&text.chars().flat_map(visible).collect::<String>(), 0)
}

/// JSON escapes the ASCII control characters; others could still change how a terminal shows a line.
fn visible(c: char) -> Vec<char> {
    let is_hidden =
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if is_hidden { c.escape_unicode().collect() } else { vec![c] }
}

fn window(text: &str, skip: usize) -> String {
    let mut shown = String::new();
    if skip > 0 {
        shown.push('…');
    }
    shown.extend(text.chars().skip(skip).take(MAX_SHOWN));
    if text.chars().nth(skip + MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Finds the differences between two values, from top to bottom.
pub(crate) fn compare(field: &str, expected: &Value, got: &Value, found: &mut Vec<Mismatch>) {
    if found.len() >= MAX_MISMATCHES || expected == got {
        return;
    }
    match (expected, got) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, expected) in one {
                let field = format!("{field}.{key}");
                match other.get(key) {
                    Some(got) => compare(&field, expected, got, found),
                    None => push(found, Mismatch { field, expected: Some(expected.clone()), got: None }),
                }
            }
            for (key, got) in other.iter().filter(|(key, _)| !one.contains_key(*key)) {
                push(found, Mismatch { field: format!("{field}.{key}"), expected: None, got: Some(got.clone()) });
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for at in 0..one.len().max(other.len()) {
                let field = format!("{field}[{at}]");
                match (one.get(at), other.get(at)) {
                    (Some(expected), Some(got)) => compare(&field, expected, got, found),
                    (expected, got) => push(found, Mismatch { field, expected: expected.cloned(), got: got.cloned() }),
                }
            }
        }
        _ => push(found, Mismatch { field: field.to_owned(), expected: Some(expected.clone()), got: Some(got.clone()) }),
    }
}

fn push(found: &mut Vec<Mismatch>, mismatch: Mismatch) {
    if found.len() < MAX_MISMATCHES {
        found.push(mismatch);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(expected: &Value, got: &Value) -> Vec<String> {
        let mut found = Vec::new();
        compare("x", expected, got, &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_are_named_by_their_place() {
        let expected = json!({ "messages": [{ "text": "a", "role": "user" }], "model": "m" });
        let got = json!({ "messages": [{ "text": "b", "role": "user" }, 1], "fields": {} });
        assert_eq!(
            differences(&expected, &got),
            [
                r#"x.messages[0].text: expected "a", got "b""#,
                "x.messages[1]: expected nothing, got 1",
                r#"x.model: expected "m", got nothing"#,
                "x.fields: expected nothing, got {}",
            ]
        );
        assert!(differences(&got, &got).is_empty());
    }

    #[test]
    fn long_values_are_shown_around_the_difference_and_on_one_line() {
        let (one, other) = (format!("{}\nA\u{202e}{}", "x".repeat(500), "y".repeat(500)), format!("{}\nB", "x".repeat(500)));
        let shown = differences(&json!(one), &json!(other)).remove(0);
        assert!(shown.chars().count() < 300 && !shown.contains('\n') && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains(r"x\nA\u{202e}y") && shown.contains(r#"x\nB""#), "{shown}");
        let many = differences(&json!(vec![1; 100]), &json!(vec![2; 100]));
        assert_eq!(many.len(), MAX_MISMATCHES);
    }
}
