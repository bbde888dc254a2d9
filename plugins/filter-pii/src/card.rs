//! Payment cards: 13 to 19 digits of a known network's range and length, with the check digit of ISO/IEC 7812-1 (Luhn).
//!
//! Written whole, or in groups of 3 to 7 with one kind of gap, a space or a dash.

use crate::number::{Gap, Prefix};

const LONG: &[usize] = &[16, 17, 18, 19];
const MAESTRO: &[usize] = &[13, 14, 15, 16, 17, 18, 19];

/// The first and last beginning of six digits, and the lengths.
const NETWORKS: [(u32, u32, &[usize]); 18] = [
    (194_600, 194_699, &[16]),         // GPN
    (220_000, 220_499, LONG),          // Mir
    (222_100, 272_099, &[16]),         // Mastercard
    (300_000, 305_999, &[14]),         // Diners Club
    (309_500, 309_599, &[14]),         // Diners Club
    (340_000, 349_999, &[15]),         // American Express
    (352_800, 358_999, LONG),          // JCB
    (360_000, 369_999, &[14]),         // Diners Club
    (370_000, 379_999, &[15]),         // American Express
    (380_000, 399_999, &[14]),         // Diners Club
    (400_000, 499_999, &[13, 16, 19]), // Visa
    (500_000, 509_999, MAESTRO),       // Maestro
    (510_000, 559_999, &[16]),         // Mastercard
    (560_000, 589_999, MAESTRO),       // Maestro
    (601_100, 601_199, LONG),          // Discover
    (620_000, 629_999, LONG),          // UnionPay
    (644_000, 659_999, LONG),          // Discover
    (670_000, 679_999, MAESTRO),       // Maestro
];

/// Whether the digits are a card's number.
pub(crate) fn is_card(prefix: &Prefix<'_>) -> bool {
    let beginning = prefix.number(0, 6);
    let size = prefix.digits.len();
    let has_network = NETWORKS.iter().any(|(first, last, sizes)| (*first..=*last).contains(&beginning) && sizes.contains(&size));
    let is_grouped = match prefix.groups {
        [_] => true,
        groups => groups.iter().all(|group| (3..=7).contains(&group.length)) && prefix.gaps().all(|gap| gap != Gap::Dot),
    };
    has_network && is_grouped && prefix.is_even() && has_check_digit(prefix.digits)
}

/// Luhn: every second digit from the right doubled, its digits added up; the whole sum ends in 0.
fn has_check_digit(digits: &str) -> bool {
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}
