//! Encoders of the BERT family, for embeddings.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, distilbert, xlm_roberta};
use rayon::ThreadPool;
use serde_json::{Value, json};
use tollgate_backend::{BackendError, Embedder, Memory, Token, Tokenizer};
use tollgate_backend_hf::{Config, Folder, HfTokenizer, Pooling};

use crate::weights::Weights;
use crate::{Settings, pool};

/// A loaded encoder.
pub struct CandleEmbedder {
    encoder: Encoder,
    tokenizer: Arc<HfTokenizer>,
    pooling: Pooling,
    pool: Option<ThreadPool>,
    dimensions: usize,
    max_tokens: usize,
    memory: Memory,
}

enum Encoder {
    Bert(Box<bert::BertModel>),
    DistilBert(Box<distilbert::DistilBertModel>),
    /// RoBERTa as well: they differ in their tokenizers.
    Roberta(Box<xlm_roberta::XLMRobertaModel>),
}

/// What the families call their numbers.
struct Names {
    hidden: &'static str,
    layers: &'static str,
    heads: &'static str,
    inner: &'static str,
}

const BERT: Names =
    Names { hidden: "hidden_size", layers: "num_hidden_layers", heads: "num_attention_heads", inner: "intermediate_size" };
const DISTILBERT: Names = Names { hidden: "dim", layers: "n_layers", heads: "n_heads", inner: "hidden_dim" };

/// Types of models that are computed.
const FAMILIES: [&str; 5] = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert"];

/// The numbers of an encoder.
struct Shape {
    hidden: usize,
    heads: usize,
    inner: usize,
    words: usize,
    /// Tokens of a text, with what is around it.
    tokens: usize,
}

impl CandleEmbedder {
    /// Loads an encoder.
    ///
    /// # Errors
    /// The folder is no model, or none of the BERT family.
    pub fn load(settings: &Settings) -> Result<Self, BackendError> {
        let folder = Folder::open(&settings.folder)?;
        let family = folder.config().text("model_type")?.unwrap_or_default().to_owned();
        let shape = Shape::read(folder.config(), &family)?;
        let tokenizer = folder.tokenizer(Some(shape.words))?;
        let pooling = Pooling::read(&folder)?;
        let max_tokens = folder.longest_text(&tokenizer, shape.tokens)?;
        let weights = Weights::load(&folder)?;
        let memory = Memory {
            weights: weights.bytes(),
            cache: 0,
            compute: shape.compute(max_tokens.saturating_add(tokenizer.frame_tokens())),
        };
        let encoder = Encoder::load(folder.config(), &family, weights)?;
        let pool = pool(settings.threads)?;
        Ok(CandleEmbedder { encoder, tokenizer, pooling, pool, dimensions: shape.hidden, max_tokens, memory })
    }

    /// Whether the model in `folder` is an encoder of a type that is computed here, from weights that are not quantized.
    ///
    /// # Errors
    /// There is no `config.json`, or a file is not what it should be.
    pub fn is_known(folder: &Path) -> Result<bool, BackendError> {
        let folder = Folder::open(folder)?;
        let family = folder.config().text("model_type")?.unwrap_or_default();
        Ok(FAMILIES.contains(&family) && folder.config().get("quantization_config").is_none())
    }

    /// Bytes that an encoder will take, from its config and the bytes of its weights at f32.
    ///
    /// # Errors
    /// Its config is not one of an encoder that candle runs here.
    pub fn predict(settings: &Settings, weights: u64) -> Result<Memory, BackendError> {
        let folder = Folder::open(&settings.folder)?;
        let family = folder.config().text("model_type")?.unwrap_or_default();
        let shape = Shape::read(folder.config(), family)?;
        Ok(Memory { weights, cache: 0, compute: shape.compute(shape.tokens) })
    }

    /// One text at a time: padding would cost what a batch saves, and change the last digits.
    fn embed_one(&self, text: &[Token]) -> Result<Vec<f32>, BackendError> {
        let tokens = self.tokenizer.framed(text, self.max_tokens)?;
        let rows = match &self.pool {
            Some(pool) => pool.install(|| self.encoder.rows(&tokens)),
            None => self.encoder.rows(&tokens),
        };
        let rows = rows.map_err(|error| BackendError::Failed(error.to_string()))?;
        let vector = self.pooling.pool(&rows, self.dimensions);
        vector.ok_or_else(|| BackendError::Failed("the model's vector is not made of numbers".to_owned()))
    }
}

impl Encoder {
    fn load(config: &Config, family: &str, weights: Weights) -> Result<Self, BackendError> {
        let load = |error: candle_core::Error| BackendError::Load(error.to_string());
        let prefix =
            ["bert", "roberta", "distilbert"].into_iter().find(|prefix| weights.has_prefix(&format!("{prefix}.embeddings.")));
        let all = VarBuilder::from_tensors(weights.into_tensors(), DType::F32, &Device::Cpu);
        let all = prefix.map_or_else(|| all.clone(), |prefix| all.pp(prefix));
        let value = complete(config, family);
        let wrong = |error: serde_json::Error| BackendError::Load(format!("config.json of a {family} model: {error}"));
        match family {
            "bert" => {
                let config = serde_json::from_value(value).map_err(wrong)?;
                Ok(Encoder::Bert(Box::new(bert::BertModel::load(all, &config).map_err(load)?)))
            }
            "distilbert" => {
                let config = serde_json::from_value(value).map_err(wrong)?;
                Ok(Encoder::DistilBert(Box::new(distilbert::DistilBertModel::load(all, &config).map_err(load)?)))
            }
            _ => {
                let config = serde_json::from_value(value).map_err(wrong)?;
                Ok(Encoder::Roberta(Box::new(xlm_roberta::XLMRobertaModel::new(&config, all).map_err(load)?)))
            }
        }
    }

    /// The last hidden state, row after row.
    fn rows(&self, tokens: &[Token]) -> candle_core::Result<Vec<f32>> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let first_segment = tokens.zeros_like()?;
        let rows = match self {
            Encoder::Bert(model) => model.forward(&tokens, &first_segment, None)?,
            // This one's mask says what is hidden.
            Encoder::DistilBert(model) => model.forward(&tokens, &first_segment.to_dtype(DType::U8)?)?,
            Encoder::Roberta(model) => {
                let mask = tokens.ones_like()?.to_dtype(DType::F32)?;
                model.forward(&tokens, &mask, &first_segment, None, None, None)?
            }
        };
        rows.flatten_all()?.to_vec1::<f32>()
    }
}

impl Shape {
    fn read(config: &Config, family: &str) -> Result<Self, BackendError> {
        let names = match family {
            "bert" | "roberta" | "xlm-roberta" | "camembert" => BERT,
            "distilbert" => DISTILBERT,
            other => {
                return Err(BackendError::Load(format!(
                    "the candle backend embeds with bert, roberta, xlm-roberta, camembert and distilbert, not with `{other}`"
                )));
            }
        };
        if config.text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
            return Err(BackendError::Load("only absolute position embeddings are supported".to_owned()));
        }
        let hidden = config.need_count(names.hidden, 1..=65_536)?;
        let heads = config.need_count(names.heads, 1..=1_024)?;
        config.need_count(names.layers, 1..=512)?;
        if !hidden.is_multiple_of(heads) {
            return Err(BackendError::Load(format!("config.json has {hidden} dimensions for {heads} heads")));
        }
        let positions = config.need_count("max_position_embeddings", 1..=1_048_576)?;
        // RoBERTa counts positions from after that of the padding.
        let skipped = if matches!(family, "bert" | "distilbert") {
            0
        } else {
            config.count("pad_token_id", 0..=4_194_304)?.unwrap_or(1).saturating_add(1)
        };
        Ok(Shape {
            hidden,
            heads,
            inner: config.need_count(names.inner, 1..=1_048_576)?,
            words: config.need_count("vocab_size", 1..=4_194_304)?,
            tokens: positions.saturating_sub(skipped),
        })
    }

    /// Bytes that the longest text needs at once: scores twice, and rows of the feed-forward layer.
    fn compute(&self, tokens: usize) -> u64 {
        let scores = self.heads.saturating_mul(tokens).saturating_mul(2);
        let rows = self.inner.saturating_mul(3).saturating_add(self.hidden.saturating_mul(4));
        let numbers = tokens.saturating_mul(scores.saturating_add(rows));
        u64::try_from(numbers).unwrap_or(u64::MAX).saturating_mul(4)
    }
}

/// The config with what candle wants to see and newer folders leave out.
fn complete(config: &Config, family: &str) -> Value {
    let mut value = config.value().clone();
    let padding = if matches!(family, "bert" | "distilbert") { 0 } else { 1 };
    let defaults = [
        ("position_embedding_type", json!("absolute")),
        ("hidden_dropout_prob", json!(0.1)),
        ("attention_probs_dropout_prob", json!(0.1)),
        ("initializer_range", json!(0.02)),
        ("layer_norm_eps", json!(1e-12)),
        ("type_vocab_size", json!(2)),
        ("pad_token_id", json!(padding)),
    ];
    if let Some(object) = value.as_object_mut() {
        for (key, default) in defaults {
            object.entry(key).or_insert(default);
        }
    }
    value
}

impl Embedder for CandleEmbedder {
    fn dimensions(&self) -> u32 {
        u32::try_from(self.dimensions).unwrap_or(u32::MAX)
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer) as _
    }

    fn max_tokens(&self) -> u32 {
        u32::try_from(self.max_tokens).unwrap_or(u32::MAX)
    }

    fn memory(&self) -> Memory {
        self.memory
    }

    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError> {
        texts.iter().map(|text| self.embed_one(text)).collect()
    }
}
