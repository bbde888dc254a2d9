//! A JSON object of a model's folder, read with closed ranges.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;
use tollgate_backend::{BackendError, Token};

/// Larger files than this are no model's settings.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// A JSON object and where it comes from. A key whose value is `null` counts as absent.
#[derive(Debug, Clone)]
pub struct Config {
    source: String,
    value: Value,
}

impl Config {
    /// An object without keys.
    #[must_use]
    pub fn empty(source: &str) -> Self {
        Config { source: source.to_owned(), value: Value::Object(serde_json::Map::new()) }
    }

    /// Reads a file of at most 8 MiB; `None` if there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is no JSON object.
    pub fn read(path: &Path) -> Result<Option<Self>, BackendError> {
        let Some(bytes) = read(path, MAX_CONFIG_BYTES)? else { return Ok(None) };
        let source = path.display().to_string();
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| BackendError::Load(format!("{source} is not the JSON that was expected: {error}")))?;
        if !value.is_object() {
            return Err(BackendError::Load(format!("{source} is no JSON object")));
        }
        Ok(Some(Config { source, value }))
    }

    /// The value of a key; `None` if it is absent or `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there, if only as `null`.
    #[must_use]
    pub fn names(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// The object itself.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// A whole number.
    ///
    /// # Errors
    /// The value is something else, or outside `range`.
    pub fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, BackendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| range.contains(number));
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| self.wrong(key, &wanted()))
    }

    /// A whole number that has to be there.
    ///
    /// # Errors
    /// It is absent, or as in [`Self::count`].
    pub fn need_count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, BackendError> {
        self.count(key, range)?.ok_or_else(|| BackendError::Load(format!("{} has no `{key}`", self.source)))
    }

    /// A number.
    ///
    /// # Errors
    /// The value is something else, or outside `range`.
    pub fn float(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, BackendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wanted = || format!("a number from {} to {}", range.start(), range.end());
        value.as_f64().filter(|number| range.contains(number)).map(Some).ok_or_else(|| self.wrong(key, &wanted()))
    }

    /// A list of numbers, at most `most`.
    ///
    /// # Errors
    /// The value is something else, too long, or has a number outside `range`.
    pub fn floats(&self, key: &str, range: RangeInclusive<f64>, most: usize) -> Result<Option<Vec<f64>>, BackendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let numbers = value.as_array().filter(|list| list.len() <= most).and_then(|list| {
            list.iter().map(|number| number.as_f64().filter(|number| range.contains(number))).collect::<Option<Vec<f64>>>()
        });
        let wanted = || format!("a list of at most {most} numbers from {} to {}", range.start(), range.end());
        numbers.map(Some).ok_or_else(|| self.wrong(key, &wanted()))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// The value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, BackendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// A text.
    ///
    /// # Errors
    /// The value is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, BackendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a text"))
    }

    /// An object within this one.
    ///
    /// # Errors
    /// The value is something else.
    pub fn object(&self, key: &str) -> Result<Option<Config>, BackendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if !value.is_object() {
            return Err(self.wrong(key, "an object"));
        }
        Ok(Some(Config { source: format!("`{key}` of {}", self.source), value: value.clone() }))
    }

    /// A token or a list of tokens, at most 64.
    ///
    /// # Errors
    /// The value is something else.
    pub fn tokens(&self, key: &str) -> Result<Vec<Token>, BackendError> {
        let token = |value: &Value| value.as_u64().and_then(|id| Token::try_from(id).ok());
        let tokens = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) if list.len() <= 64 => list.iter().map(token).collect::<Option<Vec<Token>>>(),
            Some(one) => token(one).map(|token| vec![token]),
        };
        tokens.ok_or_else(|| self.wrong(key, "a token or a list of at most 64 tokens"))
    }

    fn wrong(&self, key: &str, wanted: &str) -> BackendError {
        BackendError::Load(format!("`{key}` of {} has to be {wanted}", self.source))
    }
}

/// A file's bytes; `None` if there is no such file.
///
/// # Errors
/// It cannot be read, or has more than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, BackendError> {
    let failed = |error: std::io::Error| BackendError::Load(format!("{} cannot be read: {error}", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(BackendError::Load(format!("{} has more than {most} bytes", path.display())));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config { source: "config.json".to_owned(), value: serde_json::from_str(text).expect("JSON") }
    }

    #[test]
    fn values_are_read_within_their_ranges() {
        let config = config(r#"{"a": 4, "b": 1e-5, "c": true, "d": "x", "e": [1, 2], "f": null, "g": {"h": 1}}"#);
        assert_eq!(config.need_count("a", 1..=4), Ok(4));
        assert_eq!(config.float("b", 0.0..=1.0), Ok(Some(1e-5)));
        assert_eq!(config.flag("c"), Ok(Some(true)));
        assert_eq!(config.text("d"), Ok(Some("x")));
        assert_eq!(config.tokens("e"), Ok(vec![1, 2]));
        assert_eq!(config.tokens("a"), Ok(vec![4]));
        assert_eq!(config.floats("e", 0.0..=2.0, 2), Ok(Some(vec![1.0, 2.0])));
        assert_eq!(config.count("f", 0..=1), Ok(None));
        assert!(config.names("f") && !config.names("z"));
        let inner = config.object("g").expect("an object").expect("there");
        assert_eq!(inner.count("h", 0..=1), Ok(Some(1)));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_key_and_the_range() {
        let config = config(r#"{"a": -4, "c": 1, "e": [1, "x"]}"#);
        let text = |error: BackendError| error.to_string();
        assert!(
            text(config.count("a", 1..=9).expect_err("negative"))
                .contains("`a` of config.json has to be a whole number from 1 to 9")
        );
        assert!(text(config.count("c", 2..=9).expect_err("too small")).contains("`c`"));
        assert!(text(config.need_count("z", 1..=9).expect_err("absent")).contains("has no `z`"));
        assert!(config.flag("c").is_err() && config.text("c").is_err() && config.object("c").is_err());
        assert!(
            config.tokens("e").is_err() && config.floats("e", 0.0..=1.0, 2).is_err() && config.floats("e", 0.0..=1.0, 1).is_err()
        );
    }

    #[test]
    fn files_are_read_up_to_a_size() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        assert!(Config::read(&path).expect("absent is fine").is_none());
        std::fs::write(&path, "[1]").expect("written");
        assert!(Config::read(&path).expect_err("no object").to_string().contains("no JSON object"));
        assert!(read(&path, 2).expect_err("too long").to_string().contains("more than 2 bytes"));
    }
}
