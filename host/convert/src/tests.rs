//! Whole conversions: of the demo model, of tiny models of every family, and of folders that are wrong on purpose.

mod adapters;
mod demo;
mod encoders;
mod families;
mod hostile;
mod tokenizers;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_formats::Gguf;
use tollgate_formats::gguf;

use crate::{ConvertError, Converted, Options, Target, convert};

/// A model's folder in the making.
struct Folder {
    dir: TempDir,
    config: Value,
    tensors: BTreeMap<String, Vec<u64>>,
    tokenizer: Value,
    settings: Value,
}

const VOCABULARY: u64 = 300;
const HIDDEN: u64 = 64;
const INNER: u64 = 96;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;

impl Folder {
    /// A sound tiny model: two layers, four heads, two of them for keys and values.
    fn of(model_type: &str, head_dim: u64) -> Self {
        let gemma = model_type.starts_with("gemma");
        let config = json!({
            "model_type": model_type, "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER,
            "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": head_dim,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": gemma,
            "hidden_act": if gemma { "gelu_pytorch_tanh" } else { "silu" }, "eos_token_id": [257, 258], "bos_token_id": 256,
        });
        let tokenizer = if matches!(model_type, "gemma" | "gemma2" | "gemma3_text" | "phi3") { pieces() } else { bytes() };
        let settings = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ messages }}"});
        let tensors = tensors(model_type, head_dim);
        Self { dir: TempDir::new().unwrap(), config, tensors, tokenizer, settings }
    }

    /// Changes one field of `config.json`.
    fn with(mut self, name: &str, value: Value) -> Self {
        self.config[name] = value;
        self
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn out(&self) -> PathBuf {
        self.path().join("out.gguf")
    }

    fn write(&self) {
        write_json(&self.path().join("config.json"), &self.config);
        write_json(&self.path().join("tokenizer.json"), &self.tokenizer);
        write_json(&self.path().join("tokenizer_config.json"), &self.settings);
        let tensors = self.tensors.iter().map(|(name, shape)| (name.clone(), shape.clone(), weights(name, shape))).collect();
        safetensors(&self.path().join("model.safetensors"), tensors);
    }

    fn convert(&self, target: Target) -> Result<Converted, ConvertError> {
        self.write();
        let options = Options { name: "tiny".to_owned(), target };
        convert(self.path(), &self.out(), &options, &mut |written, total| assert!(written <= total))
    }

    /// The refusal, and that nothing is left of the attempt.
    fn refusal(&self) -> String {
        let refusal = self.convert(Target::F16).unwrap_err().to_string();
        assert!(!self.out().exists());
        refusal
    }

    /// The header of the result, which is one that llama.cpp can be given.
    fn converted(&self, target: Target) -> Gguf {
        self.convert(target).unwrap();
        let header = header(&self.out());
        gguf::check_model(&header).unwrap();
        header
    }
}

/// The tensors of a two-layer model under the names that the families' own implementations have.
fn tensors(model_type: &str, head_dim: u64) -> BTreeMap<String, Vec<u64>> {
    let (queries, keys) = (HEADS * head_dim, KV_HEADS * head_dim);
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    all.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    if !model_type.starts_with("gemma") {
        all.push(("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]));
    }
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[u64]| all.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        add("input_layernorm.weight", &[HIDDEN]);
        add("post_attention_layernorm.weight", &[HIDDEN]);
        add("self_attn.o_proj.weight", &[HIDDEN, queries]);
        add("mlp.down_proj.weight", &[HIDDEN, INNER]);
        if model_type == "phi3" {
            add("self_attn.qkv_proj.weight", &[queries + 2 * keys, HIDDEN]);
            add("mlp.gate_up_proj.weight", &[2 * INNER, HIDDEN]);
            continue;
        }
        for (part, rows) in [("q", queries), ("k", keys), ("v", keys)] {
            add(&format!("self_attn.{part}_proj.weight"), &[rows, HIDDEN]);
            if model_type == "qwen2" {
                add(&format!("self_attn.{part}_proj.bias"), &[rows]);
            }
        }
        add("mlp.gate_proj.weight", &[INNER, HIDDEN]);
        add("mlp.up_proj.weight", &[INNER, HIDDEN]);
        if matches!(model_type, "gemma2" | "gemma3_text") {
            add("pre_feedforward_layernorm.weight", &[HIDDEN]);
            add("post_feedforward_layernorm.weight", &[HIDDEN]);
        }
        if matches!(model_type, "qwen3" | "gemma3_text") {
            add("self_attn.q_norm.weight", &[head_dim]);
            add("self_attn.k_norm.weight", &[head_dim]);
        }
    }
    all.into_iter().collect()
}

/// Values that depend on the name and the place only.
fn weights(name: &str, shape: &[u64]) -> Vec<f32> {
    let mut state =
        name.bytes().fold(0x9e37_79b9_u32, |state, byte| state.rotate_left(5) ^ u32::from(byte).wrapping_mul(0x85eb_ca6b));
    let count = shape.iter().product::<u64>();
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Eighths from -4 to 4: exact in every format that is read.
        f32::from(i8::try_from((state >> 24) & 63).unwrap() - 32) / 8.0
    };
    (0..count).map(next).collect()
}

/// Byte-level BPE as GPT-2 has it: 256 single words, then the tokens with a meaning, then one merge.
fn bytes() -> Value {
    let mut vocab: BTreeMap<String, u64> =
        (0..256).map(|id| (char::from_u32(0x100 + id).unwrap().to_string(), u64::from(id))).collect();
    vocab.insert("\u{100}\u{101}".to_owned(), 259);
    json!({
        "version": "1.0", "added_tokens": specials(), "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "model": {"type": "BPE", "unk_token": null, "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
            "merges": [["\u{100}", "\u{101}"]]},
    })
}

/// SentencePiece's BPE as Gemma has it: 256 byte tokens, the tokens with a meaning, some letters and two merges.
fn pieces() -> Value {
    let mut vocab: BTreeMap<String, u64> = (0..256).map(|id| (format!("<0x{id:02X}>"), id)).collect();
    for (text, id) in [("\u{2581}", 259), ("a", 260), ("b", 261), ("ab", 262), ("\u{2581}ab", 263), ("<unk>", 264)] {
        vocab.insert(text.to_owned(), id);
    }
    json!({
        "version": "1.0", "added_tokens": specials(),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab, "merges": ["a b", "\u{2581} ab"]},
    })
}

fn specials() -> Value {
    json!([
        {"id": 256, "content": "<s>", "special": true}, {"id": 257, "content": "</s>", "special": true},
        {"id": 258, "content": "<|im_end|>", "special": true},
    ])
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

/// Writes a safetensors file of f32 values.
fn safetensors(path: &Path, tensors: Vec<(String, Vec<u64>, Vec<f32>)>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let header = Value::Object(header).to_string().into_bytes();
    let mut file = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(path, file).unwrap();
}

fn header(path: &Path) -> Gguf {
    gguf::read(&mut fs::File::open(path).unwrap()).unwrap()
}

/// The bytes of one tensor.
fn data(path: &Path, header: &Gguf, name: &str) -> Vec<u8> {
    let tensor = header.tensor(name).unwrap_or_else(|| panic!("{name} is there"));
    let mut file = fs::File::open(path).unwrap();
    file.seek(SeekFrom::Start(header.data_offset + tensor.offset)).unwrap();
    let mut bytes = vec![0; usize::try_from(tensor.bytes).unwrap()];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

/// The values of an f32 tensor.
fn values(path: &Path, header: &Gguf, name: &str) -> Vec<f32> {
    data(path, header, name).chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}
