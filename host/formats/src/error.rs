//! What is wrong with a file, in a sentence about the file that an operator can act on.

use std::fmt;

/// A model file is not taken. The sentence reads on after the file's name: "model.gguf: it is cut short".
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Reading failed, which says nothing about what the file holds.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It breaks the rules of its format, or a bound of this gateway.
    #[error("{what}")]
    Malformed {
        /// What was found and what is expected, with the file's own words cut and escaped.
        what: String,
    },
    /// It is well-formed, but asks for what this gateway does not do.
    #[error("{what}")]
    Unsupported {
        /// What it asks for, and what to do instead.
        what: String,
    },
}

/// Returns from the function with [`FormatError::Malformed`] unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::error::FormatError::Malformed { what: format!($($words)+) });
        }
    };
}

/// Returns from the function with [`FormatError::Unsupported`] unless the condition holds.
macro_rules! support {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::error::FormatError::Unsupported { what: format!($($words)+) });
        }
    };
}

pub(crate) use {ensure, support};

/// For `ok_or_else`.
pub(crate) fn malformed(what: impl Into<String>) -> FormatError {
    FormatError::Malformed { what: what.into() }
}

/// A word from a file, fit for one line of a log: in backticks, escaped, and cut after 64 characters.
#[derive(Clone, Copy)]
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 64;
        f.write_str("`")?;
        for character in self.0.chars().take(MOST) {
            write!(f, "{}", character.escape_debug())?;
        }
        f.write_str(if self.0.chars().nth(MOST).is_some() { "...`" } else { "`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_from_a_file_stays_on_its_line() {
        assert_eq!(Quoted("a\n\u{1b}[2J").to_string(), "`a\\n\\u{1b}[2J`");
        assert_eq!(Quoted(&"a".repeat(64)).to_string(), format!("`{}`", "a".repeat(64)));
        assert_eq!(Quoted(&"a".repeat(65)).to_string(), format!("`{}...`", "a".repeat(64)));
    }
}
