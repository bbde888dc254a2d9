//! A decoder with `past_key_values`, as optimum exports them: the cache goes in and comes out with each run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::{DynTensor, DynValue, Tensor, TensorElementType, ValueType};
use tollgate_backend::{AdapterId, BackendError};
use tollgate_backend_hf::{Config, Lora, Part, Serial};

use crate::session::{Input, Source, dimension};

/// Keys and values of more layers than any model has.
const MAX_CACHES: usize = 2_048;

/// A loaded decoder.
pub(crate) struct Decoder {
    session: Session,
    /// The same model with an adapter in it, one for each.
    adapted: BTreeMap<AdapterId, Session>,
    source: Source,
    inputs: Vec<(String, Input)>,
    caches: Vec<Cache>,
    words: usize,
}

/// The keys or the values of a layer: (1, heads, tokens, width).
#[derive(Debug)]
struct Cache {
    past: String,
    present: String,
    element: TensorElementType,
    heads: usize,
    width: usize,
}

/// What a sequence holds. Values are never written to, so states may share them.
pub(crate) struct State {
    caches: Vec<Arc<DynValue>>,
    length: u32,
}

impl Decoder {
    /// Takes a session whose inputs and outputs are those of a decoder, and what it was made of.
    pub(crate) fn new(session: Session, source: Source, config: &Config) -> Result<Self, BackendError> {
        let (mut inputs, mut caches) = (Vec::new(), Vec::new());
        for outlet in session.inputs() {
            let name = outlet.name();
            if name.starts_with("past_key_values.") {
                caches.push(Cache::new(name, outlet.dtype(), config)?);
            } else {
                let input = Input::named(name).filter(|input| outlet.dtype().tensor_type() == Some(input.element()));
                let unknown =
                    || BackendError::Load(format!("the model has an input `{name}` ({}) that is not known", outlet.dtype()));
                inputs.push((name.to_owned(), input.ok_or_else(unknown)?));
            }
        }
        if caches.is_empty() || caches.len() > MAX_CACHES {
            let what = "the model has no `past_key_values` inputs; optimum exports them with the task text-generation-with-past";
            return Err(BackendError::Load(what.to_owned()));
        }
        let outputs = session.outputs();
        if let Some(cache) = caches.iter().find(|cache| !outputs.iter().any(|outlet| outlet.name() == cache.present)) {
            return Err(BackendError::Load(format!(
                "the model has the input `{}` and no output `{}`",
                cache.past, cache.present
            )));
        }
        let logits = outputs.iter().find(|outlet| outlet.name() == "logits").map(|outlet| outlet.dtype());
        let Some(ValueType::Tensor { ty: TensorElementType::Float32, shape, .. }) = logits else {
            return Err(BackendError::Load("the model has no output `logits` in f32".to_owned()));
        };
        let words = dimension(shape, 2, config.count("vocab_size", 1..=4_194_304)?, "how many words there are (`vocab_size`)")?;
        Ok(Decoder { session, adapted: BTreeMap::new(), source, inputs, caches, words })
    }

    /// Words of the vocabulary.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Whether caches can be cut: their numbers have to be read for that.
    pub(crate) fn can_cut(&self) -> bool {
        self.caches.iter().all(|cache| cache.element == TensorElementType::Float32)
    }

    /// Bytes of the caches for one token.
    pub(crate) fn token_bytes(&self) -> u64 {
        let bytes = |cache: &Cache| {
            let numbers = u64::try_from(cache.heads.saturating_mul(cache.width)).unwrap_or(u64::MAX);
            numbers.saturating_mul(if cache.element == TensorElementType::Float32 { 4 } else { 2 })
        };
        self.caches.iter().map(bytes).fold(0, u64::saturating_add)
    }

    fn run(&mut self, state: &mut State, part: &Part<'_>, logits: &mut Vec<f32>) -> Result<(), String> {
        let start = to_usize(part.position);
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::new();
        for (name, input) in &self.inputs {
            let value = input.value(part.tokens, start).map_err(|error| error.to_string())?;
            inputs.push((Cow::Borrowed(name.as_str()), SessionInputValue::from(value)));
        }
        for (cache, value) in self.caches.iter().zip(&state.caches) {
            let value: &DynValue = value;
            inputs.push((Cow::Borrowed(cache.past.as_str()), SessionInputValue::from(value)));
        }
        let session = match part.adapter {
            Some(adapter) => self.adapted.get_mut(&adapter).ok_or_else(|| format!("there is no adapter {}", adapter.0))?,
            None => &mut self.session,
        };
        let mut outputs = session.run(inputs).map_err(|error| error.to_string())?;
        read_logits(&outputs, part, self.words, logits)?;
        let total = start.saturating_add(part.tokens.len());
        for (cache, value) in self.caches.iter().zip(&mut state.caches) {
            let present = outputs.remove(&cache.present).ok_or_else(|| format!("the model gave no `{}`", cache.present))?;
            let length =
                present.dtype().tensor_shape().and_then(|shape| shape.get(2)).and_then(|length| usize::try_from(*length).ok());
            if length != Some(total) {
                return Err(format!("`{}` holds {length:?} tokens after {total}", cache.present));
            }
            *value = Arc::new(present);
        }
        state.length = u32::try_from(total).unwrap_or(u32::MAX);
        Ok(())
    }
}

/// Appends the rows of `logits`, (1, rows, words), that are wanted. A model may give the last rows only.
fn read_logits(outputs: &SessionOutputs<'_>, part: &Part<'_>, words: usize, logits: &mut Vec<f32>) -> Result<(), String> {
    let value = outputs.get("logits").ok_or("the model gave no `logits`")?;
    let (shape, numbers) = value.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
    let rows = numbers.len().checked_div(words).unwrap_or(0);
    let is_whole = rows.checked_mul(words) == Some(numbers.len())
        && shape.last().and_then(|last| usize::try_from(*last).ok()) == Some(words);
    let Some(missing) = part.tokens.len().checked_sub(rows).filter(|_| is_whole) else {
        return Err(format!("the model gave logits of the shape {shape} for {} tokens and {words} words", part.tokens.len()));
    };
    for wanted in part.wanted {
        let row = wanted.checked_sub(missing).and_then(|row| numbers.chunks_exact(words).nth(row));
        logits.extend_from_slice(row.ok_or("the model gives logits for its last row only")?);
    }
    Ok(())
}

impl Cache {
    fn new(past: &str, dtype: &ValueType, config: &Config) -> Result<Self, BackendError> {
        let ValueType::Tensor { ty: element @ (TensorElementType::Float32 | TensorElementType::Float16), shape, .. } = dtype
        else {
            return Err(BackendError::Load(format!("the model's input `{past}` is a {dtype}, and f32 or f16 is expected")));
        };
        if shape.len() != 4 {
            return Err(BackendError::Load(format!(
                "the model's input `{past}` has the shape {shape}, and four dimensions are expected"
            )));
        }
        let attention = config.count("num_attention_heads", 1..=1_024)?;
        let heads = config.count("num_key_value_heads", 1..=1_024)?.or(attention);
        let width = match (config.count("head_dim", 1..=65_536)?, config.count("hidden_size", 1..=65_536)?, attention) {
            (Some(width), _, _) => Some(width),
            (None, Some(hidden), Some(heads)) => hidden.checked_div(heads),
            _ => None,
        };
        Ok(Cache {
            present: past.replacen("past_key_values.", "present.", 1),
            past: past.to_owned(),
            element: *element,
            heads: dimension(shape, 1, heads, "how many heads keys have (`num_key_value_heads`)")?,
            width: dimension(shape, 3, width, "how wide a head is (`head_dim`)")?,
        })
    }

    fn empty(&self) -> ort::Result<DynValue> {
        let shape = [1_usize, self.heads, 0, self.width];
        DynTensor::new(&Allocator::default(), self.element, shape).map(|tensor| tensor.into_dyn())
    }

    /// The first `length` tokens of `value`, as a value of its own.
    fn cut(&self, value: &DynValue, length: usize) -> Result<DynValue, String> {
        let (shape, numbers) = value.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
        let held = shape.get(2).and_then(|held| usize::try_from(*held).ok()).unwrap_or(0);
        let (whole, part) = (held.saturating_mul(self.width), length.saturating_mul(self.width));
        if part == 0 || part > whole {
            return Err(format!("a cache of {held} tokens cannot be cut to {length}"));
        }
        let mut kept = Vec::with_capacity(self.heads.saturating_mul(part));
        for head in numbers.chunks_exact(whole) {
            kept.extend_from_slice(head.get(..part).unwrap_or_default());
        }
        let tensor = Tensor::from_array(([1_usize, self.heads, length, self.width], kept)).map_err(|error| error.to_string())?;
        Ok(tensor.into_dyn())
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Serial for Decoder {
    type State = State;

    fn empty(&self) -> Result<State, String> {
        let caches = self.caches.iter().map(|cache| cache.empty().map(Arc::new).map_err(|error| error.to_string()));
        Ok(State { caches: caches.collect::<Result<Vec<_>, String>>()?, length: 0 })
    }

    fn forward(&mut self, state: &mut State, part: &Part<'_>, logits: &mut Vec<f32>) -> Result<(), String> {
        self.run(state, part, logits)
    }

    fn fork(&self, state: &State, length: u32) -> Result<State, String> {
        if length == state.length {
            return Ok(State { caches: state.caches.clone(), length });
        }
        let pairs = self.caches.iter().zip(&state.caches);
        let caches = pairs.map(|(cache, value)| cache.cut(value, to_usize(length)).map(Arc::new));
        Ok(State { caches: caches.collect::<Result<Vec<_>, String>>()?, length })
    }

    fn truncate(&self, state: &mut State, length: u32) -> Result<(), String> {
        *state = self.fork(state, length)?;
        Ok(())
    }

    fn load_adapter(&mut self, adapter: AdapterId, lora: Lora) -> Result<(), String> {
        self.adapted.insert(adapter, self.source.adapted(lora)?);
        Ok(())
    }

    fn drop_adapter(&mut self, adapter: AdapterId) {
        self.adapted.remove(&adapter);
    }
}
