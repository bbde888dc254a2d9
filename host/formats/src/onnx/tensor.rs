//! Weights and constants: how much memory one takes, and that the file, or another beside it, has as much.
//!
//! onnxruntime allocates a tensor by its shape before it looks at the data, so a shape is only let through with the data for it.

use std::io::{Read, Seek};

use super::graph::Walk;
use super::protobuf::{Field, Held};
use super::{External, Initializer, MAX_NAME, check_location};
use crate::error::{FormatError, Quoted, ensure, malformed, support};

const MAX_INITIALIZERS: usize = 1 << 20;
const MAX_DIMS: usize = 16;
/// ONNX's number for texts.
const TEXT: u64 = 8;

/// Bits of an element of the type with this number; nothing for texts and unknown types.
fn bits(element: u64) -> Option<u64> {
    Some(match element {
        2 | 3 | 9 | 17..=20 | 24 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        21..=23 => 4,
        25 | 26 => 2,
        _ => return None,
    })
}

/// A `TensorProto` without its data.
#[derive(Default)]
struct Found {
    name: String,
    dims: Vec<u64>,
    element: u64,
    /// Bytes of `raw_data`.
    raw: Option<u64>,
    /// Bytes of the fields for one type, which hold numbers of one byte or more.
    typed: u64,
    /// Texts, and their bytes.
    texts: u64,
    text_bytes: u64,
    location: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    is_external: bool,
}

impl<R: Read + Seek> Walk<'_, R> {
    /// A weight of a graph.
    pub(super) fn initializer(&mut self, field: &Field) -> Result<(), FormatError> {
        let initializer = self.tensor(field)?;
        ensure!(!initializer.name.is_empty(), "an initializer has no name");
        ensure!(self.onnx.initializers.len() < MAX_INITIALIZERS, "it has more than {MAX_INITIALIZERS} initializers");
        self.onnx.initializers.push(initializer);
        Ok(())
    }

    /// `TensorProto`.
    pub(super) fn tensor(&mut self, field: &Field) -> Result<Initializer, FormatError> {
        let mut message = self.file.message(field, "a tensor", &[2, 8, 9, 14])?;
        let mut found = Found::default();
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                1 => self.file.numbers(&field, &mut found.dims, MAX_DIMS)?,
                2 => found.element = field.varint()?,
                3 => support!(false, "it has a tensor in segments; export it again"),
                4 | 5 | 7 | 10 | 11 => {
                    found.typed += match field.held() {
                        Held::Varint(_) => 1,
                        Held::Fixed(bytes) | Held::Span(bytes) => bytes,
                    };
                }
                6 => {
                    found.texts += 1;
                    found.text_bytes += field.span()?;
                }
                8 => found.name = self.file.text(&field, MAX_NAME)?,
                9 => found.raw = Some(field.span()?),
                13 => {
                    let entry = self.pair(&field)?;
                    found.note(entry)?;
                }
                14 => {
                    let location = field.varint()?;
                    ensure!(location <= 1, "a tensor is at the unknown place {location}");
                    found.is_external = location == 1;
                }
                _ => {}
            }
        }
        let bytes = found.bytes()?;
        self.onnx.initializer_bytes = self.onnx.initializer_bytes.saturating_add(bytes);
        let Found { name, location, offset, .. } = found;
        if let Some(location) = location {
            self.onnx.external.push(External { location, offset: offset.unwrap_or(0), length: bytes });
        }
        Ok(Initializer { name, bytes })
    }
}

impl Found {
    /// One entry of `external_data`.
    fn note(&mut self, (key, value): (String, String)) -> Result<(), FormatError> {
        let is_new = match key.as_str() {
            "location" => self.location.replace(value).is_none(),
            "offset" => self.offset.replace(number(&key, &value)?).is_none(),
            "length" => self.length.replace(number(&key, &value)?).is_none(),
            _ => true,
        };
        ensure!(is_new, "`{key}` of external data is there twice");
        Ok(())
    }

    /// Bytes in memory, for which there is data.
    fn bytes(&self) -> Result<u64, FormatError> {
        let name = Quoted(&self.name);
        let too_many = || malformed(format!("tensor {name} has more elements than can be counted"));
        ensure!(self.dims.iter().all(|length| i64::try_from(*length).is_ok()), "tensor {name} has a negative dimension");
        let elements = self.dims.iter().try_fold(1_u64, |elements, length| elements.checked_mul(*length)).ok_or_else(too_many)?;
        let held = u64::from(self.raw.is_some()) + u64::from(self.typed > 0) + u64::from(self.texts > 0);
        let held = held + u64::from(self.is_external);
        ensure!(held <= 1, "tensor {name} has its data in more than one place");
        ensure!(self.is_external || self.location.is_none(), "tensor {name} names a file, but is not said to be in it");
        if self.is_external {
            check_location(self.location.as_deref().unwrap_or_default())?;
        }
        if self.element == TEXT {
            ensure!(self.texts == elements, "tensor {name} has {} texts for {elements} elements", self.texts);
            return Ok(self.text_bytes);
        }
        let unknown = || malformed(format!("tensor {name} has elements of the unknown type {}", self.element));
        let bits = bits(self.element).ok_or_else(unknown)?;
        ensure!(self.texts == 0, "tensor {name} has texts, and elements of another type");
        let bytes = elements.checked_mul(bits).ok_or_else(too_many)?.div_ceil(8);
        if self.is_external {
            let length = self.length.unwrap_or(bytes);
            ensure!(length == bytes, "tensor {name} has {length} bytes in another file; its shape has {bytes}");
        } else if let Some(raw) = self.raw {
            ensure!(raw == bytes, "tensor {name} has {raw} bytes; its shape has {bytes}");
        } else {
            // A number takes a byte at least, or is packed with others into one.
            let least = elements.div_ceil((8 / bits).max(1));
            ensure!(self.typed >= least, "tensor {name} has {elements} elements in {} bytes", self.typed);
        }
        Ok(bytes)
    }
}

/// A count in decimal digits.
fn number(key: &str, text: &str) -> Result<u64, FormatError> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|_| is_digits);
    value.ok_or_else(|| malformed(format!("`{key}` of external data is {}; it is a count", Quoted(text))))
}
