//! A graph with an adapter in it: beside each product that the adapter changes, two narrow ones and their sum.
//!
//! Weights stay as they are, so nothing is rounded that the adapter was not trained with, and weights that lie in other files
//! stay there. Only products of the main graph by a stored f32 matrix are changed (one that a cast makes f32 is as good); what an
//! exporter has quantized or fused is not found, and refused.

mod scan;
mod wire;

use std::collections::BTreeMap;

use tollgate_backend_hf::{Lora, LoraPair, LoraShape};

use self::scan::{Product, Scan};
use self::wire::{Fields, Message};

/// Larger models than this cannot be handed over in memory.
const MAX_BYTES: usize = 0x7fff_ffff;
/// ONNX's number for f32.
const FLOAT: u64 = 1;

/// The bytes of `model`, which the strict reader has let through, with an adapter in its graph.
///
/// # Errors
/// The adapter changes what the graph does not have, or what has another shape or cannot be changed; the text names it.
pub(crate) fn adapted(model: &[u8], lora: Lora) -> Result<Vec<u8>, String> {
    let mut out = Message::default();
    let mut pairs = Some(lora.into_pairs());
    for field in Fields::of(model) {
        let field = field?;
        if field.number == 7 {
            let pairs = pairs.take().ok_or("the model has more than one graph")?;
            out.add(7, &graph(field.bytes()?, pairs)?);
        } else {
            out.copy(&field);
        }
    }
    if pairs.is_some() {
        return Err("the model has no graph".to_owned());
    }
    let out = out.into_bytes();
    if out.len() > MAX_BYTES {
        return Err("with the adapter its graph is larger than 2 GiB: export it with weights in a file beside it".to_owned());
    }
    Ok(out)
}

/// One product and what is added to it.
struct Change<'a> {
    x: &'a str,
    output: &'a str,
    /// What the new values' names begin with.
    prefix: String,
}

fn graph(bytes: &[u8], pairs: BTreeMap<String, LoraPair>) -> Result<Vec<u8>, String> {
    let products = Scan::read(bytes)?.products()?;
    let (mut changes, mut weights) = (BTreeMap::new(), Message::default());
    for (number, (module, pair)) in pairs.into_iter().enumerate() {
        let product = find(&products, &module, pair.shape)?;
        let prefix = format!("tollgate.lora.{number}");
        let LoraShape { inputs, outputs, rank } = pair.shape;
        weights.add(5, &tensor(&format!("{prefix}.a"), [inputs, rank], &turned(&pair.down, inputs)));
        weights.add(5, &tensor(&format!("{prefix}.b"), [rank, outputs], &turned(&pair.up, rank)));
        let Product { x, output, .. } = *product;
        if changes.insert(product.node, Change { x, output, prefix }).is_some() {
            return Err(format!("`{}` is changed under two names", module.escape_debug()));
        }
    }
    let (mut out, mut at) = (Message::default(), 0_usize);
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number != 1 {
            out.copy(&field);
            continue;
        }
        match changes.get(&at) {
            Some(change) => change.write(field.bytes()?, &mut out)?,
            None => out.copy(&field),
        }
        at += 1;
    }
    let mut out = out.into_bytes();
    out.extend_from_slice(&weights.into_bytes());
    Ok(out)
}

/// The product by the matrix of `module`, which must have this shape.
fn find<'a, 'b>(products: &'b [Product<'a>], module: &str, shape: LoraShape) -> Result<&'b Product<'a>, String> {
    let shown = module.escape_debug();
    let mut found = products.iter().filter(|product| product.modules.iter().any(|name| name == module));
    let (Some(product), another) = (found.next(), found.next()) else {
        let why = "it is an adapter of another model, or the graph was exported quantized or fused";
        return Err(format!("it changes `{shown}`, and the graph has no product by such a matrix in f32: {why}"));
    };
    if another.is_some() {
        return Err(format!("the graph has more than one product for `{shown}`"));
    }
    let [inputs, outputs] = [shape.inputs, shape.outputs].map(|size| u64::try_from(size).unwrap_or(u64::MAX));
    if product.shape != [inputs, outputs] {
        let [rows, columns] = product.shape;
        let what = format!("has pairs for one of the shape [{outputs}, {inputs}], and the model's is [{columns}, {rows}]");
        return Err(format!("`{shown}` {what}: it is an adapter of another model"));
    }
    if product.element != FLOAT {
        return Err(format!("the graph does not compute `{shown}` in f32: export it in f32 to have adapters"));
    }
    Ok(product)
}

impl Change<'_> {
    /// The product under another name, and what makes its old one.
    fn write(&self, node: &[u8], out: &mut Message) -> Result<(), String> {
        let Change { x, output, prefix } = self;
        let named = |what: &str| format!("{prefix}.{what}");
        let mut plain = Message::default();
        for field in Fields::of(node) {
            let field = field?;
            if field.number == 2 {
                plain.add(2, named("plain").as_bytes());
            } else {
                plain.copy(&field);
            }
        }
        out.add(1, &plain.into_bytes());
        out.add(1, &operator("MatMul", [x, &named("a")], &named("down")));
        out.add(1, &operator("MatMul", [&named("down"), &named("b")], &named("up")));
        out.add(1, &operator("Add", [&named("plain"), &named("up")], output));
        Ok(())
    }
}

fn operator(kind: &str, [one, other]: [&str; 2], output: &str) -> Vec<u8> {
    let node = Message::default().bytes(1, one.as_bytes()).bytes(1, other.as_bytes()).bytes(2, output.as_bytes());
    // A name of its own: the runtime tells of nodes by their names.
    node.bytes(3, format!("tollgate.{output}").as_bytes()).bytes(4, kind.as_bytes()).into_bytes()
}

fn tensor(name: &str, shape: [usize; 2], numbers: &[u8]) -> Vec<u8> {
    let sized =
        shape.into_iter().fold(Message::default(), |tensor, size| tensor.number(1, u64::try_from(size).unwrap_or(u64::MAX)));
    sized.number(2, FLOAT).bytes(8, name.as_bytes()).bytes(9, numbers).into_bytes()
}

/// The bytes of a matrix with so many `columns`, column by column.
fn turned(numbers: &[f32], columns: usize) -> Vec<u8> {
    let column = move |at: usize| numbers.iter().skip(at).step_by(columns.max(1));
    (0..columns).flat_map(column).flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
