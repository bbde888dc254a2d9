//! A decoder and an encoder of a few numbers: written as ONNX files, and computed here a second time.

use super::proto::{FLOAT, Graph, HALF, INT64};

/// Words of the vocabulary.
pub(crate) const WORDS: usize = 11;
/// Numbers of a token.
pub(crate) const HIDDEN: usize = 4;
/// Heads, of two numbers each.
const HEADS: usize = 2;
const POSITIONS: usize = 32;

/// Numbers that look random, the same each time.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::try_from(state >> 48).expect("16 bits")) / 32_768.0 - 1.0
    };
    (0..count).map(next).collect()
}

/// The decoder's weights.
pub(crate) struct Tiny {
    words: Vec<f32>,
    places: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    head: Vec<f32>,
}

impl Tiny {
    pub(crate) fn new() -> Self {
        Tiny {
            words: numbers(1, WORDS * HIDDEN),
            places: numbers(2, POSITIONS * HIDDEN),
            query: numbers(3, HIDDEN * HIDDEN),
            key: numbers(4, HIDDEN * HIDDEN),
            value: numbers(5, HIDDEN * HIDDEN),
            head: numbers(6, HIDDEN * WORDS),
        }
    }

    /// The logits after each of some tokens.
    pub(crate) fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let width = HIDDEN / HEADS;
        let row = |table: &[f32], at: usize| table[at * HIDDEN..(at + 1) * HIDDEN].to_vec();
        let sum = |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(one, other)| one + other).collect::<Vec<f32>>();
        let index = |token: u32| usize::try_from(token).expect("small");
        let xs: Vec<Vec<f32>> =
            tokens.iter().enumerate().map(|(at, token)| sum(&row(&self.words, index(*token)), &row(&self.places, at))).collect();
        let keys: Vec<Vec<f32>> = xs.iter().map(|x| product(x, &self.key, HIDDEN)).collect();
        let values: Vec<Vec<f32>> = xs.iter().map(|x| product(x, &self.value, HIDDEN)).collect();
        let after = |(at, x): (usize, &Vec<f32>)| {
            let query = product(x, &self.query, HIDDEN);
            let mut seen = vec![0.0; HIDDEN];
            for head in 0..HEADS {
                let part = head * width..(head + 1) * width;
                let dot = |key: &Vec<f32>| query[part.clone()].iter().zip(&key[part.clone()]).map(|(q, k)| q * k).sum::<f32>();
                let weights: Vec<f32> = keys[..=at].iter().map(|key| dot(key).exp()).collect();
                let total: f32 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&values) {
                    for column in part.clone() {
                        seen[column] += weight / total * value[column];
                    }
                }
            }
            product(&sum(x, &seen), &self.head, WORDS)
        };
        xs.iter().enumerate().map(after).collect()
    }

    /// The same as a file, with an input for positions or without, and with a cache of f32 or f16.
    pub(crate) fn model(&self, has_positions: bool, is_half: bool) -> Vec<u8> {
        let mut graph = Graph::default();
        self.constants(&mut graph);
        let element = if is_half { HALF } else { FLOAT };
        graph.input("input_ids", INT64, &[1, 0]);
        graph.input("attention_mask", INT64, &[1, 0]);
        graph.node("Shape", &["attention_mask"], "mask-shape", &[]);
        graph.node("Gather", &["mask-shape", "one"], "total", &[]);
        if has_positions {
            graph.input("position_ids", INT64, &[1, 0]);
        } else {
            graph.node("Shape", &["input_ids"], "shape", &[]);
            graph.node("Gather", &["shape", "one"], "count", &[]);
            graph.node("Sub", &["total", "count"], "start", &[]);
            graph.node("Range", &["start", "total", "one"], "range", &[]);
            graph.node("Unsqueeze", &["range", "first"], "position_ids", &[]);
        }
        graph.node("Gather", &["words", "input_ids"], "word", &[]);
        graph.node("Gather", &["places", "position_ids"], "place", &[]);
        graph.node("Add", &["word", "place"], "x", &[]);
        for part in ["query", "key", "value"] {
            let name = |step: &str| format!("{part}-{step}");
            graph.node("MatMul", &["x", &name("weight")], &name("flat"), &[]);
            graph.node("Reshape", &[&name("flat"), "split"], &name("split"), &[]);
            graph.node("Transpose", &[&name("split")], &name("new"), &[("perm", &[0, 2, 1, 3])]);
        }
        for part in ["key", "value"] {
            let (past, present, all) = (format!("past_key_values.0.{part}"), format!("present.0.{part}"), format!("{part}-all"));
            let (wide, new) = (format!("{part}-wide"), format!("{part}-new"));
            graph.input(&past, element, &[1, 2, 0, 2]);
            graph.output(&present, element, &[1, 2, 0, 2]);
            graph.node("Cast", &[&past], &wide, &[("to", &[1])]);
            graph.node("Concat", &[&wide, &new], &all, &[("axis", &[2])]);
            graph.node("Cast", &[&all], &present, &[("to", &[i64::try_from(element).expect("small")])]);
        }
        attend(&mut graph);
        graph.output("logits", FLOAT, &[1, 0, 11]);
        graph.model()
    }

    fn constants(&self, graph: &mut Graph) {
        graph.floats("words", &[11, 4], &self.words);
        graph.floats("places", &[32, 4], &self.places);
        graph.floats("query-weight", &[4, 4], &self.query);
        graph.floats("key-weight", &[4, 4], &self.key);
        graph.floats("value-weight", &[4, 4], &self.value);
        graph.floats("head", &[4, 11], &self.head);
        graph.floats("never", &[], &[-1e9]);
        graph.integers("zero", &[], &[0]);
        graph.integers("one", &[], &[1]);
        graph.integers("first", &[1], &[0]);
        graph.integers("outer", &[2], &[1, 3]);
        graph.integers("split", &[4], &[0, 0, 2, 2]);
        graph.integers("join", &[3], &[0, 0, 4]);
    }
}

/// Scores, what they let through, and the logits.
fn attend(graph: &mut Graph) {
    graph.node("Transpose", &["key-all"], "key-turned", &[("perm", &[0, 1, 3, 2])]);
    graph.node("MatMul", &["query-new", "key-turned"], "scores", &[]);
    graph.node("Range", &["zero", "total", "one"], "columns", &[]);
    graph.node("Unsqueeze", &["position_ids", "outer"], "rows", &[]);
    graph.node("Greater", &["columns", "rows"], "hidden", &[]);
    graph.node("Where", &["hidden", "never", "scores"], "masked", &[]);
    graph.node("Softmax", &["masked"], "part", &[("axis", &[-1])]);
    graph.node("MatMul", &["part", "value-all"], "seen", &[]);
    graph.node("Transpose", &["seen"], "turned", &[("perm", &[0, 2, 1, 3])]);
    graph.node("Reshape", &["turned", "join"], "joined", &[]);
    graph.node("Add", &["x", "joined"], "y", &[]);
    graph.node("MatMul", &["y", "head"], "logits", &[]);
}

/// A row times a matrix of (row, `columns`).
fn product(row: &[f32], matrix: &[f32], columns: usize) -> Vec<f32> {
    let column = |at: usize| row.iter().enumerate().map(|(from, number)| number * matrix[from * columns + at]).sum::<f32>();
    (0..columns).map(column).collect()
}

/// An encoder whose last hidden state is a table's rows.
pub(crate) struct Table {
    words: Vec<f32>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Table { words: numbers(9, WORDS * HIDDEN) }
    }

    /// The row of a word.
    pub(crate) fn row(&self, word: usize) -> &[f32] {
        &self.words[word * HIDDEN..(word + 1) * HIDDEN]
    }

    /// The same as a file; with `is_pooled` the model takes the mean itself.
    pub(crate) fn model(&self, is_pooled: bool) -> Vec<u8> {
        let mut graph = Graph::default();
        graph.floats("words", &[11, 4], &self.words);
        graph.integers("second", &[1], &[1]);
        for input in ["input_ids", "attention_mask", "token_type_ids"] {
            graph.input(input, INT64, &[1, 0]);
        }
        // Segments are zeros, and a mask of ones changes nothing.
        graph.node("Mul", &["input_ids", "attention_mask"], "seen", &[]);
        graph.node("Add", &["seen", "token_type_ids"], "ids", &[]);
        graph.node("Gather", &["words", "ids"], "last_hidden_state", &[]);
        graph.output("last_hidden_state", FLOAT, &[1, 0, 4]);
        if is_pooled {
            graph.node("ReduceMean", &["last_hidden_state"], "sentence_embedding", &[("axes", &[1]), ("keepdims", &[0])]);
            graph.output("sentence_embedding", FLOAT, &[1, 4]);
        }
        graph.model()
    }
}
