//! What a model is converted to, where the operator leaves that to the gateway: what fits, and loses least.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use tollgate_convert::Target;
use tollgate_formats::safetensors::{self, Dtype};

use super::Quantization;
use crate::memory::shown;

/// A model of fewer values is small enough as it is: 200 MB.
const SMALL: u64 = 100_000_000;
/// The context that a model has where its config says nothing.
const CONTEXT_TOKENS: u64 = 4_096;
/// Buffers of a step, and what an engine has besides.
const BUFFERS: u64 = 128 << 20;
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Files of a folder that are looked at.
const MAX_FILES: usize = 4_096;

/// What is to be done.
pub(super) struct Plan {
    /// What this gateway writes.
    pub(super) target: Target,
    /// Whether llama.cpp makes q4_k_m of that.
    pub(super) is_shrunk: bool,
    /// What the operator should know of the choice.
    pub(super) notes: Vec<String>,
}

/// What the files say. Those that cannot be read count for nothing: the conversion itself says what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Values in all tensors.
    values: u64,
    /// Whether some are in bf16, whose range f16 does not have.
    is_bf16: bool,
    /// What the key-value cache takes.
    cache_bytes: u64,
}

/// The sizes that the cache has, as transformers writes them.
#[derive(Debug, Default, Deserialize)]
struct Sizes {
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    hidden_size: Option<u64>,
    head_dim: Option<u64>,
}

pub(super) fn plan(folder: &Path, asked: Quantization, budget_bytes: u64) -> Plan {
    choose(look(folder), asked, budget_bytes)
}

fn choose(seen: Seen, asked: Quantization, budget_bytes: u64) -> Plan {
    let unchanged = if seen.is_bf16 { Target::Bf16 } else { Target::F16 };
    let plan = |target, is_shrunk| Plan { target, is_shrunk, notes: Vec::new() };
    match asked {
        Quantization::F16 => plan(Target::F16, false),
        Quantization::Q8_0 => plan(Target::Q8_0, false),
        Quantization::Q4KM => plan(unchanged, true),
        Quantization::Auto if seen.values < SMALL => {
            let note = "it has fewer than 100 million values, so they keep their 16 bits".to_owned();
            Plan { notes: vec![note], ..plan(unchanged, false) }
        }
        Quantization::Auto => {
            // A block of 32 values has 34 bytes.
            let weights = (seen.values / 32).saturating_mul(34);
            let predicted = weights.saturating_add(seen.cache_bytes).saturating_add(BUFFERS);
            let fits = predicted <= budget_bytes / 2;
            let (word, verb) = if fits { ("q8_0", "is within") } else { ("q4_k_m", "is more than") };
            let note = format!(
                "{word} was chosen: at q8_0 about {} are predicted, which {verb} half of the {} that models may take",
                shown(predicted),
                shown(budget_bytes)
            );
            Plan { notes: vec![note], ..if fits { plan(Target::Q8_0, false) } else { plan(unchanged, true) } }
        }
    }
}

fn look(folder: &Path) -> Seen {
    let mut seen = Seen { values: 0, is_bf16: false, cache_bytes: cache_bytes(&sizes(folder).unwrap_or_default()) };
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).take(MAX_FILES);
    for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The others are the same weights once more, in another layout.
        if !name.starts_with("model") || !name.ends_with(".safetensors") {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        let Ok(header) = safetensors::read(&mut BufReader::new(file)) else { continue };
        for tensor in header.tensors.values() {
            let values = tensor.shape.iter().fold(1_u64, |product, size| product.saturating_mul(*size));
            seen.values = seen.values.saturating_add(values);
            seen.is_bf16 |= tensor.dtype == Dtype::BF16;
        }
    }
    seen
}

fn sizes(folder: &Path) -> Option<Sizes> {
    let mut text = Vec::new();
    File::open(folder.join("config.json")).ok()?.take(MAX_CONFIG_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Keys and values at f16 of every layer and token.
fn cache_bytes(sizes: &Sizes) -> u64 {
    let heads = sizes.num_attention_heads.unwrap_or(1).max(1);
    let head_dim = sizes.head_dim.unwrap_or_else(|| sizes.hidden_size.unwrap_or(0) / heads);
    let of_token = sizes.num_key_value_heads.unwrap_or(heads).saturating_mul(head_dim).saturating_mul(2 * 2);
    of_token.saturating_mul(sizes.num_hidden_layers.unwrap_or(0)).saturating_mul(CONTEXT_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: Seen = Seen { values: 3_200_000_000, is_bf16: true, cache_bytes: 300 << 20 };

    fn chosen(seen: Seen, asked: Quantization, budget_bytes: u64) -> (Target, bool) {
        let plan = choose(seen, asked, budget_bytes);
        assert_eq!(plan.notes.len(), usize::from(asked == Quantization::Auto));
        (plan.target, plan.is_shrunk)
    }

    #[test]
    fn what_fits_in_half_of_the_budget_is_kept_at_eight_bits() {
        // 3.4 GB of weights and 428 MiB besides.
        let needed = 3_400_000_000 + (428 << 20);
        assert_eq!(chosen(BIG, Quantization::Auto, 2 * needed), (Target::Q8_0, false));
        assert_eq!(chosen(BIG, Quantization::Auto, 2 * needed - 2), (Target::Bf16, true));
        let small = Seen { values: SMALL - 1, ..BIG };
        assert_eq!(chosen(small, Quantization::Auto, 0), (Target::Bf16, false));
        assert_eq!(chosen(Seen { is_bf16: false, ..small }, Quantization::Auto, 0), (Target::F16, false));
    }

    #[test]
    fn what_is_asked_for_is_done() {
        assert_eq!(chosen(BIG, Quantization::F16, 0), (Target::F16, false));
        assert_eq!(chosen(BIG, Quantization::Q8_0, 0), (Target::Q8_0, false));
        assert_eq!(chosen(Seen { is_bf16: false, ..BIG }, Quantization::Q4KM, u64::MAX), (Target::F16, true));
    }

    #[test]
    fn the_demo_model_is_seen_as_it_is() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model/hf");
        let seen = look(&folder);
        assert!((2_000_000..4_000_000).contains(&seen.values) && !seen.is_bf16, "{seen:?}");
        // 3 layers, 2 heads of 64, keys and values, 2 bytes each.
        assert_eq!(seen.cache_bytes, 3 * 2 * 64 * 2 * 2 * 4_096);
        assert_eq!(look(Path::new("/nowhere")), Seen { values: 0, is_bf16: false, cache_bytes: 0 });
    }
}
