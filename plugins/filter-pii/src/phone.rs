//! Phone numbers: international ones, and Indonesian ones as they are written at home.
//!
//! | form | example | rule |
//! |---|---|---|
//! | international | `+44 20 7946 0123`, `+1 (555) 010-4477` | a plus sign, 8 to 15 digits (E.164), no leading 0; 11 behind `+1`, 14 at most behind `+62` |
//! | mobile | `0812-3456-7890` | `08`, 10 to 13 digits, groups of 3 to 5 (2 to 5 where no space parts them) with one kind of gap |
//! | mobile with 62 | `6281234567890`, `62 812-3456-7890` | `628`, 11 to 14 digits, no dots |
//! | landline | `021-5551234`, `62 21 555 1234` | a known area code, a space or dash, 6 to 8 digits in 1 or 2 groups |
//! | bracketed | `(021) 555-1234`, `(555) 010-4477` | area code in brackets, then 5 to 9 digits; or the North American 3-3-4 |
//!
//! A number that is whole in its first group takes no further group, so that `081234567890 2 times` keeps its 2. Digits with neither a
//! plus sign nor one of these shapes are no phone number: prices, dates, versions, addresses, order numbers.

use crate::number::{Gap, Prefix};

/// Area codes that are taken without brackets: the metropolitan ones and the larger towns'.
const AREAS: [&str; 32] = [
    "021", "022", "024", "031", "061", "0231", "0251", "0254", "0265", "0271", "0274", "0281", "0341", "0361", "0370", "0380",
    "0411", "0431", "0451", "0511", "0541", "0542", "0561", "0711", "0721", "0736", "0741", "0751", "0761", "0771", "0778",
    "0967",
];

/// Whether the digits are a phone number.
pub(crate) fn is_phone(prefix: &Prefix<'_>) -> bool {
    if prefix.has_plus {
        return is_international(prefix);
    }
    if !prefix.is_bare() {
        return is_bracketed(prefix);
    }
    match prefix.digits.as_bytes() {
        [b'0', b'8', ..] => is_mobile(prefix),
        [b'6', b'2', b'8', ..] => is_mobile_with_country(prefix),
        [b'6', b'2', ..] => is_landline_with_country(prefix),
        [b'0', ..] => is_landline(prefix),
        _ => false,
    }
}

fn is_international(prefix: &Prefix<'_>) -> bool {
    let digits = prefix.digits;
    let size = digits.len();
    let (has_size, last_least) = match digits.as_bytes() {
        [b'0', ..] => (false, 0),
        [b'1', ..] => (size == 11, 2),
        [b'6', b'2', ..] => ((9..=14).contains(&size), 3),
        _ => ((8..=15).contains(&size), 2),
    };
    let has_shape = match prefix.lengths().as_slice() {
        [] => false,
        [_] => true,
        [first, .., last] => *first < 8 && *last >= last_least,
    };
    has_size && has_shape && !is_amount(prefix)
}

/// `+10.000.000`: groups of three between dots. An Indonesian mobile number in that writing is still one.
fn is_amount(prefix: &Prefix<'_>) -> bool {
    let mut rest = prefix.groups.iter().skip(1).peekable();
    rest.peek().is_some() && rest.all(|group| group.gap == Gap::Dot && group.length == 3) && !prefix.digits.starts_with("628")
}

fn is_mobile(prefix: &Prefix<'_>) -> bool {
    // Operators' prefixes are 081, 082, 083, 085, 087, 088 and 089.
    let has_operator = matches!(prefix.digits.as_bytes().get(2), Some(b'1' | b'2' | b'3' | b'5' | b'7' | b'8' | b'9'));
    let least = if prefix.gaps().next() == Some(Gap::Space) { 3 } else { 2 };
    let has_shape = match prefix.lengths().as_slice() {
        [] => false,
        [_] => true,
        [first, rest @ ..] => (3..=5).contains(first) && rest.iter().all(|length| (least..=5).contains(length)),
    };
    has_operator && has_shape && prefix.is_even() && (10..=13).contains(&prefix.digits.len())
}

fn is_mobile_with_country(prefix: &Prefix<'_>) -> bool {
    let has_shape = match prefix.lengths().as_slice() {
        [] => false,
        [_] => true,
        [first, rest @ ..] => (2..=6).contains(first) && rest.iter().all(|length| *length >= 3),
    };
    has_shape && has_no_dots(prefix) && (11..=14).contains(&prefix.digits.len())
}

fn is_landline(prefix: &Prefix<'_>) -> bool {
    match prefix.lengths().as_slice() {
        [area, rest @ ..] => {
            let is_area = prefix.digits.get(..*area).is_some_and(|area| AREAS.contains(&area));
            is_area && has_no_dots(prefix) && is_subscriber(rest)
        }
        [] => false,
    }
}

fn is_landline_with_country(prefix: &Prefix<'_>) -> bool {
    match prefix.lengths().as_slice() {
        [2, area, rest @ ..] => {
            let area = prefix.digits.get(2..2 + area).unwrap_or_default();
            let is_area = AREAS.iter().any(|known| known.strip_prefix('0') == Some(area));
            is_area && has_no_dots(prefix) && is_subscriber(rest)
        }
        _ => false,
    }
}

/// Six to eight digits in one or two groups.
fn is_subscriber(lengths: &[usize]) -> bool {
    let total: usize = lengths.iter().sum();
    matches!(lengths.len(), 1 | 2) && lengths.iter().all(|length| *length >= 3) && (6..=8).contains(&total)
}

fn is_bracketed(prefix: &Prefix<'_>) -> bool {
    let [first, rest @ ..] = prefix.groups else { return false };
    if !first.is_bracketed || rest.iter().any(|group| group.is_bracketed) || !has_no_dots(prefix) {
        return false;
    }
    let lengths: Vec<usize> = rest.iter().map(|group| group.length).collect();
    let total: usize = lengths.iter().sum();
    match prefix.digits.as_bytes() {
        [b'0', b'2'..=b'9', ..] => {
            (3..=4).contains(&first.length)
                && (1..=3).contains(&lengths.len())
                && lengths.iter().all(|length| *length >= 3)
                && (5..=9).contains(&total)
        }
        [b'2'..=b'9', ..] => first.length == 3 && lengths == [3, 4],
        _ => false,
    }
}

fn has_no_dots(prefix: &Prefix<'_>) -> bool {
    prefix.gaps().all(|gap| gap != Gap::Dot)
}
