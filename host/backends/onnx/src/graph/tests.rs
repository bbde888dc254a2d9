//! The demo model's graph with its adapter in it, by the strict reader.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use tollgate_formats::onnx;

use super::*;

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model").join(name)
}

fn lora() -> Lora {
    Lora::read(&demo("lora"), 1.0).expect("the demo adapter")
}

#[test]
fn an_adapter_is_three_nodes_and_two_matrices_for_each_product() {
    let plain = std::fs::read(demo("onnx/model.onnx")).expect("readable");
    let before = onnx::read(&mut Cursor::new(&plain)).expect("the demo model");
    let pairs = lora().into_pairs();
    let after = adapted(&plain, lora()).expect("an adapter of this model");
    let after = onnx::read(&mut Cursor::new(&after)).expect("still a model");
    let count = u64::try_from(pairs.len()).expect("few");
    assert_eq!(after.nodes, before.nodes + 3 * count);
    assert_eq!(after.initializers.len(), before.initializers.len() + 2 * pairs.len());
    let numbers: usize = pairs.values().map(|pair| pair.down.len() + pair.up.len()).sum();
    assert_eq!(after.initializer_bytes, before.initializer_bytes + 4 * u64::try_from(numbers).expect("few"));
    assert_eq!((after.inputs, after.outputs), (before.inputs, before.outputs));
}

/// A graph that multiplies `x` by a stored matrix of the shape (3, 2), or by one of this type.
fn product(node: &str, matrix: &str, element: u64) -> Vec<u8> {
    let numbers = [0_u8; 24];
    let stored = Message::default().number(1, 3).number(1, 2).number(2, element).bytes(8, matrix.as_bytes()).bytes(9, &numbers);
    let multiply = Message::default().bytes(1, b"x").bytes(1, matrix.as_bytes()).bytes(2, b"y").bytes(3, node.as_bytes());
    let graph = Message::default().bytes(1, &multiply.bytes(4, b"MatMul").into_bytes()).bytes(5, &stored.into_bytes());
    Message::default().number(1, 8).bytes(7, &graph.into_bytes()).into_bytes()
}

fn pair(module: &str, inputs: usize, outputs: usize) -> BTreeMap<String, LoraPair> {
    let shape = LoraShape { inputs, outputs, rank: 1 };
    BTreeMap::from([(module.to_owned(), LoraPair { shape, down: vec![1.0; inputs], up: vec![2.0; outputs] })])
}

/// The graph with a pair in it.
fn changed(model: &[u8], pairs: BTreeMap<String, LoraPair>) -> Result<Vec<u8>, String> {
    let field = Fields::of(model).filter_map(Result::ok).find(|field| field.number == 7).expect("a graph");
    graph(field.bytes().expect("bytes"), pairs)
}

#[test]
fn a_product_is_known_by_its_matrix_or_by_its_own_name() {
    const MODULE: &str = "model.layers.0.mlp.up_proj";
    for (node, matrix) in
        [("/model/layers.0/mlp/up_proj/MatMul", "onnx::MatMul_7"), ("node_linear_3", "model.layers.0.mlp.up_proj.weight")]
    {
        changed(&product(node, matrix, FLOAT), pair(MODULE, 3, 2)).expect("found");
        let other = changed(&product(node, matrix, FLOAT), pair("model.layers.9.mlp.up_proj", 3, 2)).expect_err("not there");
        assert!(other.contains("layers.9") && other.contains("another model"), "{other}");
        let shape = changed(&product(node, matrix, FLOAT), pair(MODULE, 4, 2)).expect_err("another shape");
        assert!(shape.contains("[2, 4]") && shape.contains("[2, 3]"), "{shape}");
        let half = changed(&product(node, matrix, 10), pair(MODULE, 3, 2)).expect_err("in f16");
        assert!(half.contains("export it in f32"), "{half}");
    }
}

#[test]
fn matrices_are_turned_over() {
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(turned(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), bytes(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
}

#[test]
fn what_is_no_model_is_refused() {
    let whole = product("n", "m", FLOAT);
    for cut in 1..whole.len() {
        // Whatever it is taken for, it ends.
        assert!(adapted(&whole[..cut], lora()).is_err(), "{cut}");
    }
    assert!(adapted(&[], lora()).expect_err("nothing").contains("no graph"));
    assert!(adapted(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], lora()).is_err());
}
