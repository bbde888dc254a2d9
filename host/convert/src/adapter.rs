//! A LoRA adapter of PEFT's files to a GGUF adapter, for a model that was converted the same way.
//!
//! Rows that the base has in another order are reordered in the adapter as well. Whether it fits is checked against the base, tensor by
//! tensor, because a wrong base of the same shape of file is an ordinary mistake.

mod base;
mod peft;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

pub use base::Base;
use base::Shapes;
use peft::Settings;
use tollgate_formats::safetensors::Dtype;

use crate::Converted;
use crate::error::ConvertError;
use crate::family::{Change, Planned};
use crate::gguf::{Kind, Tensor, Value, Writer};
use crate::model;
use crate::quant;
use crate::shards::{Room, Shards, unreadable};

/// The largest rank that is taken; common ones are 8 to 256.
const MAX_RANK: u64 = 4096;
const PREFIX: &str = "base_model.model.";

/// One of the two matrices of a pair.
struct Half {
    tensor: Tensor,
    source: Planned,
}

/// Converts the adapter in `folder` (`adapter_config.json`, `adapter_model.safetensors`) to the new file `out`, to be named `name`.
///
/// Values stay as they are in f32 and f16, and become f32 from bf16.
///
/// # Errors
/// The folder has no sound LoRA adapter, it changes what llama.cpp cannot apply, it was made for another base (the refusal names the
/// tensor and both shapes), `out` exists already, or the disk fails.
pub fn convert(folder: &Path, base: &Base<'_>, out: &Path, name: &str) -> Result<Converted, ConvertError> {
    let settings = Settings::read(folder)?;
    let shapes = Shapes::of(base)?;
    let shards = Shards::open(folder, "adapter_model")?;
    let halves = halves(&shards, &shapes, &settings)?;
    let text = |key: &str, value: &str| (key.to_owned(), Value::String(value.to_owned()));
    let header = [
        text("general.architecture", shapes.architecture),
        text("general.type", "adapter"),
        text("general.name", name),
        text("adapter.type", "lora"),
        ("adapter.lora.alpha".to_owned(), Value::F32(quant::narrow(settings.alpha))),
    ];
    model::create(out, |file| fill(out, file, &header, &halves, &shards))?;
    let bytes = model::checked(out, tollgate_formats::gguf::check_adapter)?;
    Ok(Converted {
        architecture: shapes.architecture.to_owned(),
        tensors: halves.len(),
        parameters: halves.iter().map(|half| half.tensor.shape.iter().product::<u64>()).sum(),
        bytes,
        notes: Vec::new(),
    })
}

/// Both matrices of every pair, in the order of their names.
fn halves(shards: &Shards, shapes: &Shapes, settings: &Settings) -> Result<Vec<Half>, ConvertError> {
    let mut pairs: BTreeMap<String, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for name in shards.names() {
        let (module, side) = side_of(name).ok_or_else(|| {
            ConvertError::tensor(name, "is no lora_A or lora_B of a linear layer, and llama.cpp applies nothing else")
        })?;
        let pair = pairs.entry(format!("{module}.weight")).or_default();
        let place = if side == Side::A { &mut pair.0 } else { &mut pair.1 };
        if place.replace(name).is_some() {
            return Err(ConvertError::tensor(name, "is there under two names"));
        }
    }
    let mut all = Vec::new();
    for (module, pair) in pairs {
        let (Some(a), Some(b)) = pair else {
            return Err(ConvertError::tensor(&module, "has one matrix of its LoRA pair and not the other"));
        };
        all.extend(pair_of(&module, a, b, shards, shapes, settings)?);
    }
    if all.is_empty() { Err(ConvertError::file("adapter_model.safetensors", "has no tensors")) } else { Ok(all) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// The module that a tensor belongs to, as the base names it, and which of the two matrices it is.
fn side_of(name: &str) -> Option<(&str, Side)> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let name = name.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    let a = name.strip_suffix(".lora_A").map(|module| (module, Side::A));
    a.or_else(|| name.strip_suffix(".lora_B").map(|module| (module, Side::B)))
}

fn pair_of(
    module: &str,
    a: &str,
    b: &str,
    shards: &Shards,
    shapes: &Shapes,
    settings: &Settings,
) -> Result<[Half; 2], ConvertError> {
    let base = shapes.get(module)?;
    let (outputs, inputs) = match base.shape.as_slice() {
        [outputs, inputs] => (*outputs, *inputs),
        _ => return Err(ConvertError::tensor(module, "is a vector in the base, and LoRA changes matrices")),
    };
    let shape = |name: &str| -> Result<(u64, u64), ConvertError> {
        match shards.get(name).map(|found| found.shape.as_slice()) {
            Some([rows, columns]) => Ok((*rows, *columns)),
            _ => Err(ConvertError::tensor(name, "is not a matrix")),
        }
    };
    let ((rank, columns), (rows, rank_of_b)) = (shape(a)?, shape(b)?);
    if columns != inputs {
        return Err(misfit(a, &[rank, columns], module, &base.shape));
    }
    if rows != outputs {
        return Err(misfit(b, &[rows, rank_of_b], module, &base.shape));
    }
    if rank != rank_of_b || !(1..=MAX_RANK).contains(&rank) || settings.rank.is_some_and(|expected| expected != rank) {
        let said = settings.rank.map_or_else(|| format!("1 to {MAX_RANK}"), |rank| rank.to_string());
        let what = format!("has rank {rank} in lora_A and {rank_of_b} in lora_B; adapter_config.json says {said}");
        return Err(ConvertError::tensor(module, what));
    }
    let first = half(a, [rank, columns], &format!("{}.lora_a", base.name), Change::Keep, shards)?;
    let second = half(b, [rows, rank], &format!("{}.lora_b", base.name), base.change, shards)?;
    Ok([first, second])
}

fn half(source: &str, [rows, columns]: [u64; 2], name: &str, change: Change, shards: &Shards) -> Result<Half, ConvertError> {
    let kind = match shards.get(source).map(|found| found.kind) {
        Some(Dtype::F16) => Kind::F16,
        Some(Dtype::F32 | Dtype::BF16) => Kind::F32,
        Some(other) => return Err(unreadable(source, other)),
        None => return Err(ConvertError::tensor(source, "is missing")),
    };
    Ok(Half {
        tensor: Tensor { name: name.to_owned(), shape: vec![columns, rows], kind },
        source: Planned { source: source.to_owned(), name: name.to_owned(), shape: vec![rows, columns], change, needed: true },
    })
}

fn misfit(name: &str, shape: &[u64], module: &str, base: &[u64]) -> ConvertError {
    let what = format!(
        "has the shape {shape:?} and does not fit `{module}` of the base, which has {base:?}: the adapter was made for another model"
    );
    ConvertError::tensor(name, what)
}

fn fill(
    out: &Path,
    file: &mut BufWriter<File>,
    header: &[(String, Value)],
    halves: &[Half],
    shards: &Shards,
) -> Result<(), ConvertError> {
    let failed = |source| model::write_failure(out, source);
    let tensors: Vec<Tensor> = halves.iter().map(|half| half.tensor.clone()).collect();
    let mut writer = Writer::new(file, header, &tensors).map_err(failed)?;
    let (mut room, mut bytes) = (Room::default(), Vec::new());
    for half in halves {
        model::stream(&half.source, shards, &mut room, &mut |values| {
            bytes.clear();
            half.tensor.kind.encode(values, &mut bytes).map_err(|what| ConvertError::tensor(&half.source.source, what))?;
            writer.write(&bytes).map_err(failed)
        })?;
    }
    writer.finish().map_err(failed)?;
    Ok(())
}
