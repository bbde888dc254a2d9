//! `config.json` as it is written, before any check.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{ConvertError, quoted};
use crate::family::Family;

/// The fields that are looked at; all others are left alone.
#[derive(Debug, Deserialize)]
pub(crate) struct Raw {
    pub(crate) architectures: Option<Vec<String>>,
    pub(crate) model_type: Option<String>,
    pub(crate) vocab_size: Option<u64>,
    pub(crate) hidden_size: Option<u64>,
    pub(crate) intermediate_size: Option<u64>,
    pub(crate) num_hidden_layers: Option<u64>,
    pub(crate) num_attention_heads: Option<u64>,
    pub(crate) num_key_value_heads: Option<u64>,
    pub(crate) head_dim: Option<u64>,
    pub(crate) max_position_embeddings: Option<u64>,
    pub(crate) original_max_position_embeddings: Option<u64>,
    pub(crate) rms_norm_eps: Option<f64>,
    pub(crate) rope_theta: Option<f64>,
    pub(crate) rope_local_base_freq: Option<f64>,
    pub(crate) rope_scaling: Option<Value>,
    pub(crate) rope_parameters: Option<Value>,
    pub(crate) partial_rotary_factor: Option<f64>,
    pub(crate) tie_word_embeddings: Option<bool>,
    pub(crate) attention_bias: Option<bool>,
    pub(crate) sliding_window: Option<u64>,
    pub(crate) use_sliding_window: Option<bool>,
    sliding_window_pattern: Option<u64>,
    _sliding_window_pattern: Option<u64>,
    pub(crate) layer_types: Option<Vec<String>>,
    pub(crate) attn_logit_softcapping: Option<f64>,
    pub(crate) final_logit_softcapping: Option<f64>,
    pub(crate) query_pre_attn_scalar: Option<f64>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    quantization_config: Option<Value>,
    pub(crate) bos_token_id: Option<Value>,
    pub(crate) eos_token_id: Option<Value>,
    pub(crate) pad_token_id: Option<Value>,
}

/// The first of one token or several; -1 stands for "none" in some files.
pub(crate) fn first_id(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Array(ids) => ids.first()?.as_u64(),
        one => one.as_u64(),
    }
}

impl Raw {
    /// After how many layers sliding and full attention repeat; two names are in use.
    pub(crate) fn pattern(&self) -> Option<u64> {
        self.sliding_window_pattern.or(self._sliding_window_pattern)
    }

    /// Refuses what llama.cpp's implementation of the family would silently compute otherwise.
    pub(crate) fn refuse_foreign(&self, family: Family) -> Result<(), ConvertError> {
        if self.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(ConvertError::unsupported("its weights are quantized already; convert the ones it was made from"));
        }
        let activation = self.hidden_activation.as_deref().or(self.hidden_act.as_deref());
        let expected: &[&str] = if family.is_gemma() { &["gelu_pytorch_tanh", "gelu"] } else { &["silu"] };
        match activation {
            Some(name) if !expected.contains(&name) => Err(ConvertError::unsupported(format!(
                "its activation is `{}`; this family has {}",
                quoted(name),
                expected.join(" or ")
            ))),
            _ => Ok(()),
        }
    }
}
