//! What is wrong with a file of cases, where, and what to do about it. Whether a plugin passes is `run`'s.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// The line, from 1, where one is known.
    pub line: Option<u32>,
    /// The column in characters, from 1, where one is known.
    pub column: Option<u32>,
    /// What is wrong, as a clause without a full stop.
    pub message: String,
    /// What to do about it, as a clause without a full stop.
    pub cure: String,
}

impl Problem {
    /// A problem of a whole file.
    pub(crate) fn of_file(file: impl Into<String>, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Problem { file: file.into(), line: None, column: None, message: message.into(), cure: cure.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}; {}", self.message, self.cure)
    }
}

/// Everything that is wrong with a plugin's cases, in the order of its files. Displays as one line per problem.
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

/// "did you mean `x`?" where something is near, else the list of what may stand here.
pub(crate) fn suggest(written: &str, known: &[&str]) -> String {
    match closest(written, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", listed(known)),
    }
}

/// The words in back quotes, with commas between.
pub(crate) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn closest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    // What is longer than any key is no slip of the finger, and comparing is quadratic.
    if written.len() > 128 {
        return None;
    }
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    let near = known.iter().map(|word| (strsim::osa_distance(written, word), *word));
    near.filter(|(distance, _)| *distance <= allowed).min().map(|(_, word)| word)
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
    fn a_slip_finds_its_key_and_a_stranger_the_list() {
        assert_eq!(suggest("exepct", &["expect", "reply"]), "did you mean `expect`?");
        assert_eq!(suggest("configuration", &["expect", "reply"]), "known here: `expect`, `reply`");
        assert_eq!(suggest(&"x".repeat(10_000), &["expect"]), "known here: `expect`");
    }

    #[test]
    fn a_problem_is_one_line() {
        let problem = Problem {
            line: Some(3),
            column: Some(1),
            ..Problem::of_file("mask.toml", format!("unknown key `{}`", shown("a\nb")), "remove it")
        };
        assert_eq!(problem.to_string(), "mask.toml:3:1: unknown key `a\\nb`; remove it");
    }
}
