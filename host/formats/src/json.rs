//! JSON held to rules that serde_json alone does not have: no key twice, a bound on depth and on numbers, and one shape for one thing.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{FormatError, Quoted, malformed};

/// Reads a whole document into `value`.
pub(crate) fn parse<'de, T: Object<'de>>(bytes: &'de [u8], value: &mut T) -> Result<(), FormatError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Fields(value).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| {
        // The message may carry a text of the file.
        let words = error.to_string().chars().take(300).flat_map(char::escape_debug).collect::<String>();
        malformed(format!("its JSON is not taken: {}", words.replace("\\\"", "\"").replace("\\'", "'")))
    })
}

/// What is read from an object, key by key.
pub(crate) trait Object<'de> {
    /// What the object is, for messages.
    const WHAT: &'static str;
    /// The most keys that it has.
    const MOST: usize;

    /// Takes the value of one key, which is not there twice.
    fn field<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error>;
}

/// Fills an [`Object`] from an object, and from nothing else.
pub(crate) struct Fields<'a, T>(pub(crate) &'a mut T);

impl<'de, T: Object<'de>> DeserializeSeed<'de> for Fields<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for Fields<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.len() >= T::MOST {
                return Err(A::Error::custom(format_args!("{} has more than {} keys", T::WHAT, T::MOST)));
            }
            if !seen.insert(key.clone()) {
                return Err(twice(&key));
            }
            self.0.field(key, &mut map)?;
        }
        Ok(())
    }
}

/// The error for a key that is there twice.
pub(crate) fn twice<E: Error>(key: &str) -> E {
    E::custom(format_args!("the key {} is there twice", Quoted(key)))
}

/// Any value, passed over: at most `depth` deep, no number above `number` in size, no key twice.
#[derive(Clone, Copy)]
pub(crate) struct Checked {
    /// How many levels of lists and objects are left.
    pub(crate) depth: u32,
    /// The largest number.
    pub(crate) number: f64,
}

impl Checked {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("it is nested too deep"))?;
        Ok(Checked { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "it is only compared with a bound far below 2^53")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "it is only compared with a bound far below 2^53")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        if number.abs() <= self.number {
            return Ok(());
        }
        Err(E::custom(format_args!("a number is {number}; here the most is {}", self.number)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        while seq.next_element_seed(deeper)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(deeper)?;
            if let Some(key) = seen.replace(key) {
                return Err(twice(&key));
            }
        }
        Ok(())
    }
}
