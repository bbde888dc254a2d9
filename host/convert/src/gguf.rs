//! Writes a GGUF file (version 3): the header at once, then the tensors one after the other as they come.
//!
//! It knows nothing of models. Reading is `tollgate-formats`.

use std::io::{self, ErrorKind, Write};

pub use crate::quant::Kind;

/// Where a tensor's data may begin: the format's default, so that no key has to say it.
const ALIGNMENT: u64 = 32;

/// One setting of the header.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number from 0.
    U32(u32),
    /// A real number.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    String(String),
    /// A list of texts.
    Strings(Vec<String>),
    /// A list of whole numbers.
    I32s(Vec<i32>),
    /// A list of real numbers.
    F32s(Vec<f32>),
}

/// One tensor to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name; at most 63 bytes, as llama.cpp has it.
    pub name: String,
    /// Its dimensions, the innermost first; 1 to 4, each at least 1.
    pub shape: Vec<u64>,
    /// How its values are stored.
    pub kind: Kind,
}

impl Tensor {
    /// Bytes of its data; `None` if a row is no whole number of blocks or the size overflows.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let (row, rest) = self.shape.split_first()?;
        let rows = rest.iter().try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))?;
        self.kind.bytes(*row)?.checked_mul(rows)
    }
}

/// A GGUF file in the making: [`Writer::write`] takes the tensors' bytes in the order in which the header lists them.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Of the tensors that are not yet whole, the next one last: the bytes to come, and the padding after them.
    to_come: Vec<(u64, &'static [u8])>,
    total: u64,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// `out` fails, or a tensor has no sound shape (`InvalidInput`).
    pub fn new(mut out: W, metadata: &[(String, Value)], tensors: &[Tensor]) -> io::Result<Self> {
        let mut header = Vec::new();
        header.extend(b"GGUF");
        header.extend(3_u32.to_le_bytes());
        put_len(&mut header, tensors.len());
        put_len(&mut header, metadata.len());
        for (key, value) in metadata {
            put_string(&mut header, key);
            put_value(&mut header, value);
        }
        let mut to_come = Vec::with_capacity(tensors.len());
        let (mut offset, mut total) = (0_u64, 0_u64);
        for tensor in tensors {
            let bytes = checked_bytes(tensor)?;
            put_string(&mut header, &tensor.name);
            put_u32(&mut header, tensor.shape.len());
            tensor.shape.iter().for_each(|dimension| header.extend(dimension.to_le_bytes()));
            header.extend(tensor.kind.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = bytes
                .checked_next_multiple_of(ALIGNMENT)
                .and_then(|padded| offset.checked_add(padded))
                .ok_or_else(|| invalid("the tensors together are too big"))?;
            total = total.saturating_add(bytes);
            to_come.push((bytes, padding(bytes)));
        }
        to_come.reverse();
        let length = u64::try_from(header.len()).map_err(|_| invalid("the header is too big"))?;
        header.extend_from_slice(padding(length));
        out.write_all(&header)?;
        Ok(Self { out, to_come, total, written: 0 })
    }

    /// Bytes of data of all tensors, without padding.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of data written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes of the present tensor: a part of it, at most up to its end.
    ///
    /// # Errors
    /// `out` fails, or these are more bytes than the tensor has (`InvalidInput`).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).map_err(|_| invalid("too many bytes at once"))?;
        let Some((left, padding)) = self.to_come.last_mut() else { return Err(invalid("there is no further tensor")) };
        *left = left.checked_sub(length).ok_or_else(|| invalid("these are more bytes than the tensor has"))?;
        self.out.write_all(bytes)?;
        self.written = self.written.saturating_add(length);
        if *left == 0 {
            self.out.write_all(padding)?;
            self.to_come.pop();
        }
        Ok(())
    }

    /// Ends the file and gives back what it was written to.
    ///
    /// # Errors
    /// `out` fails, or a tensor is not whole (`InvalidInput`).
    pub fn finish(mut self) -> io::Result<W> {
        if !self.to_come.is_empty() {
            return Err(invalid("a tensor is missing"));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn checked_bytes(tensor: &Tensor) -> io::Result<u64> {
    let sound = (1..=4).contains(&tensor.shape.len()) && !tensor.shape.contains(&0) && (1..64).contains(&tensor.name.len());
    let bytes = if sound { tensor.bytes() } else { None };
    bytes.ok_or_else(|| invalid(&format!("tensor `{}` of shape {:?} cannot be stored", tensor.name, tensor.shape)))
}

/// The zeros from `length` to the next multiple of the alignment.
fn padding(length: u64) -> &'static [u8] {
    const ZEROS: [u8; 32] = [0; 32];
    let missing = usize::try_from((ALIGNMENT - length % ALIGNMENT) % ALIGNMENT).unwrap_or(0);
    ZEROS.get(..missing).unwrap_or_default()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}

/// A length as the 64-bit number that the format wants; a `usize` is never wider.
fn put_len(out: &mut Vec<u8>, length: usize) {
    out.extend(u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// The type's number and the value, as the format numbers them.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    const U32: u32 = 4;
    const I32: u32 = 5;
    const F32: u32 = 6;
    const BOOL: u32 = 7;
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    let tag = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
    match value {
        Value::U32(number) => {
            tag(out, U32);
            out.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            tag(out, F32);
            out.extend(number.to_le_bytes());
        }
        Value::Bool(yes) => {
            tag(out, BOOL);
            out.push(u8::from(*yes));
        }
        Value::String(text) => {
            tag(out, STRING);
            put_string(out, text);
        }
        Value::Strings(texts) => {
            tag(out, ARRAY);
            tag(out, STRING);
            put_len(out, texts.len());
            texts.iter().for_each(|text| put_string(out, text));
        }
        Value::I32s(numbers) => {
            tag(out, ARRAY);
            tag(out, I32);
            put_len(out, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::F32s(numbers) => {
            tag(out, ARRAY);
            tag(out, F32);
            put_len(out, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
    }
}

#[cfg(test)]
mod tests;
