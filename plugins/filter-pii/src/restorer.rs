//! Puts planted values back in place of their placeholders, in a text that arrives in pieces. Which were planted is the ledger's.
//!
//! It takes one character at a time and holds only what may still become a placeholder: 16 characters at most.

use crate::kind::Kind;
use crate::ledger::Ledger;

/// The most digits of a placeholder's number that are waited for.
const MAX_NUMBER_DIGITS: usize = 8;

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Restorer {
    /// Empty, or the beginning of a placeholder.
    held: String,
}

impl Restorer {
    /// A piece came: writes what may leave to `out`.
    pub(crate) fn push(&mut self, piece: &str, ledger: &Ledger, out: &mut String) {
        for c in piece.chars() {
            if c == '[' {
                self.finish(out);
            } else if self.held.is_empty() {
                out.push(c);
                continue;
            }
            self.held.push(c);
            if let Some(original) = ledger.original(&self.held) {
                out.push_str(original);
                self.held.clear();
            } else if !may_become_placeholder(&self.held) {
                self.finish(out);
            }
        }
    }

    /// The text ended, or a placeholder did not come about: writes what is held to `out`.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

fn may_become_placeholder(held: &str) -> bool {
    let Some(held) = held.strip_prefix('[') else { return false };
    Kind::ALL.iter().any(|kind| match held.strip_prefix(kind.label()) {
        None => kind.label().starts_with(held),
        Some("") => true,
        Some(number) => number
            .strip_prefix('_')
            .is_some_and(|digits| digits.len() <= MAX_NUMBER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())),
    })
}

#[cfg(test)]
mod tests {
    use super::Restorer;
    use crate::kind::Kind;
    use crate::ledger::Ledger;

    fn planted() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.plant(true);
        ledger.placeholder(Kind::Email, "a@test.example");
        ledger.placeholder(Kind::Phone, "+62 812-3456-7890");
        ledger.plant(false);
        ledger
    }

    #[test]
    fn planted_placeholders_are_put_back_however_the_text_is_cut() {
        let text = "Write [EMAIL_1], [[PHONE_1]], not [EMAIL_2] nor [EMAIL_x] nor [note] nor [EMAIL_";
        let wanted = "Write a@test.example, [+62 812-3456-7890], not [EMAIL_2] nor [EMAIL_x] nor [note] nor [EMAIL_";
        let ledger = planted();
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            let (mut restorer, mut out) = (Restorer::default(), String::new());
            restorer.push(head, &ledger, &mut out);
            restorer.push(tail, &ledger, &mut out);
            restorer.finish(&mut out);
            assert_eq!(out, wanted, "cut at {at}");
        }
    }

    #[test]
    fn nothing_is_held_once_it_cannot_be_a_placeholder() {
        let (ledger, mut restorer) = (planted(), Restorer::default());
        let mut out = String::new();
        restorer.push("see [E", &ledger, &mut out);
        assert_eq!(out, "see ");
        restorer.push("x", &ledger, &mut out);
        assert_eq!(out, "see [Ex");
        restorer.push("[NPWP_123456789", &ledger, &mut out);
        assert_eq!(out, "see [Ex[NPWP_123456789");
    }
}
