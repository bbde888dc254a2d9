//! What a model will take before it is loaded, and what there is.

use tollgate_backend_candle::CandleEmbedder;
use tollgate_backend_llama::{Tuning, repacks};
use tollgate_config::{Backend as Kind, KvCache, Model as Spec, Task};
use tollgate_formats::gguf::{Gguf, Tensor};

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

/// Bytes that the model will take once it is loaded. Of llama.cpp as by default, which takes the most of all ways to compute it: what
/// was measured may be measured anew between here and any of its loads, and then be another way.
///
/// # Errors
/// Its header says too little.
pub(crate) fn predict(spec: &Spec, artifact: Option<&Artifact>) -> Result<u64, LoadError> {
    match (spec.backend, artifact.map(|artifact| &artifact.header)) {
        (Kind::Scripted, _) => Ok(u64::from(spec.scripted.as_ref().map_or(0, |script| script.memory_mib)) << 20),
        (Kind::Llama, Some(Header::Gguf(gguf))) => {
            check_heads(spec.kv_cache, gguf)?;
            let bytes = if spec.task == Task::Generate { llama(spec, gguf) } else { llama_embedder(spec, gguf) };
            let is_mapped = artifact.is_some_and(|artifact| artifact.is_ours);
            Ok(bytes.saturating_add(repacked(gguf, is_mapped)).saturating_add(BASE))
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
        (Kind::Onnx, Some(Header::Onnx { bytes, .. })) => Ok(onnx_weights(*bytes).saturating_add(ONNX_RUNTIME)),
        _ => Err(LoadError::NoArtifact),
    }
}

/// Refuses a cache in blocks that do not divide the model's heads, of which llama.cpp makes none.
fn check_heads(stored: KvCache, gguf: &Gguf) -> Result<(), LoadError> {
    let block = select::kv_cache(stored).block();
    let width = gguf.of_architecture("embedding_length").unwrap_or(0);
    let heads = gguf.of_architecture("attention.head_count").unwrap_or(0).max(1);
    let said = |name: &str| gguf.of_architecture(name);
    let keys = [said("attention.key_length").or(Some(width / heads)), said("attention.key_length_swa")];
    let values = [said("attention.value_length").or(Some(width / heads)), said("attention.value_length_swa")];
    match keys.into_iter().chain(values).flatten().find(|length| !length.is_multiple_of(block)) {
        None => Ok(()),
        Some(length) => Err(LoadError::Start(format!(
            "`kv_cache = \"{stored}\"` needs heads that are a multiple of {block} numbers wide, and some of this model are {length} \
             wide: remove the line"
        ))),
    }
}

/// Bytes that so many bytes of weights take in a session of ONNX Runtime.
pub(crate) fn onnx_weights(bytes: u64) -> u64 {
    bytes.saturating_mul(ONNX_COPIES)
}

/// What llama.cpp holds a second time in another order, as far as it has code for that: of a mapped file the matrices of layers, of
/// their experts, and of the output. A file that is read goes there at once. The words' matrix stays as it is for looking words up, and
/// is copied from either kind of file where a model has none of its own for the output.
fn repacked(gguf: &Gguf, is_mapped: bool) -> u64 {
    let is_tied = !gguf.is_encoder() && gguf.tensor("output.weight").is_none();
    let is_copied = |tensor: &&Tensor| match tensor.shape.len() {
        2 if tensor.name == "token_embd.weight" => is_tied,
        2 => is_mapped,
        3 => is_mapped && tensor.name.contains("_exps."),
        _ => false,
    };
    let has_code = |tensor: &&Tensor| tensor.shape.get(1).is_some_and(|rows| repacks(tensor.kind.name(), *rows));
    gguf.tensors.iter().filter(is_copied).filter(has_code).map(|tensor| tensor.bytes).sum()
}

/// Weights, cache and buffers of llama.cpp.
fn llama(spec: &Spec, gguf: &Gguf) -> u64 {
    let number = |name: &str| gguf.of_architecture(name).unwrap_or(0);
    let trained = number("context_length").max(1);
    let rows = u64::from(step_rows(spec).min(Tuning::default().micro_batch));
    let sequences = u64::from(spec.sequences);
    let tokens = spec.context_tokens.map_or(trained.min(DEFAULT_CONTEXT), u64::from);
    let cells = tokens.div_ceil(CELLS).saturating_mul(CELLS);
    let mask = cells.saturating_mul(4);
    let step = rows.saturating_mul(live(gguf).saturating_add(mask));
    let logits = sequences.saturating_mul(words(gguf)).saturating_mul(4).saturating_mul(2);
    let cache = select::kv_cache(spec.kv_cache).bytes(cell(gguf).saturating_mul(cells));
    gguf.tensor_bytes().saturating_add(cache).saturating_add(step).saturating_add(logits)
}

/// Weights and buffers of llama.cpp where it embeds: a batch is computed at once, and every token of it has its row of the vocabulary,
/// used or not. An encoder keeps no cache; for a decoder it holds one batch, and its logits are computed too.
fn llama_embedder(spec: &Spec, gguf: &Gguf) -> u64 {
    let rows = u64::from(step_rows(spec));
    let cells = rows.div_ceil(CELLS).saturating_mul(CELLS);
    let of_words = words(gguf).saturating_mul(4);
    let (cache, logits) = if gguf.is_encoder() { (0, 0) } else { (cell(gguf).saturating_mul(cells).saturating_mul(2), of_words) };
    let mask = cells.saturating_mul(4).saturating_mul(2);
    let of_row = live(gguf).saturating_add(mask).saturating_add(of_words).saturating_add(logits);
    gguf.tensor_bytes().saturating_add(cache).saturating_add(rows.saturating_mul(of_row))
}

/// Numbers in a cell of the key-value cache.
fn cell(gguf: &Gguf) -> u64 {
    let number = |name: &str| gguf.of_architecture(name).unwrap_or(0);
    let heads = number("attention.head_count").max(1);
    let of_head = |name: &str| gguf.of_architecture(name).unwrap_or(number("embedding_length") / heads);
    let kv_heads = gguf.of_architecture("attention.head_count_kv").unwrap_or(heads);
    let of_token = kv_heads.saturating_mul(of_head("attention.key_length").saturating_add(of_head("attention.value_length")));
    number("block_count").saturating_mul(of_token)
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
    use std::collections::BTreeMap;

    use tollgate_formats::gguf::{TensorType, Value};

    use super::*;

    fn header(keys: impl Iterator<Item = (String, Value)>, tensors: Vec<Tensor>) -> Gguf {
        let architecture = ("general.architecture".to_owned(), Value::String("llama".to_owned()));
        let metadata: BTreeMap<String, Value> = keys.chain([architecture]).collect();
        Gguf { version: 3, metadata, tensors, alignment: 32, data_offset: 0, file_bytes: 0 }
    }

    #[test]
    fn what_is_held_twice_is_what_is_multiplied_by() {
        let kind = TensorType::from_id(2).unwrap();
        assert_eq!(kind.name(), "q4_0");
        // Nearly every processor has code for it.
        let has = u64::from(repacks("q4_0", 64));
        let tensor =
            |name: &str, shape: &[u64], bytes| Tensor { name: name.to_owned(), shape: shape.to_vec(), kind, offset: 0, bytes };
        let mut tensors = vec![
            tensor("token_embd.weight", &[32, 64], 1),
            tensor("blk.0.attn_q.weight", &[32, 64], 10),
            tensor("blk.0.ffn_up_exps.weight", &[32, 64, 8], 100),
            tensor("blk.0.attn_k_b.weight", &[32, 64, 8], 1_000),
            tensor("blk.0.attn_norm.weight", &[32], 10_000),
        ];
        let tied = header(std::iter::empty(), tensors.clone());
        assert_eq!((repacked(&tied, true), repacked(&tied, false)), (111 * has, has));
        tensors.push(tensor("output.weight", &[32, 64], 100_000));
        let own = header(std::iter::empty(), tensors);
        assert_eq!((repacked(&own, true), repacked(&own, false)), (100_110 * has, 0));
    }

    #[test]
    fn a_cache_in_blocks_needs_heads_of_whole_blocks() {
        let model = |more: Option<(&str, u32)>| {
            let keys = [("embedding_length", 256), ("attention.head_count", 4)].into_iter().chain(more);
            let keys = keys.map(|(name, number)| (format!("llama.{name}"), Value::U32(number)));
            header(keys, Vec::new())
        };
        let narrow = [("attention.head_count", 16), ("attention.key_length", 80), ("attention.value_length_swa", 40)];
        for stored in [KvCache::Q8_0, KvCache::Q4_0] {
            check_heads(stored, &model(None)).unwrap();
            for (key, number) in narrow {
                let said = check_heads(stored, &model(Some((key, number)))).unwrap_err().to_string();
                assert!(said.contains(&format!("kv_cache = \"{stored}\"")) && said.contains("multiple of 32"), "{said}");
            }
        }
        for (key, number) in narrow {
            check_heads(KvCache::F16, &model(Some((key, number)))).unwrap();
        }
    }

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
