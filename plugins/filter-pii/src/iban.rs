//! IBANs (ISO 13616): a country's two letters, two check digits, and the rest to the country's length, with the remainder 1 by 97.
//!
//! Letters in any case. Written whole, or with single spaces between groups of four.

use crate::boundary::is_free_after;
use crate::masker::Found;
use crate::number::Gap;

/// Country and whole length, from the IBAN registry.
const LENGTHS: [(&str, usize); 89] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

/// The IBAN at the beginning of `text`. A value may begin there.
pub(crate) fn find(text: &[char], at_end: bool) -> Found {
    // Most words end here: two letters and two digits come first, with no gap between.
    if text.iter().take(4).enumerate().any(|(at, c)| if at < 2 { !c.is_ascii_alphabetic() } else { !c.is_ascii_digit() }) {
        return Found::No;
    }
    let mut compact = String::new();
    let mut wanted = None;
    let mut is_after_gap = false;
    for (at, c) in text.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            if Gap::of(*c) != Some(Gap::Space) || is_after_gap || compact.is_empty() || !compact.len().is_multiple_of(4) {
                return Found::No;
            }
            is_after_gap = true;
            continue;
        }
        is_after_gap = false;
        compact.push(c.to_ascii_uppercase());
        if compact.len() == 2 {
            wanted = LENGTHS.iter().find(|(country, _)| *country == compact).map(|(_, length)| *length);
            if wanted.is_none() {
                return Found::No;
            }
        }
        if Some(compact.len()) == wanted {
            return whole(text, at + 1, at_end, &compact);
        }
    }
    if at_end { Found::No } else { Found::More }
}

/// All characters are there: the check digits and what follows decide.
fn whole(text: &[char], end: usize, at_end: bool, compact: &str) -> Found {
    if remainder(compact) != Some(1) {
        return Found::No;
    }
    let is_known = match text.get(end) {
        None => false,
        Some(c) if Gap::of(*c).is_some() => text.len() > end + 1,
        Some(_) => true,
    };
    if !is_known && !at_end {
        Found::More
    } else if is_free_after(text, end) {
        Found::Yes(end)
    } else {
        Found::No
    }
}

/// By 97, with the first four characters moved to the end and letters as 10 to 35 (ISO 7064, MOD 97-10).
fn remainder(compact: &str) -> Option<u32> {
    let (head, body) = compact.split_at_checked(4)?;
    body.chars().chain(head.chars()).try_fold(0, |rest: u32, c| {
        let digit = c.to_digit(36)?;
        let shift = if digit < 10 { 10 } else { 100 };
        Some((rest * shift + digit) % 97)
    })
}
