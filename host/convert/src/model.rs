//! A whole model: every planned tensor is looked for, checked and streamed into the file, a few rows at a time.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::config::Config;
use crate::config::rope::Scaling;
use crate::error::ConvertError;
use crate::family::{Change, Planned, plan};
use crate::gguf::{Kind, Tensor, Value, Writer};
use crate::quant;
use crate::shards::{Found, Room, Shards, unreadable};
use crate::{Converted, Options, Target, encoder, metadata, tokenizer};

/// Values that are held at once where rows can be read together.
const VALUES_AT_ONCE: u64 = 1 << 20;
/// The longest name of a model.
const MAX_NAME: usize = 256;

/// All that a file is written from.
pub(crate) struct Prepared {
    /// llama.cpp's name of the family.
    pub(crate) architecture: &'static str,
    /// The settings of the header.
    pub(crate) header: Vec<(String, Value)>,
    /// The tensors, in order.
    pub(crate) jobs: Vec<Job>,
    /// Where their values are.
    pub(crate) shards: Shards,
    /// What the operator should know of the result.
    pub(crate) notes: Vec<String>,
}

/// One tensor of the file and where its values come from.
pub(crate) struct Job {
    tensor: Tensor,
    origin: Origin,
}

enum Origin {
    /// A tensor of the source, with the change on the way.
    Source(Planned),
    /// Values that were computed.
    Values(Vec<f32>),
}

/// See [`crate::convert`].
pub(crate) fn convert(
    folder: &Path,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Converted, ConvertError> {
    if options.name.is_empty() || options.name.len() > MAX_NAME || options.name.contains(char::is_control) {
        return Err(ConvertError::unsupported(format!("its name is not one line of 1 to {MAX_NAME} bytes")));
    }
    let is_encoder = encoder::is_encoder(folder)?;
    let prepared = if is_encoder { encoder::prepare(folder, options)? } else { prepare(folder, options)? };
    let Prepared { architecture, header, jobs, shards, notes } = prepared;
    create(out, |file| fill(out, file, &header, &jobs, &shards, progress))?;
    let bytes = checked(out, tollgate_formats::gguf::check_model)?;
    Ok(Converted {
        architecture: architecture.to_owned(),
        tensors: jobs.len(),
        parameters: jobs.iter().map(|job| job.tensor.shape.iter().product::<u64>()).sum(),
        bytes,
        notes,
    })
}

/// A model that writes.
fn prepare(folder: &Path, options: &Options) -> Result<Prepared, ConvertError> {
    let config = Config::read(folder)?;
    let shards = Shards::open(folder, "model")?;
    let jobs = jobs(&config, &shards, options.target)?;
    let mut header = metadata::of(&config, &options.name, options.target);
    header.extend(tokenizer::metadata(folder, &config)?);
    Ok(Prepared { architecture: config.shape.family.architecture(), header, jobs, shards, notes: config.notes })
}

/// Writes a new file and makes it durable; one that could not be finished is removed.
pub(crate) fn create(
    out: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let failed = |source| write_failure(out, source);
    let file = OpenOptions::new().write(true).create_new(true).open(out).map_err(failed)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, file);
    let result = write(&mut buffered)
        .and_then(|()| buffered.flush().map_err(failed))
        .and_then(|()| buffered.get_ref().sync_all().map_err(failed));
    if result.is_err() {
        // The first failure is the one that is told.
        drop(std::fs::remove_file(out));
    }
    result
}

/// Reads back the header of what was written, as whoever loads it will; gives the file's bytes.
pub(crate) fn checked(
    out: &Path,
    check: impl FnOnce(&tollgate_formats::Gguf) -> Result<(), tollgate_formats::FormatError>,
) -> Result<u64, ConvertError> {
    let name = file_name(out);
    let result = File::open(out).map_err(|source| ConvertError::Read { file: name.clone(), source }).and_then(|mut file| {
        let header = tollgate_formats::gguf::read(&mut file).and_then(|header| check(&header).map(|()| header));
        header.map_err(|source| ConvertError::Format { file: name.clone(), source })
    });
    if result.is_err() {
        drop(std::fs::remove_file(out));
    }
    result.map(|header| header.file_bytes)
}

pub(crate) fn write_failure(out: &Path, source: std::io::Error) -> ConvertError {
    ConvertError::Write { file: file_name(out), source }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "the result".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Every tensor of the file in order. What the source has beyond the plan is refused: llama.cpp would compute without it.
fn jobs(config: &Config, shards: &Shards, target: Target) -> Result<Vec<Job>, ConvertError> {
    let planned = plan(&config.shape);
    let known: BTreeSet<&str> = planned.iter().map(|planned| planned.source.as_str()).collect();
    if let Some(foreign) = shards.names().find(|name| !known.contains(name) && !is_left_out(name, config)) {
        let family = config.shape.family.architecture();
        return Err(ConvertError::tensor(foreign, format!("is not one that llama.cpp's `{family}` has a use for")));
    }
    let mut jobs = Vec::with_capacity(planned.len());
    for planned in planned {
        let Some(found) = shards.get(&planned.source) else {
            let is_bias = config.biased && planned.source.contains("self_attn.") && planned.source.ends_with(".bias");
            if planned.needed || is_bias {
                return Err(ConvertError::tensor(&planned.source, "is missing"));
            }
            continue;
        };
        jobs.push(job(planned, found, target)?);
    }
    for (name, values) in factors(&config.rope.scaling) {
        let shape = vec![u64::try_from(values.len()).unwrap_or(u64::MAX)];
        let tensor = Tensor { name: name.to_owned(), shape, kind: Kind::F32 };
        jobs.push(Job { tensor, origin: Origin::Values(values.to_vec()) });
    }
    Ok(jobs)
}

/// A tensor that is there, if it is what the plan says.
pub(crate) fn job(planned: Planned, found: &Found, target: Target) -> Result<Job, ConvertError> {
    if found.shape != planned.shape {
        let what = format!("has the shape {:?}; config.json asks for {:?}", found.shape, planned.shape);
        return Err(ConvertError::tensor(&planned.source, what));
    }
    if quant::value_bytes(found.kind).is_none() {
        return Err(unreadable(&planned.source, found.kind));
    }
    let shape: Vec<u64> = planned.shape.iter().rev().copied().collect();
    let tensor = Tensor { name: planned.name.clone(), kind: kind_of(&shape, target), shape };
    Ok(Job { tensor, origin: Origin::Source(planned) })
}

/// The divisors of angles that llama.cpp reads from tensors.
fn factors(scaling: &Scaling) -> Vec<(&'static str, &[f32])> {
    match scaling {
        Scaling::Factors(values) => vec![("rope_freqs.weight", values)],
        Scaling::Long { long, short, .. } => vec![("rope_factors_long.weight", long), ("rope_factors_short.weight", short)],
        Scaling::None | Scaling::Linear(_) | Scaling::Yarn { .. } => Vec::new(),
    }
}

/// Buffers that can be computed, and an output that is the embedding again.
fn is_left_out(name: &str, config: &Config) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || (config.shape.tied && name == "lm_head.weight")
}

/// Vectors stay f32, as llama.cpp wants them; a matrix whose rows are no whole blocks is stored as f16.
fn kind_of(shape: &[u64], target: Target) -> Kind {
    match (shape, target.kind()) {
        ([row, _], kind) if row.is_multiple_of(kind.block()) => kind,
        ([_, _], _) => Kind::F16,
        _ => Kind::F32,
    }
}

fn fill(
    out: &Path,
    file: &mut BufWriter<File>,
    header: &[(String, Value)],
    jobs: &[Job],
    shards: &Shards,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ConvertError> {
    let failed = |source| write_failure(out, source);
    let tensors: Vec<Tensor> = jobs.iter().map(|job| job.tensor.clone()).collect();
    let mut writer = Writer::new(file, header, &tensors).map_err(failed)?;
    let (mut room, mut bytes) = (Room::default(), Vec::new());
    for job in jobs {
        let mut put = |name: &str, values: &[f32]| -> Result<(), ConvertError> {
            bytes.clear();
            job.tensor.kind.encode(values, &mut bytes).map_err(|what| ConvertError::tensor(name, what))?;
            writer.write(&bytes).map_err(failed)?;
            progress(writer.written(), writer.total());
            Ok(())
        };
        match &job.origin {
            Origin::Values(values) => put(&job.tensor.name, values)?,
            Origin::Source(planned) => stream(planned, shards, &mut room, &mut |values| put(&planned.source, values))?,
        }
    }
    writer.finish().map_err(failed)?;
    Ok(())
}

/// Gives the values of a tensor to `put` in the order of the file, some whole rows at a time.
pub(crate) fn stream(
    planned: &Planned,
    shards: &Shards,
    room: &mut Room,
    put: &mut dyn FnMut(&[f32]) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let (rows, row) = match planned.shape.as_slice() {
        // A vector is one row, unless its values are reordered.
        [values] if matches!(planned.change, Change::Interleave(_)) => (*values, 1),
        [values] => (1, *values),
        [rows, row] => (*rows, *row),
        _ => return Err(ConvertError::tensor(&planned.source, "has neither one dimension nor two")),
    };
    let at_once = if matches!(planned.change, Change::Interleave(_)) { 1 } else { (VALUES_AT_ONCE / row.max(1)).max(1) };
    let mut next = 0;
    while next < rows {
        let count = at_once.min(rows - next);
        let first = source_row(next, rows, planned.change);
        shards.values(&planned.source, first.saturating_mul(row), count.saturating_mul(row), room)?;
        if planned.change == Change::AddOne {
            room.values.iter_mut().for_each(|value| *value += 1.0);
        }
        put(&room.values)?;
        next += count;
    }
    Ok(())
}

/// Which row of the source becomes row `row`. The source rotates a head's first half against its second; llama.cpp rotates
/// neighbours, so the two halves are dealt out by turns.
pub(crate) fn source_row(row: u64, rows: u64, change: Change) -> u64 {
    let Change::Interleave(heads) = change else { return row };
    let head_dim = (rows / heads.max(1)).max(1);
    let (head, place) = (row / head_dim, row % head_dim);
    head * head_dim + (place % 2) * (head_dim / 2) + place / 2
}
