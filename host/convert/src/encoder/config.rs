//! What `config.json` says of an encoder, held to closed ranges and to what llama.cpp computes.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::config::{FILE, FILE_BYTES, bad, within};
use crate::error::{ConvertError, quoted};
use crate::files;

/// The classes that have an encoder's weights, and whether the class ranks.
const CLASSES: [(&str, bool); 4] =
    [("BertModel", false), ("BertForMaskedLM", false), ("BertForPreTraining", false), ("BertForSequenceClassification", true)];
/// llama.cpp has the tanh form for all of them, which is within 0.001 of the exact one.
const ACTIVATIONS: [&str; 3] = ["gelu", "gelu_new", "gelu_pytorch_tanh"];

/// An encoder's description, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// Layers; 1 to 512.
    pub(super) layers: u32,
    /// Width of the residual stream; 1 to 1 Mi.
    pub(super) hidden: u32,
    /// Width of the feed-forward part; 1 to 4 Mi.
    pub(super) feed_forward: u32,
    /// Heads; 1 to 4,096, which divide `hidden`.
    pub(super) heads: u32,
    /// Rows of the embedding; 1 to 2 Mi.
    pub(super) vocabulary: u32,
    /// Positions that have an embedding; 1 to 1 Mi.
    pub(super) positions: u32,
    /// Segments that have an embedding; 1 to 16.
    pub(super) segments: u32,
    /// Added to the variance under the root; above 0, below 1.
    pub(super) norm_epsilon: f64,
    /// Whether it has a head that gives one score.
    pub(super) is_reranker: bool,
}

/// The fields that are looked at; all others are left alone.
#[derive(Debug, Deserialize)]
struct Raw {
    architectures: Option<Vec<String>>,
    vocab_size: Option<u64>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    max_position_embeddings: Option<u64>,
    type_vocab_size: Option<u64>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    add_cross_attention: Option<bool>,
    num_labels: Option<u64>,
    id2label: Option<BTreeMap<String, Value>>,
    quantization_config: Option<Value>,
}

impl Config {
    /// Reads and checks `config.json`.
    pub(super) fn read(folder: &Path) -> Result<Self, ConvertError> {
        let raw: Raw = files::needed_json(folder, FILE, FILE_BYTES)?;
        raw.refuse_foreign()?;
        let is_reranker = raw.is_reranker()?;
        let hidden = within("hidden_size", raw.hidden_size, 1, 1 << 20)?;
        let heads = within("num_attention_heads", raw.num_attention_heads, 1, 4096)?;
        if !hidden.is_multiple_of(heads) {
            return Err(bad(format!("has hidden_size {hidden}, which is no multiple of num_attention_heads {heads}")));
        }
        let norm_epsilon = raw.layer_norm_eps.unwrap_or(1e-12);
        if !(norm_epsilon > 0.0 && norm_epsilon < 1.0) {
            return Err(bad(format!("has layer_norm_eps {norm_epsilon}; it is between 0 and 1")));
        }
        Ok(Self {
            layers: within("num_hidden_layers", raw.num_hidden_layers, 1, 512)?,
            hidden,
            feed_forward: within("intermediate_size", raw.intermediate_size, 1, 4 << 20)?,
            heads,
            vocabulary: within("vocab_size", raw.vocab_size, 1, 2 << 20)?,
            positions: within("max_position_embeddings", raw.max_position_embeddings, 1, 1 << 20)?,
            segments: within("type_vocab_size", raw.type_vocab_size.or(Some(2)), 1, 16)?,
            norm_epsilon,
            is_reranker,
        })
    }
}

impl Raw {
    /// Refuses what llama.cpp's implementation would silently compute otherwise.
    fn refuse_foreign(&self) -> Result<(), ConvertError> {
        if self.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(ConvertError::unsupported("its weights are quantized already; convert the ones it was made from"));
        }
        if self.is_decoder == Some(true) || self.add_cross_attention == Some(true) {
            return Err(ConvertError::unsupported("it is a BERT that writes; those that read are converted"));
        }
        if let Some(kind) = self.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            let kind = quoted(kind);
            return Err(ConvertError::unsupported(format!("its positions are `{kind}`; absolute ones are converted")));
        }
        match self.hidden_act.as_deref() {
            Some(name) if !ACTIVATIONS.contains(&name) => Err(ConvertError::unsupported(format!(
                "its activation is `{}`; this family has {}",
                quoted(name),
                ACTIVATIONS.join(" or ")
            ))),
            _ => Ok(()),
        }
    }

    /// By the class that has the weights, which gives one score for a pair of texts.
    fn is_reranker(&self) -> Result<bool, ConvertError> {
        let names = self.architectures.as_deref().unwrap_or_default();
        if names.is_empty() {
            return Ok(false);
        }
        let class = CLASSES.iter().find(|(class, _)| names.iter().any(|name| name == class));
        let Some((_, ranks)) = class else {
            let known: Vec<&str> = CLASSES.iter().map(|(class, _)| *class).collect();
            let known = known.join(", ");
            return Err(ConvertError::unsupported(format!("its architecture is {names:?}; {known} are converted")));
        };
        let listed = self.id2label.as_ref().and_then(|labels| u64::try_from(labels.len()).ok());
        // Two are transformers' own default.
        let labels = listed.or(self.num_labels).unwrap_or(2);
        if *ranks && labels != 1 {
            let what = format!("it sorts texts by {labels} labels; a reranker gives one score");
            return Err(ConvertError::unsupported(what));
        }
        Ok(*ranks)
    }
}
