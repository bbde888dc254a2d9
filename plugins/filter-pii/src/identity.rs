//! Indonesian numbers of a person: NIK (identity) and NPWP (tax).
//!
//! - NIK: 16 digits: province (a code that exists), regency and district (not 00), day of birth (01 to 31, for women 41 to 71), month
//!   (01 to 12), year, serial (not 0000). Written whole, or in groups of 2 or more with one kind of gap.
//! - NPWP: 15 digits written `99.999.999.9-999.999`; or 15 or 16 digits in any writing (space-parted groups of 3 or more) when the word NPWP
//!   stands at most 32 characters in front and no other value between. The old form's check digit is not asked for: the writing says enough.

use crate::number::{Gap, Prefix};

/// Whether the digits are an identity number.
pub(crate) fn is_nik(prefix: &Prefix<'_>) -> bool {
    let is_grouped = matches!(prefix.groups, [_]) || prefix.groups.iter().all(|group| group.length >= 2);
    prefix.digits.len() == 16
        && is_grouped
        && prefix.is_even()
        && is_province(prefix.number(0, 2))
        && prefix.number(2, 4) > 0
        && prefix.number(4, 6) > 0
        && matches!(prefix.number(6, 8), 1..=31 | 41..=71)
        && matches!(prefix.number(8, 10), 1..=12)
        && prefix.number(12, 16) > 0
}

/// Whether the digits are a tax number. `is_named`: the word NPWP is near.
pub(crate) fn is_npwp(prefix: &Prefix<'_>, is_named: bool) -> bool {
    let is_written_as_one =
        prefix.lengths() == [2, 3, 3, 1, 3, 3] && prefix.gaps().eq([Gap::Dot, Gap::Dot, Gap::Dot, Gap::Dash, Gap::Dot]);
    // A short group behind a space is a word of the sentence: `2 copies`.
    let has_no_stranger = prefix.groups.iter().skip(1).all(|group| group.gap != Gap::Space || group.length >= 3);
    let is_named_one = is_named && matches!(prefix.digits.len(), 15 | 16) && has_no_stranger;
    prefix.is_bare() && (is_written_as_one || is_named_one)
}

/// The provinces' codes as the Ministry of Home Affairs gives them, the newest of Papua included.
fn is_province(code: u32) -> bool {
    matches!(code, 11..=19 | 21 | 31..=36 | 51..=53 | 61..=65 | 71..=76 | 81 | 82 | 91..=97)
}
