//! The number formats: what safetensors has to f32, and f32 to what a GGUF file has.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use tollgate_formats::safetensors::Dtype;

/// Values that share one scale in q8_0.
const BLOCK: usize = 32;

/// How a tensor's values are stored in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with 5 bits of exponent.
    F16,
    /// 16-bit floats with 8 bits of exponent.
    Bf16,
    /// Blocks of 32 signed bytes with one f16 scale.
    Q8_0,
}

impl Kind {
    /// The number that a GGUF file has for it.
    #[must_use]
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// Values of one block; a row is a whole number of blocks.
    #[must_use]
    pub fn block(self) -> u64 {
        if self == Self::Q8_0 { 32 } else { 1 }
    }

    /// Bytes of that many values; `None` if that is no whole number of blocks or overflows.
    #[must_use]
    pub fn bytes(self, values: u64) -> Option<u64> {
        let block_bytes = match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
        };
        values.is_multiple_of(self.block()).then(|| (values / self.block()).checked_mul(block_bytes)).flatten()
    }

    /// Appends `values`, whose number is one of whole blocks and which are finite.
    ///
    /// # Errors
    /// A value is too big for the format, said as the rest of a sentence.
    pub(crate) fn encode(self, values: &[f32], out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Self::F32 => {
                out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                Ok(())
            }
            Self::F16 => encode_f16(values, out),
            Self::Bf16 => encode_bf16(values, out),
            Self::Q8_0 => values.chunks_exact(BLOCK).try_for_each(|block| encode_q8_0(block, out)),
        }
    }
}

const TOO_BIG_FOR_F16: &str = "holds values over 65,504, which f16 cannot store; convert to bf16 or q8_0";

fn encode_f16(values: &[f32], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut short = vec![f16::ZERO; values.len()];
    short.convert_from_f32_slice(values);
    if short.iter().any(|value| !value.is_finite()) {
        return Err(TOO_BIG_FOR_F16);
    }
    out.extend(short.iter().flat_map(|value| value.to_le_bytes()));
    Ok(())
}

fn encode_bf16(values: &[f32], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut short = vec![bf16::ZERO; values.len()];
    short.convert_from_f32_slice(values);
    if short.iter().any(|value| !value.is_finite()) {
        return Err("holds values that bf16 cannot store; convert to f32");
    }
    out.extend(short.iter().flat_map(|value| value.to_le_bytes()));
    Ok(())
}

/// One block as ggml's reference has it: the scale is the largest magnitude over 127, rounded to f16 only when it is stored.
fn encode_q8_0(block: &[f32], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let largest = block.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let scale = largest / 127.0;
    let stored = f16::from_f32(scale);
    if !stored.is_finite() {
        return Err("holds values over 8 million, whose scale q8_0 cannot store; convert to bf16 or f32");
    }
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // A scale below 2^-126 has no finite inverse; f16 stores it as 0 anyway.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    out.extend(stored.to_le_bytes());
    out.extend(block.iter().map(|value| nearest(value * inverse).to_le_bytes()).map(|[byte]| byte));
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "the value is a magnitude of at most 127 after rounding, and `as` saturates")]
fn nearest(value: f32) -> i8 {
    value.round() as i8
}

/// The same number with fewer digits, as GGUF stores the settings.
#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// Bytes of one value, for the formats that are read; `None` for every other.
pub(crate) fn value_bytes(kind: Dtype) -> Option<u64> {
    match kind {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Puts the values of `bytes` into `values`, as many as there are whole ones.
///
/// # Errors
/// A value is not a number or infinite, said as the rest of a sentence.
pub(crate) fn decode(kind: Dtype, bytes: &[u8], values: &mut Vec<f32>) -> Result<(), &'static str> {
    values.clear();
    match kind {
        Dtype::F16 => {
            let short: Vec<f16> = pairs(bytes).map(f16::from_le_bytes).collect();
            values.resize(short.len(), 0.0);
            short.convert_to_f32_slice(values);
        }
        Dtype::BF16 => values.extend(pairs(bytes).map(|pair| bf16::from_le_bytes(pair).to_f32())),
        _ => values.extend(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four))),
    }
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err("holds a value that is infinite or not a number") }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    bytes.as_chunks::<2>().0.iter().copied()
}

#[cfg(test)]
mod tests;
