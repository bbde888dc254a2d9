//! Protobuf's wire format, as much of it as an edit takes: fields are found, and what is not edited is copied as it stands.

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Value<'a>,
    /// Its bytes with its key.
    pub(super) whole: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    /// Text, bytes, a message, or numbers in a row.
    Bytes(&'a [u8]),
    /// A number of a fixed width, which nothing here reads.
    Fixed,
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Fields(message)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((field, rest)) = field(self.0) else {
            self.0 = &[];
            return Some(Err("the graph is cut short".to_owned()));
        };
        self.0 = rest;
        Some(Ok(field))
    }
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) | Value::Fixed => Err(format!("the graph's field {} is no bytes", self.number)),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| format!("the graph's field {} is no text", self.number))
    }

    pub(super) fn number(&self) -> Result<u64, String> {
        match self.value {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed => Err(format!("the graph's field {} is no number", self.number)),
        }
    }

    /// Adds the numbers of a field that may be there many times, one each or in a row.
    pub(super) fn numbers(&self, all: &mut Vec<u64>) -> Result<(), String> {
        let Value::Bytes(mut rest) = self.value else {
            all.push(self.number()?);
            return Ok(());
        };
        while !rest.is_empty() {
            let (number, after) = varint(rest).ok_or("the graph is cut short")?;
            all.push(number);
            rest = after;
        }
        Ok(())
    }
}

fn field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (key, rest) = varint(bytes)?;
    let (value, rest) = match key & 7 {
        0 => varint(rest).map(|(number, rest)| (Value::Number(number), rest))?,
        1 => (Value::Fixed, rest.get(8..)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let (inner, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Value::Bytes(inner), rest)
        }
        5 => (Value::Fixed, rest.get(4..)?),
        _ => return None,
    };
    let whole = bytes.get(..bytes.len().saturating_sub(rest.len()))?;
    Some((Field { number: key >> 3, value, whole }, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

impl Message {
    /// Adds a field that is a number.
    pub(super) fn number(mut self, field: u64, number: u64) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    /// Adds a field that is text, bytes or a message.
    pub(super) fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.add(field, bytes);
        self
    }

    /// As [`Self::bytes`], in place.
    pub(super) fn add(&mut self, field: u64, bytes: &[u8]) {
        self.varint((field << 3) | 2);
        self.varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(bytes);
    }

    /// Adds a field as it stands.
    pub(super) fn copy(&mut self, field: &Field<'_>) {
        self.0.extend_from_slice(field.whole);
    }

    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            let [low, ..] = number.to_le_bytes();
            self.0.push(low | 0x80);
            number >>= 7;
        }
        let [low, ..] = number.to_le_bytes();
        self.0.push(low);
    }
}
