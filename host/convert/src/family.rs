//! The families of models: how they are told apart, and which tensors of what shape they have under which name.
//!
//! Names on the left are those of Hugging Face's implementations, names on the right those that llama.cpp asks for.

use crate::error::ConvertError;

/// A family that llama.cpp computes and this crate converts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Llama 1 to 3, Mistral and what is built like them.
    Llama,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    /// The text part of Gemma 3.
    Gemma3,
    /// Phi 3 and 4.
    Phi3,
}

/// `model_type`, the class that has the weights, the family, and llama.cpp's name.
const FAMILIES: &[(&str, &str, Family, &str)] = &[
    ("llama", "LlamaForCausalLM", Family::Llama, "llama"),
    ("mistral", "MistralForCausalLM", Family::Llama, "llama"),
    ("qwen2", "Qwen2ForCausalLM", Family::Qwen2, "qwen2"),
    ("qwen3", "Qwen3ForCausalLM", Family::Qwen3, "qwen3"),
    ("gemma", "GemmaForCausalLM", Family::Gemma, "gemma"),
    ("gemma2", "Gemma2ForCausalLM", Family::Gemma2, "gemma2"),
    ("gemma3_text", "Gemma3ForCausalLM", Family::Gemma3, "gemma3"),
    ("phi3", "Phi3ForCausalLM", Family::Phi3, "phi3"),
];

impl Family {
    /// By `model_type` and `architectures` of `config.json`.
    pub(crate) fn of_config(model_type: &str, architectures: &[String]) -> Result<Self, ConvertError> {
        let Some((_, class, family, _)) = FAMILIES.iter().find(|(name, ..)| *name == model_type) else {
            let known: Vec<&str> = FAMILIES.iter().map(|(name, ..)| *name).collect();
            return Err(ConvertError::unsupported(format!(
                "its model_type is {model_type:?}; {} are converted, and bert without adapters",
                known.join(", ")
            )));
        };
        if !architectures.is_empty() && !architectures.iter().any(|name| name == class) {
            return Err(ConvertError::unsupported(format!("its architecture is {architectures:?}; {class} is converted")));
        }
        Ok(*family)
    }

    /// By `general.architecture` of a GGUF file.
    pub(crate) fn of_architecture(architecture: &str) -> Option<Self> {
        FAMILIES.iter().find(|(.., name)| *name == architecture).map(|(_, _, family, _)| *family)
    }

    /// llama.cpp's name.
    pub(crate) fn architecture(self) -> &'static str {
        FAMILIES.iter().find(|(_, _, family, _)| *family == self).map_or("", |(.., name)| name)
    }

    /// Whether it is one of the Gemmas, which share their norms and activation.
    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }
}

/// The sizes that decide which tensors there are.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) family: Family,
    /// Layers; 1 to 512.
    pub(crate) layers: u32,
    /// Width of the residual stream; 1 to 1 Mi.
    pub(crate) hidden: u32,
    /// Width of the feed-forward part; 1 to 4 Mi.
    pub(crate) feed_forward: u32,
    /// Heads of the queries; 1 to 4,096.
    pub(crate) heads: u32,
    /// Heads of the keys and values; divides `heads`.
    pub(crate) kv_heads: u32,
    /// Width of one head; even, 2 to 8,192.
    pub(crate) head_dim: u32,
    /// Rows of the embedding; 1 to 2 Mi.
    pub(crate) vocabulary: u32,
    /// Whether the output uses the embedding's weights.
    pub(crate) tied: bool,
}

/// What is done to the values on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Keep,
    /// Rows are reordered within each of that many heads: llama.cpp's `llama` rotates neighbouring pairs, the source halves.
    Interleave(u64),
    /// One is added: llama.cpp multiplies by what the file has, Gemma by one more.
    AddOne,
}

/// One tensor that the model has to have, or may have.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// Its name in the source.
    pub(crate) source: String,
    /// Its name in the GGUF file.
    pub(crate) name: String,
    /// Its dimensions, the outermost first.
    pub(crate) shape: Vec<u64>,
    /// What is done to the values.
    pub(crate) change: Change,
    /// Whether the model is not sound without it.
    pub(crate) needed: bool,
}

/// Every tensor of a model of this shape, in the order of the file.
pub(crate) fn plan(shape: &Shape) -> Vec<Planned> {
    let norm = if shape.family.is_gemma() { Change::AddOne } else { Change::Keep };
    let (hidden, vocabulary) = (u64::from(shape.hidden), u64::from(shape.vocabulary));
    let mut all = vec![
        needed("model.embed_tokens.weight", "token_embd.weight", &[vocabulary, hidden], Change::Keep),
        needed("model.norm.weight", "output_norm.weight", &[hidden], norm),
    ];
    if !shape.tied {
        all.push(needed("lm_head.weight", "output.weight", &[vocabulary, hidden], Change::Keep));
    }
    for layer in 0..shape.layers {
        let mut add = |source: &str, name: &str, dimensions: &[u64], change: Change, is_needed: bool| {
            all.push(Planned {
                source: format!("model.layers.{layer}.{source}"),
                name: format!("blk.{layer}.{name}"),
                shape: dimensions.to_vec(),
                change,
                needed: is_needed,
            });
        };
        for (source, name) in norms(shape.family) {
            add(source, name, &[hidden], norm, true);
        }
        attention(shape, norm, &mut add);
        feed_forward(shape, &mut add);
    }
    all
}

fn needed(source: &str, name: &str, shape: &[u64], change: Change) -> Planned {
    Planned { source: source.to_owned(), name: name.to_owned(), shape: shape.to_vec(), change, needed: true }
}

/// The norms of a layer: the second one is before the feed-forward part, but after the attention in Gemma 2 and 3.
fn norms(family: Family) -> &'static [(&'static str, &'static str)] {
    if matches!(family, Family::Gemma2 | Family::Gemma3) {
        &[
            ("input_layernorm.weight", "attn_norm.weight"),
            ("post_attention_layernorm.weight", "post_attention_norm.weight"),
            ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
            ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
        ]
    } else {
        &[("input_layernorm.weight", "attn_norm.weight"), ("post_attention_layernorm.weight", "ffn_norm.weight")]
    }
}

type Add<'a> = dyn FnMut(&str, &str, &[u64], Change, bool) + 'a;

fn attention(shape: &Shape, norm: Change, add: &mut Add<'_>) {
    let hidden = u64::from(shape.hidden);
    let head = u64::from(shape.head_dim);
    let queries = u64::from(shape.heads) * head;
    let keys = u64::from(shape.kv_heads) * head;
    if shape.family == Family::Phi3 {
        add("self_attn.qkv_proj.weight", "attn_qkv.weight", &[queries + 2 * keys, hidden], Change::Keep, true);
        add("self_attn.o_proj.weight", "attn_output.weight", &[hidden, queries], Change::Keep, true);
        return;
    }
    let pairs = |heads: u32| if shape.family == Family::Llama { Change::Interleave(heads.into()) } else { Change::Keep };
    let parts = [("q", queries, pairs(shape.heads)), ("k", keys, pairs(shape.kv_heads)), ("v", keys, Change::Keep)];
    for (part, rows, change) in parts {
        add(&format!("self_attn.{part}_proj.weight"), &format!("attn_{part}.weight"), &[rows, hidden], change, true);
        if matches!(shape.family, Family::Llama | Family::Qwen2) {
            let is_needed = shape.family == Family::Qwen2;
            add(&format!("self_attn.{part}_proj.bias"), &format!("attn_{part}.bias"), &[rows], change, is_needed);
        }
    }
    add("self_attn.o_proj.weight", "attn_output.weight", &[hidden, queries], Change::Keep, true);
    if shape.family == Family::Llama {
        add("self_attn.o_proj.bias", "attn_output.bias", &[hidden], Change::Keep, false);
    }
    if matches!(shape.family, Family::Qwen3 | Family::Gemma3) {
        add("self_attn.q_norm.weight", "attn_q_norm.weight", &[head], norm, true);
        add("self_attn.k_norm.weight", "attn_k_norm.weight", &[head], norm, true);
    }
}

fn feed_forward(shape: &Shape, add: &mut Add<'_>) {
    let (hidden, inner) = (u64::from(shape.hidden), u64::from(shape.feed_forward));
    if shape.family == Family::Phi3 {
        add("mlp.gate_up_proj.weight", "ffn_up.weight", &[2 * inner, hidden], Change::Keep, true);
        add("mlp.down_proj.weight", "ffn_down.weight", &[hidden, inner], Change::Keep, true);
        return;
    }
    for (part, rows, columns) in [("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)] {
        add(&format!("mlp.{part}_proj.weight"), &format!("ffn_{part}.weight"), &[rows, columns], Change::Keep, true);
        if shape.family == Family::Llama {
            add(&format!("mlp.{part}_proj.bias"), &format!("ffn_{part}.bias"), &[rows], Change::Keep, false);
        }
    }
}
