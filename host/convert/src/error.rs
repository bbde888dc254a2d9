//! Why a model or an adapter is not converted.

use std::io;

use tollgate_formats::FormatError;

/// A refusal, or a failure of the disk. Files are named without their folder.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file of the model cannot be read.
    #[error("`{file}` cannot be read: {source}")]
    Read {
        /// Its name.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("`{file}` cannot be written: {source}")]
    Write {
        /// Its name.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file is absent or does not say what is needed.
    #[error("`{file}` {what}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong with it, as the rest of a sentence.
        what: String,
    },
    /// A header is not sound.
    #[error("`{file}`: {source}")]
    Format {
        /// The file's name.
        file: String,
        /// What the strict reader says.
        source: FormatError,
    },
    /// A tensor is absent, of another shape, or holds what cannot be stored.
    #[error("tensor `{name}` {what}")]
    Tensor {
        /// Its name, as the source file has it.
        name: String,
        /// What is wrong with it, as the rest of a sentence.
        what: String,
    },
    /// A sound model that llama.cpp could not compute from a GGUF file, or not rightly.
    #[error("a GGUF file cannot hold this model: {0}")]
    Unsupported(String),
}

impl ConvertError {
    pub(crate) fn file(file: &str, what: impl Into<String>) -> Self {
        Self::File { file: quoted(file), what: what.into() }
    }

    pub(crate) fn tensor(name: &str, what: impl Into<String>) -> Self {
        Self::Tensor { name: quoted(name), what: what.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported(what.into())
    }
}

/// A word from a file, fit for one line of a log: escaped, and cut after 200 characters.
pub(crate) fn quoted(word: &str) -> String {
    const MOST: usize = 200;
    let mut all = String::new();
    for character in word.chars().take(MOST) {
        // Expressions of tokenizers are full of these, and they break no line.
        if matches!(character, '\\' | '\'' | '"') {
            all.push(character);
        } else {
            all.extend(character.escape_debug());
        }
    }
    if word.chars().nth(MOST).is_some() {
        all.push_str("...");
    }
    all
}
