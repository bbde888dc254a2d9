//! Texts with a form: ids, names, digests. Each is checked once, when it is read, and is safe in a log line, a path and a
//! metric label afterwards. What they refer to is checked in `validate`, not here.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// A text that is not what it should be. Never holds the text itself, which may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {what}; {cure}")]
pub struct Malformed {
    /// What it should have been, with its article: "an object id".
    pub what: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

/// Gives a type with `FromStr` and `Display` its serde and JSON schema forms: a string with a `format`, by which
/// `parse::check` finds the same `FromStr` again and reports the line.
macro_rules! text_type {
    ($type:ty, $format:literal, $what:literal, $cure:literal) => {
        impl $type {
            pub(crate) const FORMAT: &'static str = $format;
            pub(crate) const MALFORMED: $crate::text::Malformed =
                $crate::text::Malformed { what: $what, cure: $cure };
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($type))
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

/// A text type that is a string of a certain shape.
macro_rules! word {
    ($(#[$doc:meta])* $type:ident, $is_valid:ident, $format:literal, $what:literal, $cure:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

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
                if $is_valid(text) { Ok(Self(text.to_owned())) } else { Err(Self::MALFORMED) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        text_type!($type, $format, $what, $cure);
    };
}

word!(
    /// The id of an object: the stem of its file. `^[a-z0-9][a-z0-9._-]{0,63}$`.
    Id,
    is_id,
    "object-id",
    "an object id",
    "use lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or a digit, 64 characters at most"
);

word!(
    /// A name that clients or principals bear: a model's alias, a role, a tenant, a scope, a template.
    /// `^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$`.
    Name,
    is_name,
    "name",
    "a name",
    "use letters, digits and `._:/@+-`, beginning with a letter or a digit, 128 characters at most"
);

word!(
    /// A model that a key may use: a [`Name`], or `*` for all of them. There are no other patterns.
    Allowed,
    is_allowed,
    "model-or-star",
    "a model's name or `*`",
    "name models one by one, or write `*` for all of them"
);

word!(
    /// SHA-256 of a secret, 64 lower-case hex digits.
    Sha256Hex,
    is_sha256_hex,
    "sha256-hex",
    "a SHA-256 digest",
    "write 64 lower-case hex digits; `tollgate keys add` makes the whole file"
);

word!(
    /// A key that signs models: `ed25519:` and its 32 bytes in base64.
    PublicKey,
    is_public_key,
    "public-key",
    "a public key",
    "write `ed25519:` and 44 characters of base64; `tollgate model key` makes one and shows it"
);

pub(crate) use text_type;

fn is_id(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    shaped(text, 64, is_first, |byte| is_first(byte) || b"._-".contains(&byte))
}

fn is_name(text: &str) -> bool {
    shaped(text, 128, |byte| byte.is_ascii_alphanumeric(), |byte| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte))
}

fn is_allowed(text: &str) -> bool {
    text == "*" || is_name(text)
}

fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_public_key(text: &str) -> bool {
    let key = text.strip_prefix("ed25519:").and_then(|key| key.strip_suffix('='));
    key.is_some_and(|key| key.len() == 43 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte)))
}

fn shaped(text: &str, longest: usize, is_first: impl Fn(u8) -> bool, is_rest: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    text.len() <= longest && bytes.next().is_some_and(is_first) && bytes.all(is_rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_in_paths_and_logs() {
        for good in ["a", "main", "auth-keys", "0.5b_q4", &"x".repeat(64)] {
            assert_eq!(good.parse::<Id>().map(|id| id.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", ".hidden", "-a", "Main", "a/b", "a b", "ä", "a\n", "..", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Id>(), Err(Id::MALFORMED), "{bad:?}");
        }
    }

    #[test]
    fn names_take_what_model_names_look_like() {
        for good in ["gpt-4o", "org/model:7b-q4", "Qwen2.5", "sales@acme"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "*", "a b", "a\u{202e}b", "/etc", &"x".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert!("*".parse::<Allowed>().is_ok());
        assert!("demo*".parse::<Allowed>().is_err());
    }

    #[test]
    fn a_malformed_digest_never_shows_what_was_written() {
        let error = "hunter2".parse::<Sha256Hex>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!("0".repeat(64).parse::<Sha256Hex>().is_ok());
        assert!("A".repeat(64).parse::<Sha256Hex>().is_err());
    }
}
