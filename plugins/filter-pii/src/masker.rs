//! Masks a text that arrives in pieces. Which values are the same, and their numbers, is the ledger's.
//!
//! The machine holds the characters from the earliest place where a value may still be in the making. At that place every kind is
//! asked: as long as one needs more to decide, all is held; then the longest match is masked, or, if there is none, one character is
//! released and the next place is asked about. What follows changes nothing that a kind has decided, and all decide within 128
//! characters, so how a text was cut into pieces cannot matter: masking a whole text is running the machine over it. No character of a
//! value that ends up masked is released, since a release is final and matches begin behind it.

use crate::boundary::{Left, is_free_after};
use crate::json;
use crate::kind::{Kind, Kinds};
use crate::ledger::Ledger;
use crate::number::{Prefix, Run};
use crate::{card, email, iban, identity, phone};

/// The most characters that are held. No kind needs more; what would is released.
pub(crate) const MAX_HELD: usize = 128;

/// What a kind says of the beginning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No value of this kind begins here, whatever follows.
    No,
    /// That depends on what follows.
    More,
    /// One of this many characters does, and what follows cannot change that.
    Yes(usize),
}

/// What the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Words.
    Plain,
    /// One JSON text: a placeholder in place of a bare number is put in quotes. Values are looked for as they are written, so one
    /// with an escape inside (`\u0040`) is not found.
    Json,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Masker {
    kinds: Kinds,
    syntax: Syntax,
    /// Characters that are not decided yet, [`MAX_HELD`] at most.
    held: Vec<char>,
    left: Left,
    json: json::Place,
}

/// What begins at one place.
#[derive(Debug, Clone, Copy)]
enum Look {
    Nothing,
    More,
    Value(Kind, usize),
}

impl Masker {
    /// A machine at the beginning of a text.
    pub(crate) fn new(kinds: Kinds, syntax: Syntax) -> Self {
        Masker { kinds, syntax, held: Vec::new(), left: Left::new(), json: json::Place::default() }
    }

    /// A piece came: writes what may leave to `out`.
    pub(crate) fn push(&mut self, piece: &str, ledger: &mut Ledger, out: &mut String) {
        let mut chars = piece.chars();
        while !chars.as_str().is_empty() {
            self.held.extend(chars.by_ref().take(MAX_HELD));
            self.settle(false, ledger, out);
        }
    }

    /// The text ended: writes the rest to `out`. The next piece begins a new text.
    pub(crate) fn finish(&mut self, ledger: &mut Ledger, out: &mut String) {
        self.settle(true, ledger, out);
        self.left = Left::new();
        self.json = json::Place::default();
    }

    /// How many characters are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Decides what can be decided.
    fn settle(&mut self, at_end: bool, ledger: &mut Ledger, out: &mut String) {
        let mut held = std::mem::take(&mut self.held);
        let mut done = 0;
        while let Some(rest) = held.get(done..).filter(|rest| !rest.is_empty()) {
            // Never more than would be held if the characters came one by one.
            match self.look(rest.get(..MAX_HELD).unwrap_or(rest), at_end) {
                Look::More if !at_end && rest.len() < MAX_HELD => break,
                Look::Value(kind, length) => {
                    let value: String = rest.iter().take(length).collect();
                    self.mask(kind, &value, ledger, out);
                    done += length;
                }
                Look::More | Look::Nothing => {
                    for c in rest.iter().take(1) {
                        out.push(*c);
                        self.pass(*c);
                    }
                    done += 1;
                }
            }
        }
        held.drain(..done);
        self.held = held;
    }

    fn mask(&mut self, kind: Kind, value: &str, ledger: &mut Ledger, out: &mut String) {
        let is_bare = self.syntax == Syntax::Json && !self.json.is_in_string();
        let quote = if is_bare { "\"" } else { "" };
        out.push_str(quote);
        out.push_str(&ledger.placeholder(kind, value));
        out.push_str(quote);
        value.chars().for_each(|c| self.pass(c));
        self.left.forget_npwp();
    }

    /// `c` is decided.
    fn pass(&mut self, c: char) {
        let c = match self.syntax {
            Syntax::Plain => c,
            Syntax::Json => self.json.pass(c),
        };
        self.left.pass(c);
    }

    /// What begins at the beginning of `text`: the longest match, of equals the earlier kind's.
    fn look(&self, text: &[char], at_end: bool) -> Look {
        if self.json.is_in_escape() {
            return Look::Nothing;
        }
        let mut best = Look::Nothing;
        for look in [self.email(text, at_end), self.iban(text, at_end), self.number(text, at_end)] {
            best = match (best, look) {
                (Look::More, _) | (_, Look::More) => return Look::More,
                (Look::Value(_, had), Look::Value(_, length)) if length > had => look,
                (Look::Nothing, _) => look,
                _ => best,
            };
        }
        best
    }

    fn email(&self, text: &[char], at_end: bool) -> Look {
        if self.kinds.has(Kind::Email) && self.left.ends_word() {
            Look::of(Kind::Email, email::find(text, at_end))
        } else {
            Look::Nothing
        }
    }

    fn iban(&self, text: &[char], at_end: bool) -> Look {
        if self.kinds.has(Kind::Iban) && self.left.is_free() {
            Look::of(Kind::Iban, iban::find(text, at_end))
        } else {
            Look::Nothing
        }
    }

    fn number(&self, text: &[char], at_end: bool) -> Look {
        let begins = match text.first() {
            Some('(') => true,
            Some('+' | '0'..='9') => self.left.is_free(),
            _ => false,
        };
        if !begins || ![Kind::Npwp, Kind::Card, Kind::Nik, Kind::Phone].iter().any(|kind| self.kinds.has(*kind)) {
            return Look::Nothing;
        }
        let run = Run::read(text, at_end);
        if run.is_open {
            return Look::More;
        }
        run.prefixes()
            .filter(|prefix| is_free_after(text, prefix.end))
            .find_map(|prefix| self.number_kind(&prefix).map(|kind| Look::Value(kind, prefix.end)))
            .unwrap_or(Look::Nothing)
    }

    fn number_kind(&self, prefix: &Prefix<'_>) -> Option<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.kinds.has(*kind)).find(|kind| match kind {
            Kind::Npwp => identity::is_npwp(prefix, self.left.is_near_npwp()),
            Kind::Card => card::is_card(prefix),
            Kind::Nik => identity::is_nik(prefix),
            Kind::Phone => phone::is_phone(prefix),
            Kind::Email | Kind::Iban => false,
        })
    }
}

impl Look {
    fn of(kind: Kind, found: Found) -> Self {
        match found {
            Found::No => Look::Nothing,
            Found::More => Look::More,
            Found::Yes(length) => Look::Value(kind, length),
        }
    }
}

#[cfg(test)]
mod tests;
