//! TOML as text: strings, and nothing else. What is written with it is read again by `tollgate_config` in this crate's tests.

use std::fmt::Write as _;

/// A basic string on one line, in its quotes.
pub(super) fn string(text: &str) -> String {
    let mut written = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => written.extend(['\\', char]),
            '\n' => written.push_str("\\n"),
            '\t' => written.push_str("\\t"),
            _ if char.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(written, "\\u{:04X}", u32::from(char));
            }
            _ => written.push(char),
        }
    }
    written.push('"');
    written
}

/// A literal string over several lines where it can be one, which reads best; else a basic string.
pub(super) fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let is_literal = !text.contains("'''") && !text.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\t'));
    if !is_literal {
        return string(&text);
    }
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("'''\n{text}{end}'''")
}

/// Text from a file, cut after `most` characters and escaped so that it stays one line.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for char in text.chars().take(most) {
        match char {
            '\'' | '"' | '\\' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\c\nd\u{1b}\u{7f}ä"), "\"a\\\"b\\\\c\\nd\\u001B\\u007Fä\"");
        assert_eq!(lines("one\ntwo"), "'''\none\ntwo\n'''");
        assert_eq!(lines("a\r\nb\n"), "'''\na\nb\n'''");
        assert_eq!(lines("'''"), "\"'''\"");
        assert_eq!(shown("it's\na\u{202e}long name", 8), "it's\\na\\u{202e}l…");
    }
}
