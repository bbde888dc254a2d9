//! A model file against what llama.cpp asserts: a value that it would end the process over is refused here, in words.
//!
//! What llama.cpp itself refuses in order (a tensor that is missing, a key of another kind) is left to it.

use std::ops::RangeInclusive;

use super::vocabulary::check_vocabulary;
use super::{Gguf, Value};
use crate::error::{FormatError, Quoted, ensure, malformed, support};

/// llama.cpp's `LLAMA_MAX_LAYERS` and `LLAMA_MAX_EXPERTS`.
const LAYERS: RangeInclusive<u64> = 1..=512;
const MAX_EXPERTS: u64 = 1_024;
const WIDTH: RangeInclusive<u64> = 1..=1 << 20;
const CONTEXT: RangeInclusive<u64> = 1..=16 << 20;
const MAX_HEADS: u64 = 4_096;
/// The CPU backend takes mapped weights only at multiples of this.
const MAPPED_ALIGNMENT: u64 = 32;
/// Architectures without attention, whose files say that they have 0 heads or nothing.
const HEADLESS: [&str; 6] = ["mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"];
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];
const MAX_POOLING: u64 = 4;
/// llama.cpp's pooling of a model that ranks.
const RANKS: u64 = 4;

/// Holds the header of a model to what llama.cpp asserts while it loads, tokenizes and decodes.
///
/// # Errors
/// It is another thing than a whole language model, or a value is missing, out of range, or contradicts another.
pub fn check_model(gguf: &Gguf) -> Result<(), FormatError> {
    check_purpose(gguf)?;
    let model = Model { gguf, architecture: architecture(gguf)? };
    let layers = model.required("block_count", LAYERS)?;
    let width = model.required("embedding_length", WIDTH)?;
    model.required("context_length", CONTEXT)?;
    let mtp_layers = model.count("nextn_predict_layers")?.unwrap_or(0);
    ensure!(mtp_layers <= layers, "`nextn_predict_layers` is {mtp_layers} of {layers} layers");
    model.check_heads(layers, width)?;
    model.check_experts(layers)?;
    model.check_floats()?;
    model.check_words()?;
    let words = check_vocabulary(gguf)?;
    check_tensors(gguf, width, words)
}

fn check_purpose(gguf: &Gguf) -> Result<(), FormatError> {
    match gguf.metadata.get("general.type") {
        None => {}
        Some(Value::String(purpose)) => {
            support!(
                purpose != "adapter",
                "it is an adapter, not a model; give it as an adapter of the model that it was trained on"
            );
            support!(purpose == "model", "it is of the type {}, not a model", Quoted(purpose));
        }
        Some(_) => return Err(malformed("`general.type` is not a text")),
    }
    if let Some(count) = gguf.metadata.get("split.count") {
        let parts = count.as_u64().ok_or_else(|| malformed("`split.count` is not a count"))?;
        support!(parts <= 1, "it is one of {parts} parts of a model; merge them with `llama-gguf-split --merge`");
    }
    Ok(())
}

/// `general.architecture`, in the letters that llama.cpp's names have.
pub(super) fn architecture(gguf: &Gguf) -> Result<&str, FormatError> {
    let name = gguf.architecture().ok_or_else(|| malformed("`general.architecture` is missing, or not a text"))?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(is_plain);
    ensure!(is_name, "`general.architecture` is {}; it is 1 to 64 of a-z, 0-9, `.`, `_`, `-`", Quoted(name));
    support!(name != "clip", "it is the image projector of a model, not a model");
    Ok(name)
}

struct Model<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Model<'_> {
    fn get(&self, suffix: &str) -> Option<&Value> {
        self.gguf.metadata.get(&format!("{}.{suffix}", self.architecture))
    }

    /// A count that may be missing.
    fn count(&self, suffix: &str) -> Result<Option<u64>, FormatError> {
        let count = |value: &Value| value.as_u64().ok_or_else(|| malformed(format!("`{suffix}` is not a count")));
        self.get(suffix).map(count).transpose()
    }

    fn required(&self, suffix: &str, range: RangeInclusive<u64>) -> Result<u64, FormatError> {
        let missing = || malformed(format!("`{}.{suffix}` is missing", self.architecture));
        let count = self.count(suffix)?.ok_or_else(missing)?;
        ensure!(range.contains(&count), "`{suffix}` is {count}; it is {} to {}", range.start(), range.end());
        Ok(count)
    }

    /// A count that is given once for all layers, or for each.
    fn per_layer(&self, suffix: &str, layers: u64) -> Result<Option<Vec<u64>>, FormatError> {
        let Some(Value::Array(array)) = self.get(suffix) else {
            return Ok(self.count(suffix)?.map(|count| (0..layers).map(|_| count).collect()));
        };
        ensure!(array.len == layers, "`{suffix}` has {} items for {layers} layers", array.len);
        let counts = array.counts().ok_or_else(|| malformed(format!("`{suffix}` is not an array of 32-bit counts")))?;
        Ok(Some(counts))
    }

    fn check_heads(&self, layers: u64, width: u64) -> Result<(), FormatError> {
        const HEADS: &str = "attention.head_count";
        const SHARED: &str = "attention.head_count_kv";
        let is_headless = HEADLESS.contains(&self.architecture);
        let heads = match self.per_layer(HEADS, layers)? {
            Some(heads) => heads,
            None if is_headless => return Ok(()),
            None => return Err(malformed(format!("`{}.{HEADS}` is missing", self.architecture))),
        };
        let may_be_none = |suffix| is_headless || matches!(self.get(suffix), Some(Value::Array(_)));
        let shared = self.per_layer(SHARED, layers)?.unwrap_or_else(|| heads.clone());
        for (heads, shared) in heads.iter().copied().zip(shared) {
            let (least, least_shared) = (u64::from(!may_be_none(HEADS)), u64::from(!may_be_none(SHARED) && heads != 0));
            ensure!((least..=MAX_HEADS).contains(&heads), "`{HEADS}` is {heads}; it is {least} to {MAX_HEADS}");
            ensure!((least_shared..=MAX_HEADS).contains(&shared), "`{SHARED}` is {shared}; it is 1 to {MAX_HEADS}");
            let divides = shared == 0 || heads % shared == 0;
            ensure!(divides, "`{SHARED}` is {shared}, which does not divide the {heads} heads");
        }
        let Some(heads) = heads.first().copied().filter(|heads| *heads != 0) else { return Ok(()) };
        let key = self.count("attention.key_length")?.unwrap_or(width / heads);
        let value = self.count("attention.value_length")?.unwrap_or(width / heads);
        for length in [key, value] {
            ensure!(WIDTH.contains(&length), "a head is {length} wide; it is 1 to {}", WIDTH.end());
        }
        let turned = self.count("rope.dimension_count")?.unwrap_or(0);
        let is_good = turned % 2 == 0 && turned <= key;
        ensure!(is_good, "`rope.dimension_count` is {turned}; it is even and at most the {key} of a head");
        Ok(())
    }

    fn check_experts(&self, layers: u64) -> Result<(), FormatError> {
        let experts = self.count("expert_count")?.unwrap_or(0);
        let used = self.per_layer("expert_used_count", layers)?.and_then(|used| used.into_iter().max()).unwrap_or(0);
        let groups = self.count("expert_group_count")?.unwrap_or(0);
        let groups_used = self.count("expert_group_used_count")?.unwrap_or(0);
        // llama.cpp sets a single expert of these to none.
        if matches!(self.architecture, "hunyuan-dense" | "hunyuan_vl") && experts <= 1 {
            return Ok(());
        }
        ensure!(experts <= MAX_EXPERTS, "`expert_count` is {experts}; it is 0 to {MAX_EXPERTS}");
        ensure!(used <= experts, "`expert_used_count` is {used} of {experts} experts");
        if experts == 0 {
            ensure!(groups == 0, "`expert_group_count` is {groups} without experts");
            return Ok(());
        }
        ensure!(used >= 1, "`expert_used_count` is 0 of {experts} experts");
        ensure!(groups < experts, "`expert_group_count` is {groups} of {experts} experts");
        if groups > 1 {
            ensure!(experts % groups == 0, "`expert_group_count` is {groups}, which does not divide the {experts} experts");
            let is_part = (1..groups).contains(&groups_used);
            ensure!(is_part, "`expert_group_used_count` is {groups_used}; it is 1 to less than {groups}");
        }
        Ok(())
    }

    fn check_floats(&self) -> Result<(), FormatError> {
        let prefix = format!("{}.", self.architecture);
        for (key, value) in self.gguf.metadata.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
            let Some(number) = value.as_f64() else { continue };
            ensure!(number.is_finite(), "{} is {number}", Quoted(key));
            let is_epsilon = key.ends_with("_epsilon");
            ensure!(!is_epsilon || number >= 0.0, "{} is {number}; it is 0 or more", Quoted(key));
        }
        Ok(())
    }

    fn check_words(&self) -> Result<(), FormatError> {
        if let Some(Value::String(scaling)) = self.get("rope.scaling.type") {
            let is_known = ROPE_SCALINGS.contains(&scaling.as_str());
            ensure!(is_known, "`rope.scaling.type` is {}; it is one of {}", Quoted(scaling), ROPE_SCALINGS.join(", "));
        }
        let pooling = self.count("pooling_type")?.unwrap_or(0);
        ensure!(pooling <= MAX_POOLING, "`pooling_type` is {pooling}; it is 0 to {MAX_POOLING}");
        if pooling == RANKS { self.check_head() } else { Ok(()) }
    }

    /// llama.cpp reads as many scores as there are labels, whether or not the head has as many.
    fn check_head(&self) -> Result<(), FormatError> {
        let labels = match self.get("classifier.output_labels") {
            Some(Value::Array(array)) => array.len.max(1),
            _ => 1,
        };
        let head = self.gguf.tensor("cls.output.weight").or_else(|| self.gguf.tensor("cls.weight"));
        let head = head.ok_or_else(|| malformed("it ranks, and the tensor `cls.output.weight` is missing"))?;
        // A dimension of 1 at the end may be left out.
        let scores = head.shape.get(1).copied().unwrap_or(1);
        ensure!(scores == labels, "tensor {} gives {scores} scores for {labels} labels", Quoted(&head.name));
        Ok(())
    }
}

fn check_tensors(gguf: &Gguf, width: u64, words: u64) -> Result<(), FormatError> {
    let alignment = gguf.alignment;
    let is_mappable = alignment >= MAPPED_ALIGNMENT;
    support!(
        is_mappable,
        "`general.alignment` is {alignment}; weights are mapped at multiples of {MAPPED_ALIGNMENT}, convert it again"
    );
    for tensor in &gguf.tensors {
        let (name, kind) = (Quoted(&tensor.name), tensor.kind.name());
        if tensor.shape.len() == 1 {
            // ggml adds and multiplies these element by element, and does that with no other type.
            ensure!(kind == "f32", "tensor {name} has one dimension and the type {kind}; such a tensor is f32");
        } else {
            // Those that end in `tid2eid` are tables of numbers.
            let is_table = kind == "i32" && tensor.name.ends_with("tid2eid.weight");
            let is_good = tensor.kind.is_weight() || is_table;
            ensure!(is_good, "tensor {name} is of the type {kind}, which ggml does not multiply with");
        }
    }
    let words_of = gguf.tensor("token_embd.weight").ok_or_else(|| malformed("the tensor `token_embd.weight` is missing"))?;
    let is_good = words_of.shape == [width, words];
    ensure!(is_good, "`token_embd.weight` is {:?}; by the metadata it is [{width}, {words}]", words_of.shape);
    Ok(())
}
