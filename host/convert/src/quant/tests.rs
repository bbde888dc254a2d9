//! Rounding to narrower numbers.

use proptest::prelude::*;

use super::*;

fn dequantized(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(34)
        .flat_map(|block| {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            block[2..].iter().map(move |byte| scale * f32::from(i8::from_le_bytes([*byte]))).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_block_of_zeros_is_zeros() {
    let mut out = Vec::new();
    Kind::Q8_0.encode(&[0.0; 32], &mut out).unwrap();
    assert_eq!(out, vec![0; 34]);
}

#[test]
fn the_largest_value_is_127_steps() {
    let mut values = [0.0_f32; 32];
    values[3] = -254.0;
    values[4] = 3.0;
    let mut out = Vec::new();
    Kind::Q8_0.encode(&values, &mut out).unwrap();
    assert_eq!(out[..2], f16::from_f32(2.0).to_le_bytes());
    assert_eq!(i8::from_le_bytes([out[2 + 3]]), -127);
    // Half a step rounds away from zero, as C's roundf.
    assert_eq!(out[2 + 4], 2);
}

#[test]
fn what_does_not_fit_is_said() {
    assert!(Kind::F16.encode(&[70_000.0], &mut Vec::new()).unwrap_err().contains("65,504"));
    assert!(Kind::Bf16.encode(&[70_000.0], &mut Vec::new()).is_ok());
    assert!(Kind::Bf16.encode(&[f32::MAX], &mut Vec::new()).is_err());
    assert!(Kind::Q8_0.encode(&[1e9; 32], &mut Vec::new()).is_err());
    let mut values = Vec::new();
    assert!(decode(Dtype::F32, &f32::NAN.to_le_bytes(), &mut values).is_err());
    assert!(decode(Dtype::F16, &f16::INFINITY.to_le_bytes(), &mut values).is_err());
}

#[test]
fn bytes_are_of_whole_blocks() {
    assert_eq!(Kind::Q8_0.bytes(64), Some(68));
    assert_eq!(Kind::Q8_0.bytes(33), None);
    assert_eq!(Kind::F32.bytes(u64::MAX), None);
    assert_eq!(Kind::Bf16.bytes(3), Some(6));
}

proptest! {
    #[test]
    fn q8_0_is_within_half_a_step(values in proptest::collection::vec(-1e4_f32..1e4, 32)) {
        let mut out = Vec::new();
        Kind::Q8_0.encode(&values, &mut out).unwrap();
        let step = values.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
        for (value, again) in values.iter().zip(dequantized(&out)) {
            // The f16 scale is off by 2^-11 of itself at most, so up to 127 / 2048 of a step more.
            prop_assert!((value - again).abs() <= step * 0.57 + 1e-6, "{value} came back as {again}");
        }
    }

    #[test]
    fn f16_goes_through_unchanged(bits in 0_u16..0x7c00, negative: bool) {
        let bytes = (bits | if negative { 0x8000 } else { 0 }).to_le_bytes();
        let mut values = Vec::new();
        decode(Dtype::F16, &bytes, &mut values).unwrap();
        let mut out = Vec::new();
        Kind::F16.encode(&values, &mut out).unwrap();
        prop_assert_eq!(out, bytes.to_vec());
    }
}
