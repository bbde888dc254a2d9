//! The weights of a decoder's layers, by their names in the file.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};
use tollgate_backend::{AdapterId, BackendError};

use crate::spec::{Family, Spec};
use crate::weights::Weights;

type Loaded<T> = std::result::Result<T, BackendError>;

/// A product, and what is added to it.
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    source: Source,
    /// What adapters add: matrices (rank, in) and (out, rank).
    adapters: BTreeMap<AdapterId, (Tensor, Tensor)>,
}

/// The matrix of the file that a product has rows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// As the file names it, without `.weight`.
    pub(crate) module: String,
    /// The first of its rows that the product has.
    first: usize,
    /// All of its rows.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
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
    /// `weight` is (`rows`, `columns`), and adapters know it as `module`.
    pub(crate) fn new(module: &str, weight: Tensor, bias: Option<Tensor>, rows: usize, columns: usize) -> Self {
        let source = Source { module: module.to_owned(), first: 0, rows, columns };
        Linear { weight, bias, source, adapters: BTreeMap::new() }
    }

    pub(crate) fn load(weights: &Weights, name: &str, out: usize, inner: usize, has_bias: bool) -> Loaded<Self> {
        let weight = weights.get(&format!("{name}.weight"), &[out, inner])?;
        let bias = if has_bias { Some(weights.get(&format!("{name}.bias"), &[out])?) } else { None };
        Ok(Linear::new(name, weight, bias, out, inner))
    }

    /// Rows to rows, with an adapter if it changes this product.
    pub(crate) fn forward(&self, x: &Tensor, adapter: Option<AdapterId>) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        match adapter.and_then(|adapter| self.adapters.get(&adapter)) {
            Some((down, up)) => y + x.matmul(&down.t()?)?.matmul(&up.t()?)?,
            None => Ok(y),
        }
    }

    /// What adapters know it by.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Takes its part of the pair (rank, columns) and (rows, rank) that an adapter has for its source.
    pub(crate) fn adapt(&mut self, adapter: AdapterId, down: &Tensor, up: &Tensor) -> Result<()> {
        let up = up.narrow(0, self.source.first, self.weight.dim(0)?)?;
        self.adapters.insert(adapter, (down.clone(), up));
        Ok(())
    }

    /// Forgets an adapter.
    pub(crate) fn forget(&mut self, adapter: AdapterId) {
        self.adapters.remove(&adapter);
    }

    /// Some of its rows, as a layer of their own that shares their memory.
    fn rows(&self, start: usize, count: usize) -> Loaded<Self> {
        let weight = self.weight.narrow(0, start, count).map_err(|error| BackendError::Load(error.to_string()))?;
        let source = Source { first: start, ..self.source.clone() };
        Ok(Linear { weight, bias: None, source, adapters: BTreeMap::new() })
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

    /// All its products.
    pub(crate) fn linears(&mut self) -> [&mut Linear; 7] {
        let Attention { query, key, value, output, .. } = &mut self.attention;
        let Mlp { gate, up, down } = &mut self.mlp;
        [query, key, value, output, gate, up, down]
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
