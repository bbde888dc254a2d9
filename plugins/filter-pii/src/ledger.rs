//! Which value has which placeholder in this request, and how many were seen. It never leaves the request.
//!
//! Its size is bounded by the texts that it was filled from, which the host bounds.

use std::collections::BTreeMap;

use tollgate_sdk::Flag;

use crate::kind::Kind;

/// The values of one request.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    numbers: BTreeMap<(Kind, String), u32>,
    last: BTreeMap<Kind, u32>,
    seen: BTreeMap<Kind, u32>,
    /// Placeholder to value as it was first written, for those that were planted in the prompt.
    originals: BTreeMap<String, String>,
    is_planting: bool,
}

impl Ledger {
    /// Whether placeholders that are made from now on may be put back later.
    pub(crate) fn plant(&mut self, yes: bool) {
        self.is_planting = yes;
    }

    /// The placeholder of `value`. The same value has the same one throughout the request, however it is spelled.
    pub(crate) fn placeholder(&mut self, kind: Kind, value: &str) -> String {
        let seen = self.seen.entry(kind).or_default();
        *seen = seen.saturating_add(1);
        let key = (kind, canonical(kind, value));
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                let last = self.last.entry(kind).or_default();
                *last = last.saturating_add(1);
                let number = *last;
                self.numbers.insert(key, number);
                number
            }
        };
        let placeholder = format!("[{}_{number}]", kind.label());
        if self.is_planting {
            self.originals.entry(placeholder.clone()).or_insert_with(|| value.to_owned());
        }
        placeholder
    }

    /// The value behind a planted placeholder.
    pub(crate) fn original(&self, placeholder: &str) -> Option<&str> {
        self.originals.get(placeholder).map(String::as_str)
    }

    /// What was seen since the last call.
    pub(crate) fn take_flags(&mut self) -> Vec<Flag> {
        let seen = std::mem::take(&mut self.seen);
        seen.into_iter().map(|(kind, count)| Flag { name: kind.flag().to_owned(), count }).collect()
    }
}

/// One spelling for all of a value's: letters in one case, no separators.
fn canonical(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Email => value.to_ascii_lowercase(),
        _ => value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use crate::kind::Kind;

    #[test]
    fn one_value_has_one_number_in_every_spelling() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.placeholder(Kind::Card, "4111 1111 1111 1111"), "[CARD_1]");
        assert_eq!(ledger.placeholder(Kind::Card, "5500005555555559"), "[CARD_2]");
        assert_eq!(ledger.placeholder(Kind::Card, "4111-1111-1111-1111"), "[CARD_1]");
        assert_eq!(ledger.placeholder(Kind::Email, "A@Test.example"), "[EMAIL_1]");
        assert_eq!(ledger.placeholder(Kind::Email, "a@test.example"), "[EMAIL_1]");
        let flags: Vec<(String, u32)> = ledger.take_flags().into_iter().map(|flag| (flag.name, flag.count)).collect();
        assert_eq!(flags, [("pii.email".to_owned(), 2), ("pii.card".to_owned(), 3)]);
        assert!(ledger.take_flags().is_empty());
    }

    #[test]
    fn only_what_was_planted_can_be_put_back() {
        let mut ledger = Ledger::default();
        ledger.plant(true);
        ledger.placeholder(Kind::Nik, "3174011505900001");
        ledger.plant(false);
        ledger.placeholder(Kind::Nik, "3174011505900002");
        assert_eq!(ledger.original("[NIK_1]"), Some("3174011505900001"));
        assert_eq!(ledger.original("[NIK_2]"), None);
    }
}
