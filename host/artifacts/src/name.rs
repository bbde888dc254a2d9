//! Names of artifacts, paths inside an artifact, and how a version is asked for. Each is checked once, when it is read, and is safe
//! in a path, a URL and a log line afterwards (P-M2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// Characters in a name, at most.
const MAX_NAME: usize = 96;
/// Characters in one component of a path, at most.
const MAX_COMPONENT: usize = 128;
/// Components of a path, at most.
const MAX_COMPONENTS: usize = 3;

/// A text that is not what it should be. Never holds the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not the name of an artifact.
    #[error(
        "not the name of an artifact; write 1 to 96 of the characters a-z, 0-9, `.`, `_` and `-`, the first a letter or a digit, \
         and not 64 hex digits, which are a digest"
    )]
    Name,
    /// Not a path inside an artifact.
    #[error(
        "not a path inside an artifact; write 1 to 3 components with `/` between them, each of 1 to 128 of the characters A-Z, a-z, \
         0-9, `.`, `_` and `-`, and none beginning with `.`"
    )]
    Path,
    /// Neither a name nor a digest.
    #[error("neither the name of an artifact nor a digest; `tollgate model list` shows both")]
    Which,
}

/// Gives a checked text its serde and text forms.
macro_rules! checked_text {
    ($type:ident, $is_valid:ident, $error:expr) => {
        impl $type {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                if $is_valid(text) { Ok(Self(text.to_owned())) } else { Err($error) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The name of an artifact: `[a-z0-9][a-z0-9._-]{0,95}`, and not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactName(String);

checked_text!(ArtifactName, is_name, Malformed::Name);

impl ArtifactName {
    /// A name as near to `text` as the rules allow, for a file or a repository that nobody named; `model` where nothing of it is left.
    #[must_use]
    pub fn suggested(text: &str) -> Self {
        let near: String = text
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .skip_while(|c| !c.is_ascii_alphanumeric())
            .take(MAX_NAME)
            .collect();
        let near = near.trim_end_matches(['.', '_', '-']);
        near.parse().unwrap_or_else(|_| ArtifactName("model".to_owned()))
    }
}

fn is_name(text: &str) -> bool {
    let may_follow = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(may_follow)
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.parse::<Digest>().is_err()
}

/// The path of a file inside an artifact: 1 to 3 components of `[A-Za-z0-9._-]{1,128}`, none beginning with `.`, `/` between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(String);

checked_text!(RelativePath, is_path, Malformed::Path);

impl RelativePath {
    /// The components, first the outermost.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether the file's name ends in `.` and `extension`, in any case of letters.
    #[must_use]
    pub fn has_extension(&self, extension: &str) -> bool {
        self.file_name().rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
    }

    /// What two paths share that a file system without case could not keep apart.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

fn is_path(text: &str) -> bool {
    let is_component = |component: &str| {
        (1..=MAX_COMPONENT).contains(&component.len())
            && !component.starts_with('.')
            && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    text.len() <= MAX_COMPONENTS * (MAX_COMPONENT + 1)
        && text.split('/').count() <= MAX_COMPONENTS
        && text.split('/').all(is_component)
}

/// How a model or a version of it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// By name: what is current under it.
    Name(ArtifactName),
    /// By its digest: exactly that version.
    Digest(Digest),
}

impl FromStr for Which {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.parse() {
            Ok(digest) => Ok(Which::Digest(digest)),
            Err(_) => text.parse().map(Which::Name).map_err(|_| Malformed::Which),
        }
    }
}

impl Serialize for Which {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Name(name) => name.fmt(f),
            Which::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_keep_to_their_characters() {
        for good in ["a", "0", "qwen2.5-1.5b", "a..b", &"n".repeat(96)] {
            assert_eq!(good.parse::<ArtifactName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "A", "a/b", "a\\b", "a\0", "a b", "é", &"n".repeat(97), &"0".repeat(64)] {
            assert_eq!(bad.parse::<ArtifactName>(), Err(Malformed::Name), "{bad:?}");
        }
    }

    #[test]
    fn paths_stay_inside_the_artifact() {
        for good in ["a", "model.gguf", "onnx/model.onnx", "a/b/C", "-", "a..b"] {
            assert_eq!(good.parse::<RelativePath>().unwrap().as_str(), good);
        }
        for bad in
            ["", "/", "/a", "a/", "a//b", "..", "a/..", "../a", "./a", ".a", "a/.b", "a/b/c/d", "a\\b", "a\0", "C:a", "a b", "ä"]
        {
            assert_eq!(bad.parse::<RelativePath>(), Err(Malformed::Path), "{bad:?}");
        }
        assert_eq!("onnx/Model.ONNX".parse::<RelativePath>().unwrap().file_name(), "Model.ONNX");
        assert!("onnx/Model.ONNX".parse::<RelativePath>().unwrap().has_extension("onnx"));
    }

    #[test]
    fn names_are_suggested_for_what_nobody_named() {
        for (text, name) in [
            ("Qwen2.5-1.5B-Instruct-Q4_K_M", "qwen2.5-1.5b-instruct-q4_k_m"),
            ("My Model (1)", "my-model--1"),
            ("...", "model"),
            ("", "model"),
            (&"f".repeat(64), "model"),
        ] {
            assert_eq!(ArtifactName::suggested(text).as_str(), name);
        }
    }

    #[test]
    fn a_version_is_asked_for_by_name_or_digest() {
        assert!(matches!("chat".parse(), Ok(Which::Name(_))));
        assert!(matches!("0".repeat(64).parse(), Ok(Which::Digest(_))));
        assert_eq!("../x".parse::<Which>(), Err(Malformed::Which));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_one_safe_component(text in "\\PC{0,100}|[a-z0-9._/-]{0,100}") {
            if let Ok(name) = text.parse::<ArtifactName>() {
                prop_assert!(std::path::Path::new(name.as_str()).components().eq([std::path::Component::Normal(name.as_str().as_ref())]));
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn whatever_path_is_accepted_goes_down_only(text in "\\PC{0,60}|[A-Za-z./\\\\-]{0,60}|(\\.{0,2}[a-z]{0,3}/){0,4}[a-z.]{0,4}") {
            if let Ok(path) = text.parse::<RelativePath>() {
                let components: Vec<_> = std::path::Path::new(path.as_str()).components().collect();
                prop_assert!(components.iter().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(components.len(), path.components().count());
            }
        }

        #[test]
        fn every_suggestion_is_a_name(text in "\\PC{0,200}") {
            let name = ArtifactName::suggested(&text);
            prop_assert!(name.as_str().parse::<ArtifactName>().is_ok());
        }
    }
}
