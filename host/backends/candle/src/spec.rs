//! What `config.json` says of a decoder. One structure for all families: they differ in a few switches.

use tollgate_backend::BackendError;
use tollgate_backend_hf::Config;

use crate::rope::Frequencies;

/// Layers of a Qwen without a window where its config does not say how many.
const QWEN_FULL_LAYERS: usize = 28;

/// Families that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3,
    Phi3,
}

/// The function between the two halves of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// Approximated with a tanh.
    GeluTanh,
    /// Exact.
    Gelu,
    Relu,
}

/// A decoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) family: Family,
    pub(crate) words: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) eps: f32,
    pub(crate) activation: Activation,
    /// What scores are multiplied with.
    pub(crate) scale: f64,
    /// Whether queries, keys and values have a bias.
    pub(crate) qkv_bias: bool,
    /// Whether the attention's output has one.
    pub(crate) out_bias: bool,
    /// Whether the feed-forward layers have one.
    pub(crate) mlp_bias: bool,
    /// Whether the last layer is the embedding.
    pub(crate) tied: bool,
    /// What scores are bent under, and what logits are.
    pub(crate) score_cap: Option<f64>,
    pub(crate) logit_cap: Option<f64>,
    /// Tokens that a sequence may have.
    pub(crate) trained: usize,
    /// Tokens that a windowed layer sees.
    pub(crate) window: usize,
    /// For each layer, whether it is windowed.
    pub(crate) windowed: Vec<bool>,
    pub(crate) rope: Frequencies,
    /// The frequencies of windowed layers, where they have their own.
    pub(crate) local_rope: Option<Frequencies>,
}

impl Family {
    /// Gemma's norms multiply with one more than their weights, and its embeddings are scaled.
    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Family::Gemma | Family::Gemma2 | Family::Gemma3)
    }

    /// Whether queries and keys are normed.
    pub(crate) fn norms_heads(self) -> bool {
        matches!(self, Family::Qwen3 | Family::Gemma3)
    }

    /// Whether what a layer adds is normed as well.
    pub(crate) fn norms_outputs(self) -> bool {
        matches!(self, Family::Gemma2 | Family::Gemma3)
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Family::Llama,
            "mistral" => Family::Mistral,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "gemma" => Family::Gemma,
            "gemma2" => Family::Gemma2,
            "gemma3_text" => Family::Gemma3,
            "phi3" => Family::Phi3,
            _ => return None,
        })
    }

    fn read(config: &Config) -> Result<Self, BackendError> {
        let name = config.text("model_type")?.unwrap_or_default();
        Family::named(name).ok_or_else(|| {
            BackendError::Load(format!(
                "the candle backend does not compute models of type `{name}` (it does llama, mistral, qwen2, qwen3, gemma, \
                 gemma2, gemma3_text and phi3); a GGUF of it may run on the llama backend"
            ))
        })
    }
}

impl Spec {
    /// Whether models of this type, from weights of this kind, are computed.
    pub(crate) fn is_known(config: &Config) -> Result<bool, BackendError> {
        let family = config.text("model_type")?.and_then(Family::named);
        Ok(family.is_some() && config.get("quantization_config").is_none())
    }

    /// Reads it. Every number is checked, and so is what the numbers mean together.
    pub(crate) fn read(config: &Config) -> Result<Self, BackendError> {
        if config.get("quantization_config").is_some() {
            let what = "the weights are quantized (`quantization_config`); the candle backend reads f16, bf16 and f32";
            return Err(BackendError::Load(what.to_owned()));
        }
        let family = Family::read(config)?;
        let hidden = config.need_count("hidden_size", 2..=65_536)?;
        let heads = config.need_count("num_attention_heads", 1..=1_024)?;
        let kv_heads = config.count("num_key_value_heads", 1..=1_024)?.unwrap_or(heads);
        let head_dim = config.count("head_dim", 2..=1_024)?.unwrap_or(hidden / heads);
        let turning = turning(config, head_dim)?;
        if !heads.is_multiple_of(kv_heads) || head_dim < 2 {
            return Err(BackendError::Load(format!("config.json has {heads} heads over {kv_heads} and {hidden} dimensions")));
        }
        let layers = config.need_count("num_hidden_layers", 1..=512)?;
        let (window, windowed) = windows(config, family, layers)?;
        let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
        let positions = config.need_count("max_position_embeddings", 2..=16_777_216)?;
        let (rope, local_rope) = ropes(config, family, turning)?;
        let scalar = match family {
            Family::Gemma2 | Family::Gemma3 => config.float("query_pre_attn_scalar", 1.0..=65_536.0)?.unwrap_or(256.0),
            _ => head_dim as f64,
        };
        Ok(Spec {
            family,
            words: config.need_count("vocab_size", 1..=4_194_304)?,
            hidden,
            inner: config.need_count("intermediate_size", 1..=1_048_576)?,
            heads,
            kv_heads,
            head_dim,
            eps: eps(config)?,
            activation: activation(config, family)?,
            scale: 1.0 / scalar.sqrt(),
            qkv_bias: family == Family::Qwen2 || attention_bias,
            out_bias: family != Family::Qwen2 && attention_bias,
            mlp_bias: family == Family::Llama && config.flag("mlp_bias")?.unwrap_or(false),
            tied: config.flag("tie_word_embeddings")?.unwrap_or(family.is_gemma()),
            score_cap: cap(config, family, "attn_logit_softcapping", 50.0)?,
            logit_cap: cap(config, family, "final_logit_softcapping", 30.0)?,
            trained: rope.tokens.unwrap_or(positions).min(positions),
            window,
            windowed,
            rope,
            local_rope,
        })
    }

    /// Numbers of a token's key and of its value in one layer.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Dimensions of a head that turn with the position.
fn turning(config: &Config, head_dim: usize) -> Result<usize, BackendError> {
    let (key, parts) = ("partial_rotary_factor", 0.01..=1.0);
    // Newer configs have it with the other parameters, for all layers or for each kind.
    let parameters = match config.object("rope_parameters")? {
        Some(parameters) if parameters.names("full_attention") => parameters.object("full_attention")?,
        parameters => parameters,
    };
    let newer = match &parameters {
        Some(parameters) => parameters.float(key, parts.clone())?,
        None => None,
    };
    let part = match newer {
        Some(part) => part,
        None => config.float(key, parts)?.unwrap_or(1.0),
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a number from 1 to 1,024")]
    let turning = (head_dim as f64 * part) as usize;
    if turning < 2 || !turning.is_multiple_of(2) {
        return Err(BackendError::Load(format!(
            "{turning} of {head_dim} dimensions of a head turn, which has to be an even number"
        )));
    }
    Ok(turning)
}

fn eps(config: &Config) -> Result<f32, BackendError> {
    let eps = config.float("rms_norm_eps", 1e-12..=0.1)?.unwrap_or(1e-6);
    #[allow(clippy::cast_possible_truncation, reason = "norms are computed in f32")]
    Ok(eps as f32)
}

/// Gemma 2 has caps where its config does not say otherwise; elsewhere they are an option that Gemma 3 took over.
fn cap(config: &Config, family: Family, key: &str, default: f64) -> Result<Option<f64>, BackendError> {
    match family {
        Family::Gemma2 if !config.names(key) => Ok(Some(default)),
        Family::Gemma2 | Family::Gemma3 => config.float(key, 0.01..=10_000.0),
        _ => Ok(None),
    }
}

fn activation(config: &Config, family: Family) -> Result<Activation, BackendError> {
    let named = match config.text("hidden_activation")? {
        Some(named) => Some(named),
        // The first Gemma was published with the name of another function than it was trained with.
        None if family.is_gemma() => None,
        None => config.text("hidden_act")?,
    };
    match named {
        None if family.is_gemma() => Ok(Activation::GeluTanh),
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::Gelu),
        Some("relu") => Ok(Activation::Relu),
        Some(other) => Err(BackendError::Load(format!("the activation `{other}` is not supported"))),
    }
}

/// How many tokens windowed layers see, and which layers are.
fn windows(config: &Config, family: Family, layers: usize) -> Result<(usize, Vec<bool>), BackendError> {
    let window = config.count("sliding_window", 1..=16_777_216)?;
    let is_used = match family {
        Family::Llama | Family::Gemma => false,
        Family::Qwen2 | Family::Qwen3 => config.flag("use_sliding_window")?.unwrap_or(false),
        _ => true,
    };
    let Some(window) = window.filter(|_| is_used) else { return Ok((usize::MAX, vec![false; layers])) };
    if let Some(types) = config.get("layer_types") {
        let kinds: Option<Vec<bool>> = types.as_array().and_then(|types| {
            let kind = |name: &str| match name {
                "sliding_attention" => Some(true),
                "full_attention" => Some(false),
                _ => None,
            };
            types.iter().map(|one| one.as_str().and_then(kind)).collect()
        });
        let kinds = kinds.filter(|kinds| kinds.len() == layers);
        return kinds.map(|kinds| (window, kinds)).ok_or_else(|| {
            BackendError::Load(format!("`layer_types` of config.json has to be {layers} of full_attention or sliding_attention"))
        });
    }
    let first = config.count("max_window_layers", 0..=512)?.unwrap_or(QWEN_FULL_LAYERS);
    let pattern = match config.count("sliding_window_pattern", 1..=512)? {
        Some(pattern) => pattern,
        None => config.count("_sliding_window_pattern", 1..=512)?.unwrap_or(6),
    };
    let is_windowed = |layer: usize| match family {
        Family::Gemma2 => layer.is_multiple_of(2),
        Family::Gemma3 => !(layer + 1).is_multiple_of(pattern),
        Family::Qwen2 | Family::Qwen3 => layer >= first,
        _ => true,
    };
    Ok((window, (0..layers).map(is_windowed).collect()))
}

/// Frequencies of the layers, and those of windowed layers where they differ.
fn ropes(config: &Config, family: Family, turning: usize) -> Result<(Frequencies, Option<Frequencies>), BackendError> {
    let thetas = 1.0..=1e12;
    let default = if family == Family::Gemma3 { 1_000_000.0 } else { 10_000.0 };
    let parameters = config.object("rope_parameters")?;
    // Newer configs have one set of parameters, or one for each kind of layer.
    let of_kind = |kind: &str| match &parameters {
        Some(parameters) if parameters.names(kind) => parameters.object(kind),
        _ => Ok(None),
    };
    let full = of_kind("full_attention")?.or_else(|| parameters.clone());
    let scaling = match config.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => full.clone(),
    };
    let theta = match (config.float("rope_theta", thetas.clone())?, &full) {
        (Some(theta), _) => theta,
        (None, Some(full)) => full.float("rope_theta", thetas.clone())?.unwrap_or(default),
        (None, None) => default,
    };
    let rope = Frequencies::read(config, scaling.as_ref(), theta, turning)?;
    if family != Family::Gemma3 {
        return Ok((rope, None));
    }
    let local = match of_kind("sliding_attention")? {
        Some(local) => local.float("rope_theta", thetas.clone())?,
        None => None,
    };
    let theta = match local {
        Some(theta) => theta,
        None => config.float("rope_local_base_freq", thetas)?.unwrap_or(10_000.0),
    };
    Ok((rope, Some(Frequencies::plain(theta, turning))))
}

#[cfg(test)]
mod tests;
