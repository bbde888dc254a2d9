//! The first stage: what one file says, checked against its schema. References between files are `validate`'s.

mod check;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::de::{DeTable, Deserializer};

use self::check::Check;
use crate::files::{File, Kind};
use crate::problem::{Position, Problem};

/// Where a file says what, by field path.
pub(crate) type Positions = BTreeMap<String, Position>;

/// Parses a file into `T`, whose schema is `schema`. Reports everything that is wrong with it, and returns `None` then.
pub(crate) fn parse<T: DeserializeOwned>(file: &File, schema: &Value, problems: &mut Vec<Problem>) -> Option<(T, Positions)> {
    let mut report = |at: Option<Position>, message: String, cure: &str| {
        problems.push(Problem::new(file.name.as_str(), at, "", message, cure));
    };
    let text = match std::str::from_utf8(&file.bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = file.bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            report(None, format!("line {line} is not UTF-8"), "save the file as UTF-8");
            return None;
        }
    };
    let lines = Lines::new(text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            // Only the first: what follows it is mostly its consequence.
            let at = error.span().map(|span| lines.position(span.start));
            report(at, format!("not TOML: {}", error.message()), "mend the line, or finish writing the file");
            return None;
        }
    };
    if file.kind != Kind::Settings && document.get_ref().is_empty() {
        report(None, "the file is empty".to_owned(), "finish writing it, or remove it");
        return None;
    }

    let mut check = Check::new(file, &lines);
    check.document(schema, document.get_ref());
    let (positions, found) = check.finish();
    if !found.is_empty() {
        problems.extend(found);
        return None;
    }
    match T::deserialize(Deserializer::from(document)) {
        Ok(spec) => Some((spec, positions)),
        Err(error) => {
            let at = error.span().map(|span| lines.position(span.start));
            problems.push(Problem::new(file.name.as_str(), at, "", error.message(), "see the file's JSON schema"));
            None
        }
    }
}

/// Byte offsets to lines and columns.
struct Lines<'a> {
    text: &'a str,
    /// Where each line begins; the first is 0.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Position { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let lines = Lines::new("ab\nä = 1\n");
        let at = |offset| {
            let position = lines.position(offset);
            (position.line, position.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (1, 3));
        assert_eq!(at(3), (2, 1));
        assert_eq!(at(6), (2, 3), "the umlaut is one character of two bytes");
        assert_eq!(at(10), (3, 1));
        assert_eq!(at(1_000), (3, 1), "an offset behind the end is on the last line");
    }
}
