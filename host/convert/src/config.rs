//! What `config.json` says of a model, held to closed ranges and to what llama.cpp computes.

mod raw;
pub(crate) mod rope;

use std::path::Path;

use raw::Raw;
use rope::Rope;

use crate::error::ConvertError;
use crate::family::{Family, Shape};
use crate::files;

/// The file that describes a model.
pub(crate) const FILE: &str = "config.json";
/// The largest that is read; real ones have 1 to 20 KiB.
pub(crate) const FILE_BYTES: u64 = 1 << 20;

/// Layers that attend to the last `window` positions only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sliding {
    /// Positions; at least 1.
    pub(crate) window: u32,
    /// Every so many layers the last one attends to all positions.
    pub(crate) pattern: u32,
}

/// A model's description, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) shape: Shape,
    /// Positions that the model may be used with; 1 to 16 Mi.
    pub(crate) context: u32,
    /// Added to the variance under the root; above 0, below 1.
    pub(crate) norm_epsilon: f64,
    pub(crate) rope: Rope,
    /// Gemma 2 and 3 only.
    pub(crate) sliding: Option<Sliding>,
    /// The cap of the attention's scores, Gemma 2 only.
    pub(crate) attention_cap: Option<f64>,
    /// The cap of the output's scores, Gemma 2 and 3 only.
    pub(crate) final_cap: Option<f64>,
    /// Whether the attention must have biases (`llama` only, where they are optional otherwise).
    pub(crate) biased: bool,
    /// The tokens that `config.json` names; the tokenizer's own words go first.
    pub(crate) first_token: Option<u64>,
    pub(crate) last_token: Option<u64>,
    pub(crate) padding_token: Option<u64>,
    /// What the operator should know of the result.
    pub(crate) notes: Vec<String>,
}

impl Config {
    /// Reads and checks `config.json`.
    pub(crate) fn read(folder: &Path) -> Result<Self, ConvertError> {
        let raw: Raw = files::needed_json(folder, FILE, FILE_BYTES)?;
        let model_type = raw.model_type.as_deref().ok_or_else(|| bad("has no model_type"))?;
        let family = Family::of_config(model_type, raw.architectures.as_deref().unwrap_or_default())?;
        raw.refuse_foreign(family)?;
        let shape = shape(&raw, family)?;
        let whole_context = within("max_position_embeddings", raw.max_position_embeddings, 1, 16 << 20)?;
        let rope = Rope::of(&raw, family, shape.head_dim, whole_context)?;
        let mut notes = Vec::new();
        let (sliding, context) = if family.is_gemma() {
            (sliding(&raw, &shape)?, whole_context)
        } else {
            (None, capped_context(&raw, family, whole_context, &mut notes)?)
        };
        let (attention_cap, final_cap) = caps(&raw, family)?;
        check_attention_scale(&raw, &shape)?;
        let norm_epsilon = raw.rms_norm_eps.unwrap_or(1e-6);
        if !(norm_epsilon > 0.0 && norm_epsilon < 1.0) {
            return Err(bad(format!("has rms_norm_eps {norm_epsilon}; it is between 0 and 1")));
        }
        Ok(Self {
            shape,
            context,
            norm_epsilon,
            rope,
            sliding,
            attention_cap,
            final_cap,
            biased: family == Family::Llama && raw.attention_bias == Some(true),
            first_token: raw::first_id(raw.bos_token_id.as_ref()),
            last_token: raw::first_id(raw.eos_token_id.as_ref()),
            padding_token: raw::first_id(raw.pad_token_id.as_ref()),
            notes,
        })
    }
}

/// The refusal of `config.json`.
pub(crate) fn bad(what: impl Into<String>) -> ConvertError {
    ConvertError::file(FILE, what)
}

/// A whole number in its closed range.
pub(crate) fn within(name: &str, value: Option<u64>, least: u32, most: u32) -> Result<u32, ConvertError> {
    let value = value.ok_or_else(|| bad(format!("has no {name}")))?;
    match u32::try_from(value) {
        Ok(small) if (least..=most).contains(&small) => Ok(small),
        _ => Err(bad(format!("has {name} {value}; {least} to {most} are taken"))),
    }
}

fn shape(raw: &Raw, family: Family) -> Result<Shape, ConvertError> {
    let hidden = within("hidden_size", raw.hidden_size, 1, 1 << 20)?;
    let heads = within("num_attention_heads", raw.num_attention_heads, 1, 4096)?;
    let kv_heads = within("num_key_value_heads", raw.num_key_value_heads.or(Some(heads.into())), 1, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(bad(format!("has num_attention_heads {heads}, which is no multiple of num_key_value_heads {kv_heads}")));
    }
    if raw.head_dim.is_none() && !hidden.is_multiple_of(heads) {
        return Err(bad(format!("has no head_dim, and hidden_size {hidden} is no multiple of num_attention_heads {heads}")));
    }
    let head_dim = within("head_dim", raw.head_dim.or(Some(u64::from(hidden / heads))), 2, 8192)?;
    if !head_dim.is_multiple_of(2) {
        return Err(bad(format!("has a head_dim of {head_dim}, which cannot be rotated in pairs")));
    }
    if matches!(family, Family::Qwen2 | Family::Phi3) && head_dim.checked_mul(heads) != Some(hidden) {
        return Err(ConvertError::unsupported(format!(
            "llama.cpp's {} wants hidden_size = heads x head_dim; it has {hidden}, {heads} and {head_dim}",
            family.architecture()
        )));
    }
    Ok(Shape {
        family,
        layers: within("num_hidden_layers", raw.num_hidden_layers, 1, 512)?,
        hidden,
        feed_forward: within("intermediate_size", raw.intermediate_size, 1, 4 << 20)?,
        heads,
        kv_heads,
        head_dim,
        vocabulary: within("vocab_size", raw.vocab_size, 1, 2 << 20)?,
        // Gemma's output is always its embedding, whether the file says so or not.
        tied: raw.tie_word_embeddings.unwrap_or(family.is_gemma()),
    })
}

/// llama.cpp attends to every position in these families: a window is kept to by using no more positions than it has.
fn capped_context(raw: &Raw, family: Family, context: u32, notes: &mut Vec<String>) -> Result<u32, ConvertError> {
    // Qwen's files name a window that they do not use.
    let is_used = !matches!(family, Family::Qwen2 | Family::Qwen3) || raw.use_sliding_window == Some(true);
    let Some(window) = raw.sliding_window.filter(|_| is_used) else { return Ok(context) };
    let window = within("sliding_window", Some(window), 1, u32::MAX)?;
    if window >= context {
        return Ok(context);
    }
    notes.push(format!(
        "the context is {window} tokens, not {context}: beyond its sliding window llama.cpp would compute this model otherwise"
    ));
    Ok(window)
}

fn sliding(raw: &Raw, shape: &Shape) -> Result<Option<Sliding>, ConvertError> {
    let (default_window, default_pattern) = match shape.family {
        Family::Gemma2 => (4096, 2),
        Family::Gemma3 => (4096, 6),
        _ => return Ok(None),
    };
    let window = within("sliding_window", raw.sliding_window.or(Some(default_window)), 1, 16 << 20)?;
    let pattern = match &raw.layer_types {
        Some(kinds) => pattern_of(kinds, shape.layers)?,
        None => within("sliding_window_pattern", raw.pattern().or(Some(default_pattern)), 1, 512)?,
    };
    if shape.family == Family::Gemma2 && pattern != 2 {
        return Err(ConvertError::unsupported("its layers do not slide by turns, as llama.cpp's gemma2 has it"));
    }
    Ok(Some(Sliding { window, pattern }))
}

/// After how many layers the kinds repeat: sliding ones, and a full one at the end.
fn pattern_of(kinds: &[String], layers: u32) -> Result<u32, ConvertError> {
    const FULL: &str = "full_attention";
    if u32::try_from(kinds.len()).ok() != Some(layers) {
        return Err(bad(format!("has {} layer_types for {layers} layers", kinds.len())));
    }
    // Without a full layer the pattern is longer than the model.
    let pattern = kinds.iter().position(|kind| kind == FULL).unwrap_or(kinds.len()) + 1;
    let repeats = kinds.iter().enumerate().all(|(layer, kind)| {
        let is_full = (layer + 1).is_multiple_of(pattern);
        kind == if is_full { FULL } else { "sliding_attention" }
    });
    match u32::try_from(pattern) {
        Ok(pattern) if repeats => Ok(pattern),
        _ => Err(ConvertError::unsupported("its layer_types do not repeat as llama.cpp has it")),
    }
}

fn caps(raw: &Raw, family: Family) -> Result<(Option<f64>, Option<f64>), ConvertError> {
    for (name, cap) in
        [("attn_logit_softcapping", raw.attn_logit_softcapping), ("final_logit_softcapping", raw.final_logit_softcapping)]
    {
        if let Some(cap) = cap.filter(|cap| !(*cap > 0.0 && *cap < 1e6)) {
            return Err(bad(format!("has {name} {cap}; it is between 0 and 1,000,000")));
        }
        // Where gemma2's key is absent llama.cpp takes a default, so "no cap" cannot be said.
        if family == Family::Gemma2 && cap.is_none() {
            return Err(ConvertError::unsupported(format!("it is a Gemma 2 without {name}")));
        }
    }
    match (family, raw.attn_logit_softcapping, raw.final_logit_softcapping) {
        (Family::Gemma2, ..) | (Family::Gemma3, None, _) | (_, None, None) => {
            Ok((raw.attn_logit_softcapping, raw.final_logit_softcapping))
        }
        _ => Err(ConvertError::unsupported("it caps its scores, which llama.cpp does not do for this family")),
    }
}

/// llama.cpp derives the scale of the attention; a model that was trained with another one would be computed wrongly.
fn check_attention_scale(raw: &Raw, shape: &Shape) -> Result<(), ConvertError> {
    let Some(scalar) = raw.query_pre_attn_scalar else { return Ok(()) };
    let derived = match (shape.family, shape.layers) {
        // The two 27B models, which llama.cpp knows by their number of layers.
        (Family::Gemma2, 46) | (Family::Gemma3, 62) => shape.hidden / shape.heads,
        _ => shape.head_dim,
    };
    if (scalar - f64::from(derived)).abs() > 1e-6 {
        return Err(ConvertError::unsupported(format!(
            "its query_pre_attn_scalar is {scalar}; llama.cpp computes with {derived} for a model of this shape"
        )));
    }
    Ok(())
}
