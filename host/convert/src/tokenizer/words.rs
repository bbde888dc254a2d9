//! The vocabulary: every token's text and kind, and the order of merges.

use std::collections::{HashMap, HashSet};

use super::file::{Added, File, Merge};
use super::{Style, bad};
use crate::error::{ConvertError, quoted};
use crate::quant::narrow;

/// ggml's numbers for the kinds of tokens.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// The tokens in the order of their ids.
#[derive(Debug)]
pub(super) struct Words {
    /// No two are the same: llama.cpp ends the process over that.
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<i32>,
    /// For SentencePiece's kind: the earlier a merge, the higher.
    pub(super) scores: Option<Vec<f32>>,
    /// For the byte-level kind.
    pub(super) merges: Option<Vec<String>>,
    ids: HashMap<String, u32>,
}

impl Words {
    /// Of a model whose embedding has `rows` rows.
    pub(super) fn of(file: &File, style: &Style, rows: u32) -> Result<Self, ConvertError> {
        let mut ids = file.model.vocab.clone();
        let tokens = placed(&mut ids, &file.added_tokens, rows)?;
        let mut kinds = kinds(file, style, &ids, tokens.len());
        let tokens = filled(tokens, &mut kinds, &ids);
        let (scores, merges) = match style {
            Style::Bytes { .. } => (None, Some(file.model.merges.iter().map(written).collect::<Result<_, _>>()?)),
            Style::Pieces { .. } => {
                check_bytes(&ids)?;
                (Some(scores(file, &ids, tokens.len())?), None)
            }
        };
        Ok(Self { tokens, kinds, scores, merges, ids })
    }

    /// The id of a token by its text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// An id that another file names, if there is such a row.
    pub(super) fn row(&self, id: u64) -> Option<u32> {
        usize::try_from(id).ok().filter(|id| *id < self.tokens.len()).and_then(|id| u32::try_from(id).ok())
    }
}

/// Every row's token, where it has one. The added tokens are put into `ids`, the vocabulary's own.
pub(super) fn placed(ids: &mut HashMap<String, u32>, added: &[Added], rows: u32) -> Result<Vec<Option<String>>, ConvertError> {
    for added in added {
        if ids.insert(added.content.clone(), added.id).is_some_and(|id| id != added.id) {
            return Err(bad(format!("has the token `{}` under two ids", quoted(&added.content))));
        }
    }
    let mut tokens: Vec<Option<String>> = vec![None; usize::try_from(rows).unwrap_or(0)];
    for (text, id) in ids.iter() {
        let place = usize::try_from(*id).ok().and_then(|id| tokens.get_mut(id));
        let Some(place) = place else {
            let what = format!("has the token `{}` with id {id}, and the embedding has {rows} rows", quoted(text));
            return Err(bad(what));
        };
        if text.is_empty() || place.replace(text.clone()).is_some() {
            return Err(bad(format!("has an empty token, or two with id {id}")));
        }
    }
    Ok(tokens)
}

fn kinds(file: &File, style: &Style, ids: &HashMap<String, u32>, count: usize) -> Vec<i32> {
    let mut kinds = vec![NORMAL; count];
    let mut set = |id: u32, kind: i32| {
        if let Some(place) = usize::try_from(id).ok().and_then(|id| kinds.get_mut(id)) {
            *place = kind;
        }
    };
    let pieces = matches!(style, Style::Pieces { .. });
    if pieces {
        ids.iter().filter(|(text, _)| byte(text).is_some()).for_each(|(_, id)| set(*id, BYTE));
    }
    for added in &file.added_tokens {
        // llama.cpp would print the sign for a space in such a word as it stands; the merges make the same token.
        let has_space = pieces && added.content.contains('\u{2581}');
        match (added.special, has_space) {
            (true, _) => set(added.id, CONTROL),
            (false, false) => set(added.id, USER_DEFINED),
            (false, true) => {}
        }
    }
    if let Some(id) = file.model.unk_token.as_ref().and_then(|text| ids.get(text)).filter(|_| pieces) {
        set(*id, UNKNOWN);
    }
    kinds
}

/// Gives a text to every row of the embedding that has no token.
pub(super) fn filled(tokens: Vec<Option<String>>, kinds: &mut [i32], taken: &HashMap<String, u32>) -> Vec<String> {
    let fill = |(id, (token, kind)): (usize, (Option<String>, &mut i32))| {
        token.unwrap_or_else(|| {
            *kind = UNUSED;
            let mut text = format!("<|unused_{id}|>");
            while taken.contains_key(&text) {
                text.push('_');
            }
            text
        })
    };
    tokens.into_iter().zip(kinds.iter_mut()).enumerate().map(fill).collect()
}

/// A merge as a GGUF file has it: its two words with a space between.
fn written(merge: &Merge) -> Result<String, ConvertError> {
    match merge.parts() {
        Some((left, right)) if !left.contains(' ') && !right.contains(' ') => Ok(format!("{left} {right}")),
        _ => Err(bad("has a merge that is not of two words without spaces")),
    }
}

/// The byte that a token like `<0x0A>` stands for.
fn byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_written_so = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit));
    is_written_so.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// llama.cpp falls back on these without looking whether they are there.
fn check_bytes(ids: &HashMap<String, u32>) -> Result<(), ConvertError> {
    let found: HashSet<u8> = ids.keys().filter_map(|text| byte(text)).collect();
    if found.len() == 256 { Ok(()) } else { Err(bad(format!("has {} of the 256 byte tokens <0x00> to <0xFF>", found.len()))) }
}

/// llama.cpp merges the neighbours whose joint word has the highest score, so the place of the first merge that makes a word is its
/// score. Words that no merge makes come last.
fn scores(file: &File, ids: &HashMap<String, u32>, count: usize) -> Result<Vec<f32>, ConvertError> {
    let place = |rank: usize| u32::try_from(rank).map(|rank| -narrow(f64::from(rank))).map_err(|_| bad("has too many merges"));
    let last = place(file.model.merges.len() + 1)?;
    let mut scores = vec![last; count];
    let mut joint = String::new();
    for (rank, merge) in file.model.merges.iter().enumerate() {
        let (left, right) = merge.parts().ok_or_else(|| bad("has a merge that is not of two words"))?;
        joint.clear();
        joint.push_str(left);
        joint.push_str(right);
        // The strict reader has seen that every merge makes a word.
        let Some(score) = ids.get(&joint).and_then(|id| usize::try_from(*id).ok()).and_then(|id| scores.get_mut(id)) else {
            continue;
        };
        // Merges of one word follow each other, and the first one counts.
        *score = score.max(place(rank + 1)?);
    }
    Ok(scores)
}
