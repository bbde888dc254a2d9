//! The text of a `.env`: variables with their lines. Nothing of the process's own environment is read or set, references to other
//! variables are not followed (they can be made to grow without bound), and no error repeats the text.

use std::collections::BTreeMap;

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    /// Its value, without quotes.
    pub(super) value: String,
    /// The line on which it is set, from 1.
    pub(super) line: usize,
    /// Whether a shell would put other variables into it.
    pub(super) has_references: bool,
}

/// What a `.env` holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DotEnv {
    /// The variables by name. What is set twice has its last value, as in a shell.
    pub(super) variables: BTreeMap<String, Variable>,
    /// Lines that are not `KEY=VALUE`, or whose quotes do not close.
    pub(super) malformed: Vec<usize>,
    /// Lines that a later one sets again, with that one.
    pub(super) replaced: Vec<(usize, usize)>,
}

/// Reads the text: `KEY=VALUE`, with `export` before it or not, comments, and values in single or double quotes, which may go
/// over several lines.
pub(super) fn parse(text: &str) -> DotEnv {
    let mut parsed = DotEnv::default();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let Some((key, rest)) = line.split_once('=') else {
            parsed.malformed.push(number);
            continue;
        };
        let (key, rest) = (key.trim_end(), rest.trim_start());
        let value = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(quote, rest, &mut lines),
            _ => Some(unquoted(rest)),
        };
        match value.filter(|_| is_key(key)) {
            Some(value) => {
                let has_references = !rest.starts_with('\'') && has_references(&value);
                let variable = Variable { value, line: number, has_references };
                if let Some(earlier) = parsed.variables.insert(key.to_owned(), variable) {
                    parsed.replaced.push((earlier.line, number));
                }
            }
            None => parsed.malformed.push(number),
        }
    }
    parsed
}

/// The value that begins with `quote`, and ends on this line or a later one; `None` where it does not, or where more follows it.
fn quoted<'a>(quote: char, first: &'a str, more: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<String> {
    let mut value = String::new();
    let mut line = first.strip_prefix(quote)?;
    loop {
        let mut chars = line.chars();
        while let Some(char) = chars.next() {
            match char {
                _ if char == quote => {
                    let rest = chars.as_str();
                    let is_end = rest.trim().is_empty() || rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#');
                    return is_end.then_some(value);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some(escaped @ ('"' | '\\' | '$')) => value.push(escaped),
                    Some(other) => value.extend(['\\', other]),
                    None => value.push('\\'),
                },
                _ => value.push(char),
            }
        }
        value.push('\n');
        line = more.next()?.1;
    }
}

/// The value up to a comment, which begins behind a space.
fn unquoted(rest: &str) -> String {
    let end = rest.find(" #").or_else(|| rest.find("\t#")).unwrap_or(rest.len());
    let value = if rest.starts_with('#') { "" } else { rest.get(..end).unwrap_or(rest) };
    value.trim_end().to_owned()
}

fn has_references(value: &str) -> bool {
    value.split('$').skip(1).any(|after| after.starts_with(|char: char| char == '{' || char == '_' || char.is_ascii_alphabetic()))
}

fn is_key(key: &str) -> bool {
    let is_first = key.chars().next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    is_first && key.len() <= 128 && key.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value_of(line: &str) -> Option<String> {
        parse(line).variables.get("A").map(|variable| variable.value.clone())
    }

    #[test]
    fn values_are_read_as_shells_read_them() {
        let cases = [
            ("A=1", "1"),
            ("  export A = b c  ", "b c"),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A= # comment", ""),
            ("A=", ""),
            ("A=a=b", "a=b"),
            ("A=\"b # c\" # comment", "b # c"),
            (r#"A="b\n\"c\" \$d \x""#, "b\n\"c\" $d \\x"),
            (r"A='b\n$c'", r"b\n$c"),
            ("A='b\nc'", "b\nc"),
        ];
        for (line, expected) in cases {
            assert_eq!(value_of(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn lines_that_are_none_are_told_by_their_numbers() {
        let parsed = parse("no equals\n1A=b\nA='b' c\nB=1\nB=2\nC=\"open\nD=4\n");
        assert_eq!(parsed.malformed, [1, 2, 3, 6]);
        assert_eq!(parsed.replaced, [(4, 5)]);
        assert_eq!(parsed.variables.keys().collect::<Vec<_>>(), ["B"]);
    }

    #[test]
    fn references_are_seen_where_a_shell_would_follow_them() {
        let has = |line: &str| parse(line).variables["A"].has_references;
        assert!(has("A=$HOME/x") && has("A=\"${HOME}\"") && has("A=a$b"));
        assert!(!has("A='$HOME'") && !has("A=5$") && !has("A=$5"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "(([A-Z]{1,3}=)?[\"'\\\\#$ \\na-c]{0,6}\\n?){0,12}") {
            let parsed = parse(&text);
            let lines = text.lines().count();
            prop_assert!(parsed.variables.values().all(|variable| (1..=lines).contains(&variable.line)));
            prop_assert!(parsed.malformed.iter().all(|line| (1..=lines).contains(line)));
        }
    }
}
