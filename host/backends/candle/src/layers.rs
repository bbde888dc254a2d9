//! The weights of a decoder's layers, by their names in the file.

use candle_core::{Result, Tensor};
use tollgate_backend::BackendError;

use crate::spec::{Family, Spec};
use crate::weights::Weights;

type Loaded<T> = std::result::Result<T, BackendError>;

/// A product, and what is added to it.
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

pub(crate) struct Attention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) query_norm: Option<Tensor>,
    pub(crate) key_norm: Option<Tensor>,
}

pub(crate) struct Mlp {
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

pub(crate) struct Layer {
    pub(crate) before_attention: Tensor,
    pub(crate) attention: Attention,
    pub(crate) after_attention: Option<Tensor>,
    pub(crate) before_mlp: Tensor,
    pub(crate) mlp: Mlp,
    pub(crate) after_mlp: Option<Tensor>,
    pub(crate) is_windowed: bool,
}

impl Linear {
    /// `weight` is (out, in).
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Linear { weight, bias }
    }

    pub(crate) fn load(weights: &Weights, name: &str, out: usize, inner: usize, has_bias: bool) -> Loaded<Self> {
        let weight = weights.get(&format!("{name}.weight"), &[out, inner])?;
        let bias = if has_bias { Some(weights.get(&format!("{name}.bias"), &[out])?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// Rows to rows.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => x.broadcast_add(bias),
            None => Ok(x),
        }
    }

    /// Some of its rows, as a layer of their own that shares their memory.
    fn rows(&self, start: usize, count: usize) -> Loaded<Self> {
        let weight = self.weight.narrow(0, start, count).map_err(|error| BackendError::Load(error.to_string()))?;
        Ok(Linear { weight, bias: None })
    }
}

/// A norm's weights.
pub(crate) fn norm(spec: &Spec, weights: &Weights, name: &str, width: usize) -> Loaded<Tensor> {
    let weight = weights.get(&format!("{name}.weight"), &[width])?;
    if spec.family.is_gemma() {
        return (weight + 1.0).map_err(|error| BackendError::Load(error.to_string()));
    }
    Ok(weight)
}

impl Layer {
    pub(crate) fn load(spec: &Spec, weights: &Weights, index: usize) -> Loaded<Self> {
        let prefix = format!("model.layers.{index}");
        let named = |name: &str| norm(spec, weights, &format!("{prefix}.{name}"), spec.hidden);
        let (after_attention, before_mlp, after_mlp) = if spec.family.norms_outputs() {
            let after = Some(named("post_attention_layernorm")?);
            (after, named("pre_feedforward_layernorm")?, Some(named("post_feedforward_layernorm")?))
        } else {
            (None, named("post_attention_layernorm")?, None)
        };
        Ok(Layer {
            before_attention: named("input_layernorm")?,
            attention: Attention::load(spec, weights, &format!("{prefix}.self_attn"))?,
            after_attention,
            before_mlp,
            mlp: Mlp::load(spec, weights, &format!("{prefix}.mlp"))?,
            after_mlp,
            is_windowed: spec.windowed.get(index).copied().unwrap_or(false),
        })
    }
}

impl Attention {
    fn load(spec: &Spec, weights: &Weights, prefix: &str) -> Loaded<Self> {
        let (hidden, wide, narrow) = (spec.hidden, spec.heads * spec.head_dim, spec.kv_width());
        let (query, key, value) = if spec.family == Family::Phi3 {
            let all = Linear::load(weights, &format!("{prefix}.qkv_proj"), wide + 2 * narrow, hidden, false)?;
            (all.rows(0, wide)?, all.rows(wide, narrow)?, all.rows(wide + narrow, narrow)?)
        } else {
            let load = |name: &str, out: usize| Linear::load(weights, &format!("{prefix}.{name}"), out, hidden, spec.qkv_bias);
            (load("q_proj", wide)?, load("k_proj", narrow)?, load("v_proj", narrow)?)
        };
        let head_norm = |name: &str| match spec.family.norms_heads() {
            true => norm(spec, weights, &format!("{prefix}.{name}"), spec.head_dim).map(Some),
            false => Ok(None),
        };
        Ok(Attention {
            query,
            key,
            value,
            output: Linear::load(weights, &format!("{prefix}.o_proj"), hidden, wide, spec.out_bias)?,
            query_norm: head_norm("q_norm")?,
            key_norm: head_norm("k_norm")?,
        })
    }
}

impl Mlp {
    fn load(spec: &Spec, weights: &Weights, prefix: &str) -> Loaded<Self> {
        let (hidden, inner, has_bias) = (spec.hidden, spec.inner, spec.mlp_bias);
        let (gate, up) = if spec.family == Family::Phi3 {
            let both = Linear::load(weights, &format!("{prefix}.gate_up_proj"), 2 * inner, hidden, false)?;
            (both.rows(0, inner)?, both.rows(inner, inner)?)
        } else {
            let load = |name: &str| Linear::load(weights, &format!("{prefix}.{name}"), inner, hidden, has_bias);
            (load("gate_proj")?, load("up_proj")?)
        };
        let down = Linear::load(weights, &format!("{prefix}.down_proj"), hidden, inner, has_bias)?;
        Ok(Mlp { gate, up, down })
    }
}
