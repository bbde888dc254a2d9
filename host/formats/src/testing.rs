//! Small files for tests: valid ones, and what is needed to spoil them.

use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;

use crate::gguf::{Array, Kind, TensorType, Value, Values};

/// A file beside the demo model, which ships with the gateway.
pub(crate) fn demo(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../demo-model").join(name);
    std::fs::read(path).unwrap()
}

/// What a reader says to bytes that it refuses.
pub(crate) fn refusal<'a, T: std::fmt::Debug, E: std::fmt::Display>(
    read: impl Fn(&mut Cursor<&'a [u8]>) -> Result<T, E>,
    bytes: &'a [u8],
) -> String {
    match read(&mut Cursor::new(bytes)) {
        Err(error) => error.to_string(),
        Ok(read) => panic!("it was taken: {read:?}"),
    }
}

/// `good` with some bytes changed, cut out or put in.
pub(crate) fn spoiled(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = good.len();
    let change = (0..length, any::<u8>(), 0..4_u8);
    (prop::collection::vec(change, 1..6), 0..=length).prop_map(move |(changes, cut)| {
        let mut bytes = good.clone();
        for (at, byte, how) in changes {
            let at = at.min(bytes.len() - 1);
            match how {
                0 => bytes.insert(at, byte),
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(byte) % 5],
                _ => bytes[at] = byte,
            }
        }
        if cut % 8 == 0 {
            bytes.truncate(cut);
        }
        bytes
    })
}

/// A GGUF file in parts.
#[derive(Clone)]
pub(crate) struct GgufFile {
    pub(crate) version: u32,
    pub(crate) keys: Vec<(String, Value)>,
    pub(crate) tensors: Vec<(String, Vec<u64>, TensorType)>,
}

pub(crate) fn text(words: &str) -> Value {
    Value::String(words.to_owned())
}

pub(crate) fn texts(words: &[&str]) -> Value {
    let values = Values::String(words.iter().map(|word| (*word).to_owned()).collect());
    Value::Array(Array { kind: Kind::String, len: words.len() as u64, values })
}

pub(crate) fn u32s(items: &[u32]) -> Value {
    Value::Array(Array { kind: Kind::U32, len: items.len() as u64, values: Values::U32(items.to_vec()) })
}

pub(crate) fn i32s(items: &[i32]) -> Value {
    Value::Array(Array { kind: Kind::I32, len: items.len() as u64, values: Values::I32(items.to_vec()) })
}

impl GgufFile {
    /// A model of two layers, 32 wide, with 16 words.
    pub(crate) fn model() -> Self {
        let words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
        let keys = [
            ("general.architecture", text("llama")),
            ("general.type", text("model")),
            ("llama.block_count", Value::U32(2)),
            ("llama.embedding_length", Value::U32(32)),
            ("llama.context_length", Value::U32(64)),
            ("llama.attention.head_count", Value::U32(4)),
            ("llama.attention.head_count_kv", Value::U32(2)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("llama.rope.dimension_count", Value::U32(8)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.tokens", texts(&words)),
            ("tokenizer.ggml.token_type", i32s(&[1; 16])),
            ("tokenizer.ggml.merges", texts(&["a b"])),
            ("tokenizer.ggml.eos_token_id", Value::U32(15)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ];
        let tensors = [
            ("token_embd.weight", vec![32, 16], TensorType::Q8_0),
            ("output_norm.weight", vec![32], TensorType::F32),
            ("blk.0.attn_q.weight", vec![32, 32], TensorType::F16),
        ];
        GgufFile::new(&keys, &tensors)
    }

    /// A LoRA adapter of rank 2 to one matrix and to the table of words.
    pub(crate) fn adapter() -> Self {
        let keys = [
            ("general.architecture", text("llama")),
            ("general.type", text("adapter")),
            ("adapter.type", text("lora")),
            ("adapter.lora.alpha", Value::F32(16.0)),
        ];
        let tensors = [
            ("blk.0.attn_q.weight.lora_a", vec![32, 2], TensorType::F32),
            ("blk.0.attn_q.weight.lora_b", vec![2, 48], TensorType::F32),
            ("token_embd.weight.lora_a", vec![2, 16], TensorType::F16),
            ("token_embd.weight.lora_b", vec![2, 32], TensorType::F16),
        ];
        GgufFile::new(&keys, &tensors)
    }

    fn new(keys: &[(&str, Value)], tensors: &[(&str, Vec<u64>, TensorType)]) -> Self {
        GgufFile {
            version: 3,
            keys: keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            tensors: tensors.iter().map(|(name, shape, kind)| ((*name).to_owned(), shape.clone(), *kind)).collect(),
        }
    }

    /// With the value of a key put in its place, or at the end.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        match self.keys.iter_mut().find(|(found, _)| found == key) {
            Some(place) => place.1 = value,
            None => self.keys.push((key.to_owned(), value)),
        }
        self
    }

    /// Without a key.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(found, _)| found != key);
        self
    }

    /// With a tensor put in the place of that of the same name, or at the end.
    pub(crate) fn with_tensor(mut self, name: &str, shape: &[u64], kind: TensorType) -> Self {
        let tensor = (name.to_owned(), shape.to_vec(), kind);
        match self.tensors.iter_mut().find(|(found, ..)| found == name) {
            Some(place) => *place = tensor,
            None => self.tensors.push(tensor),
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let alignment = self.keys.iter().find(|(key, _)| key == "general.alignment");
        let alignment = alignment.and_then(|(_, value)| value.as_u64()).unwrap_or(32);
        let mut bytes = Bytes::gguf(self.version, self.tensors.len() as u64, self.keys.len() as u64);
        for (key, value) in &self.keys {
            bytes = bytes.text(key).value(value);
        }
        let mut offset = 0;
        for (name, shape, kind) in &self.tensors {
            bytes = bytes.text(name).u32(u32::try_from(shape.len()).unwrap());
            bytes = shape.iter().fold(bytes, |bytes, length| bytes.u64(*length));
            bytes = bytes.u32(kind.id()).u64(offset);
            let data = shape.iter().product::<u64>() / kind.block_elements() * kind.block_bytes();
            offset += data.next_multiple_of(alignment);
        }
        let length = bytes.0.len().next_multiple_of(usize::try_from(alignment).unwrap()) + usize::try_from(offset).unwrap();
        bytes.0.resize(length, 0);
        bytes.0
    }
}

/// Little-endian bytes, one after the other.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// The head of a GGUF file.
    pub(crate) fn gguf(version: u32, tensors: u64, keys: u64) -> Self {
        Bytes(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// The kind of a value and the value.
    fn value(self, value: &Value) -> Self {
        match value {
            Value::U32(value) => self.u32(4).u32(*value),
            Value::I32(value) => self.u32(5).raw(&value.to_le_bytes()),
            Value::F32(value) => self.u32(6).raw(&value.to_le_bytes()),
            Value::Bool(value) => self.u32(7).raw(&[u8::from(*value)]),
            Value::String(value) => self.u32(8).text(value),
            Value::U64(value) => self.u32(10).u64(*value),
            Value::Array(array) => {
                let bytes = self.u32(9).u32(array.kind as u32).u64(array.len);
                match &array.values {
                    Values::String(items) => items.iter().fold(bytes, |bytes, item| bytes.text(item)),
                    Values::U8(items) => bytes.raw(items),
                    Values::U32(items) => items.iter().fold(bytes, |bytes, item| bytes.u32(*item)),
                    Values::I32(items) => items.iter().fold(bytes, |bytes, item| bytes.raw(&item.to_le_bytes())),
                    Values::F32(items) => items.iter().fold(bytes, |bytes, item| bytes.raw(&item.to_le_bytes())),
                    other => panic!("no test writes {other:?}"),
                }
            }
            other => panic!("no test writes {other:?}"),
        }
    }
}
