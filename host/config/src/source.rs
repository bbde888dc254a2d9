//! Where an artifact or a component comes from. Nothing is read here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::text::{Id, Malformed, text_type};

/// Something that ships inside the binary (`builtin:demo`), a model that was installed (`installed:qwen`), or a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Part of the binary, by name.
    Builtin(Id),
    /// A model in the data directory, by its name: `tollgate model import` and `pull` put it there.
    Installed(Id),
    /// A path as written; `Config::resolve` makes it absolute to the config directory.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if let Some(name) = text.strip_prefix("builtin:") {
            return name.parse().map(Self::Builtin).map_err(|_| Self::MALFORMED);
        }
        if let Some(name) = text.strip_prefix("installed:") {
            return name.parse().map(Self::Installed).map_err(|_| Self::MALFORMED);
        }
        let is_path = !text.is_empty() && text.len() <= 4096 && !text.contains(char::is_control);
        if is_path { Ok(Self::File(PathBuf::from(text))) } else { Err(Self::MALFORMED) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::Installed(name) => write!(f, "installed:{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

text_type!(
    Source,
    "source",
    "a source",
    "write `builtin:NAME`, `installed:NAME` (a model), or a path, absolute or relative to the config directory"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtins_and_files_are_told_apart() {
        assert_eq!("builtin:demo".parse::<Source>().map(|source| source.to_string()), Ok("builtin:demo".to_owned()));
        assert_eq!("models/a.gguf".parse::<Source>(), Ok(Source::File(PathBuf::from("models/a.gguf"))));
        assert_eq!("installed:qwen".parse::<Source>().map(|source| source.to_string()), Ok("installed:qwen".to_owned()));
        for bad in ["", "builtin:", "installed:../x", "builtin:../x", "a\0b", "a\nb"] {
            assert_eq!(bad.parse::<Source>(), Err(Source::MALFORMED), "{bad:?}");
        }
    }
}
