//! The kinds of personal data that are looked for. What each looks like is in a module of its own.

use serde::Deserialize;

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An email address.
    Email,
    /// An International Bank Account Number.
    Iban,
    /// An Indonesian tax number.
    Npwp,
    /// A payment card's number.
    Card,
    /// An Indonesian identity number.
    Nik,
    /// A phone number.
    Phone,
}

impl Kind {
    /// All kinds. Of two matches of one length the earlier kind's is taken.
    pub const ALL: [Kind; 6] = [Kind::Email, Kind::Iban, Kind::Npwp, Kind::Card, Kind::Nik, Kind::Phone];

    /// The kind's word in a placeholder: `[EMAIL_1]`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Kind::Email => "EMAIL",
            Kind::Iban => "IBAN",
            Kind::Npwp => "NPWP",
            Kind::Card => "CARD",
            Kind::Nik => "NIK",
            Kind::Phone => "PHONE",
        }
    }

    /// The name of the flag that counts it.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Kind::Email => "pii.email",
            Kind::Iban => "pii.iban",
            Kind::Npwp => "pii.npwp",
            Kind::Card => "pii.card",
            Kind::Nik => "pii.nik",
            Kind::Phone => "pii.phone",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Kind::Email => 1,
            Kind::Iban => 2,
            Kind::Npwp => 4,
            Kind::Card => 8,
            Kind::Nik => 16,
            Kind::Phone => 32,
        }
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    /// Whether `kind` is in the set.
    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether the set has no kind at all.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | kind.bit()))
    }
}
