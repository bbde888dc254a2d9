//! From the bytes of a GGUF file to its header.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::io::{Read, Seek};

use super::{Array, Gguf, Kind, Tensor, TensorType, Value, Values};
use crate::error::{FormatError, Quoted, ensure, malformed, support};
use crate::source::Source;

/// The header with its vocabulary; the largest in use have some 30 MiB.
const MAX_HEADER: u64 = 256 << 20;
const MAX_KEYS: u64 = 65_536;
const MAX_TENSORS: u64 = 131_072;
/// Items of all arrays together, and those of them that are texts: a text costs more memory than bytes in the file.
const MAX_ITEMS: u64 = 16 << 20;
const MAX_TEXTS: u64 = 4 << 20;
const MAX_TEXT: u64 = 16 << 20;
const MAX_KEY: u64 = 65_536;
/// ggml's `GGML_MAX_NAME` without the final zero.
const MAX_NAME: u64 = 63;
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// The kind of a value that is an array.
const ARRAY: u32 = 9;

/// Reads the header of a GGUF file of version 2 or 3, little-endian, from its first byte.
///
/// # Errors
/// It is not GGUF, is cut short, breaks a rule of the format or a bound, or cannot be read.
pub fn read<R: Read + Seek>(source: &mut R) -> Result<Gguf, FormatError> {
    let mut reader = Reader { source: Source::new(source, MAX_HEADER)?, items: 0, texts: 0 };
    let version = reader.version()?;
    let tensors = reader.count("tensors", MAX_TENSORS)?;
    let keys = reader.count("keys", MAX_KEYS)?;
    let metadata = reader.metadata(keys)?;
    let alignment = alignment(&metadata)?;
    let tensors = reader.tensors(tensors)?;
    let (end, file_bytes) = (reader.source.at(), reader.source.length());
    // Only where there is data does ggml go on to the next aligned byte.
    let data_offset = if tensors.is_empty() { end } else { end.next_multiple_of(alignment) };
    let gguf = Gguf { version, metadata, tensors, alignment, data_offset, file_bytes };
    check_places(&gguf)?;
    Ok(gguf)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, FormatError> {
    let alignment = match metadata.get(ALIGNMENT) {
        None => DEFAULT_ALIGNMENT,
        Some(Value::U32(alignment)) => u64::from(*alignment),
        Some(_) => return Err(malformed(format!("`{ALIGNMENT}` is not a u32"))),
    };
    let is_good = alignment.is_power_of_two() && (8..=65_536).contains(&alignment);
    ensure!(is_good, "`{ALIGNMENT}` is {alignment}; it is a power of two, 8 to 65536");
    Ok(alignment)
}

/// Every tensor follows on the one before, aligned, and ends inside the file.
fn check_places(gguf: &Gguf) -> Result<(), FormatError> {
    let mut expected = 0_u64;
    for tensor in &gguf.tensors {
        let name = Quoted(&tensor.name);
        ensure!(tensor.offset == expected, "tensor {name} begins at byte {} of the data, not at {expected}", tensor.offset);
        let too_long = || malformed(format!("tensor {name} has {} bytes, which no file has", tensor.bytes));
        let end = gguf.data_offset.checked_add(tensor.offset).and_then(|begin| begin.checked_add(tensor.bytes));
        let end = end.ok_or_else(too_long)?;
        let length = gguf.file_bytes;
        ensure!(end <= length, "it is cut short: tensor {name} ends at byte {end}, the file has {length}");
        let padded = tensor.bytes.checked_next_multiple_of(gguf.alignment);
        expected = padded.and_then(|bytes| expected.checked_add(bytes)).ok_or_else(too_long)?;
    }
    Ok(())
}

struct Reader<'a, R> {
    source: Source<'a, R>,
    /// Items and texts of arrays so far.
    items: u64,
    texts: u64,
}

impl<R: Read + Seek> Reader<'_, R> {
    fn u32(&mut self, what: impl Display) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.source.array(what)?))
    }

    fn u64(&mut self, what: impl Display) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.source.array(what)?))
    }

    fn text(&mut self, most: u64, what: impl Display) -> Result<String, FormatError> {
        let length = self.u64(&what)?;
        self.source.text(length, most, what)
    }

    fn version(&mut self) -> Result<u32, FormatError> {
        let magic = self.source.array::<4>("the magic number")?;
        ensure!(&magic == b"GGUF", "it is not GGUF: it begins with \"{}\"", magic.escape_ascii());
        let version = self.u32("the version")?;
        let is_swapped = version & 0xffff == 0 && matches!(version.swap_bytes(), 1..=3);
        support!(!is_swapped, "it is GGUF in big-endian order; only little-endian files are read, convert it first");
        support!(version != 1, "it is GGUF version 1, which llama.cpp no longer reads; convert it again");
        support!(matches!(version, 2 | 3), "it is GGUF version {version}; versions 2 and 3 are read");
        Ok(version)
    }

    fn count(&mut self, what: &str, most: u64) -> Result<u64, FormatError> {
        let count = self.u64(format_args!("the number of {what}"))?;
        ensure!(count <= most, "it says it has {count} {what}, the most is {most}");
        Ok(count)
    }

    /// A key or the name of a tensor: C reads it up to the first zero.
    fn name(&mut self, most: u64, what: &str) -> Result<String, FormatError> {
        let name = self.text(most, what)?;
        ensure!(!name.is_empty(), "{what} is empty");
        ensure!(!name.contains('\0'), "{what} {} has a zero byte", Quoted(&name));
        Ok(name)
    }

    fn metadata(&mut self, keys: u64) -> Result<BTreeMap<String, Value>, FormatError> {
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = self.name(MAX_KEY, "a key")?;
            let id = self.u32(format_args!("the kind of {}", Quoted(&key)))?;
            let value = if id == ARRAY { Value::Array(self.items(&key)?) } else { self.value(&key, id)? };
            ensure!(!metadata.contains_key(&key), "the key {} is there twice", Quoted(&key));
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    fn value(&mut self, key: &str, id: u32) -> Result<Value, FormatError> {
        let name = Quoted(key);
        let kind = Kind::from_id(id).ok_or_else(|| malformed(format!("the key {name} is of the unknown kind {id}")))?;
        let source = &mut self.source;
        Ok(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(source.array(name)?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(source.array(name)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(source.array(name)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(source.array(name)?)),
            Kind::U32 => Value::U32(u32::from_le_bytes(source.array(name)?)),
            Kind::I32 => Value::I32(i32::from_le_bytes(source.array(name)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(source.array(name)?)),
            Kind::U64 => Value::U64(u64::from_le_bytes(source.array(name)?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(source.array(name)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(source.array(name)?)),
            Kind::Bool => Value::Bool(truth(source.array(name)?, &name)?),
            Kind::String => Value::String(self.text(MAX_TEXT, name)?),
        })
    }

    fn items(&mut self, key: &str) -> Result<Array, FormatError> {
        let name = Quoted(key);
        let id = self.u32(name)?;
        ensure!(id != ARRAY, "the key {name} is an array of arrays, which ggml does not read");
        let kind = Kind::from_id(id).ok_or_else(|| malformed(format!("the key {name} has items of the unknown kind {id}")))?;
        let len = self.u64(name)?;
        self.items = self.items.saturating_add(len);
        ensure!(self.items <= MAX_ITEMS, "with {name} its arrays have {} items, the most is {MAX_ITEMS}", self.items);
        let values = match kind {
            Kind::U8 => Values::U8(self.numbers(len, name, u8::from_le_bytes)?),
            Kind::I8 => Values::I8(self.numbers(len, name, i8::from_le_bytes)?),
            Kind::U16 => Values::U16(self.numbers(len, name, u16::from_le_bytes)?),
            Kind::I16 => Values::I16(self.numbers(len, name, i16::from_le_bytes)?),
            Kind::U32 => Values::U32(self.numbers(len, name, u32::from_le_bytes)?),
            Kind::I32 => Values::I32(self.numbers(len, name, i32::from_le_bytes)?),
            Kind::F32 => Values::F32(self.numbers(len, name, f32::from_le_bytes)?),
            Kind::U64 => Values::U64(self.numbers(len, name, u64::from_le_bytes)?),
            Kind::I64 => Values::I64(self.numbers(len, name, i64::from_le_bytes)?),
            Kind::F64 => Values::F64(self.numbers(len, name, f64::from_le_bytes)?),
            Kind::Bool => {
                let bytes = self.numbers(len, name, |byte: [u8; 1]| byte)?;
                Values::Bool(bytes.into_iter().map(|byte| truth(byte, &name)).collect::<Result<_, _>>()?)
            }
            Kind::String => Values::String(self.strings(len, name)?),
        };
        Ok(Array { kind, len, values })
    }

    /// Items of `N` bytes each.
    fn numbers<T, const N: usize>(&mut self, len: u64, name: Quoted<'_>, from: fn([u8; N]) -> T) -> Result<Vec<T>, FormatError> {
        let bytes = len.checked_mul(N as u64).ok_or_else(|| malformed(format!("{name} has {len} items")))?;
        let bytes = self.source.bytes(bytes, MAX_HEADER, name)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|item| from(*item)).collect())
    }

    fn strings(&mut self, len: u64, name: Quoted<'_>) -> Result<Vec<String>, FormatError> {
        self.texts = self.texts.saturating_add(len);
        ensure!(self.texts <= MAX_TEXTS, "with {name} its arrays have {} texts, the most is {MAX_TEXTS}", self.texts);
        // Each text has at least its length in the file.
        self.source.end_of(len.saturating_mul(8), name)?;
        (0..len).map(|at| self.text(MAX_TEXT, format_args!("item {at} of {name}"))).collect()
    }

    fn tensors(&mut self, count: u64) -> Result<Vec<Tensor>, FormatError> {
        let (mut tensors, mut names) = (Vec::new(), HashSet::new());
        for _ in 0..count {
            let tensor = self.tensor()?;
            ensure!(names.insert(tensor.name.clone()), "tensor {} is there twice", Quoted(&tensor.name));
            tensors.push(tensor);
        }
        Ok(tensors)
    }

    fn tensor(&mut self) -> Result<Tensor, FormatError> {
        let text = self.name(MAX_NAME, "the name of a tensor")?;
        let name = Quoted(&text);
        let dimensions = self.u32(format_args!("tensor {name}"))?;
        ensure!((1..=4).contains(&dimensions), "tensor {name} has {dimensions} dimensions; 1 to 4 are read");
        let mut shape = Vec::new();
        let mut elements = 1_u64;
        for _ in 0..dimensions {
            let length = self.u64(format_args!("tensor {name}"))?;
            ensure!(length >= 1, "tensor {name} has a dimension of 0");
            // ggml counts elements in an i64.
            let product = elements.checked_mul(length).filter(|product| i64::try_from(*product).is_ok());
            elements = product.ok_or_else(|| malformed(format!("tensor {name} has more elements than can be counted")))?;
            shape.push(length);
        }
        let id = self.u32(format_args!("tensor {name}"))?;
        support!(!TensorType::is_removed(id), "tensor {name} is of the type {id}, which ggml has removed; quantize it again");
        let unknown = || malformed(format!("tensor {name} is of the unknown type {id}"));
        let kind = TensorType::from_id(id).ok_or_else(unknown)?;
        let (block, row) = (kind.block_elements(), shape.first().copied().unwrap_or_default());
        ensure!(
            row % block == 0,
            "tensor {name} has rows of {row} elements, which is not a multiple of {}'s {block}",
            kind.name()
        );
        let bytes = (elements / block).checked_mul(kind.block_bytes());
        let bytes = bytes.ok_or_else(|| malformed(format!("tensor {name} has more bytes than can be counted")))?;
        let offset = self.u64(format_args!("tensor {name}"))?;
        Ok(Tensor { name: text, shape, kind, offset, bytes })
    }
}

fn truth(byte: [u8; 1], name: &Quoted<'_>) -> Result<bool, FormatError> {
    let [byte] = byte;
    ensure!(byte <= 1, "{name} has a bool of {byte}; it is 0 or 1");
    Ok(byte == 1)
}
