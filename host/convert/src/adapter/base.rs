//! The model that an adapter belongs to: which matrices it has, of what shape, and how its rows were reordered.

use std::collections::BTreeMap;
use std::path::Path;

use tollgate_formats::Gguf;

use crate::config::Config;
use crate::error::{ConvertError, quoted};
use crate::family::{Family, Planned, Shape, plan};

/// Where the base is described.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// A folder with the base's `config.json`.
    Folder(&'a Path),
    /// The header of the base's GGUF file.
    Gguf(&'a Gguf),
}

/// The base's tensors by their names in the source.
pub(super) struct Shapes {
    /// llama.cpp's name of the family.
    pub(super) architecture: &'static str,
    planned: BTreeMap<String, Planned>,
}

impl Shapes {
    pub(super) fn of(base: &Base<'_>) -> Result<Self, ConvertError> {
        let (shape, planned) = match base {
            Base::Folder(folder) => {
                let shape = Config::read(folder)?.shape;
                let planned = plan(&shape);
                (shape, planned)
            }
            Base::Gguf(header) => {
                let shape = shape_of(header)?;
                let planned = found_in(header, plan(&shape));
                (shape, planned)
            }
        };
        let planned = planned.into_iter().map(|planned| (planned.source.clone(), planned)).collect();
        Ok(Self { architecture: shape.family.architecture(), planned })
    }

    /// The tensor that a module's weight is.
    pub(super) fn get(&self, source: &str) -> Result<&Planned, ConvertError> {
        self.planned.get(source).ok_or_else(|| {
            let what = format!("is changed by the adapter, and the base, a `{}`, has no such tensor", self.architecture);
            ConvertError::tensor(source, what)
        })
    }
}

/// The plan with the shapes that the file really has, without what it does not have.
fn found_in(header: &Gguf, planned: Vec<Planned>) -> Vec<Planned> {
    let shapes: BTreeMap<&str, &[u64]> =
        header.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    let with_shape = |planned: Planned| {
        let shape = shapes.get(planned.name.as_str())?.iter().rev().copied().collect();
        Some(Planned { shape, ..planned })
    };
    planned.into_iter().filter_map(with_shape).collect()
}

/// The sizes of a GGUF file's header.
fn shape_of(header: &Gguf) -> Result<Shape, ConvertError> {
    let architecture = header.architecture().unwrap_or_default();
    let Some(family) = Family::of_architecture(architecture) else {
        return Err(ConvertError::unsupported(format!(
            "the adapter's base is a `{}`, which is not converted",
            quoted(architecture)
        )));
    };
    let number = |suffix: &str| -> Result<u32, ConvertError> {
        let value = header.of_architecture(suffix).and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0);
        value.ok_or_else(|| ConvertError::unsupported(format!("the base's header has no single number {architecture}.{suffix}")))
    };
    let (hidden, heads, layers) = (number("embedding_length")?, number("attention.head_count")?, number("block_count")?);
    if layers > 512 {
        return Err(ConvertError::unsupported(format!("the base has {layers} layers; 512 are the most")));
    }
    let embedding = header.tensor("token_embd.weight").and_then(|tensor| tensor.shape.get(1)).copied();
    Ok(Shape {
        family,
        layers,
        hidden,
        feed_forward: number("feed_forward_length")?,
        heads,
        kv_heads: number("attention.head_count_kv").unwrap_or(heads),
        head_dim: number("attention.key_length").unwrap_or(hidden / heads),
        vocabulary: embedding.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(1),
        tied: header.tensor("output.weight").is_none(),
    })
}
