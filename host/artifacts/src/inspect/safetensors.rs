//! Models and adapters in safetensors: every shard's header, the index, the config and the tokenizer, and whether they fit together.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

use serde_json::{Map, Value};
use tollgate_formats::safetensors::{self, Safetensors};

use super::{InspectError, MAX_JSON_BYTES, read_json, read_tokenizer};
use crate::files::{At, open_beneath, read_small};
use crate::manifest::{FileEntry, Manifest};
use crate::name::RelativePath;

/// Numbers of `config.json` that size something, each with the highest value that is taken.
const BOUNDS: [(&str, u64); 9] = [
    ("hidden_size", 1 << 20),
    ("intermediate_size", 1 << 24),
    ("num_hidden_layers", 1024),
    ("num_attention_heads", 4096),
    ("num_key_value_heads", 4096),
    ("head_dim", 1 << 16),
    ("vocab_size", 4 << 20),
    ("max_position_embeddings", 16 << 20),
    ("num_local_experts", 4096),
];
const MAX_RANK: u64 = 4096;
const MAX_ARCHITECTURE: usize = 64;
/// What an encoder of sentence-transformers may be made of. Every backend brings its vectors to length 1.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

pub(super) fn inspect_model(folder: &Path, manifest: &Manifest) -> Result<(Option<String>, u64), InspectError> {
    let path = known("config.json");
    let config = read_json(folder, &path)?;
    for (key, most) in BOUNDS {
        number(&path, &config, key, most)?;
    }
    if let Some(file) = manifest.file("modules.json") {
        check_modules(folder, &file.path)?;
    }
    let tensors = read_shards(folder, manifest)?;
    for file in manifest.files.iter().filter(|file| file.path.file_name().ends_with(".safetensors.index.json")) {
        check_index(folder, &file.path, &tensors)?;
    }
    let tokenizer = known("tokenizer.json");
    let vocabulary = read_tokenizer(folder, &tokenizer)?;
    if let Some(rows) = number(&path, &config, "vocab_size", u64::MAX)?.filter(|rows| vocabulary > *rows) {
        let what =
            format!("its highest token is {}, and the model has rows for {rows} tokens only", vocabulary.saturating_sub(1));
        return Err(InspectError::content(&tokenizer, what));
    }
    Ok((architecture(&config), tensors.bytes))
}

pub(super) fn inspect_adapter(folder: &Path, manifest: &Manifest) -> Result<(Option<String>, u64), InspectError> {
    let path = known("adapter_config.json");
    let config = read_json(folder, &path)?;
    let kind = config.get("peft_type").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind != "LORA") {
        return Err(InspectError::content(&path, "`peft_type` is not LORA, and no other adapters are supported"));
    }
    if number(&path, &config, "r", MAX_RANK)?.is_none() {
        return Err(InspectError::content(&path, "`r`, the rank, is missing"));
    }
    let has_alpha = config.get("lora_alpha").and_then(Value::as_f64).is_some_and(|alpha| alpha.is_finite() && alpha > 0.0);
    if !has_alpha {
        return Err(InspectError::content(&path, "`lora_alpha` must be a number above 0"));
    }
    let tensors = read_shards(folder, manifest)?;
    let weights = known("adapter_model.safetensors");
    for name in tensors.by_name.keys() {
        let other = match (name.contains(".lora_A."), name.contains(".lora_B.")) {
            (true, false) => name.replace(".lora_A.", ".lora_B."),
            (false, true) => name.replace(".lora_B.", ".lora_A."),
            _ => {
                return Err(InspectError::content(
                    &weights,
                    format!("`{}` is not a matrix of a LoRA adapter", name.escape_debug()),
                ));
            }
        };
        if !tensors.by_name.contains_key(&other) {
            return Err(InspectError::content(&weights, format!("`{}` has no counterpart", name.escape_debug())));
        }
    }
    if tensors.by_name.is_empty() {
        return Err(InspectError::content(&weights, "it holds no matrices"));
    }
    Ok((None, tensors.bytes))
}

/// The tensors of all shards.
struct Tensors {
    /// Which shard each is in.
    by_name: BTreeMap<String, RelativePath>,
    bytes: u64,
}

fn read_shards(folder: &Path, manifest: &Manifest) -> Result<Tensors, InspectError> {
    let mut tensors = Tensors { by_name: BTreeMap::new(), bytes: 0 };
    for FileEntry { path, .. } in manifest.files.iter().filter(|file| file.path.has_extension("safetensors")) {
        let mut file = BufReader::new(open_beneath(folder, path)?);
        let Safetensors { tensors: found, .. } =
            safetensors::read(&mut file).map_err(|source| InspectError::Format { path: path.to_string(), source })?;
        for (name, tensor) in found {
            tensors.bytes = tensors.bytes.saturating_add(tensor.end.saturating_sub(tensor.begin));
            if let Some(other) = tensors.by_name.insert(name.clone(), path.clone()) {
                return Err(InspectError::content(path, format!("`{}` is in {other} already", name.escape_debug())));
            }
        }
    }
    Ok(tensors)
}

/// Whether an encoder has nothing that no backend computes, such as a layer after the pooling: its weights are in a folder that is not
/// installed.
fn check_modules(folder: &Path, path: &RelativePath) -> Result<(), InspectError> {
    let bytes = read_small(&mut open_beneath(folder, path)?, MAX_JSON_BYTES).at(&folder.join(path.as_str()))?;
    let modules = serde_json::from_slice::<Vec<Value>>(&bytes)
        .map_err(|error| InspectError::content(path, format!("it is not a list of modules: {error}")))?;
    for module in &modules {
        let class = module.get("type").and_then(Value::as_str).and_then(|class| class.rsplit('.').next()).unwrap_or_default();
        if !MODULES.contains(&class) {
            let what = format!("the module `{}` is not computed here; {} are", class.escape_debug(), MODULES.join(", "));
            return Err(InspectError::content(path, what));
        }
    }
    Ok(())
}

/// Whether the index says of every tensor where it is.
fn check_index(folder: &Path, path: &RelativePath, tensors: &Tensors) -> Result<(), InspectError> {
    let index = read_json(folder, path)?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| InspectError::content(path, "it has no `weight_map`"))?;
    for (name, shard) in map {
        let found = tensors.by_name.get(name).map(RelativePath::as_str);
        if found.is_none() || found != shard.as_str() {
            return Err(InspectError::content(path, format!("`{}` is not where it says", name.escape_debug())));
        }
    }
    Ok(())
}

/// A number of a config, if it is there and not null.
fn number(path: &RelativePath, config: &Map<String, Value>, key: &str, most: u64) -> Result<Option<u64>, InspectError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(value) if (1..=most).contains(&value) => Ok(Some(value)),
            _ => Err(InspectError::content(path, format!("`{key}` must be a whole number from 1 to {most}"))),
        },
    }
}

/// What the model calls itself, if that is a word.
pub(super) fn architecture(config: &Map<String, Value>) -> Option<String> {
    let first = config.get("architectures").and_then(Value::as_array).and_then(|names| names.first()).and_then(Value::as_str);
    let word = first.or_else(|| config.get("model_type").and_then(Value::as_str))?;
    let is_word = (1..=MAX_ARCHITECTURE).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    is_word.then(|| word.to_owned())
}

fn known(path: &'static str) -> RelativePath {
    path.parse().expect("the paths written here are paths")
}
