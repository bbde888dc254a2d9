//! The values of a GGUF file's metadata.

/// What a value, or every item of an array, is. The numbers are those of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `uint8`.
    U8 = 0,
    /// `int8`.
    I8 = 1,
    /// `uint16`.
    U16 = 2,
    /// `int16`.
    I16 = 3,
    /// `uint32`.
    U32 = 4,
    /// `int32`.
    I32 = 5,
    /// `float32`.
    F32 = 6,
    /// `bool`, one byte.
    Bool = 7,
    /// UTF-8 with its length in front.
    String = 8,
    /// `uint64`.
    U64 = 10,
    /// `int64`.
    I64 = 11,
    /// `float64`.
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// The kind with this number in a file; an array (9) is not one.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u32 == id)
    }
}

/// One value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `uint8`.
    U8(u8),
    /// `int8`.
    I8(i8),
    /// `uint16`.
    U16(u16),
    /// `int16`.
    I16(i16),
    /// `uint32`.
    U32(u32),
    /// `int32`.
    I32(i32),
    /// `float32`.
    F32(f32),
    /// `bool`.
    Bool(bool),
    /// A text of at most 16 MiB.
    String(String),
    /// Items of one kind.
    Array(Array),
    /// `uint64`.
    U64(u64),
    /// `int64`.
    I64(i64),
    /// `float64`.
    F64(f64),
}

impl Value {
    /// Any integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U8(value) => Some(u64::from(*value)),
            Value::U16(value) => Some(u64::from(*value)),
            Value::U32(value) => Some(u64::from(*value)),
            Value::U64(value) => Some(*value),
            Value::I8(value) => u64::try_from(*value).ok(),
            Value::I16(value) => u64::try_from(*value).ok(),
            Value::I32(value) => u64::try_from(*value).ok(),
            Value::I64(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A float of either width.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F32(value) => Some(f64::from(*value)),
            Value::F64(value) => Some(*value),
            _ => None,
        }
    }
}

/// Items of one kind; arrays do not nest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// What every item is.
    pub kind: Kind,
    /// How many there are, 0 to 16 Mi.
    pub len: u64,
    /// The items.
    pub values: Values,
}

/// The items of an array, as wide as they are in the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `uint8`.
    U8(Vec<u8>),
    /// `int8`.
    I8(Vec<i8>),
    /// `uint16`.
    U16(Vec<u16>),
    /// `int16`.
    I16(Vec<i16>),
    /// `uint32`.
    U32(Vec<u32>),
    /// `int32`.
    I32(Vec<i32>),
    /// `float32`.
    F32(Vec<f32>),
    /// `bool`.
    Bool(Vec<bool>),
    /// Texts.
    String(Vec<String>),
    /// `uint64`.
    U64(Vec<u64>),
    /// `int64`.
    I64(Vec<i64>),
    /// `float64`.
    F64(Vec<f64>),
}

impl Array {
    /// The items, where they are texts.
    #[must_use]
    pub fn strings(&self) -> Option<&[String]> {
        match &self.values {
            Values::String(items) => Some(items),
            _ => None,
        }
    }

    /// The items, where they are `int32`.
    #[must_use]
    pub fn i32s(&self) -> Option<&[i32]> {
        match &self.values {
            Values::I32(items) => Some(items),
            _ => None,
        }
    }

    /// The items, where they are `uint32`, or `int32` and none is negative: what llama.cpp takes for a count per layer.
    #[must_use]
    pub fn counts(&self) -> Option<Vec<u64>> {
        match &self.values {
            Values::U32(items) => Some(items.iter().map(|item| u64::from(*item)).collect()),
            Values::I32(items) => items.iter().map(|item| u64::try_from(*item).ok()).collect(),
            _ => None,
        }
    }
}
