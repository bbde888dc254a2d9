//! safetensors: the header that says which bytes of the file are which tensor.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{FormatError, Quoted, ensure, malformed};
use crate::json::{Fields, Object, parse};
use crate::source::Source;

/// The bound of the format itself.
const MAX_HEADER: u64 = 100_000_000;
const MAX_TENSORS: usize = 262_144;
const MAX_METADATA: usize = 65_536;
const MAX_NAME: usize = 4_096;
const MAX_DIMENSIONS: usize = 8;

/// What the header of a safetensors file says, with every tensor inside the file and every byte of data in one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safetensors {
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors by name, 262,144 at most.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Bytes from the start of the file to the data.
    pub data_offset: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// One tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// What an element is.
    pub dtype: Dtype,
    /// Its dimensions, the outermost first: 8 at most, none for a single element, any of them 0 for no elements.
    pub shape: Vec<u64>,
    /// Bytes from [`Safetensors::data_offset`] to its data.
    pub begin: u64,
    /// Bytes from [`Safetensors::data_offset`] to the end of its data.
    pub end: u64,
}

/// What an element of a tensor is, under the format's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the format's own")]
#[expect(non_camel_case_types, reason = "the names are the format's own")]
pub enum Dtype {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// The type, its name in a file and its bits.
const DTYPES: [(Dtype, &str, u64); 22] = [
    (Dtype::BOOL, "BOOL", 8),
    (Dtype::F4, "F4", 4),
    (Dtype::F6_E2M3, "F6_E2M3", 6),
    (Dtype::F6_E3M2, "F6_E3M2", 6),
    (Dtype::U8, "U8", 8),
    (Dtype::I8, "I8", 8),
    (Dtype::F8_E5M2, "F8_E5M2", 8),
    (Dtype::F8_E4M3, "F8_E4M3", 8),
    (Dtype::F8_E8M0, "F8_E8M0", 8),
    (Dtype::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
    (Dtype::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
    (Dtype::I16, "I16", 16),
    (Dtype::U16, "U16", 16),
    (Dtype::F16, "F16", 16),
    (Dtype::BF16, "BF16", 16),
    (Dtype::I32, "I32", 32),
    (Dtype::U32, "U32", 32),
    (Dtype::F32, "F32", 32),
    (Dtype::C64, "C64", 64),
    (Dtype::F64, "F64", 64),
    (Dtype::I64, "I64", 64),
    (Dtype::U64, "U64", 64),
];

impl Dtype {
    fn from_name(name: &str) -> Option<Self> {
        DTYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The format's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        DTYPES.iter().find(|row| row.0 == self).expect("the table has every type").1
    }

    /// Bits of an element, 4 to 64.
    #[must_use]
    pub fn bits(self) -> u64 {
        DTYPES.iter().find(|row| row.0 == self).expect("the table has every type").2
    }
}

/// Reads the header of a safetensors file from its first byte.
///
/// # Errors
/// It is not safetensors, is cut short, breaks a rule of the format or a bound, or cannot be read.
pub fn read<R: Read + Seek>(source: &mut R) -> Result<Safetensors, FormatError> {
    let mut source = Source::new(source, u64::MAX)?;
    let length = u64::from_le_bytes(source.array("the length of the header")?);
    let bytes = source.bytes(length, MAX_HEADER, "the header")?;
    ensure!(bytes.first() == Some(&b'{'), "it is not safetensors: its header does not begin with an object");
    let mut header = Header::default();
    parse(&bytes, &mut header)?;
    let (data_offset, file_bytes) = (source.at(), source.length());
    let tensors = header.tensors;
    check_places(&tensors, file_bytes - data_offset)?;
    Ok(Safetensors { metadata: header.metadata.0, tensors, data_offset, file_bytes })
}

/// Every tensor is as long as its shape says, and the data is tensors without a hole or an overlap.
fn check_places(tensors: &BTreeMap<String, TensorInfo>, data: u64) -> Result<(), FormatError> {
    let mut places = tensors.iter().collect::<Vec<_>>();
    places.sort_by_key(|(_, tensor)| (tensor.begin, tensor.end));
    let mut expected = 0;
    for (name, tensor) in places {
        let name = Quoted(name);
        let (begin, end) = (tensor.begin, tensor.end);
        ensure!(begin == expected, "tensor {name} begins at byte {begin} of the data, the one before ends at {expected}");
        ensure!(end <= data, "it is cut short: tensor {name} ends at byte {end} of the data, the file has {data}");
        let bits = tensor.shape.iter().try_fold(tensor.dtype.bits(), |bits, length| bits.checked_mul(*length));
        let bits = bits.ok_or_else(|| malformed(format!("tensor {name} has more elements than can be counted")))?;
        let bytes = end.checked_sub(begin).ok_or_else(|| malformed(format!("tensor {name} ends before it begins")))?;
        let is_whole = bits % 8 == 0 && bits / 8 == bytes;
        ensure!(
            is_whole,
            "tensor {name} has {bytes} bytes; {} of the shape {:?} have {bits} bits",
            tensor.dtype.name(),
            tensor.shape
        );
        expected = end;
    }
    ensure!(expected == data, "its tensors end at byte {expected} of the data, the file has {data}");
    Ok(())
}

#[derive(Default)]
struct Header {
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<'de> Object<'de> for Header {
    const WHAT: &'static str = "a header";
    const MOST: usize = MAX_TENSORS + 1;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if key == "__metadata__" {
            return map.next_value_seed(Fields(&mut self.metadata));
        }
        if !(1..=MAX_NAME).contains(&key.len()) {
            return Err(A::Error::custom(format_args!("a tensor's name has {} bytes; it has 1 to {MAX_NAME}", key.len())));
        }
        let mut entry = Entry::default();
        map.next_value_seed(Fields(&mut entry))?;
        let (Some(dtype), Some(shape), Some([begin, end])) = (entry.dtype, entry.shape, entry.offsets) else {
            let words = "lacks one of `dtype`, `shape`, `data_offsets`";
            return Err(A::Error::custom(format_args!("tensor {} {words}", Quoted(&key))));
        };
        self.tensors.insert(key, TensorInfo { dtype, shape, begin, end });
        Ok(())
    }
}

#[derive(Default)]
struct Metadata(BTreeMap<String, String>);

impl<'de> Object<'de> for Metadata {
    const WHAT: &'static str = "metadata";
    const MOST: usize = MAX_METADATA;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        self.0.insert(key, map.next_value()?);
        Ok(())
    }
}

/// What stands at the name of a tensor.
#[derive(Default)]
struct Entry {
    dtype: Option<Dtype>,
    shape: Option<Vec<u64>>,
    offsets: Option<[u64; 2]>,
}

impl<'de> Object<'de> for Entry {
    const WHAT: &'static str = "a tensor's object";
    const MOST: usize = 3;

    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        match key.as_str() {
            "dtype" => {
                let name = map.next_value::<String>()?;
                let unknown = || A::Error::custom(format_args!("the dtype {} is unknown", Quoted(&name)));
                self.dtype = Some(Dtype::from_name(&name).ok_or_else(unknown)?);
            }
            "shape" => self.shape = Some(map.next_value_seed(Shape)?),
            "data_offsets" => self.offsets = Some(map.next_value()?),
            _ => return Err(A::Error::custom(format_args!("a tensor has the unknown key {}", Quoted(&key)))),
        }
        Ok(())
    }
}

struct Shape;

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut shape = Vec::new();
        while let Some(length) = seq.next_element()? {
            if shape.len() == MAX_DIMENSIONS {
                return Err(A::Error::custom(format_args!("a tensor has more than {MAX_DIMENSIONS} dimensions")));
            }
            shape.push(length);
        }
        Ok(shape)
    }
}
