//! The products of a graph by matrices that it stores, with the names that a safetensors file has for those.

use std::collections::HashMap;

use super::wire::{Field, Fields};

/// Between a stored matrix and its product lie a cast and a turn.
const MAX_STEPS: usize = 8;

/// What a graph has, as far as products need it.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    /// Products by their places among the nodes.
    products: Vec<(usize, Node<'a>)>,
    /// What hands a matrix on, by its output.
    hands: HashMap<&'a str, Node<'a>>,
    stored: HashMap<&'a str, Stored>,
}

/// A product by a stored matrix.
#[derive(Debug)]
pub(super) struct Product<'a> {
    /// The place of its node.
    pub(super) node: usize,
    pub(super) x: &'a str,
    pub(super) output: &'a str,
    /// Names that the matrix has in a safetensors file, without `.weight`: by its own name, and by the node's.
    pub(super) modules: Vec<String>,
    /// Inputs, outputs.
    pub(super) shape: [u64; 2],
    /// ONNX's number for the type that it is computed in.
    pub(super) element: u64,
}

#[derive(Debug, Default)]
struct Node<'a> {
    name: &'a str,
    operator: &'a str,
    is_standard: bool,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    /// Of a cast, the type that it makes.
    to: Option<u64>,
    /// Of a turn, the order of the dimensions; empty is the reverse.
    order: Vec<u64>,
}

#[derive(Debug, Default)]
struct Stored {
    shape: Vec<u64>,
    element: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn read(graph: &'a [u8]) -> Result<Self, String> {
        let (mut scan, mut at) = (Scan::default(), 0_usize);
        for field in Fields::of(graph) {
            let field = field?;
            match field.number {
                1 => {
                    let node = Node::read(field.bytes()?)?;
                    let output = node.outputs.first().copied();
                    match (node.operator, output) {
                        _ if !node.is_standard => {}
                        ("MatMul", _) => scan.products.push((at, node)),
                        ("Cast" | "Transpose" | "Identity", Some(output)) => {
                            scan.hands.insert(output, node);
                        }
                        _ => {}
                    }
                    at += 1;
                }
                5 => {
                    let (name, stored) = Stored::read(field.bytes()?)?;
                    scan.stored.insert(name, stored);
                }
                _ => {}
            }
        }
        Ok(scan)
    }

    /// Those by stored matrices.
    pub(super) fn products(&self) -> Result<Vec<Product<'a>>, String> {
        let mut products = Vec::new();
        for (at, node) in &self.products {
            let (&[x, matrix], &[output]) = (node.inputs.as_slice(), node.outputs.as_slice()) else {
                return Err(format!("the product `{}` is not one of two values", node.name.escape_debug()));
            };
            let Some((name, shape, element)) = self.trace(matrix) else { continue };
            let mut modules: Vec<String> = name.strip_suffix(".weight").map(str::to_owned).into_iter().collect();
            modules.extend(module_of(node.name).filter(|own| !modules.contains(own)));
            products.push(Product { node: *at, x, output, modules, shape, element });
        }
        Ok(products)
    }

    /// The stored matrix that a value is, with its shape as the value has it, and the value's type.
    fn trace(&self, value: &'a str) -> Option<(&'a str, [u64; 2], u64)> {
        let (mut name, mut is_turned, mut element) = (value, false, None);
        for _ in 0..MAX_STEPS {
            if let Some(stored) = self.stored.get(name) {
                let [rows, columns] = *stored.shape.as_slice() else { return None };
                let shape = if is_turned { [columns, rows] } else { [rows, columns] };
                return Some((name, shape, element.unwrap_or(stored.element)));
            }
            let node = self.hands.get(name)?;
            match node.operator {
                "Cast" => element = element.or(node.to),
                "Transpose" => match node.order.as_slice() {
                    [] | [1, 0] => is_turned = !is_turned,
                    [0, 1] => {}
                    _ => return None,
                },
                _ => {}
            }
            name = node.inputs.first().copied()?;
        }
        None
    }
}

/// The module of a node that an exporter named by its place in the model, as in `/model/layers.0/self_attn/q_proj/MatMul`.
fn module_of(node: &str) -> Option<String> {
    let (module, _) = node.strip_prefix('/')?.rsplit_once('/')?;
    Some(module.replace('/', "."))
}

impl<'a> Node<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut node = Node { is_standard: true, ..Node::default() };
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => node.inputs.push(field.text()?),
                2 => node.outputs.push(field.text()?),
                3 => node.name = field.text()?,
                4 => node.operator = field.text()?,
                5 => node.attribute(&field)?,
                7 => node.is_standard = matches!(field.text()?, "" | "ai.onnx"),
                _ => {}
            }
        }
        Ok(node)
    }

    fn attribute(&mut self, attribute: &Field<'a>) -> Result<(), String> {
        let (mut name, mut number, mut numbers) = ("", None, Vec::new());
        for field in Fields::of(attribute.bytes()?) {
            let field = field?;
            match field.number {
                1 => name = field.text()?,
                3 => number = Some(field.number()?),
                8 => field.numbers(&mut numbers)?,
                _ => {}
            }
        }
        match name {
            "to" => self.to = number,
            "perm" => self.order = numbers,
            _ => {}
        }
        Ok(())
    }
}

impl Stored {
    fn read(bytes: &[u8]) -> Result<(&str, Self), String> {
        let (mut name, mut stored) = ("", Stored::default());
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => field.numbers(&mut stored.shape)?,
                2 => stored.element = field.number()?,
                8 => name = field.text()?,
                _ => {}
            }
        }
        Ok((name, stored))
    }
}
