//! Models of chosen sizes with random weights and the demo model's words, for rows that need several real files. Each is written
//! once, the same on every machine, and kept outside the checkout.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tollgate_convert::gguf::{Kind, Tensor, Value, Writer};
use tollgate_formats::gguf::{self, Gguf, Value as Known, Values};
use tollgate_tests::{Place, repository};

use crate::bench::peers;
use crate::rows::Here;
use crate::verify::chance::Chance;

/// Raised when the recipe changes, so that an old file is not taken for a new one.
const RECIPE: u32 = 1;
/// The demo model's words, and the width of its heads.
const VOCABULARY: u32 = 2_048;
const HEAD: u32 = 64;
/// The adapters' inner width, and what they are multiplied by with it.
const RANK: u32 = 8;
const ALPHA: f32 = 16.0;
/// Bytes that are made at once: whole blocks of every kind.
const PART: usize = 34 << 15;

/// The shape of a `llama` model; keys and values have half as many heads as queries.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    width: u32,
    layers: u32,
    feed_forward: u32,
    kind: Kind,
}

const fn shape(name: &'static str, width: u32, layers: u32, feed_forward: u32, kind: Kind) -> Shape {
    Shape { name, width, layers, feed_forward, kind }
}

/// 56 to 299 MB.
const REAL: [Shape; 6] = [
    shape("r56", 1_024, 4, 3_072, Kind::Q8_0),
    shape("r105", 1_024, 4, 3_072, Kind::F16),
    shape("r149", 1_024, 11, 3_072, Kind::Q8_0),
    shape("r206", 1_024, 8, 3_072, Kind::F16),
    shape("r244", 1_536, 8, 4_608, Kind::Q8_0),
    shape("r299", 1_024, 11, 3_328, Kind::F16),
];
/// For short runs: 2 to 9 MB.
const SMALL: [Shape; 6] = [
    shape("s2", 256, 2, 768, Kind::Q8_0),
    shape("s3", 256, 3, 768, Kind::Q8_0),
    shape("s4", 256, 4, 768, Kind::Q8_0),
    shape("s6", 256, 6, 768, Kind::Q8_0),
    shape("s7", 256, 8, 768, Kind::Q8_0),
    shape("s9", 256, 10, 768, Kind::Q8_0),
];

/// A model that was generated.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    /// Its id in configs: `r` or `s`, and its MB.
    pub(crate) id: &'static str,
    /// Its file.
    pub(crate) path: PathBuf,
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

/// Six models, the largest last: of 56 to 299 MB, or of some megabytes in a short run.
pub(crate) fn six(here: &Here) -> anyhow::Result<Vec<Generated>> {
    let folder = peers::folder()?;
    here.pick(REAL, SMALL).into_iter().map(|shape| ensure(&folder, shape)).collect()
}

/// A model of 105 MB, or of some megabytes in a short run, and two adapters over all of its matrices.
pub(crate) fn with_adapters(here: &Here) -> anyhow::Result<(Generated, [PathBuf; 2])> {
    let folder = peers::folder()?;
    let shape = here.pick(REAL, SMALL)[1];
    Ok((ensure(&folder, shape)?, [adapter(&folder, shape, 1)?, adapter(&folder, shape, 2)?]))
}

/// The directories of a gateway that serves `models`, each loaded with its first request, beside `scripted`. `more` goes into
/// `[models]` of its settings.
pub(crate) fn place(models: &[Generated], more: &str) -> Place {
    let place = Place::new();
    let settings =
        "[log]\nlevel = \"warn\"\n[reload]\npoll_s = 60\ndebounce_ms = 20\n[models]\nstartup = \"lazy\"\ntune = false\n";
    place.write("tollgate.toml", &format!("{settings}{more}"));
    for Generated { id, path, .. } in models {
        let text = format!("backend = \"llama\"\nartifact = {:?}\n", path.display().to_string());
        place.write(&format!("models/{id}.toml"), &text);
    }
    place
}

fn ensure(folder: &Path, shape: Shape) -> anyhow::Result<Generated> {
    let path = folder.join(format!("random-llama-{}-{RECIPE}.gguf", shape.name));
    if !path.exists() {
        eprintln!("   writing {} (once)", path.display());
        let chance = Chance((u64::from(shape.width) << 32) | u64::from(shape.layers));
        write(&path, &metadata(shape)?, &tensors(shape), chance)?;
    }
    let bytes = path.metadata()?.len();
    Ok(Generated { id: shape.name, path, bytes })
}

/// One of the adapters for the model of that shape.
fn adapter(folder: &Path, shape: Shape, number: u32) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("random-lora-{}-{number}-{RECIPE}.gguf", shape.name));
    if !path.exists() {
        let text = |text: &str| Value::String(text.to_owned());
        let metadata = [
            ("general.architecture", text("llama")),
            ("general.type", text("adapter")),
            ("general.name", Value::String(format!("random {} {number}", shape.name))),
            ("adapter.type", text("lora")),
            ("adapter.lora.alpha", Value::F32(ALPHA)),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        let mut tensors = Vec::new();
        for layer in 0..shape.layers {
            for (part, columns, rows) in matrices(shape) {
                for (end, shape) in [("a", [columns, RANK]), ("b", [RANK, rows])] {
                    let name = format!("blk.{layer}.{part}.weight.lora_{end}");
                    tensors.push(Tensor { name, shape: shape.map(u64::from).to_vec(), kind: Kind::F16 });
                }
            }
        }
        write(&path, &metadata, &tensors, Chance(u64::from(number)))?;
    }
    Ok(path)
}

/// The matrices of a layer, with the length of a row and the number of rows.
fn matrices(shape: Shape) -> [(&'static str, u32, u32); 7] {
    let (width, inner, half) = (shape.width, shape.feed_forward, shape.width / 2);
    [
        ("attn_q", width, width),
        ("attn_k", width, half),
        ("attn_v", width, half),
        ("attn_output", width, width),
        ("ffn_gate", width, inner),
        ("ffn_up", width, inner),
        ("ffn_down", inner, width),
    ]
}

fn tensors(shape: Shape) -> Vec<Tensor> {
    let matrix = |name: String, columns: u32, rows: u32| Tensor {
        name,
        shape: vec![u64::from(columns), u64::from(rows)],
        kind: shape.kind,
    };
    let vector = |name: String| Tensor { name, shape: vec![u64::from(shape.width)], kind: Kind::F32 };
    let mut all = vec![matrix("token_embd.weight".to_owned(), shape.width, VOCABULARY), vector("output_norm.weight".to_owned())];
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        all.extend(["attn_norm", "ffn_norm"].map(|part| vector(name(part))));
        for (part, columns, rows) in matrices(shape) {
            all.push(matrix(name(part), columns, rows));
        }
    }
    all
}

/// The demo model's header, with this shape in it.
fn metadata(shape: Shape) -> anyhow::Result<Vec<(String, Value)>> {
    let demo = demo_header()?;
    let heads = shape.width / HEAD;
    let own = [
        ("llama.embedding_length", shape.width),
        ("llama.block_count", shape.layers),
        ("llama.feed_forward_length", shape.feed_forward),
        ("llama.attention.head_count", heads),
        ("llama.attention.head_count_kv", heads / 2),
    ];
    let mut metadata = Vec::new();
    for (key, value) in &demo.metadata {
        let value = match own.iter().find(|(name, _)| *name == key.as_str()) {
            Some((_, number)) => Value::U32(*number),
            None if key == "general.name" => Value::String(format!("random {}", shape.name)),
            None => carried(key, value)?,
        };
        metadata.push((key.clone(), value));
    }
    Ok(metadata)
}

fn demo_header() -> anyhow::Result<Gguf> {
    let path = repository().join("host/demo-model/demo.gguf");
    let mut file = File::open(&path).with_context(|| path.display().to_string())?;
    gguf::read(&mut file).with_context(|| path.display().to_string())
}

fn carried(key: &str, value: &Known) -> anyhow::Result<Value> {
    Ok(match value {
        Known::U32(number) => Value::U32(*number),
        Known::F32(number) => Value::F32(*number),
        Known::Bool(is_so) => Value::Bool(*is_so),
        Known::String(text) => Value::String(text.clone()),
        Known::Array(array) => match &array.values {
            Values::String(texts) => Value::Strings(texts.clone()),
            Values::I32(numbers) => Value::I32s(numbers.clone()),
            Values::F32(numbers) => Value::F32s(numbers.clone()),
            _ => bail!("{key} of the demo model is a list that cannot be written"),
        },
        _ => bail!("{key} of the demo model is of a kind that cannot be written"),
    })
}

/// The file at `path`, which is there once it is whole.
fn write(path: &Path, metadata: &[(String, Value)], tensors: &[Tensor], mut chance: Chance) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let out = File::create(&beside).with_context(|| beside.display().to_string())?;
    let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, out), metadata, tensors)?;
    let mut part = vec![0_u8; PART];
    for tensor in tensors {
        let mut left = usize::try_from(tensor.bytes().context("whole blocks")?)?;
        while left > 0 {
            let bytes = &mut part[..left.min(PART)];
            fill(tensor.kind, bytes, &mut chance);
            writer.write(bytes)?;
            left -= bytes.len();
        }
    }
    writer.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(std::fs::rename(&beside, path)?)
}

/// Weights that spread by about 0.02 around zero, as those of trained models do; those of norms are 1.
fn fill(kind: Kind, bytes: &mut [u8], chance: &mut Chance) {
    if kind == Kind::F32 {
        bytes.chunks_mut(4).for_each(|value| value.copy_from_slice(&1.0_f32.to_le_bytes()[..value.len()]));
        return;
    }
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&chance.next().to_le_bytes()[..chunk.len()]));
    if kind == Kind::Q8_0 {
        // The scale of each block of 32 is 2^-12.
        bytes.chunks_mut(34).for_each(|block| block[..2].copy_from_slice(&[0x00, 0x0c]));
    } else {
        // The exponent is set: the magnitude is between 2^-6 and 2^-5.
        bytes.chunks_mut(2).for_each(|value| value[1] = (value[1] & 0x83) | 0x24);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_from_50_to_300_mb() {
        for shape in REAL {
            let bytes = tensors(shape).iter().map(|tensor| tensor.bytes().unwrap()).sum::<u64>();
            assert!((50_000_000..300_000_000).contains(&bytes), "{}: {bytes}", shape.name);
        }
    }

    #[test]
    fn a_small_one_is_a_sound_model_and_always_the_same() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let files = folders.each_ref().map(|folder| std::fs::read(ensure(folder.path(), SMALL[0]).unwrap().path).unwrap());
        assert!(files[0] == files[1]);
        let header = gguf::read(&mut std::io::Cursor::new(&files[0])).unwrap();
        gguf::check_model(&header).unwrap();
        assert_eq!(header.of_architecture("block_count"), Some(2));
        let adapters = [1, 2].map(|number| std::fs::read(adapter(folders[0].path(), SMALL[0], number).unwrap()).unwrap());
        assert!(adapters[0] != adapters[1]);
        let header = gguf::read(&mut std::io::Cursor::new(&adapters[0])).unwrap();
        gguf::check_adapter(&header).unwrap();
        assert_eq!(header.tensors.len(), 2 * 7 * 2);
    }
}
