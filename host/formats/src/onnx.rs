//! ONNX: what a model's graph takes, gives, holds and refers to. Weights are passed over, in the file and beside it.
//!
//! A model may name files to read weights from, and operators that come from libraries. Only files that lie beside it and the operators
//! of onnxruntime itself are let through (P-M5). Local functions, sparse tensors and training graphs, which exporters for inference do
//! not write, are refused.

mod graph;
mod protobuf;
mod tensor;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use crate::error::{FormatError, Quoted, ensure, support};
use graph::Walk;
use protobuf::Protobuf;

/// Versions of the format that have opset imports, up to well beyond what onnxruntime knows; it says itself which it takes.
const IR_VERSIONS: std::ops::RangeInclusive<u64> = 3..=64;
const OPSET_VERSIONS: std::ops::RangeInclusive<u64> = 1..=1_000;
const MAX_OPSETS: usize = 64;
const MAX_METADATA: usize = 1_024;
const MAX_WORD: u64 = 256;
const MAX_NAME: u64 = 65_536;
const MAX_VALUE: u64 = 1 << 20;
/// The operators that onnxruntime brings along; those of any other domain come from a library.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// What an ONNX model says, within its bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Onnx {
    /// The version of the format, 3 to 64.
    pub ir_version: u64,
    /// The sets of operators by domain, with their versions of 1 to 1000.
    pub opsets: Vec<(String, u64)>,
    /// What wrote the file; empty if it does not say.
    pub producer: String,
    /// What the graph takes. Old files have their initializers here as well.
    pub inputs: Vec<Port>,
    /// What the graph gives, one at least.
    pub outputs: Vec<Port>,
    /// Nodes of the graph and of those inside it, 1 Mi at most.
    pub nodes: u64,
    /// Named weights of the graph and of those inside it.
    pub initializers: Vec<Initializer>,
    /// Bytes of all weights and constants, in the file and beside it.
    pub initializer_bytes: u64,
    /// Weights in files beside this one.
    pub external: Vec<External>,
    /// The domains of the nodes; the empty one is ONNX's own.
    pub domains: BTreeSet<String>,
    /// What the exporter noted.
    pub metadata: BTreeMap<String, String>,
}

/// An input or an output of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// ONNX's number for the type of the elements (1 is f32, 7 is i64); 0 for what is not a tensor.
    pub element: u32,
    /// Its dimensions, the outermost first, 16 at most; none also where the file does not say.
    pub dims: Vec<Dim>,
}

/// A dimension of an input or an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// It has this length.
    Fixed(u64),
    /// Its length is chosen at run time; those of one name are equal.
    Named(String),
    /// The file does not say.
    Unknown,
}

/// A named weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initializer {
    /// Its name.
    pub name: String,
    /// Bytes that it has in memory; for texts, their bytes in the file.
    pub bytes: u64,
}

/// A weight in a file beside the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The name of the file, in the folder of the model.
    pub location: String,
    /// Bytes from the start of that file.
    pub offset: u64,
    /// Bytes of the weight.
    pub length: u64,
}

/// Reads an ONNX model from the first byte to the last, passing over its weights.
///
/// # Errors
/// It is not ONNX, is cut short, breaks a rule of the format or a bound, needs another library's operators or a file that does not lie
/// beside it, or cannot be read.
pub fn read<R: Read + Seek>(source: &mut R) -> Result<Onnx, FormatError> {
    let mut walk = Walk { file: Protobuf::new(source)?, onnx: Onnx::default() };
    let mut model = walk.file.whole("the model", &[1, 2, 7]);
    let mut has_graph = false;
    while let Some(field) = walk.file.next(&mut model)? {
        match field.number {
            1 => walk.onnx.ir_version = field.varint()?,
            2 => walk.onnx.producer = walk.file.text(&field, MAX_WORD)?,
            7 => {
                has_graph = true;
                walk.graph(&field, 0)?;
            }
            8 => {
                let opset = walk.opset(&field)?;
                ensure!(walk.onnx.opsets.len() < MAX_OPSETS, "it imports more than {MAX_OPSETS} sets of operators");
                walk.onnx.opsets.push(opset);
            }
            14 => {
                let (key, value) = walk.pair(&field)?;
                ensure!(walk.onnx.metadata.len() < MAX_METADATA, "it has more than {MAX_METADATA} metadata");
                ensure!(!walk.onnx.metadata.contains_key(&key), "the metadata {} is there twice", Quoted(&key));
                walk.onnx.metadata.insert(key, value);
            }
            20 => support!(false, "it carries what is needed to train it; export it for inference"),
            25 => support!(false, "it has functions of its own; export it with them inlined"),
            _ => {}
        }
    }
    let onnx = walk.onnx;
    ensure!(has_graph, "it is not an ONNX model: it has no graph");
    ensure!(IR_VERSIONS.contains(&onnx.ir_version), "it is of the ONNX format {}; it is 3 to 64", onnx.ir_version);
    check_opsets(&onnx.opsets)?;
    ensure!(!onnx.outputs.is_empty(), "its graph gives nothing");
    Ok(onnx)
}

fn check_opsets(opsets: &[(String, u64)]) -> Result<(), FormatError> {
    ensure!(!opsets.is_empty(), "it imports no operators");
    let mut seen = BTreeSet::new();
    for (domain, version) in opsets {
        check_domain(domain)?;
        ensure!(OPSET_VERSIONS.contains(version), "it imports version {version} of {}; it is 1 to 1000", Quoted(domain));
        let domain = if domain == "ai.onnx" { "" } else { domain };
        ensure!(seen.insert(domain), "it imports the operators of {} twice", Quoted(domain));
    }
    Ok(())
}

fn check_domain(domain: &str) -> Result<(), FormatError> {
    let is_ours = DOMAINS.contains(&domain);
    support!(is_ours, "it needs operators of {}; only those of ONNX and onnxruntime itself are taken", Quoted(domain));
    Ok(())
}

/// A plain name: it cannot lead out of the folder, and no system reads a device or a path into it.
fn check_location(location: &str) -> Result<(), FormatError> {
    let is_plain = |character: char| !matches!(character, '/' | '\\' | ':') && !character.is_control();
    let is_name = (1..=255).contains(&location.len()) && !location.starts_with('.') && location.chars().all(is_plain);
    ensure!(is_name, "it has weights at {}; they are in a file beside the model, given by its name alone", Quoted(location));
    Ok(())
}

/// Holds what a model reads from files beside it to those files. `size_of` says how many bytes a file of that name in the model's folder
/// has, and nothing for one that is missing, is not a plain file, or is a link.
///
/// # Errors
/// A file is missing, or ends before a weight does.
pub fn check_external(onnx: &Onnx, size_of: impl Fn(&str) -> Option<u64>) -> Result<(), FormatError> {
    let mut sizes = BTreeMap::<&str, u64>::new();
    for weight in &onnx.external {
        check_location(&weight.location)?;
        let name = Quoted(&weight.location);
        let size = sizes.get(weight.location.as_str()).copied().or_else(|| size_of(&weight.location));
        ensure!(size.is_some(), "its weights are in {name}, which does not lie beside it as a plain file");
        let size = size.unwrap_or_default();
        sizes.insert(&weight.location, size);
        let (offset, length) = (weight.offset, weight.length);
        let is_inside = offset.checked_add(length).is_some_and(|end| end <= size);
        ensure!(is_inside, "{name} is cut short: a weight has {length} bytes from {offset}, the file has {size}");
    }
    Ok(())
}
