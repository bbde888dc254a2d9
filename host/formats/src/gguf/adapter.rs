//! An adapter (LoRA) for llama.cpp: its metadata has the kinds that llama.cpp asserts, and its tensors come in pairs that multiply.

use std::collections::BTreeMap;

use super::check::architecture;
use super::{Gguf, Tensor, Value};
use crate::error::{FormatError, Quoted, ensure, malformed, support};

/// The widest inner dimension of a pair.
const MAX_RANK: u64 = 4_096;

/// Holds the header of an adapter to what llama.cpp asserts. That it fits a model is checked by llama.cpp, which has both.
///
/// # Errors
/// It is not a LoRA adapter, a value is missing or out of range, or a pair of tensors is incomplete or does not multiply.
pub fn check_adapter(gguf: &Gguf) -> Result<(), FormatError> {
    architecture(gguf)?;
    for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora")] {
        let found =
            gguf.string(key).ok_or_else(|| malformed(format!("`{key}` is missing, or not a text; it is `{expected}`")))?;
        support!(found == expected, "`{key}` is {}; of adapters, `{expected}` is read", Quoted(found));
    }
    let Some(Value::F32(alpha)) = gguf.metadata.get("adapter.lora.alpha") else {
        return Err(malformed("`adapter.lora.alpha` is missing, or not an f32"));
    };
    ensure!(alpha.is_finite(), "`adapter.lora.alpha` is {alpha}");
    let mut pairs = BTreeMap::<&str, (Option<&Tensor>, Option<&Tensor>)>::new();
    for tensor in &gguf.tensors {
        let name = Quoted(&tensor.name);
        let (base, is_a) = match (tensor.name.strip_suffix(".lora_a"), tensor.name.strip_suffix(".lora_b")) {
            (Some(base), _) => (base, true),
            (None, Some(base)) => (base, false),
            (None, None) => return Err(malformed(format!("tensor {name} ends neither in `.lora_a` nor in `.lora_b`"))),
        };
        // llama.cpp takes the ending out wherever it stands.
        ensure!(!base.contains(".lora_"), "tensor {name} has its ending twice");
        ensure!(tensor.shape.len() == 2, "tensor {name} has {} dimensions; those of an adapter have 2", tensor.shape.len());
        ensure!(
            tensor.kind.is_weight(),
            "tensor {name} is of the type {}, which ggml does not multiply with",
            tensor.kind.name()
        );
        let pair = pairs.entry(base).or_default();
        *(if is_a { &mut pair.0 } else { &mut pair.1 }) = Some(tensor);
    }
    ensure!(!pairs.is_empty(), "it has no tensors");
    pairs.into_iter().try_for_each(|(base, pair)| check_pair(base, pair))
}

fn check_pair(base: &str, pair: (Option<&Tensor>, Option<&Tensor>)) -> Result<(), FormatError> {
    let name = Quoted(base);
    let (Some(a), Some(b)) = pair else {
        let missing = if pair.0.is_none() { "lora_a" } else { "lora_b" };
        return Err(malformed(format!("the tensor {name} has no `{missing}`")));
    };
    // Rows are taken out of the table of words, so its `a` lies the other way round.
    let inner = if base.ends_with("token_embd.weight") { a.shape.first() } else { a.shape.last() };
    let (of_a, of_b) = (inner.copied().unwrap_or_default(), b.shape.first().copied().unwrap_or_default());
    ensure!(of_a == of_b, "the pair of {name} has the ranks {of_a} and {of_b}");
    ensure!(of_a <= MAX_RANK, "the pair of {name} has the rank {of_a}, the most is {MAX_RANK}");
    Ok(())
}
