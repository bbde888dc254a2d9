//! The wire format of protocol buffers, walked field by field with a bound on the number of fields.
//!
//! Readers differ in what they make of a field that is there twice, or of another type than declared; so both are refused where the
//! field is looked at.

use std::io::{Read, Seek};

use crate::error::{FormatError, ensure, malformed};
use crate::source::Source;

/// Fields of the whole file: one is at least two bytes, and every one is looked at.
const MAX_FIELDS: u64 = 32 << 20;
/// Bytes of all texts that are kept.
const MAX_TEXTS: u64 = 64 << 20;

/// A file of nested messages.
pub(super) struct Protobuf<'a, R> {
    source: Source<'a, R>,
    fields: u64,
    texts: u64,
}

/// A message that is being walked.
pub(super) struct Message {
    what: &'static str,
    end: u64,
    /// Where the next field begins.
    next: u64,
    /// The fields that are there once at most, and a bit for each that was there.
    single: &'static [u32],
    seen: u64,
}

/// One field of a message. What it holds is passed over unless it is read before the next field.
pub(super) struct Field {
    pub(super) number: u32,
    what: &'static str,
    held: Held,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Held {
    /// A number of any length.
    Varint(u64),
    /// A number of this many bytes, not read.
    Fixed(u64),
    /// This many bytes, not yet read.
    Span(u64),
}

impl Field {
    pub(super) fn held(&self) -> Held {
        self.held
    }

    fn mistyped(&self) -> FormatError {
        malformed(format!("field {} of {} is of the wrong type", self.number, self.what))
    }

    pub(super) fn varint(&self) -> Result<u64, FormatError> {
        match self.held {
            Held::Varint(value) => Ok(value),
            _ => Err(self.mistyped()),
        }
    }

    pub(super) fn span(&self) -> Result<u64, FormatError> {
        match self.held {
            Held::Span(length) => Ok(length),
            _ => Err(self.mistyped()),
        }
    }
}

impl<'a, R: Read + Seek> Protobuf<'a, R> {
    pub(super) fn new(source: &'a mut R) -> Result<Self, FormatError> {
        Ok(Protobuf { source: Source::new(source, u64::MAX)?, fields: 0, texts: 0 })
    }

    /// The whole file as one message. `single` are the fields, below 64, that are there once at most.
    pub(super) fn whole(&self, what: &'static str, single: &'static [u32]) -> Message {
        Message { what, end: self.source.length(), next: 0, single, seen: 0 }
    }

    /// The message that a field holds.
    pub(super) fn message(&self, field: &Field, what: &'static str, single: &'static [u32]) -> Result<Message, FormatError> {
        let at = self.source.at();
        Ok(Message { what, end: at + field.span()?, next: at, single, seen: 0 })
    }

    /// The next field of a message; what the one before held has been read or is passed over.
    pub(super) fn next(&mut self, message: &mut Message) -> Result<Option<Field>, FormatError> {
        let what = message.what;
        self.source.skip(message.next.saturating_sub(self.source.at()), what)?;
        if self.source.at() >= message.end {
            return Ok(None);
        }
        self.fields += 1;
        ensure!(self.fields <= MAX_FIELDS, "it has more than {MAX_FIELDS} fields");
        let tag = self.varint(message)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| malformed(format!("{what} has a field without a valid number")))?;
        if message.single.contains(&number) {
            let bit = 1_u64.checked_shl(number).unwrap_or_default();
            ensure!(message.seen & bit == 0, "field {number} of {what} is there twice");
            message.seen |= bit;
        }
        let held = match tag & 7 {
            0 => Held::Varint(self.varint(message)?),
            1 => Held::Fixed(8),
            2 => Held::Span(self.varint(message)?),
            5 => Held::Fixed(4),
            other => return Err(malformed(format!("field {number} of {what} is of the unknown wire type {other}"))),
        };
        let bytes = match held {
            Held::Varint(_) => 0,
            Held::Fixed(bytes) | Held::Span(bytes) => bytes,
        };
        message.next = self.source.end_of(bytes, format_args!("field {number} of {what}"))?;
        ensure!(message.next <= message.end, "field {number} of {what} ends after it");
        Ok(Some(Field { number, what, held }))
    }

    fn varint(&mut self, message: &Message) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for at in 0..10 {
            ensure!(self.source.at() < message.end, "a number in {} ends after it", message.what);
            let [byte] = self.source.array(message.what)?;
            ensure!(at < 9 || byte <= 1, "a number in {} has more than 64 bits", message.what);
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(format!("a number in {} does not end", message.what)))
    }

    /// The text that a field holds.
    pub(super) fn text(&mut self, field: &Field, most: u64) -> Result<String, FormatError> {
        let length = field.span()?;
        self.texts = self.texts.saturating_add(length);
        ensure!(self.texts <= MAX_TEXTS, "its names have more than {} MiB", MAX_TEXTS >> 20);
        self.source.text(length, most, format_args!("field {} of {}", field.number, field.what))
    }

    /// Adds the numbers that a repeated field holds, alone or packed, to `values`, which gets `most` at most.
    pub(super) fn numbers(&mut self, field: &Field, values: &mut Vec<u64>, most: usize) -> Result<(), FormatError> {
        let full = || malformed(format!("field {} of {} is there more than {most} times", field.number, field.what));
        match field.held {
            Held::Varint(value) => values.push(value),
            Held::Fixed(_) => return Err(field.mistyped()),
            Held::Span(_) => {
                let message = self.message(field, field.what, &[])?;
                while self.source.at() < message.end {
                    if values.len() >= most {
                        return Err(full());
                    }
                    let value = self.varint(&message)?;
                    values.push(value);
                }
            }
        }
        if values.len() > most { Err(full()) } else { Ok(()) }
    }
}
