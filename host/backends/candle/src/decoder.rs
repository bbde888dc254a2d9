//! A decoder of one sequence at a time, in f32 on the CPU.
//!
//! candle's own models keep one cache inside that cannot be cut, give the logits of the last row alone, and do not window what
//! they decode after the first step; here the cache is the caller's ([`State`]), and any row may have logits. The tests compare
//! both.

mod adapter;

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use rayon::ThreadPool;
use tollgate_backend::{AdapterId, BackendError};
use tollgate_backend_hf::{Lora, Part, Serial};

use crate::layers::{Attention, Layer, Linear, Mlp};
use crate::rope::Rope;
use crate::spec::{Activation, Spec};
use crate::weights::Weights;

/// A loaded decoder.
pub(crate) struct Decoder {
    spec: Spec,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Linear,
    rope: Rope,
    local_rope: Option<Rope>,
    pool: Option<ThreadPool>,
}

/// What a sequence holds: keys and values of each layer, (heads, tokens, dimensions).
pub(crate) struct State {
    layers: Vec<Option<(Tensor, Tensor)>>,
}

/// Where the tokens of a pass lie, and what they see.
struct Pass {
    position: usize,
    full: Option<Tensor>,
    windowed: Option<Tensor>,
    adapter: Option<AdapterId>,
}

impl Decoder {
    /// Takes a decoder's weights; positions are below `tokens`.
    pub(crate) fn load(
        spec: Spec,
        weights: &Weights,
        tokens: usize,
        pool: Option<ThreadPool>,
    ) -> std::result::Result<Self, BackendError> {
        let load = |error: candle_core::Error| BackendError::Load(error.to_string());
        let embedding = weights.get("model.embed_tokens.weight", &[spec.words, spec.hidden])?;
        let layers = (0..spec.windowed.len())
            .map(|index| Layer::load(&spec, weights, index))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let norm = crate::layers::norm(&spec, weights, "model.norm", spec.hidden)?;
        let head = if spec.tied {
            Linear::new("lm_head", embedding.clone(), None, spec.words, spec.hidden)
        } else {
            Linear::load(weights, "lm_head", spec.words, spec.hidden, false)?
        };
        let rope = Rope::new(&spec.rope, tokens).map_err(load)?;
        let local_rope = spec.local_rope.as_ref().map(|local| Rope::new(local, tokens)).transpose().map_err(load)?;
        Ok(Decoder { spec, embedding, layers, norm, head, rope, local_rope, pool })
    }

    fn run(&self, state: &mut State, part: &Part<'_>) -> Result<Vec<f32>> {
        let position = to_usize(part.position);
        let count = part.tokens.len();
        let total = position + count;
        let pass = Pass {
            position,
            full: if count > 1 { Some(mask(count, total, usize::MAX)?) } else { None },
            windowed: if count > 1 || total > self.spec.window { Some(mask(count, total, self.spec.window)?) } else { None },
            adapter: part.adapter,
        };
        let tokens = Tensor::new(part.tokens, &Device::Cpu)?;
        let mut x = self.embedding.index_select(&tokens, 0)?;
        if self.spec.family.is_gemma() {
            x = (x * (self.spec.hidden as f64).sqrt())?;
        }
        for (layer, cache) in self.layers.iter().zip(&mut state.layers) {
            x = self.layer(layer, x, cache, &pass)?;
        }
        if part.wanted.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<u32> = part.wanted.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)).collect();
        let x = x.index_select(&Tensor::new(wanted.as_slice(), &Device::Cpu)?, 0)?;
        let logits = self.head.forward(&rms_norm(&x, &self.norm, self.spec.eps)?, part.adapter)?;
        bend(logits, self.spec.logit_cap)?.flatten_all()?.to_vec1::<f32>()
    }

    fn layer(&self, layer: &Layer, x: Tensor, cache: &mut Option<(Tensor, Tensor)>, pass: &Pass) -> Result<Tensor> {
        let normed = rms_norm(&x, &layer.before_attention, self.spec.eps)?;
        let added = self.attend(layer, &normed, cache, pass)?;
        let x = (x + self.norm_output(added, layer.after_attention.as_ref())?)?;
        let normed = rms_norm(&x, &layer.before_mlp, self.spec.eps)?;
        let added = self.feed(&layer.mlp, &normed, pass.adapter)?;
        x + self.norm_output(added, layer.after_mlp.as_ref())?
    }

    fn norm_output(&self, x: Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        match norm {
            Some(norm) => rms_norm(&x, norm, self.spec.eps),
            None => Ok(x),
        }
    }

    fn attend(&self, layer: &Layer, x: &Tensor, cache: &mut Option<(Tensor, Tensor)>, pass: &Pass) -> Result<Tensor> {
        let Attention { query, key, value, output, query_norm, key_norm } = &layer.attention;
        let (heads, kv_heads, dimensions) = (self.spec.heads, self.spec.kv_heads, self.spec.head_dim);
        let count = x.dim(0)?;
        let rope = self.local_rope.as_ref().filter(|_| layer.is_windowed).unwrap_or(&self.rope);
        let q = self.heads(&query.forward(x, pass.adapter)?, heads, query_norm.as_ref())?;
        let q = rope.turn(&q, pass.position)?;
        let k = self.heads(&key.forward(x, pass.adapter)?, kv_heads, key_norm.as_ref())?;
        let k = rope.turn(&k, pass.position)?;
        let v = self.heads(&value.forward(x, pass.adapter)?, kv_heads, None)?;
        let (k, v) = match cache.take() {
            Some((keys, values)) => (Tensor::cat(&[&keys, &k], 1)?.contiguous()?, Tensor::cat(&[&values, &v], 1)?.contiguous()?),
            None => (k, v),
        };
        *cache = Some((k.clone(), v.clone()));
        let total = k.dim(1)?;
        // Heads that share keys are more rows of one product.
        let shared = heads / kv_heads;
        let q = (q * self.spec.scale)?.reshape((kv_heads, shared * count, dimensions))?;
        let scores = bend(q.matmul(&k.t()?)?, self.spec.score_cap)?;
        let mask = if layer.is_windowed { &pass.windowed } else { &pass.full };
        let scores = match mask {
            Some(mask) => {
                let masked = scores.reshape((kv_heads, shared, count, total))?.broadcast_add(mask)?;
                masked.reshape((kv_heads, shared * count, total))?
            }
            None => scores,
        };
        let seen = softmax_last_dim(&scores)?.matmul(&v)?;
        let seen =
            seen.reshape((heads, count, dimensions))?.transpose(0, 1)?.contiguous()?.reshape((count, heads * dimensions))?;
        output.forward(&seen, pass.adapter)
    }

    /// Rows to (heads, tokens, dimensions).
    fn heads(&self, x: &Tensor, heads: usize, norm: Option<&Tensor>) -> Result<Tensor> {
        let count = x.dim(0)?;
        let x = self.norm_output(x.reshape((count, heads, self.spec.head_dim))?, norm)?;
        x.transpose(0, 1)?.contiguous()
    }

    fn feed(&self, mlp: &Mlp, x: &Tensor, adapter: Option<AdapterId>) -> Result<Tensor> {
        let gate = mlp.gate.forward(x, adapter)?;
        let gate = match self.spec.activation {
            Activation::Silu => gate.silu()?,
            Activation::GeluTanh => gate.gelu()?,
            Activation::Gelu => gate.gelu_erf()?,
            Activation::Relu => gate.relu()?,
        };
        mlp.down.forward(&(gate * mlp.up.forward(x, adapter)?)?, adapter)
    }
}

/// Numbers bent under a cap.
fn bend(x: Tensor, cap: Option<f64>) -> Result<Tensor> {
    match cap {
        Some(cap) => (x / cap)?.tanh()? * cap,
        None => Ok(x),
    }
}

/// What the last `count` of `total` tokens see: themselves and those before, `window` in all.
fn mask(count: usize, total: usize, window: usize) -> Result<Tensor> {
    let first = total.saturating_sub(count);
    let values = (0..count).flat_map(|row| {
        let own = first + row;
        (0..total).map(move |column| if column <= own && own - column < window { 0.0 } else { f32::NEG_INFINITY })
    });
    Tensor::from_vec(values.collect::<Vec<f32>>(), (count, total), &Device::Cpu)
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl State {
    /// The first `length` tokens. They share memory until the next token is decoded.
    fn first(&self, length: u32) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.as_ref().map(|cache| cut(cache, to_usize(length))).transpose());
        Ok(State { layers: layers.collect::<Result<Vec<_>>>()? })
    }
}

/// The first `length` tokens of a layer's keys and values.
fn cut((keys, values): &(Tensor, Tensor), length: usize) -> Result<(Tensor, Tensor)> {
    Ok((keys.narrow(1, 0, length)?, values.narrow(1, 0, length)?))
}

impl Serial for Decoder {
    type State = State;

    fn empty(&self) -> std::result::Result<State, String> {
        Ok(State { layers: vec![None; self.layers.len()] })
    }

    fn forward(&mut self, state: &mut State, part: &Part<'_>, logits: &mut Vec<f32>) -> std::result::Result<(), String> {
        let made = match &self.pool {
            Some(pool) => pool.install(|| self.run(state, part)),
            None => self.run(state, part),
        };
        logits.extend(made.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn fork(&self, state: &State, length: u32) -> std::result::Result<State, String> {
        state.first(length).map_err(|error| error.to_string())
    }

    fn truncate(&self, state: &mut State, length: u32) -> std::result::Result<(), String> {
        *state = state.first(length).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn load_adapter(&mut self, adapter: AdapterId, lora: Lora) -> std::result::Result<(), String> {
        self.adapt(adapter, lora).inspect_err(|_| self.forget(adapter))
    }

    fn drop_adapter(&mut self, adapter: AdapterId) {
        self.forget(adapter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_sees_itself_and_its_window() {
        let minus = f32::NEG_INFINITY;
        let rows = |count, total, window| mask(count, total, window).and_then(|mask| mask.to_vec2::<f32>()).expect("a mask");
        assert_eq!(rows(2, 3, usize::MAX), [[0.0, 0.0, minus], [0.0, 0.0, 0.0]]);
        assert_eq!(rows(3, 3, 2), [[0.0, minus, minus], [0.0, 0.0, minus], [minus, 0.0, 0.0]]);
        assert_eq!(rows(1, 4, 2), [[minus, minus, 0.0, 0.0]]);
    }
}
