//! Rotary position embeddings: frequencies by kind of scaling, and tables of their sines.

use std::f64::consts::PI;

use candle_core::{D, Device, Result, Tensor};
use tollgate_backend::BackendError;
use tollgate_backend_hf::Config;

/// The frequencies of one kind of layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frequencies {
    /// One for each pair of dimensions.
    pub(crate) inverse: Vec<f32>,
    /// What sines and cosines are multiplied with.
    pub(crate) magnitude: f32,
    /// Tokens that they hold for, if that is less than what the model was trained for.
    pub(crate) tokens: Option<usize>,
}

impl Frequencies {
    /// Unscaled ones for `dimensions` of a head.
    pub(crate) fn plain(theta: f64, dimensions: usize) -> Self {
        Frequencies { inverse: narrow(&angles(theta, dimensions)), magnitude: 1.0, tokens: None }
    }

    /// Those that a config asks for: `scaling` is its `rope_scaling` or `rope_parameters`, `config` the whole.
    pub(crate) fn read(config: &Config, scaling: Option<&Config>, theta: f64, dimensions: usize) -> Loaded<Self> {
        let Some(scaling) = scaling else { return Ok(Self::plain(theta, dimensions)) };
        let kind = match scaling.text("rope_type")? {
            Some(kind) => Some(kind),
            None => scaling.text("type")?,
        };
        match kind {
            None | Some("default") => Ok(Self::plain(theta, dimensions)),
            Some("linear") => {
                let factor = need(scaling, "factor", 1.0..=1024.0)?;
                let inverse: Vec<f64> = angles(theta, dimensions).into_iter().map(|angle| angle / factor).collect();
                Ok(Frequencies { inverse: narrow(&inverse), magnitude: 1.0, tokens: None })
            }
            Some("llama3") => llama3(scaling, theta, dimensions),
            Some("longrope" | "su") => long(config, scaling, theta, dimensions),
            Some(other) => Err(BackendError::Load(format!(
                "the rope scaling `{other}` is not supported (default, linear, llama3 and longrope are)"
            ))),
        }
    }
}

type Loaded<T> = std::result::Result<T, BackendError>;

fn need(config: &Config, key: &str, range: std::ops::RangeInclusive<f64>) -> Loaded<f64> {
    config.float(key, range)?.ok_or_else(|| BackendError::Load(format!("the rope scaling has no `{key}`")))
}

fn angles(theta: f64, dimensions: usize) -> Vec<f64> {
    (0..dimensions / 2).map(|pair| theta.powf(-2.0 * pair as f64 / dimensions as f64)).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "models compute with f32 angles")]
fn narrow(angles: &[f64]) -> Vec<f32> {
    angles.iter().map(|angle| *angle as f32).collect()
}

/// Long waves are stretched, short ones kept, and those between are blended.
fn llama3(scaling: &Config, theta: f64, dimensions: usize) -> Loaded<Frequencies> {
    let factor = need(scaling, "factor", 1.0..=1024.0)?;
    let low = need(scaling, "low_freq_factor", 0.01..=1024.0)?;
    let high = need(scaling, "high_freq_factor", 0.01..=1024.0)?;
    let original = need(scaling, "original_max_position_embeddings", 1.0..=16_777_216.0)?;
    if high <= low {
        return Err(BackendError::Load(
            "the rope scaling has a `high_freq_factor` that is not above its `low_freq_factor`".to_owned(),
        ));
    }
    let scale = |angle: f64| {
        let wave = 2.0 * PI / angle;
        if wave < original / high {
            angle
        } else if wave > original / low {
            angle / factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            (1.0 - smooth) * angle / factor + smooth * angle
        }
    };
    let inverse: Vec<f64> = angles(theta, dimensions).into_iter().map(scale).collect();
    Ok(Frequencies { inverse: narrow(&inverse), magnitude: 1.0, tokens: None })
}

/// Two sets of frequencies, one for texts within the original length and one for longer ones. A cache cannot change from one to
/// the other, so the first is used, and texts stay within that length.
fn long(config: &Config, scaling: &Config, theta: f64, dimensions: usize) -> Loaded<Frequencies> {
    let key = "original_max_position_embeddings";
    let positions = 2..=16_777_216;
    let original = match scaling.count(key, positions.clone())? {
        Some(original) => original,
        None => config.need_count(key, positions.clone())?,
    };
    let most = config.need_count("max_position_embeddings", positions)?;
    let short = scaling.floats("short_factor", 0.001..=1000.0, dimensions)?.unwrap_or_default();
    if short.len() != dimensions / 2 {
        let what = format!("the rope scaling has {} short factors, and a head needs {}", short.len(), dimensions / 2);
        return Err(BackendError::Load(what));
    }
    let inverse: Vec<f64> = angles(theta, dimensions).into_iter().zip(short).map(|(angle, factor)| angle / factor).collect();
    let stretch = most as f64 / original as f64;
    let magnitude = match scaling.float("attention_factor", 0.01..=100.0)? {
        Some(magnitude) => magnitude,
        None if stretch <= 1.0 => 1.0,
        None => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
    };
    let magnitude = narrow(&[magnitude]).first().copied().unwrap_or(1.0);
    Ok(Frequencies { inverse: narrow(&inverse), magnitude, tokens: Some(original) })
}

/// Sines and cosines of every position.
pub(crate) struct Rope {
    cosines: Tensor,
    sines: Tensor,
    /// Dimensions of a head that turn; the others stay.
    turning: usize,
}

impl Rope {
    /// Tables for positions below `tokens`.
    pub(crate) fn new(frequencies: &Frequencies, tokens: usize) -> Result<Self> {
        let pairs = frequencies.inverse.len();
        let table = |turn: fn(f32) -> f32| {
            let values = (0..tokens).flat_map(|position| {
                // f32 as in training: an angle of a late position has few exact digits either way.
                frequencies.inverse.iter().map(move |inverse| turn(position as f32 * inverse) * frequencies.magnitude)
            });
            Tensor::from_vec(values.collect::<Vec<f32>>(), (tokens, pairs), &Device::Cpu)
        };
        Ok(Rope { cosines: table(f32::cos)?, sines: table(f32::sin)?, turning: pairs * 2 })
    }

    /// Turns heads, (heads, tokens, dimensions), whose first token is at `position`.
    pub(crate) fn turn(&self, heads: &Tensor, position: usize) -> Result<Tensor> {
        let (_, tokens, dimensions) = heads.dims3()?;
        let cosines = self.cosines.narrow(0, position, tokens)?;
        let sines = self.sines.narrow(0, position, tokens)?;
        let heads = heads.unsqueeze(0)?;
        if self.turning == dimensions {
            return candle_nn::rotary_emb::rope(&heads.contiguous()?, &cosines, &sines)?.squeeze(0);
        }
        let turning = heads.narrow(D::Minus1, 0, self.turning)?.contiguous()?;
        let turned = candle_nn::rotary_emb::rope(&turning, &cosines, &sines)?;
        let rest = heads.narrow(D::Minus1, self.turning, dimensions - self.turning)?.contiguous()?;
        Tensor::cat(&[&turned, &rest], D::Minus1)?.squeeze(0)
    }
}
