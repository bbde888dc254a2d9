//! Graphs with their nodes, inputs and outputs.

use std::io::{Read, Seek};

use super::protobuf::{Field, Protobuf};
use super::{Dim, MAX_NAME, MAX_VALUE, MAX_WORD, Onnx, Port, check_domain};
use crate::error::{FormatError, Quoted, ensure, support};

const MAX_NODES: u64 = 1 << 20;
/// Graphs inside nodes of graphs.
const MAX_DEPTH: u32 = 8;
const MAX_PORTS: usize = 65_536;
const MAX_DIMS: usize = 16;
/// Operators that read a file named in an attribute, or hold code for a device.
const REFUSED: [&str; 1] = ["EPContext"];

/// The walk over a model, and what it has found.
pub(super) struct Walk<'a, R> {
    pub(super) file: Protobuf<'a, R>,
    pub(super) onnx: Onnx,
}

impl<R: Read + Seek> Walk<'_, R> {
    /// `OperatorSetIdProto`.
    pub(super) fn opset(&mut self, field: &Field) -> Result<(String, u64), FormatError> {
        let mut message = self.file.message(field, "an import of operators", &[1, 2])?;
        let (mut domain, mut version) = (String::new(), 0);
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                1 => domain = self.file.text(&field, MAX_WORD)?,
                2 => version = field.varint()?,
                _ => {}
            }
        }
        Ok((domain, version))
    }

    /// `StringStringEntryProto`.
    pub(super) fn pair(&mut self, field: &Field) -> Result<(String, String), FormatError> {
        let mut message = self.file.message(field, "an entry", &[1, 2])?;
        let (mut key, mut value) = (String::new(), String::new());
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                1 => key = self.file.text(&field, MAX_NAME)?,
                2 => value = self.file.text(&field, MAX_VALUE)?,
                _ => {}
            }
        }
        Ok((key, value))
    }

    /// `GraphProto`; the model's own is at depth 0.
    pub(super) fn graph(&mut self, field: &Field, depth: u32) -> Result<(), FormatError> {
        ensure!(depth <= MAX_DEPTH, "its graphs are nested more than {MAX_DEPTH} deep");
        let mut message = self.file.message(field, "a graph", &[])?;
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                1 => self.node(&field, depth)?,
                5 => self.initializer(&field)?,
                // What a graph inside a node takes and gives is between the two.
                11 if depth == 0 => {
                    let port = self.port(&field)?;
                    self.onnx.inputs.push(port);
                }
                12 if depth == 0 => {
                    let port = self.port(&field)?;
                    self.onnx.outputs.push(port);
                }
                15 => support!(false, "it has sparse weights; export it with dense ones"),
                _ => {}
            }
            let ports = self.onnx.inputs.len().max(self.onnx.outputs.len());
            ensure!(ports <= MAX_PORTS, "its graph has more than {MAX_PORTS} inputs or outputs");
        }
        Ok(())
    }

    /// `NodeProto`.
    fn node(&mut self, field: &Field, depth: u32) -> Result<(), FormatError> {
        self.onnx.nodes += 1;
        ensure!(self.onnx.nodes <= MAX_NODES, "it has more than {MAX_NODES} nodes");
        let mut message = self.file.message(field, "a node", &[4, 7])?;
        let (mut operator, mut domain) = (String::new(), String::new());
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                4 => operator = self.file.text(&field, MAX_WORD)?,
                5 => self.attribute(&field, depth)?,
                7 => domain = self.file.text(&field, MAX_WORD)?,
                _ => {}
            }
        }
        ensure!(!operator.is_empty(), "a node has no operator");
        check_domain(&domain)?;
        let is_plain = !REFUSED.contains(&operator.as_str());
        support!(is_plain, "it has a node of the operator {}, compiled for one device; export it without", Quoted(&operator));
        if !self.onnx.domains.contains(&domain) {
            self.onnx.domains.insert(domain);
        }
        Ok(())
    }

    /// `AttributeProto`.
    fn attribute(&mut self, field: &Field, depth: u32) -> Result<(), FormatError> {
        let mut message = self.file.message(field, "an attribute", &[5, 6])?;
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                5 | 10 => {
                    self.tensor(&field)?;
                }
                6 | 11 => self.graph(&field, depth + 1)?,
                22 | 23 => support!(false, "it has sparse constants; export it with dense ones"),
                _ => {}
            }
        }
        Ok(())
    }

    /// `ValueInfoProto`.
    fn port(&mut self, field: &Field) -> Result<Port, FormatError> {
        let mut message = self.file.message(field, "an input or output", &[1, 2])?;
        let mut port = Port { name: String::new(), element: 0, dims: Vec::new() };
        while let Some(field) = self.file.next(&mut message)? {
            match field.number {
                1 => port.name = self.file.text(&field, MAX_NAME)?,
                2 => self.port_type(&field, &mut port)?,
                _ => {}
            }
        }
        ensure!(!port.name.is_empty(), "an input or output has no name");
        Ok(port)
    }

    /// `TypeProto`: a tensor is its field 1, and a `TypeProto.Tensor`.
    fn port_type(&mut self, field: &Field, port: &mut Port) -> Result<(), FormatError> {
        let mut message = self.file.message(field, "a type", &[1])?;
        while let Some(field) = self.file.next(&mut message)? {
            if field.number != 1 {
                continue;
            }
            let mut tensor = self.file.message(&field, "a tensor's type", &[1, 2])?;
            while let Some(field) = self.file.next(&mut tensor)? {
                match field.number {
                    1 => {
                        let element = u32::try_from(field.varint()?).unwrap_or(u32::MAX);
                        ensure!((1..=64).contains(&element), "{} has elements of the unknown type {element}", Quoted(&port.name));
                        port.element = element;
                    }
                    2 => self.port_shape(&field, port)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// `TensorShapeProto`.
    fn port_shape(&mut self, field: &Field, port: &mut Port) -> Result<(), FormatError> {
        let mut shape = self.file.message(field, "a shape", &[])?;
        while let Some(field) = self.file.next(&mut shape)? {
            if field.number != 1 {
                continue;
            }
            ensure!(port.dims.len() < MAX_DIMS, "{} has more than {MAX_DIMS} dimensions", Quoted(&port.name));
            let mut message = self.file.message(&field, "a dimension", &[1, 2])?;
            let mut dim = Dim::Unknown;
            while let Some(field) = self.file.next(&mut message)? {
                match field.number {
                    1 => {
                        // Exporters write -1 where they do not know.
                        let length = field.varint()?;
                        dim = if i64::try_from(length).is_ok() { Dim::Fixed(length) } else { Dim::Unknown };
                    }
                    2 => dim = Dim::Named(self.file.text(&field, MAX_NAME)?),
                    _ => {}
                }
            }
            port.dims.push(dim);
        }
        Ok(())
    }
}
