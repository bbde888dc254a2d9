//! Rotary positions: their base, and how they are stretched for a longer context.

use serde::Deserialize;
use serde_json::Value;

use super::bad;
use super::raw::Raw;
use crate::error::{ConvertError, quoted};
use crate::family::Family;

/// How positions are turned into angles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// The base of the angles.
    pub(crate) base: f64,
    /// The base in sliding layers, Gemma 3 only.
    pub(crate) sliding_base: Option<f64>,
    /// Dimensions of a head that are rotated; even.
    pub(crate) dimensions: u32,
    pub(crate) scaling: Scaling,
}

/// How the angles are stretched.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// All angles are divided by the factor.
    Linear(f64),
    /// YaRN, with its own defaults for everything else.
    Yarn {
        factor: f64,
        original: u32,
    },
    /// Each pair has its own divisor, in a tensor of the file.
    Factors(Vec<f32>),
    /// Two sets of divisors, the long one for contexts over `original`.
    Long {
        long: Vec<f32>,
        short: Vec<f32>,
        original: u32,
        /// What the attention's scores are multiplied by.
        attention: f64,
    },
}

/// `rope_scaling`, or one entry of `rope_parameters`.
#[derive(Debug, Default, Deserialize)]
struct Stretch {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    long_factor: Option<Vec<f64>>,
    short_factor: Option<Vec<f64>>,
}

impl Rope {
    /// What `config.json` says of positions, in its older or its newer form.
    pub(super) fn of(raw: &Raw, family: Family, head_dim: u32, context: u32) -> Result<Self, ConvertError> {
        let (stretch, sliding) = stretches(raw)?;
        let default = if family == Family::Gemma3 { 1_000_000.0 } else { 10_000.0 };
        let base = positive("rope_theta", stretch.rope_theta.or(raw.rope_theta).unwrap_or(default))?;
        let local = sliding.and_then(|sliding| sliding.rope_theta).or(raw.rope_local_base_freq).unwrap_or(10_000.0);
        let sliding_base = (family == Family::Gemma3).then(|| positive("rope_local_base_freq", local)).transpose()?;
        let part = stretch.partial_rotary_factor.or(raw.partial_rotary_factor).unwrap_or(1.0);
        let dimensions = rotated(part, head_dim)?;
        if dimensions != head_dim && family != Family::Phi3 {
            return Err(ConvertError::unsupported("it rotates only a part of each head"));
        }
        let scaling = scaling(&stretch, raw, family, &Span { base, dimensions, context })?;
        Ok(Self { base, sliding_base, dimensions, scaling })
    }
}

/// What decides over the divisors.
struct Span {
    base: f64,
    dimensions: u32,
    context: u32,
}

/// The settings for all or the full layers, and those for the sliding ones where they are told apart.
fn stretches(raw: &Raw) -> Result<(Stretch, Option<Stretch>), ConvertError> {
    let understood = |value: &Value| -> Result<Stretch, ConvertError> {
        Stretch::deserialize(value).map_err(|error| bad(format!("has rope settings that are not understood: {error}")))
    };
    let newer = raw.rope_parameters.as_ref().filter(|value| !value.is_null());
    let older = raw.rope_scaling.as_ref().filter(|value| !value.is_null());
    match newer {
        Some(value) => match value.get("full_attention") {
            Some(full) => Ok((understood(full)?, value.get("sliding_attention").map(understood).transpose()?)),
            None => Ok((understood(value)?, None)),
        },
        None => Ok((older.map(understood).transpose()?.unwrap_or_default(), None)),
    }
}

fn positive(name: &str, value: f64) -> Result<f64, ConvertError> {
    if value > 0.0 && value < 1e30 { Ok(value) } else { Err(bad(format!("has {name} {value}; it is above 0 and below 1e30"))) }
}

/// The dimensions that are rotated: a part of the head, as a whole and even number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the part is checked to be 0 to 1, so the product is in range"
)]
fn rotated(part: f64, head_dim: u32) -> Result<u32, ConvertError> {
    let in_range = part > 0.0 && part <= 1.0;
    let dimensions = if in_range { (f64::from(head_dim) * part) as u32 } else { 0 };
    if dimensions >= 2 && dimensions.is_multiple_of(2) {
        Ok(dimensions)
    } else {
        Err(bad(format!("has partial_rotary_factor {part}, which is no even part of a head of {head_dim}")))
    }
}

fn scaling(stretch: &Stretch, raw: &Raw, family: Family, span: &Span) -> Result<Scaling, ConvertError> {
    let kind = stretch.rope_type.as_deref().or(stretch.kind.as_deref()).unwrap_or("default");
    let factor = || positive("a rope factor of", stretch.factor.ok_or_else(|| bad("has rope settings without a factor"))?);
    let original = || -> Result<u32, ConvertError> {
        let value = stretch.original_max_position_embeddings.or(raw.original_max_position_embeddings);
        super::within("original_max_position_embeddings", value.or(Some(span.context.into())), 2, 16 << 20)
    };
    match kind {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear(factor()?)),
        "yarn" => {
            let is_plain = stretch.attention_factor.is_none()
                && stretch.mscale.is_none()
                && stretch.mscale_all_dim.is_none()
                && stretch.beta_fast.is_none_or(|beta| (beta - 32.0).abs() < 1e-9)
                && stretch.beta_slow.is_none_or(|beta| (beta - 1.0).abs() < 1e-9);
            if !is_plain {
                return Err(ConvertError::unsupported("its YaRN settings are not the method's defaults"));
            }
            Ok(Scaling::Yarn { factor: factor()?, original: original()? })
        }
        "llama3" if family == Family::Llama => llama3(stretch, factor()?, original()?, span),
        "longrope" | "su" if family == Family::Phi3 => long(stretch, original()?, span),
        other => Err(ConvertError::unsupported(format!(
            "its positions are stretched by `{}`, which llama.cpp does not do for this family",
            quoted(other)
        ))),
    }
}

/// Llama 3.1's divisors: none for short waves, the factor for long ones, and a slope between.
fn llama3(stretch: &Stretch, factor: f64, original: u32, span: &Span) -> Result<Scaling, ConvertError> {
    let low = positive("low_freq_factor", stretch.low_freq_factor.unwrap_or(1.0))?;
    let high = positive("high_freq_factor", stretch.high_freq_factor.unwrap_or(4.0))?;
    if high <= low {
        return Err(bad(format!("has low_freq_factor {low} and high_freq_factor {high}; the second is the greater one")));
    }
    let original = f64::from(original);
    let divisor = |pair: u32| {
        let wave = std::f64::consts::TAU * span.base.powf(f64::from(2 * pair) / f64::from(span.dimensions));
        let turns = original / wave;
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let slope = (turns - low) / (high - low);
            1.0 / ((1.0 - slope) / factor + slope)
        }
    };
    Ok(Scaling::Factors((0..span.dimensions / 2).map(divisor).map(crate::quant::narrow).collect()))
}

fn long(stretch: &Stretch, original: u32, span: &Span) -> Result<Scaling, ConvertError> {
    let divisors = |name: &str, values: &Option<Vec<f64>>| -> Result<Vec<f32>, ConvertError> {
        let values = values.as_ref().ok_or_else(|| bad(format!("has rope settings without {name}")))?;
        let expected = span.dimensions / 2;
        if u32::try_from(values.len()).ok() != Some(expected) {
            return Err(bad(format!("has {} values of {name}; {expected} are expected", values.len())));
        }
        values.iter().map(|value| positive(name, *value).map(crate::quant::narrow)).collect()
    };
    let ratio = f64::from(span.context) / f64::from(original);
    let derived = if ratio > 1.0 { (1.0 + ratio.ln() / f64::from(original).ln()).sqrt() } else { 1.0 };
    Ok(Scaling::Long {
        long: divisors("long_factor", &stretch.long_factor)?,
        short: divisors("short_factor", &stretch.short_factor)?,
        original,
        attention: positive("attention_factor", stretch.attention_factor.unwrap_or(derived))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gemma_3_has_a_base_of_its_own() {
        let base = |config: Value, family| {
            let raw = serde_json::from_value::<Raw>(config).expect("a config");
            let rope = Rope::of(&raw, family, 64, 512).expect("taken");
            (rope.base.to_string(), rope.sliding_base.map(|base| base.to_string()))
        };
        assert_eq!(base(json!({}), Family::Gemma3), ("1000000".to_owned(), Some("10000".to_owned())));
        assert_eq!(base(json!({"rope_theta": 5.0}), Family::Gemma3).0, "5");
        assert_eq!(base(json!({}), Family::Phi3), ("10000".to_owned(), None));
    }
}
