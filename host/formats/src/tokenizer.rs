//! `tokenizer.json`: held to bounds, and to what the tokenizers library relies on without checking.
//!
//! That library indexes and builds text by the lengths of a BPE model's merges, so every merge is checked against the vocabulary here.
//! So is the normalizer, by how long it makes a text. The pre-tokenizers, which are the library's own matter, are bounded in size, depth
//! and numbers. So are `truncation` and `padding`, whose numbers the library subtracts from each other unchecked: who encodes with it
//! sets its own.

mod model;
mod normalizer;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{FormatError, Quoted, ensure, malformed};
use crate::json::{Checked, Fields, Object, parse};

use model::Model;

const MAX_BYTES: usize = 64 << 20;
/// Levels inside the whole document.
const MAX_DEPTH: u32 = 64;
/// Ids are below this.
const MAX_ID: u64 = 4 << 20;
const MAX_ADDED: usize = 262_144;
const MAX_CONTENT: usize = 4_096;
/// For what is not a count, such as a score or a version.
const ANY_NUMBER: f64 = 1e300;
/// For the lengths that texts are cut or padded to, in tokens.
const MAX_PADDED: f64 = (1 << 20) as f64;

/// What `tokenizer.json` says, within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenizer {
    /// How text becomes tokens.
    pub kind: Kind,
    /// The highest id, of the model or an added token, and one: 1 to 4 Mi.
    pub vocabulary: u64,
    /// Tokens beside the model's, ids and contents unique.
    pub added: Vec<Added>,
}

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte pair encoding.
    Bpe,
    /// The likeliest pieces.
    Unigram,
    /// The longest pieces, as BERT has them.
    WordPiece,
    /// Whole words.
    WordLevel,
}

/// A token beside those of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Its id, below 4 Mi.
    pub id: u64,
    /// Its text, 1 to 4,096 bytes.
    pub content: String,
    /// Whether it is no text but a mark, as the end of a turn is.
    pub special: bool,
}

/// Reads the bytes of a `tokenizer.json`.
///
/// # Errors
/// It is longer than 64 MiB, not JSON of the right shape, or breaks a bound.
pub fn read(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
    ensure!(bytes.len() <= MAX_BYTES, "it has {} bytes, the most is {} MiB", bytes.len(), MAX_BYTES >> 20);
    let mut document = Document::default();
    parse(bytes, &mut document)?;
    let model = document.model.ok_or_else(|| malformed("it has no `model`"))?;
    let (kind, most) = model.finish()?;
    if let Some(normalizer) = &document.normalizer {
        normalizer.check()?;
    }
    let added = document.added;
    let mut ids = HashSet::new();
    let mut contents = HashSet::new();
    for token in &added {
        ensure!(ids.insert(token.id), "the id {} is that of two added tokens", token.id);
        ensure!(contents.insert(token.content.as_str()), "the added token {} is there twice", Quoted(&token.content));
    }
    let highest = added.iter().map(|token| token.id).fold(most, u64::max);
    Ok(Tokenizer { kind, vocabulary: highest + 1, added })
}

#[derive(Default)]
struct Document {
    model: Option<Model>,
    normalizer: Option<normalizer::Step>,
    added: Vec<Added>,
}

impl<'de> Object<'de> for Document {
    const WHAT: &'static str = "a tokenizer";
    const MOST: usize = 64;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let depth = MAX_DEPTH - 1;
        match key.as_str() {
            "model" => map.next_value_seed(Fields(self.model.insert(Model::default()))),
            "added_tokens" => {
                self.added = map.next_value_seed(List)?;
                Ok(())
            }
            "normalizer" => {
                self.normalizer = map.next_value_seed(normalizer::Maybe(0))?;
                Ok(())
            }
            "truncation" | "padding" => map.next_value_seed(Checked { depth, number: MAX_PADDED }),
            _ => map.next_value_seed(Checked { depth, number: ANY_NUMBER }),
        }
    }
}

/// The list of added tokens.
struct List;

impl<'de> DeserializeSeed<'de> for List {
    type Value = Vec<Added>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Added>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Vec<Added>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of added tokens")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Added>, A::Error> {
        let mut list = Vec::new();
        let mut entry = Entry::default();
        while seq.next_element_seed(Fields(&mut entry))?.is_some() {
            let Entry { id, content, special } = std::mem::take(&mut entry);
            let (Some(id), Some(content)) = (id, content) else {
                return Err(A::Error::custom("an added token lacks `id` or `content`"));
            };
            if id >= MAX_ID || !(1..=MAX_CONTENT).contains(&content.len()) || list.len() == MAX_ADDED {
                let limits = format_args!("ids are below {MAX_ID}, contents have 1 to {MAX_CONTENT} bytes, {MAX_ADDED} are read")
                    .to_string();
                return Err(A::Error::custom(format_args!("the added token {} with the id {id}: {limits}", Quoted(&content))));
            }
            list.push(Added { id, content, special });
        }
        Ok(list)
    }
}

#[derive(Default)]
struct Entry {
    id: Option<u64>,
    content: Option<String>,
    special: bool,
}

impl<'de> Object<'de> for Entry {
    const WHAT: &'static str = "an added token";
    const MOST: usize = 64;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        match key.as_str() {
            "id" => self.id = Some(map.next_value()?),
            "content" => self.content = Some(map.next_value()?),
            "special" => self.special = map.next_value()?,
            _ => map.next_value_seed(Checked { depth: MAX_DEPTH - 3, number: ANY_NUMBER })?,
        }
        Ok(())
    }
}
