//! A LoRA adapter in the two files that PEFT writes: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Pairs of matrices on linear layers are read, and nothing else: what would be computed in another way is refused by the name
//! that PEFT has for it. Whether the pairs fit a model is for whoever has the model.

mod settings;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use tollgate_backend::BackendError;
use tollgate_formats::safetensors::{self, Dtype, Safetensors};

use self::settings::Settings;

/// The file with the matrices.
const WEIGHTS: &str = "adapter_model.safetensors";
/// The largest rank that is taken; common ones are 8 to 256.
const MAX_RANK: usize = 1_024;
/// Larger files than this are no adapters.
const MAX_BYTES: u64 = 8 << 30;
const PREFIX: &str = "base_model.model.";

/// The shape of one pair: a matrix (`outputs`, `inputs`) is changed by one of `rank`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoraShape {
    /// Columns of the first matrix, at least 1.
    pub inputs: usize,
    /// Rows of the second, at least 1.
    pub outputs: usize,
    /// What they share, 1 to 1024.
    pub rank: usize,
}

/// What an adapter's files say before its numbers are read.
#[derive(Debug)]
pub struct LoraHeader {
    path: PathBuf,
    file: File,
    tensors: Safetensors,
    settings: Settings,
    pairs: BTreeMap<String, Names>,
}

/// Both tensors of a pair.
#[derive(Debug)]
struct Names {
    down: String,
    up: String,
    shape: LoraShape,
}

/// One pair: what it adds to `y = W x` is `up (down x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// Its shape.
    pub shape: LoraShape,
    /// (rank, inputs), row by row.
    pub down: Vec<f32>,
    /// (outputs, rank), row by row, with all that scales the adapter in it.
    pub up: Vec<f32>,
}

/// An adapter: pairs by the names of the modules that they change, such as `model.layers.0.self_attn.q_proj`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    pairs: BTreeMap<String, LoraPair>,
}

impl LoraHeader {
    /// Reads the settings of an adapter's folder and the header of its weights.
    ///
    /// # Errors
    /// A file is missing or is not what it should be, or the adapter does more than to add pairs to linear layers.
    pub fn read(folder: &Path) -> Result<Self, BackendError> {
        let settings = Settings::read(folder)?;
        let path = folder.join(WEIGHTS);
        let wrong = |what: String| BackendError::Load(format!("{}: {what}", path.display()));
        let file = File::open(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let tensors = safetensors::read(&mut BufReader::new(&file)).map_err(|error| wrong(error.to_string()))?;
        if tensors.file_bytes > MAX_BYTES {
            return Err(wrong(format!("has {} bytes; an adapter has at most {MAX_BYTES}", tensors.file_bytes)));
        }
        let pairs = pairs(&tensors, &settings).map_err(wrong)?;
        Ok(LoraHeader { path, file, tensors, settings, pairs })
    }

    /// The modules that are changed, and how.
    pub fn modules(&self) -> impl Iterator<Item = (&str, LoraShape)> {
        self.pairs.iter().map(|(module, names)| (module.as_str(), names.shape))
    }

    /// Bytes of its numbers at f32.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of = |shape: LoraShape| {
            let [inputs, outputs, rank] =
                [shape.inputs, shape.outputs, shape.rank].map(|size| u64::try_from(size).unwrap_or(u64::MAX));
            inputs.saturating_add(outputs).saturating_mul(rank).saturating_mul(4)
        };
        self.pairs.values().map(|names| of(names.shape)).fold(0, u64::saturating_add)
    }

    fn numbers(&self, name: &str) -> Result<Vec<f32>, BackendError> {
        let wrong = |what: String| BackendError::Load(format!("{}: {what}", self.path.display()));
        let info = self.tensors.tensors.get(name).ok_or_else(|| wrong(format!("has no tensor `{name}`")))?;
        let length = usize::try_from(info.end.saturating_sub(info.begin)).map_err(|_| wrong("is too large".to_owned()))?;
        let mut bytes = vec![0; length];
        let mut file = &self.file;
        let start = self.tensors.data_offset.saturating_add(info.begin);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let numbers: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
            other => return Err(wrong(format!("the tensor `{name}` is in {}; f32, f16 and bf16 are read", other.name()))),
        };
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(wrong(format!("the tensor `{name}` has an element that is no finite number")));
        }
        Ok(numbers)
    }
}

impl Lora {
    /// Reads an adapter's folder. It counts as much as `scale` says: 0 is nothing, 1 as it was trained.
    ///
    /// # Errors
    /// As for [`LoraHeader::read`]; also if a number of it, or `scale`, is not finite.
    pub fn read(folder: &Path, scale: f32) -> Result<Self, BackendError> {
        if !scale.is_finite() {
            return Err(BackendError::Load(format!("{}: the adapter's scale is not a number", folder.display())));
        }
        let header = LoraHeader::read(folder)?;
        let mut pairs = BTreeMap::new();
        for (module, Names { down, up, shape }) in &header.pairs {
            let factor = header.settings.factor(shape.rank) * scale;
            let mut scaled = header.numbers(up)?;
            scaled.iter_mut().for_each(|number| *number *= factor);
            if scaled.iter().any(|number| !number.is_finite()) {
                return Err(BackendError::Load(format!("{}: `{up}` is too large once it is scaled", header.path.display())));
            }
            pairs.insert(module.clone(), LoraPair { shape: *shape, down: header.numbers(down)?, up: scaled });
        }
        Ok(Lora { pairs })
    }

    /// The pairs by the names of their modules, in order.
    #[must_use]
    pub fn into_pairs(self) -> BTreeMap<String, LoraPair> {
        self.pairs
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Down,
    Up,
}

/// Which matrix of which module a tensor is.
fn side_of(name: &str) -> Option<(&str, Side)> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let name = name.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    let down = name.strip_suffix(".lora_A").map(|module| (module, Side::Down));
    let found = down.or_else(|| name.strip_suffix(".lora_B").map(|module| (module, Side::Up)))?;
    // The table of words is no linear layer, though the same matrix may be one at the model's end.
    let is_linear = found.0.contains(".layers.") || found.0 == "lm_head";
    is_linear.then_some(found)
}

/// The pairs of a file by module, each whole and of a rank that the settings allow.
fn pairs(tensors: &Safetensors, settings: &Settings) -> Result<BTreeMap<String, Names>, String> {
    let mut halves: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for name in tensors.tensors.keys() {
        let (module, side) = side_of(name)
            .ok_or_else(|| format!("the tensor `{}` is no lora_A or lora_B of a linear layer", name.escape_debug()))?;
        let pair = halves.entry(module).or_default();
        let half = if side == Side::Down { &mut pair.0 } else { &mut pair.1 };
        if half.replace(name).is_some() {
            return Err(format!("the tensor `{}` is there under two names", name.escape_debug()));
        }
    }
    if halves.is_empty() {
        return Err("has no tensors".to_owned());
    }
    let mut pairs = BTreeMap::new();
    for (module, halves) in halves {
        let shown = module.escape_debug();
        let (Some(down), Some(up)) = halves else {
            let (there, missing) = if halves.0.is_some() { ("lora_A", "lora_B") } else { ("lora_B", "lora_A") };
            return Err(format!("`{shown}` has a {there} and no {missing}"));
        };
        let ((rank, inputs), (outputs, of_up)) = (matrix(tensors, down)?, matrix(tensors, up)?);
        if rank != of_up {
            let what = format!("lora_A of the shape [{rank}, {inputs}] and lora_B of the shape [{outputs}, {of_up}]");
            return Err(format!("`{shown}` has {what}, which do not multiply"));
        }
        if !(1..=MAX_RANK).contains(&rank) || inputs == 0 || outputs == 0 {
            return Err(format!("`{shown}` has the rank {rank} for [{outputs}, {inputs}]; a rank is 1 to {MAX_RANK}"));
        }
        if let Some(said) = settings.rank.filter(|said| *said != rank) {
            return Err(format!("`{shown}` has the rank {rank}, and adapter_config.json says {said}"));
        }
        let names = Names { down: down.to_owned(), up: up.to_owned(), shape: LoraShape { inputs, outputs, rank } };
        pairs.insert(module.to_owned(), names);
    }
    Ok(pairs)
}

fn matrix(tensors: &Safetensors, name: &str) -> Result<(usize, usize), String> {
    let shape = tensors.tensors.get(name).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
    let sides = match shape {
        [rows, columns] => usize::try_from(*rows).ok().zip(usize::try_from(*columns).ok()),
        _ => None,
    };
    sides.ok_or_else(|| format!("the tensor `{}` has the shape {shape:?}, and is to be a matrix", name.escape_debug()))
}

#[cfg(test)]
mod tests;
