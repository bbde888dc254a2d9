//! Texts to vectors, and documents to scores.
//!
//! Several texts are computed at once, each as a sequence of its own, and nothing is kept between two calls.

mod context;
mod frame;

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;
use tollgate_backend::{BackendError, Embedder, Memory, Token, Tokenizer};

use self::context::{EmbedContext, Shape};
use self::frame::{Frame, Pair};
use crate::tokenizer::LlamaTokenizer;
use crate::{KvCache, MAX_SEQUENCES, Settings, cache_bytes, default_threads, load_model};

/// Architectures that see a text in both directions, whatever their files say or leave out.
const ENCODERS: [&str; 10] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
    "t5encoder",
];

/// A loaded model that turns texts into vectors, or ranks documents.
pub struct LlamaEmbedder {
    context: EmbedContext,
    tokenizer: Arc<LlamaTokenizer>,
    frame: Frame,
    /// What is around a query and a document, of a model that ranks.
    pair: Option<Pair>,
    max_tokens: u32,
    memory: Memory,
}

impl LlamaEmbedder {
    /// Loads a model. Takes as long as reading the file does. How rows become a vector is as the file says; where it says nothing, it
    /// is their mean for an encoder and the last one for a decoder.
    ///
    /// # Errors
    /// The file is no model, is one that is made of an encoder and a decoder, or there is no memory for it.
    pub fn load(settings: &Settings) -> Result<Self, BackendError> {
        let model = Arc::new(load_model(settings)?);
        let pooling = pooling(&model)?;
        let trained = model.n_ctx_train().max(1);
        let shape = Shape {
            rows: settings.step_rows.max(1),
            sequences: settings.sequences.clamp(1, MAX_SEQUENCES),
            threads: settings.threads.map_or_else(|| default_threads(model.size()), i32::from),
            pooling,
        };
        let context = EmbedContext::new(Arc::clone(&model), &shape)?;
        let tokenizer = Arc::new(LlamaTokenizer::new(Arc::clone(&model)));
        let frame = Frame::of(&model);
        let is_ranking = pooling == sys::LLAMA_POOLING_TYPE_RANK;
        let pair = if is_ranking { Some(Pair::of(&model, tokenizer.as_ref())?) } else { None };
        let around = pair.as_ref().map_or_else(|| frame.tokens(), Pair::tokens);
        // A position that the model was not trained for would end the process where positions are a table.
        let longest = trained.min(context.rows());
        let max_tokens = longest.saturating_sub(u32::try_from(around).unwrap_or(u32::MAX));
        if max_tokens == 0 {
            return Err(BackendError::Load(format!("the model reads {longest} tokens at once, which leaves none for a text")));
        }
        let memory = memory(&model, &context);
        Ok(LlamaEmbedder { context, tokenizer, frame, pair, max_tokens, memory })
    }

    fn check(&self, tokens: usize) -> Result<(), BackendError> {
        if u32::try_from(tokens).is_ok_and(|tokens| tokens <= self.max_tokens) {
            return Ok(());
        }
        Err(BackendError::Failed(format!("a text has {tokens} tokens, and {} is the most", self.max_tokens)))
    }

    /// What the model makes of each text, in as many batches as it takes.
    fn compute(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError> {
        let mut found = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            // One that fits into no batch is the context's to refuse.
            let count = self.context.fitting(rest).max(1);
            let (batch, later) = rest.split_at_checked(count).unwrap_or((rest, Default::default()));
            found.extend(self.context.compute(batch)?);
            rest = later;
        }
        Ok(found)
    }
}

/// How rows become one, by llama.cpp's numbers.
fn pooling(model: &LlamaModel) -> Result<sys::llama_pooling_type, BackendError> {
    let said = |key: &str| model.meta_val_str(key).ok();
    let architecture = said("general.architecture").unwrap_or_default();
    if context::is_encoder_and_decoder(model) {
        let what = format!("a model of the architecture {architecture} is made of an encoder and a decoder, and embeds nothing");
        return Err(BackendError::Load(what));
    }
    let number = said(&format!("{architecture}.pooling_type")).and_then(|text| text.parse::<sys::llama_pooling_type>().ok());
    let is_encoder = ENCODERS.contains(&architecture.as_str())
        || said(&format!("{architecture}.attention.causal")).is_some_and(|text| text == "false");
    match number {
        Some(
            known @ (sys::LLAMA_POOLING_TYPE_MEAN
            | sys::LLAMA_POOLING_TYPE_CLS
            | sys::LLAMA_POOLING_TYPE_LAST
            | sys::LLAMA_POOLING_TYPE_RANK),
        ) => Ok(known),
        None | Some(sys::LLAMA_POOLING_TYPE_UNSPECIFIED | sys::LLAMA_POOLING_TYPE_NONE) => {
            Ok(if is_encoder { sys::LLAMA_POOLING_TYPE_MEAN } else { sys::LLAMA_POOLING_TYPE_LAST })
        }
        Some(other) => Err(BackendError::Load(format!("the file asks for a pooling ({other}) that is not known"))),
    }
}

/// Weights, the cache where there is one, and rows of logits and of numbers, which llama.cpp has for every token of a batch.
fn memory(model: &LlamaModel, context: &EmbedContext) -> Memory {
    let words = u64::try_from(model.n_vocab()).unwrap_or(0);
    let width = u64::try_from(model.n_embd_out()).unwrap_or(0);
    let compute = u64::from(context.rows()).saturating_mul(words.saturating_add(width)).saturating_mul(4);
    let cache = context.cells().map_or(0, |cells| cache_bytes(model, cells, KvCache::F16));
    Memory { weights: model.size(), cache, compute }
}

/// The same direction, of length 1.
fn normalized(mut vector: Vec<f32>) -> Result<Vec<f32>, BackendError> {
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() || length <= 0.0 {
        return Err(BackendError::Failed("the model's vector is not made of numbers, or is nothing but zeros".to_owned()));
    }
    #[allow(clippy::cast_possible_truncation, reason = "a part of a vector of length 1 needs no more digits")]
    let part = |number: f32| (f64::from(number) / length) as f32;
    vector.iter_mut().for_each(|number| *number = part(*number));
    Ok(vector)
}

impl Embedder for LlamaEmbedder {
    fn dimensions(&self) -> u32 {
        u32::try_from(self.context.dimensions()).unwrap_or(u32::MAX)
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer) as _
    }

    fn max_tokens(&self) -> u32 {
        self.max_tokens
    }

    fn memory(&self) -> Memory {
        self.memory
    }

    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError> {
        if self.pair.is_some() {
            return Err(BackendError::Unsupported("embedding with a model that ranks"));
        }
        texts.iter().try_for_each(|text| self.check(text.len()))?;
        let framed = texts.iter().map(|text| self.frame.around(text)).collect::<Vec<_>>();
        self.compute(&framed)?.into_iter().map(normalized).collect()
    }

    fn ranks(&self) -> bool {
        self.pair.is_some()
    }

    fn rank(&mut self, query: &[Token], documents: &[Vec<Token>]) -> Result<Vec<f32>, BackendError> {
        let Some(pair) = &self.pair else {
            return Err(BackendError::Unsupported("ranking with a model that has no head for it"));
        };
        documents.iter().try_for_each(|document| self.check(query.len().saturating_add(document.len())))?;
        let framed = documents.iter().map(|document| pair.around(query, document)).collect::<Vec<_>>();
        let score = |head: Vec<f32>| {
            let score = head.first().copied().filter(|score| score.is_finite());
            score.ok_or_else(|| BackendError::Failed("the model's score is not a number".to_owned()))
        };
        self.compute(&framed)?.into_iter().map(score).collect()
    }
}
