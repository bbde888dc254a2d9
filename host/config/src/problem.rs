//! What is wrong with a config directory, where, and what to do about it. Nothing here decides what is wrong.

use std::fmt;

/// A place in a file, both counted from 1; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: u32,
    /// The column.
    pub(crate) column: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file, relative to the config directory, with `/` between its parts.
    pub file: String,
    /// The line, from 1, where one is known.
    pub line: Option<u32>,
    /// The column in characters, from 1, where one is known.
    pub column: Option<u32>,
    /// The field, such as `limits.header_s` or `plugins[1]`; empty where the whole file is meant.
    pub path: String,
    /// What is wrong, as a clause without a full stop.
    pub message: String,
    /// What to do about it, as a clause without a full stop.
    pub cure: String,
}

impl Problem {
    pub(crate) fn new(
        file: impl Into<String>,
        at: Option<Position>,
        path: impl Into<String>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            path: path.into(),
            message: message.into(),
            cure: cure.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is wrong with the directory is wrong in no file.
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}; {}", self.message, self.cure)
    }
}

/// Everything that is wrong with a config directory, in the order of its files. Displays as one line per problem.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate that was probably meant, if any is near enough to be worth a suggestion.
pub(crate) fn closest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What is longer than any key or id is no slip of the finger, and comparing is quadratic.
    if written.len() > 128 {
        return None;
    }
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?" where something is near, else `otherwise`.
pub(crate) fn suggest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    closest(written, candidates).map_or_else(otherwise, |meant| format!("did you mean `{meant}`?"))
}

/// Text from a file, cut and escaped so that it stays one short line.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key_and_a_stranger_does_not() {
        let keys = ["address", "tls", "dialects", "limits"];
        assert_eq!(closest("adress", keys), Some("address"));
        assert_eq!(closest("lmits", keys), Some("limits"));
        assert_eq!(closest("tsl", keys), Some("tls"));
        assert_eq!(closest("certificate", keys), None);
        assert_eq!(closest(&"x".repeat(100_000), keys), None);
    }

    #[test]
    fn what_is_shown_stays_one_short_line() {
        assert_eq!(shown("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(shown(&"x".repeat(1_000)).chars().count(), 65);
    }

    #[test]
    fn a_list_is_one_line_per_problem() {
        let at = Some(Position { line: 3, column: 1 });
        let problems = Problems(vec![
            Problem::new("tollgate.toml", at, "a", "unknown key `a`", "remove it"),
            Problem::new("routes/b.toml", None, "", "the file is empty", "remove it"),
        ]);
        assert_eq!(
            problems.to_string(),
            "tollgate.toml:3:1: unknown key `a`; remove it\nroutes/b.toml: the file is empty; remove it"
        );
    }
}
