//! The types of a GGUF tensor: ggml's table as of the llama.cpp in llama-cpp-sys-2 0.1.160.

/// How the elements of a tensor are stored: in blocks along the innermost dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// ggml's `f32`.
    F32,
    /// ggml's `f16`.
    F16,
    /// ggml's `q4_0`.
    Q4_0,
    /// ggml's `q4_1`.
    Q4_1,
    /// ggml's `q5_0`.
    Q5_0,
    /// ggml's `q5_1`.
    Q5_1,
    /// ggml's `q8_0`.
    Q8_0,
    /// ggml's `q8_1`.
    Q8_1,
    /// ggml's `q2_K`.
    Q2K,
    /// ggml's `q3_K`.
    Q3K,
    /// ggml's `q4_K`.
    Q4K,
    /// ggml's `q5_K`.
    Q5K,
    /// ggml's `q6_K`.
    Q6K,
    /// ggml's `q8_K`.
    Q8K,
    /// ggml's `iq2_xxs`.
    Iq2Xxs,
    /// ggml's `iq2_xs`.
    Iq2Xs,
    /// ggml's `iq3_xxs`.
    Iq3Xxs,
    /// ggml's `iq1_s`.
    Iq1S,
    /// ggml's `iq4_nl`.
    Iq4Nl,
    /// ggml's `iq3_s`.
    Iq3S,
    /// ggml's `iq2_s`.
    Iq2S,
    /// ggml's `iq4_xs`.
    Iq4Xs,
    /// ggml's `i8`.
    I8,
    /// ggml's `i16`.
    I16,
    /// ggml's `i32`.
    I32,
    /// ggml's `i64`.
    I64,
    /// ggml's `f64`.
    F64,
    /// ggml's `iq1_m`.
    Iq1M,
    /// ggml's `bf16`.
    Bf16,
    /// ggml's `tq1_0`.
    Tq1_0,
    /// ggml's `tq2_0`.
    Tq2_0,
    /// ggml's `mxfp4`.
    Mxfp4,
    /// ggml's `nvfp4`.
    Nvfp4,
    /// ggml's `q1_0`.
    Q1_0,
    /// ggml's `q2_0`.
    Q2_0,
}

/// The type, its number in a file, its name in ggml, elements and bytes of a block.
const TABLE: [(TensorType, u32, &str, u64, u64); 35] = [
    (TensorType::F32, 0, "f32", 1, 4),
    (TensorType::F16, 1, "f16", 1, 2),
    (TensorType::Q4_0, 2, "q4_0", 32, 18),
    (TensorType::Q4_1, 3, "q4_1", 32, 20),
    (TensorType::Q5_0, 6, "q5_0", 32, 22),
    (TensorType::Q5_1, 7, "q5_1", 32, 24),
    (TensorType::Q8_0, 8, "q8_0", 32, 34),
    (TensorType::Q8_1, 9, "q8_1", 32, 36),
    (TensorType::Q2K, 10, "q2_K", 256, 84),
    (TensorType::Q3K, 11, "q3_K", 256, 110),
    (TensorType::Q4K, 12, "q4_K", 256, 144),
    (TensorType::Q5K, 13, "q5_K", 256, 176),
    (TensorType::Q6K, 14, "q6_K", 256, 210),
    (TensorType::Q8K, 15, "q8_K", 256, 292),
    (TensorType::Iq2Xxs, 16, "iq2_xxs", 256, 66),
    (TensorType::Iq2Xs, 17, "iq2_xs", 256, 74),
    (TensorType::Iq3Xxs, 18, "iq3_xxs", 256, 98),
    (TensorType::Iq1S, 19, "iq1_s", 256, 50),
    (TensorType::Iq4Nl, 20, "iq4_nl", 32, 18),
    (TensorType::Iq3S, 21, "iq3_s", 256, 110),
    (TensorType::Iq2S, 22, "iq2_s", 256, 82),
    (TensorType::Iq4Xs, 23, "iq4_xs", 256, 136),
    (TensorType::I8, 24, "i8", 1, 1),
    (TensorType::I16, 25, "i16", 1, 2),
    (TensorType::I32, 26, "i32", 1, 4),
    (TensorType::I64, 27, "i64", 1, 8),
    (TensorType::F64, 28, "f64", 1, 8),
    (TensorType::Iq1M, 29, "iq1_m", 256, 56),
    (TensorType::Bf16, 30, "bf16", 1, 2),
    (TensorType::Tq1_0, 34, "tq1_0", 256, 54),
    (TensorType::Tq2_0, 35, "tq2_0", 256, 66),
    (TensorType::Mxfp4, 39, "mxfp4", 32, 17),
    (TensorType::Nvfp4, 40, "nvfp4", 64, 36),
    (TensorType::Q1_0, 41, "q1_0", 128, 18),
    (TensorType::Q2_0, 42, "q2_0", 64, 18),
];

/// Numbers that ggml once used; it refuses them now.
const REMOVED: [u32; 8] = [4, 5, 31, 32, 33, 36, 37, 38];

impl TensorType {
    /// The type with this number in a file.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// Whether files with this number existed, and ggml no longer reads them.
    pub(crate) fn is_removed(id: u32) -> bool {
        REMOVED.contains(&id)
    }

    fn row(self) -> &'static (TensorType, u32, &'static str, u64, u64) {
        TABLE.iter().find(|row| row.0 == self).expect("the table has every type")
    }

    /// The number in a file.
    #[must_use]
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// ggml's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements of a block, 1 to 256; a row of a tensor is whole blocks.
    #[must_use]
    pub fn block_elements(self) -> u64 {
        self.row().3
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.row().4
    }

    /// Whether ggml multiplies by a matrix of this type and takes rows out of it; the others end the process there.
    #[must_use]
    pub fn is_weight(self) -> bool {
        use TensorType::{F64, I8, I16, I32, I64, Q8_1, Q8K};
        !matches!(self, Q8_1 | Q8K | I8 | I16 | I32 | I64 | F64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_ggmls_count_is_a_type_or_removed() {
        for id in 0..43 {
            assert_ne!(TensorType::from_id(id).is_some(), TensorType::is_removed(id), "{id}");
        }
        assert_eq!(TensorType::from_id(43), None);
        for row in TABLE {
            assert_eq!(TensorType::from_id(row.1).map(TensorType::id), Some(row.1));
            assert_eq!(TABLE.iter().filter(|other| other.0 == row.0 || other.2 == row.2).count(), 1, "{row:?}");
        }
    }
}
