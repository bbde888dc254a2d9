//! What a model will take before it is loaded, and what there is.

use tollgate_backend_candle::CandleEmbedder;
use tollgate_config::{Backend as Kind, Model as Spec, Task};
use tollgate_formats::gguf::Gguf;

use crate::artifact::Header;
use crate::{Artifact, LoadError, select, step_rows};

/// Parts of a hundred of the machine's memory that models may take where the config does not say.
const SHARE_PERCENT: u64 = 80;
/// Where neither the machine nor a control group says how much there is.
const UNKNOWN_LIMIT: u64 = 8 << 30;
/// ONNX Runtime keeps weights as they are in the file and, at f32, as its kernels want them.
const ONNX_COPIES: u64 = 4;
/// ONNX Runtime itself, with its arenas.
const ONNX_RUNTIME: u64 = 40 << 20;
/// Rows that llama.cpp computes at once.
const MICRO_BATCH: u64 = 512;
/// Tokens that a context holds where the config does not say, if the model was trained for as many.
const DEFAULT_CONTEXT: u64 = 4_096;
/// llama.cpp's context has a multiple of so many cells.
const CELLS: u64 = 256;
/// What an engine has besides: its thread, its queue, its vocabulary's tables.
const BASE: u64 = 1 << 20;

/// Bytes that all models may take where the config does not say.
#[must_use]
pub fn default_budget() -> u64 {
    limit() / 100 * SHARE_PERCENT
}

/// Bytes of memory that this process may have: the control group's limit, or the machine's memory.
pub(crate) fn limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = group.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    let total = read("/proc/meminfo").and_then(|text| kib(&text, "MemTotal:"));
    group.chain(total).min().unwrap_or(UNKNOWN_LIMIT)
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// A line of the kernel's that gives KiB, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// Bytes as people say them.
pub(crate) fn shown(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1_024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1_024.0) }
}

/// Bytes that the model will take once it is loaded.
///
/// # Errors
/// Its header says too little.
pub(crate) fn predict(spec: &Spec, artifact: Option<&Artifact>) -> Result<u64, LoadError> {
    match (spec.backend, artifact.map(|artifact| &artifact.header)) {
        (Kind::Scripted, _) => Ok(u64::from(spec.scripted.as_ref().map_or(0, |script| script.memory_mib)) << 20),
        (Kind::Llama, Some(Header::Gguf(gguf))) => {
            let bytes = if spec.task == Task::Generate { llama(spec, gguf) } else { llama_embedder(spec, gguf) };
            Ok(bytes.saturating_add(BASE))
        }
        (Kind::Candle, Some(Header::Safetensors(elements))) => {
            let folder = artifact.map(|artifact| artifact.path.clone()).unwrap_or_default();
            let (settings, weights) = (select::candle(spec, folder), elements.saturating_mul(4));
            let memory = match spec.task {
                Task::Generate => tollgate_backend_candle::predict(&settings, weights)?,
                Task::Embed | Task::Rerank => CandleEmbedder::predict(&settings, weights)?,
            };
            Ok(memory.total().saturating_add(BASE))
        }
        (Kind::Onnx, Some(Header::Onnx { bytes, .. })) => Ok(bytes.saturating_mul(ONNX_COPIES).saturating_add(ONNX_RUNTIME)),
        _ => Err(LoadError::NoArtifact),
    }
}

/// Weights, cache and buffers of llama.cpp.
fn llama(spec: &Spec, gguf: &Gguf) -> u64 {
    let number = |name: &str| gguf.of_architecture(name).unwrap_or(0);
    let trained = number("context_length").max(1);
    let rows = u64::from(step_rows(spec)).min(MICRO_BATCH);
    let sequences = u64::from(spec.sequences);
    let tokens = spec.context_tokens.map_or(trained.min(DEFAULT_CONTEXT), u64::from);
    let cells = tokens.div_ceil(CELLS).saturating_mul(CELLS);
    let mask = cells.saturating_mul(4);
    let step = rows.saturating_mul(live(gguf).saturating_add(mask));
    let logits = sequences.saturating_mul(words(gguf)).saturating_mul(4).saturating_mul(2);
    let cache = cell(gguf).saturating_mul(cells);
    gguf.tensor_bytes().saturating_add(cache).saturating_add(step).saturating_add(logits)
}

/// Weights and buffers of llama.cpp where it embeds: a batch is computed at once, and every token of it has its row of the vocabulary,
/// used or not. An encoder keeps no cache; for a decoder it holds one batch, and its logits are computed too.
fn llama_embedder(spec: &Spec, gguf: &Gguf) -> u64 {
    let rows = u64::from(step_rows(spec));
    let cells = rows.div_ceil(CELLS).saturating_mul(CELLS);
    let of_words = words(gguf).saturating_mul(4);
    let (cache, logits) = if gguf.is_encoder() { (0, 0) } else { (cell(gguf).saturating_mul(cells), of_words) };
    let mask = cells.saturating_mul(4).saturating_mul(2);
    let of_row = live(gguf).saturating_add(mask).saturating_add(of_words).saturating_add(logits);
    gguf.tensor_bytes().saturating_add(cache).saturating_add(rows.saturating_mul(of_row))
}

/// Bytes of a cell of the key-value cache, at f16.
fn cell(gguf: &Gguf) -> u64 {
    let number = |name: &str| gguf.of_architecture(name).unwrap_or(0);
    let heads = number("attention.head_count").max(1);
    let of_head = |name: &str| gguf.of_architecture(name).unwrap_or(number("embedding_length") / heads);
    let kv_heads = gguf.of_architecture("attention.head_count_kv").unwrap_or(heads);
    let of_token = kv_heads.saturating_mul(of_head("attention.key_length").saturating_add(of_head("attention.value_length")));
    number("block_count").saturating_mul(of_token).saturating_mul(2)
}

/// Bytes of a row of the widest tensors of a step that are alive at once, in f32.
fn live(gguf: &Gguf) -> u64 {
    let number = |name: &str| gguf.of_architecture(name).unwrap_or(0);
    let width = number("embedding_length");
    let inner = number("feed_forward_length").max(width);
    width.saturating_mul(4).saturating_add(inner.saturating_mul(2)).saturating_mul(4)
}

/// Words of the vocabulary.
fn words(gguf: &Gguf) -> u64 {
    gguf.array("tokenizer.ggml.tokens").map_or(0, |tokens| tokens.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory_and_this_process_has_some() {
        let resident = resident().expect("Linux says");
        assert!(resident > 100_000 && resident < limit(), "{resident} of {}", limit());
        assert!(default_budget() < limit());
    }

    #[test]
    fn bytes_are_shown_as_people_say_them() {
        assert_eq!(shown(3 << 20), "3 MiB");
        assert_eq!(shown((5 << 30) + (1 << 27)), "5.1 GiB");
    }
}
