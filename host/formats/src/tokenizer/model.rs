//! The `model` of `tokenizer.json`: its words, their ids, and a BPE model's merges.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{ANY_NUMBER, Kind, MAX_DEPTH, MAX_ID};
use crate::error::{FormatError, Quoted, ensure, malformed};
use crate::json::{Checked, Object, twice};

const MAX_WORDS: usize = 2 << 20;
const MAX_MERGES: usize = 4 << 20;
const KINDS: [(&str, Kind); 4] =
    [("BPE", Kind::Bpe), ("Unigram", Kind::Unigram), ("WordPiece", Kind::WordPiece), ("WordLevel", Kind::WordLevel)];

/// The model as it was read; its keys come in any order.
#[derive(Default)]
pub(super) struct Model {
    kind: Option<String>,
    words: Option<Words>,
    merges: Option<Vec<(String, String)>>,
    prefix: Option<String>,
    unknown: Option<u64>,
}

impl<'de> Object<'de> for Model {
    const WHAT: &'static str = "a model";
    const MOST: usize = 64;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        match key.as_str() {
            "type" => self.kind = Some(map.next_value()?),
            "vocab" => self.words = Some(map.next_value_seed(Vocabulary)?),
            "merges" => self.merges = Some(map.next_value_seed(Merges)?),
            "continuing_subword_prefix" => self.prefix = map.next_value()?,
            "unk_id" => self.unknown = map.next_value()?,
            _ => map.next_value_seed(Checked { depth: MAX_DEPTH - 2, number: ANY_NUMBER })?,
        }
        Ok(())
    }
}

impl Model {
    /// What it is, and its highest id.
    pub(super) fn finish(self) -> Result<(Kind, u64), FormatError> {
        let name = self.kind.ok_or_else(|| malformed("its model has no `type`"))?;
        let kind = KINDS.into_iter().find(|kind| kind.0 == name).map(|kind| kind.1);
        let kind = kind.ok_or_else(|| malformed(format!("its model is of the type {}", Quoted(&name))))?;
        let words = self.words.ok_or_else(|| malformed("its model has no `vocab`"))?;
        let highest = match words {
            Words::Listed(count) => {
                ensure!(kind == Kind::Unigram, "the words of a {name} model are a list; they are an object");
                if let Some(unknown) = self.unknown {
                    ensure!(unknown < count, "`unk_id` is {unknown} of {count} words");
                }
                count.checked_sub(1)
            }
            Words::Named { words, highest } => {
                ensure!(kind != Kind::Unigram, "the words of a {name} model are an object; they are a list");
                if kind == Kind::Bpe {
                    let merges = self.merges.ok_or_else(|| malformed("its model has no `merges`"))?;
                    check_merges(&words, &merges, &self.prefix.unwrap_or_default())?;
                }
                highest
            }
        };
        Ok((kind, highest.ok_or_else(|| malformed("its model has no words"))?))
    }
}

/// Both halves of a merge are words, and so is what they make.
fn check_merges(words: &HashSet<String>, merges: &[(String, String)], prefix: &str) -> Result<(), FormatError> {
    for (first, second) in merges {
        let rest = second.strip_prefix(prefix);
        let is_good = words.contains(first)
            && words.contains(second)
            && rest.is_some_and(|rest| words.contains(format!("{first}{rest}").as_str()));
        ensure!(is_good, "the merge of {} and {} is not of words, or does not make one", Quoted(first), Quoted(second));
    }
    Ok(())
}

enum Words {
    /// A list of pieces with their scores, of this length.
    Listed(u64),
    /// Words with their ids, and the highest of those.
    Named { words: HashSet<String>, highest: Option<u64> },
}

struct Vocabulary;

impl<'de> DeserializeSeed<'de> for Vocabulary {
    type Value = Words;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Words, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn too_many<E: Error>() -> E {
    E::custom(format_args!("the vocabulary has more than {MAX_WORDS} words"))
}

impl<'de> Visitor<'de> for Vocabulary {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
        let mut count = 0;
        while let Some((_, score)) = seq.next_element::<(String, f64)>()? {
            count += 1;
            if count > MAX_WORDS {
                return Err(too_many());
            }
            if !score.is_finite() {
                return Err(A::Error::custom(format_args!("the piece {count} has the score {score}")));
            }
        }
        Ok(Words::Listed(count as u64))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
        let mut words = HashSet::new();
        let mut highest = None;
        // A bit for each id that is taken.
        let mut taken = vec![0_u64; usize::try_from(MAX_ID / 64).map_err(A::Error::custom)?];
        while let Some((word, id)) = map.next_entry::<String, u64>()? {
            if words.len() >= MAX_WORDS {
                return Err(too_many());
            }
            let slot = usize::try_from(id / 64).ok().and_then(|at| taken.get_mut(at));
            let slot = slot.ok_or_else(|| {
                A::Error::custom(format_args!("the word {} has the id {id}; ids are below {MAX_ID}", Quoted(&word)))
            })?;
            if *slot >> (id % 64) & 1 == 1 {
                return Err(A::Error::custom(format_args!("the word {} has the id {id} of another", Quoted(&word))));
            }
            *slot |= 1 << (id % 64);
            highest = highest.max(Some(id));
            if let Some(word) = words.replace(word) {
                return Err(twice(&word));
            }
        }
        Ok(Words::Named { words, highest })
    }
}

struct Merges;

impl<'de> DeserializeSeed<'de> for Merges {
    type Value = Vec<(String, String)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Merges {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut merges = Vec::new();
        while let Some(merge) = seq.next_element_seed(Merge)? {
            if merges.len() == MAX_MERGES {
                return Err(A::Error::custom(format_args!("it has more than {MAX_MERGES} merges")));
            }
            merges.extend(merge);
        }
        Ok(merges)
    }
}

/// Two words, in a list or in one text with a space between them; none for the line that says a version.
struct Merge;

impl<'de> DeserializeSeed<'de> for Merge {
    type Value = Option<(String, String)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge {
    type Value = Option<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge of two words")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.starts_with("#version") {
            return Ok(None);
        }
        let two = text.split_once(' ').filter(|(_, second)| !second.contains(' '));
        let (first, second) = two.ok_or_else(|| E::custom(format_args!("the merge {} is not of two words", Quoted(text))))?;
        Ok(Some((first.to_owned(), second.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let first = seq.next_element::<String>()?;
        let second = seq.next_element::<String>()?;
        let (Some(first), Some(second), None) = (first, second, seq.next_element::<String>()?) else {
            return Err(A::Error::custom("a merge is not of two words"));
        };
        Ok(Some((first, second)))
    }
}
