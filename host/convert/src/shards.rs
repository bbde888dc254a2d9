//! The weights of a model: one safetensors file, or several that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;
use tollgate_formats::safetensors::{self, Dtype};

use crate::error::ConvertError;
use crate::files;
use crate::quant;

/// The largest index that is read. One of 700 tensors has 60 KiB.
const INDEX_BYTES: u64 = 16 << 20;
/// Files that one model may have.
const MAX_SHARDS: usize = 1024;

/// One tensor of the source.
#[derive(Debug)]
pub(crate) struct Found {
    /// How its values are stored.
    pub(crate) kind: Dtype,
    /// Its dimensions, the outermost first.
    pub(crate) shape: Vec<u64>,
    shard: usize,
    /// Where its data begins, from the start of the file.
    at: u64,
    bytes: u64,
}

/// The open files.
#[derive(Debug)]
pub(crate) struct Shards {
    files: Vec<(String, File)>,
    tensors: BTreeMap<String, Found>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens `STEM.safetensors`, or what `STEM.safetensors.index.json` lists.
    pub(crate) fn open(folder: &Path, stem: &str) -> Result<Self, ConvertError> {
        let single = format!("{stem}.safetensors");
        let mut all = Self { files: Vec::new(), tensors: BTreeMap::new() };
        if let Some((file, _)) = files::open(folder, &single)? {
            all.take(single, file)?;
            return Ok(all);
        }
        let name = format!("{single}.index.json");
        let Some(index) = files::json::<Index>(folder, &name, INDEX_BYTES)? else {
            return Err(ConvertError::file(&single, "is missing from the model's folder, and so is its index"));
        };
        let listed: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        if listed.is_empty() || listed.len() > MAX_SHARDS {
            return Err(ConvertError::file(&name, format!("lists {} files; 1 to {MAX_SHARDS} are read", listed.len())));
        }
        for shard in listed {
            if !is_plain(shard) {
                return Err(ConvertError::file(&name, format!("lists {shard:?}, which is no plain name of a .safetensors file")));
            }
            let Some((file, _)) = files::open(folder, shard)? else {
                return Err(ConvertError::file(shard, format!("is missing, and `{name}` lists it")));
            };
            all.take(shard.to_owned(), file)?;
        }
        if let Some(missing) = index.weight_map.keys().find(|tensor| !all.tensors.contains_key(*tensor)) {
            return Err(ConvertError::tensor(missing, format!("is listed in `{name}` and in none of its files")));
        }
        Ok(all)
    }

    fn take(&mut self, name: String, mut file: File) -> Result<(), ConvertError> {
        let header = safetensors::read(&mut file).map_err(|source| ConvertError::Format { file: name.clone(), source })?;
        let shard = self.files.len();
        for (tensor, info) in header.tensors {
            let too_far = || ConvertError::tensor(&tensor, "lies beyond what a file can have");
            let at = header.data_offset.checked_add(info.begin).ok_or_else(too_far)?;
            let bytes = info.end.checked_sub(info.begin).ok_or_else(too_far)?;
            let found = Found { kind: info.dtype, shape: info.shape, shard, at, bytes };
            if self.tensors.insert(tensor.clone(), found).is_some() {
                return Err(ConvertError::tensor(&tensor, format!("is in `{name}` and in another file as well")));
            }
        }
        self.files.push((name, file));
        Ok(())
    }

    /// The tensor of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Found> {
        self.tensors.get(name)
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Puts `count` values, from value `first` on, into `values`. `bytes` is room that is used again from call to call.
    pub(crate) fn values(&self, name: &str, first: u64, count: u64, room: &mut Room) -> Result<(), ConvertError> {
        let refused = |what: &str| ConvertError::tensor(name, what);
        let found = self.get(name).ok_or_else(|| refused("is missing"))?;
        let width = quant::value_bytes(found.kind).ok_or_else(|| unreadable(name, found.kind))?;
        let begin = first.checked_mul(width);
        let length = count.checked_mul(width);
        let end = begin.zip(length).and_then(|(begin, length)| begin.checked_add(length)).filter(|end| *end <= found.bytes);
        let (Some(begin), Some(length), Some(_)) = (begin, length, end) else {
            return Err(refused("ends before its last value"));
        };
        room.bytes.resize(usize::try_from(length).map_err(|_| refused("is too big for this machine"))?, 0);
        let (file, handle) = self.files.get(found.shard).expect("a tensor's shard is one of the open files");
        handle
            .read_exact_at(&mut room.bytes, found.at.saturating_add(begin))
            .map_err(|source| ConvertError::Read { file: file.clone(), source })?;
        quant::decode(found.kind, &room.bytes, &mut room.values).map_err(refused)
    }
}

/// Buffers that are used again from read to read.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: Vec<u8>,
    /// What was read last.
    pub(crate) values: Vec<f32>,
}

/// The refusal of a tensor whose number format is not read.
pub(crate) fn unreadable(name: &str, kind: Dtype) -> ConvertError {
    ConvertError::tensor(name, format!("is stored as {}; F32, F16 and BF16 are converted", kind.name()))
}

fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= 128 && name.ends_with(".safetensors") && !name.starts_with('.') && name.bytes().all(allowed)
}
