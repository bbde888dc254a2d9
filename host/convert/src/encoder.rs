//! BERT and what is built like it: encoders that make vectors of texts, and rerankers. How they are described, which tensors they have,
//! and what llama.cpp is told of them.
//!
//! With the families of `family.rs` they share how values are stored: they have no rotated positions, no cache and no chat.

mod config;
mod pooling;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::config::{FILE, FILE_BYTES};
use crate::error::ConvertError;
use crate::family::{Change, Planned};
use crate::files;
use crate::gguf::Value;
use crate::model::{Job, Prepared, job};
use crate::quant::narrow;
use crate::shards::Shards;
use crate::tokenizer::wordpiece::{self, WordPiece};
use crate::{Options, Target, metadata};
use config::Config;
use pooling::Pooling;

/// llama.cpp's name of the family, and `model_type` of it.
const ARCHITECTURE: &str = "bert";
/// What the names of tensors begin with where the encoder is a part of a bigger model.
const PREFIX: &str = "bert.";

#[derive(Debug, Deserialize)]
struct Kind {
    model_type: Option<String>,
}

/// Whether the model in `folder` is one of these, by its `config.json`.
pub(crate) fn is_encoder(folder: &Path) -> Result<bool, ConvertError> {
    let kind: Kind = files::needed_json(folder, FILE, FILE_BYTES)?;
    Ok(kind.model_type.as_deref() == Some(ARCHITECTURE))
}

/// All that its file is written from.
pub(crate) fn prepare(folder: &Path, options: &Options) -> Result<Prepared, ConvertError> {
    let config = Config::read(folder)?;
    let pooling = if config.is_reranker { Pooling::Rank } else { Pooling::read(folder)? };
    let shards = Shards::open(folder, "model")?;
    let jobs = jobs(&config, &shards, options.target)?;
    let WordPiece { metadata, marks_second } = wordpiece::read_vocabulary(folder, config.vocabulary, config.segments)?;
    if config.is_reranker && marks_second && config.segments > 1 {
        return Err(ConvertError::unsupported(
            "it tells a document from the query by its segment, and llama.cpp gives both the same one: its scores would be others",
        ));
    }
    let mut header = header(&config, pooling, options);
    header.extend(metadata);
    let notes = pooling::longer_texts(folder, config.positions)?.into_iter().collect();
    Ok(Prepared { architecture: ARCHITECTURE, header, jobs, shards, notes })
}

fn header(config: &Config, pooling: Pooling, options: &Options) -> Vec<(String, Value)> {
    let mut all = metadata::general(ARCHITECTURE, &options.name, options.target);
    let mut put = |suffix: &str, value: Value| all.push((format!("{ARCHITECTURE}.{suffix}"), value));
    put("context_length", Value::U32(config.positions));
    put("embedding_length", Value::U32(config.hidden));
    put("block_count", Value::U32(config.layers));
    put("feed_forward_length", Value::U32(config.feed_forward));
    put("attention.head_count", Value::U32(config.heads));
    put("attention.head_count_kv", Value::U32(config.heads));
    put("attention.layer_norm_epsilon", Value::F32(narrow(config.norm_epsilon)));
    put("attention.causal", Value::Bool(false));
    put("pooling_type", Value::U32(pooling.id()));
    put("vocab_size", Value::U32(config.vocabulary));
    all
}

/// Every tensor of the file in order. What the source has beyond them is refused, but for the heads that make no vectors.
fn jobs(config: &Config, shards: &Shards, target: Target) -> Result<Vec<Job>, ConvertError> {
    let prefix = if shards.names().any(|name| name.starts_with("bert.embeddings.")) { PREFIX } else { "" };
    let mut planned = plan(config, prefix);
    for tensor in &mut planned {
        tensor.source = present(shards, &tensor.source);
    }
    let known: BTreeSet<&str> = planned.iter().map(|planned| planned.source.as_str()).collect();
    if let Some(foreign) = shards.names().find(|name| !known.contains(name) && !is_left_out(name, prefix, config.is_reranker)) {
        return Err(ConvertError::tensor(foreign, "is not one that llama.cpp's `bert` has a use for"));
    }
    let jobs = planned.into_iter().map(|planned| {
        let found = shards.get(&planned.source).ok_or_else(|| ConvertError::tensor(&planned.source, "is missing"))?;
        // llama.cpp adds these row by row and has them in f32.
        let is_table = matches!(planned.name.as_str(), "position_embd.weight" | "token_types.weight");
        job(planned, found, if is_table { Target::F32 } else { target })
    });
    jobs.collect()
}

/// The name that a tensor has: norms were called otherwise once.
fn present(shards: &Shards, name: &str) -> String {
    let older = match name.rsplit_once('.') {
        Some((norm, "weight")) if norm.ends_with("LayerNorm") => format!("{norm}.gamma"),
        Some((norm, "bias")) if norm.ends_with("LayerNorm") => format!("{norm}.beta"),
        _ => return name.to_owned(),
    };
    if shards.get(name).is_none() && shards.get(&older).is_some() { older } else { name.to_owned() }
}

/// A buffer that can be computed, and heads for other tasks than this model's.
fn is_left_out(name: &str, prefix: &str, is_reranker: bool) -> bool {
    let own = name.strip_prefix(prefix).unwrap_or(name);
    own == "embeddings.position_ids" || name.starts_with("cls.") || (!is_reranker && own.starts_with("pooler."))
}

fn plan(config: &Config, prefix: &str) -> Vec<Planned> {
    let (hidden, inner) = (u64::from(config.hidden), u64::from(config.feed_forward));
    let mut all = Vec::new();
    let mut add = |source: String, name: String, shape: &[u64]| {
        all.push(Planned { source, name, shape: shape.to_vec(), change: Change::Keep, needed: true });
    };
    for (source, name, rows) in [
        ("word_embeddings", "token_embd", config.vocabulary),
        ("position_embeddings", "position_embd", config.positions),
        ("token_type_embeddings", "token_types", config.segments),
    ] {
        add(format!("{prefix}embeddings.{source}.weight"), format!("{name}.weight"), &[u64::from(rows), hidden]);
    }
    let mut both = |source: String, name: String, shape: &[u64]| {
        add(format!("{source}.weight"), format!("{name}.weight"), shape);
        add(format!("{source}.bias"), format!("{name}.bias"), shape.get(..1).unwrap_or_default());
    };
    both(format!("{prefix}embeddings.LayerNorm"), "token_embd_norm".to_owned(), &[hidden]);
    for layer in 0..config.layers {
        let parts: [(&str, &str, &[u64]); 8] = [
            ("attention.self.query", "attn_q", &[hidden, hidden]),
            ("attention.self.key", "attn_k", &[hidden, hidden]),
            ("attention.self.value", "attn_v", &[hidden, hidden]),
            ("attention.output.dense", "attn_output", &[hidden, hidden]),
            ("attention.output.LayerNorm", "attn_output_norm", &[hidden]),
            ("intermediate.dense", "ffn_up", &[inner, hidden]),
            ("output.dense", "ffn_down", &[hidden, inner]),
            ("output.LayerNorm", "layer_output_norm", &[hidden]),
        ];
        for (source, name, shape) in parts {
            both(format!("{prefix}encoder.layer.{layer}.{source}"), format!("blk.{layer}.{name}"), shape);
        }
    }
    if config.is_reranker {
        both(format!("{prefix}pooler.dense"), "cls".to_owned(), &[hidden, hidden]);
        both("classifier".to_owned(), "cls.output".to_owned(), &[1, hidden]);
    }
    all
}
