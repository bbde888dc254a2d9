//! Email addresses: a practical part of RFC 5322's addr-spec.
//!
//! - Local part: 1 to 64 of Latin letters, digits and `. _ % + - '`, beginning with a letter, digit or `_`; no two dots in a row, none
//!   at its end.
//! - Domain: 2 labels or more, 62 characters at most, labels of Latin letters, digits and `-` (the first not a `-`). The last label is
//!   2 letters or more out of a to z; a dash or any character that no label has may follow it. The longest such domain is taken, so a
//!   full stop after it is not.
//! - No word goes on in front of it. A local part or a domain beyond its length is no address at all.
//!
//! Quoted local parts, comments, address literals and hosts without a top-level domain are not addresses here.

use crate::boundary::is_latin;
use crate::masker::Found;

/// RFC 5321, section 4.5.3.1.1.
const LOCAL_MAX: usize = 64;

/// So that a whole address and the character behind it are 128 at most.
const DOMAIN_MAX: usize = 62;

/// The address at the beginning of `text`. No word may go on in front of it.
pub(crate) fn find(text: &[char], at_end: bool) -> Found {
    if !text.first().is_some_and(|c| is_latin(*c) || *c == '_') {
        return Found::No;
    }
    let local = text.iter().take(LOCAL_MAX + 1).take_while(|c| is_local(**c)).count();
    let is_doubled = text.iter().take(local).zip(text.iter().skip(1)).any(|pair| matches!(pair, ('.', '.' | '@')));
    if local > LOCAL_MAX || is_doubled {
        return Found::No;
    }
    match text.get(local) {
        None if at_end => Found::No,
        None => Found::More,
        Some('@') => match domain(text.get(local + 1..).unwrap_or_default(), at_end) {
            Found::Yes(length) => Found::Yes(local + 1 + length),
            other => other,
        },
        Some(_) => Found::No,
    }
}

fn domain(text: &[char], at_end: bool) -> Found {
    let mut best = Found::No;
    let mut from = 0;
    for labels in 1.. {
        let rest = text.get(from..).unwrap_or_default();
        let length = rest.iter().take_while(|c| is_latin(**c) || **c == '-').count();
        let stop = from + length;
        // A full stop after a domain of any length belongs to the sentence.
        if (length == 0 && !rest.is_empty()) || rest.first() == Some(&'-') {
            break;
        }
        if stop > DOMAIN_MAX {
            return if length == 0 { best } else { Found::No };
        }
        if stop >= text.len() && !at_end {
            return Found::More;
        }
        if length == 0 {
            break;
        }
        let letters = rest.iter().take_while(|c| c.is_ascii_alphabetic()).count();
        if labels >= 2 && letters >= 2 && (letters == length || rest.get(letters) == Some(&'-')) {
            best = Found::Yes(from + letters);
        }
        if text.get(stop) != Some(&'.') {
            break;
        }
        from = stop + 1;
    }
    best
}

fn is_local(c: char) -> bool {
    is_latin(c) || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'')
}
