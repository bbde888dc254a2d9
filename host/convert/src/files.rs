//! The small files of a model's folder, read whole within a bound.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::ConvertError;

/// Opens a regular file; `None` where there is none of that name.
pub(crate) fn open(folder: &Path, name: &str) -> Result<Option<(File, u64)>, ConvertError> {
    let read = |source| ConvertError::Read { file: name.to_owned(), source };
    let file = match File::open(folder.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let data = file.metadata().map_err(read)?;
    if !data.is_file() {
        return Err(ConvertError::file(name, "is not a regular file"));
    }
    Ok(Some((file, data.len())))
}

/// The bytes of a file of at most `most` bytes; `None` where there is none of that name.
pub(crate) fn read(folder: &Path, name: &str, most: u64) -> Result<Option<Vec<u8>>, ConvertError> {
    let Some((file, bytes)) = open(folder, name)? else { return Ok(None) };
    let too_long = || ConvertError::file(name, format!("has {bytes} bytes; {most} are the most that is read"));
    if bytes > most {
        return Err(too_long());
    }
    let mut text = Vec::new();
    // The file may have grown since its length was read.
    file.take(most + 1).read_to_end(&mut text).map_err(|source| ConvertError::Read { file: name.to_owned(), source })?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= most) { Ok(Some(text)) } else { Err(too_long()) }
}

/// A JSON file of at most `most` bytes; `None` where there is none of that name.
pub(crate) fn json<T: DeserializeOwned>(folder: &Path, name: &str, most: u64) -> Result<Option<T>, ConvertError> {
    read(folder, name, most)?.map(|bytes| parse(name, &bytes)).transpose()
}

/// The same where the file has to be there.
pub(crate) fn needed_json<T: DeserializeOwned>(folder: &Path, name: &str, most: u64) -> Result<T, ConvertError> {
    json(folder, name, most)?.ok_or_else(|| ConvertError::file(name, "is missing from the model's folder"))
}

/// What JSON bytes say.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ConvertError> {
    serde_json::from_slice(bytes).map_err(|error| ConvertError::file(name, format!("is not understood: {error}")))
}
