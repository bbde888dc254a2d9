//! Encoders, for embeddings.

use std::borrow::Cow;
use std::sync::Arc;

use ort::session::{Session, SessionInputValue};
use ort::value::{TensorElementType, ValueType};
use tollgate_backend::{BackendError, Embedder, Memory, Token, Tokenizer};
use tollgate_backend_hf::{Config, Folder, HfTokenizer, Pooling};

use crate::Settings;
use crate::session::{Input, dimension, open};

/// What encoders read where nothing says so.
const DEFAULT_TOKENS: usize = 512;

/// A loaded encoder.
pub struct OnnxEmbedder {
    session: Session,
    inputs: Vec<(String, Input)>,
    output: Output,
    tokenizer: Arc<HfTokenizer>,
    dimensions: usize,
    max_tokens: usize,
    memory: Memory,
}

/// Where the vector comes from.
struct Output {
    name: String,
    /// How rows become one; `None` if the model does that itself.
    pooling: Option<Pooling>,
}

impl OnnxEmbedder {
    /// Loads an encoder.
    ///
    /// # Errors
    /// The folder is no encoder, or ONNX Runtime is not there; the text says what to do.
    pub fn load(settings: &Settings) -> Result<Self, BackendError> {
        let folder = Folder::open(&settings.folder)?;
        let config = folder.config();
        let words = config.need_count("vocab_size", 1..=4_194_304)?;
        let tokenizer = folder.tokenizer(Some(words))?;
        let max_tokens = folder.longest_text(&tokenizer, positions(config)?)?;
        let (session, weights) = open(settings)?;
        let mut inputs = Vec::new();
        for outlet in session.inputs() {
            let input = Input::named(outlet.name()).filter(|input| outlet.dtype().tensor_type() == Some(input.element()));
            let unknown = || BackendError::Load(format!("the model has an input `{}` that is not known", outlet.name()));
            inputs.push((outlet.name().to_owned(), input.ok_or_else(unknown)?));
        }
        let (output, dimensions) = output(&session, &folder)?;
        let memory = Memory { weights, cache: 0, compute: 0 };
        Ok(OnnxEmbedder { session, inputs, output, tokenizer, dimensions, max_tokens, memory })
    }

    /// One text at a time: padding would cost what a batch saves.
    fn embed_one(&mut self, text: &[Token]) -> Result<Vec<f32>, BackendError> {
        let tokens = self.tokenizer.framed(text, self.max_tokens)?;
        let failed = |error: ort::Error| BackendError::Failed(error.to_string());
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::new();
        for (name, input) in &self.inputs {
            inputs.push((Cow::Borrowed(name.as_str()), SessionInputValue::from(input.value(&tokens, 0).map_err(failed)?)));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let missing = || BackendError::Failed(format!("the model gave no `{}`", self.output.name));
        let value = outputs.get(&self.output.name).ok_or_else(missing)?;
        let (_, numbers) = value.try_extract_tensor::<f32>().map_err(failed)?;
        let vector = match self.output.pooling {
            Some(pooling) => pooling.pool(numbers, self.dimensions),
            None if numbers.len() == self.dimensions => Pooling::Cls.pool(numbers, self.dimensions),
            None => None,
        };
        vector.ok_or_else(|| BackendError::Failed(format!("`{}` of the model is no vector", self.output.name)))
    }
}

/// Tokens that the model reads, with those around a text.
fn positions(config: &Config) -> Result<usize, BackendError> {
    let positions = config.count("max_position_embeddings", 1..=1_048_576)?;
    // RoBERTa counts positions from after that of the padding.
    let skipped = match config.text("model_type")? {
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => {
            config.count("pad_token_id", 0..=4_194_304)?.unwrap_or(1).saturating_add(1)
        }
        _ => 0,
    };
    Ok(positions.map_or(DEFAULT_TOKENS, |positions| positions.saturating_sub(skipped)))
}

/// The vector itself if the model gives one, else its last hidden state.
fn output(session: &Session, folder: &Folder) -> Result<(Output, usize), BackendError> {
    let hidden = match folder.config().count("hidden_size", 1..=65_536)? {
        Some(hidden) => Some(hidden),
        None => folder.config().count("dim", 1..=65_536)?,
    };
    for (name, rank) in [("sentence_embedding", 2), ("last_hidden_state", 3), ("token_embeddings", 3)] {
        let Some(outlet) = session.outputs().iter().find(|outlet| outlet.name() == name) else { continue };
        let ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } = outlet.dtype() else { continue };
        if shape.len() != rank {
            continue;
        }
        let dimensions = dimension(shape, rank - 1, hidden, "how many dimensions a vector has (`hidden_size`)")?;
        let pooling = if rank == 3 { Some(Pooling::read(folder)?) } else { None };
        return Ok((Output { name: name.to_owned(), pooling }, dimensions));
    }
    Err(BackendError::Load("the model has no output `sentence_embedding` or `last_hidden_state` in f32".to_owned()))
}

impl Embedder for OnnxEmbedder {
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
