//! The `normalizer` of `tokenizer.json`: how many steps it has, how much longer they make a text, and the table of a
//! `Precompiled` one.
//!
//! The library looks at a step's fields where it does not know its type, so a field is taken with its own type alone here.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::ANY_NUMBER;
use crate::error::{FormatError, Quoted, ensure, malformed};
use crate::gguf::charsmap::check_charsmap;
use crate::json::{Checked, Fields, Object};

/// Steps in all, and in one list.
const MAX_STEPS: usize = 64;
/// Lists in lists.
const MAX_DEPTH: u32 = 4;
/// How many times as long a text may become, in bytes, by the steps that put something in.
const MAX_GROWTH: usize = 64;
/// Types without fields that matter here.
const PLAIN: [&str; 10] = ["BertNormalizer", "Bert", "Strip", "StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt"];

/// A step as it was read; its keys come in any order.
#[derive(Default)]
pub(super) struct Step {
    depth: u32,
    kind: Option<String>,
    steps: Option<Vec<Step>>,
    pattern: Option<Pattern>,
    content: Option<String>,
    prepend: Option<String>,
    charsmap: Option<String>,
}

/// What a `Replace` looks for.
#[derive(Default)]
struct Pattern {
    text: Option<String>,
    regex: Option<String>,
}

/// What the steps so far come to.
struct Sum {
    steps: usize,
    growth: usize,
    tables: usize,
}

impl<'de> Object<'de> for Step {
    const WHAT: &'static str = "a normalizer";
    const MOST: usize = 16;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        match key.as_str() {
            "type" => self.kind = Some(map.next_value()?),
            "normalizers" => self.steps = Some(map.next_value_seed(Steps(self.depth + 1))?),
            "pattern" => map.next_value_seed(Fields(self.pattern.insert(Pattern::default())))?,
            "content" => self.content = Some(map.next_value()?),
            "prepend" => self.prepend = Some(map.next_value()?),
            "precompiled_charsmap" => self.charsmap = Some(map.next_value()?),
            _ => map.next_value_seed(Checked { depth: 1, number: ANY_NUMBER })?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Pattern {
    const WHAT: &'static str = "a pattern";
    const MOST: usize = 1;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        match key.as_str() {
            "String" => self.text = Some(map.next_value()?),
            "Regex" => self.regex = Some(map.next_value()?),
            _ => return Err(A::Error::custom("a pattern is a `String` or a `Regex`")),
        }
        Ok(())
    }
}

impl Step {
    /// Holds the whole tree to its bounds.
    pub(super) fn check(&self) -> Result<(), FormatError> {
        self.add_to(&mut Sum { steps: 0, growth: 1, tables: 0 })
    }

    /// Lists are at most [`MAX_DEPTH`] deep, and the sum stops the walk after [`MAX_STEPS`].
    fn add_to(&self, sum: &mut Sum) -> Result<(), FormatError> {
        sum.steps += 1;
        ensure!(sum.steps <= MAX_STEPS, "its normalizer has more than {MAX_STEPS} steps");
        let kind = self.kind.as_deref().ok_or_else(|| malformed("its normalizer has no `type`"))?;
        self.check_fields(kind)?;
        let missing = |field: &str| malformed(format!("its normalizer of the type {kind} has no `{field}`"));
        let growth = match kind {
            "Sequence" => {
                let steps = self.steps.as_ref().ok_or_else(|| missing("normalizers"))?;
                return steps.iter().try_for_each(|step| step.add_to(sum));
            }
            "Replace" => {
                let pattern = self.pattern.as_ref().ok_or_else(|| missing("pattern"))?;
                pattern.growth(self.content.as_ref().ok_or_else(|| missing("content"))?)?
            }
            "Prepend" => self.prepend.as_ref().ok_or_else(|| missing("prepend"))?.len().saturating_add(1),
            "Precompiled" => {
                sum.tables += 1;
                ensure!(sum.tables == 1, "its normalizer has two steps of the type Precompiled; one is read");
                check_table(self.charsmap.as_ref().ok_or_else(|| missing("precompiled_charsmap"))?)?;
                1
            }
            // Every byte becomes a character of one or two bytes.
            "ByteLevel" => 2,
            _ => 1,
        };
        sum.growth = sum.growth.saturating_mul(growth);
        ensure!(
            sum.growth <= MAX_GROWTH,
            "its normalizer makes a text up to {} times as long; the most is {MAX_GROWTH}",
            sum.growth
        );
        Ok(())
    }

    /// A step is of a known type, and has the fields of no other.
    fn check_fields(&self, kind: &str) -> Result<(), FormatError> {
        let fields = [
            (self.steps.is_some(), "normalizers", "Sequence"),
            (self.pattern.is_some(), "pattern", "Replace"),
            (self.content.is_some(), "content", "Replace"),
            (self.prepend.is_some(), "prepend", "Prepend"),
            (self.charsmap.is_some(), "precompiled_charsmap", "Precompiled"),
        ];
        let is_known = kind == "ByteLevel" || PLAIN.contains(&kind) || fields.iter().any(|(_, _, owner)| *owner == kind);
        ensure!(is_known, "its normalizer is of the type {}, which is not known", Quoted(kind));
        let strange = fields.into_iter().find(|(is_there, _, owner)| *is_there && *owner != kind);
        match strange {
            Some((_, field, _)) => Err(malformed(format!("its normalizer of the type {kind} has a `{field}`"))),
            None => Ok(()),
        }
    }
}

impl Pattern {
    /// How many times as long a text of nothing but matches becomes.
    fn growth(&self, content: &str) -> Result<usize, FormatError> {
        match (&self.text, &self.regex) {
            (Some(text), None) => {
                ensure!(!text.is_empty(), "its normalizer replaces an empty text");
                Ok(content.len().div_ceil(text.len()).max(1))
            }
            // It may match between all bytes.
            (None, Some(_)) => Ok(content.len().saturating_add(1)),
            _ => Err(malformed("its normalizer has a pattern that is no `String` or `Regex`")),
        }
    }
}

/// The library begins at the first node whether there is one, and takes whole nodes.
fn check_table(table: &str) -> Result<(), FormatError> {
    let bytes = STANDARD.decode(table).map_err(|_| malformed("`precompiled_charsmap` is not base64"))?;
    check_charsmap(&bytes)?;
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
    ensure!(length > 0 && length.is_multiple_of(4), "`precompiled_charsmap` has a trie of {length} bytes; nodes have 4 each");
    Ok(())
}

/// A step, or `null` for none.
pub(super) struct Maybe(pub(super) u32);

impl<'de> DeserializeSeed<'de> for Maybe {
    type Value = Option<Step>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Maybe {
    type Value = Option<Step>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a normalizer")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        if self.0 > MAX_DEPTH {
            return Err(A::Error::custom("it is nested too deep"));
        }
        let mut step = Step { depth: self.0, ..Step::default() };
        Fields(&mut step).visit_map(map)?;
        Ok(Some(step))
    }
}

/// A list of steps at this depth.
struct Steps(u32);

impl<'de> DeserializeSeed<'de> for Steps {
    type Value = Vec<Step>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Step>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Steps {
    type Value = Vec<Step>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of normalizers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Step>, A::Error> {
        let mut steps = Vec::new();
        while let Some(step) = seq.next_element_seed(Maybe(self.0))? {
            if steps.len() >= MAX_STEPS {
                return Err(A::Error::custom(format_args!("a normalizer has more than {MAX_STEPS} steps")));
            }
            steps.push(step.ok_or_else(|| A::Error::custom("a step of a normalizer is null"))?);
        }
        Ok(steps)
    }
}
