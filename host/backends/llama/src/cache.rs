//! How the numbers of a key-value cache are stored, and what that takes. What they are is the context's.

use llama_cpp_sys_2 as sys;

/// How the numbers of a key-value cache are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvCache {
    /// Two bytes each.
    #[default]
    F16,
    /// 34 bytes for 32 of them: one each and a scale.
    Q8_0,
    /// 18 bytes for 32 of them: half of one each and a scale.
    Q4_0,
}

impl KvCache {
    /// How many numbers are stored together. The heads of a model have to be a multiple of it wide.
    #[must_use]
    pub fn block(self) -> u64 {
        match self {
            KvCache::F16 => 1,
            KvCache::Q8_0 | KvCache::Q4_0 => 32,
        }
    }

    /// Bytes for so many numbers, the last block whole.
    #[must_use]
    pub fn bytes(self, numbers: u64) -> u64 {
        let of_block = match self {
            KvCache::F16 => 2,
            KvCache::Q8_0 => 34,
            KvCache::Q4_0 => 18,
        };
        numbers.div_ceil(self.block()).saturating_mul(of_block)
    }

    pub(crate) fn as_raw(self) -> sys::ggml_type {
        match self {
            KvCache::F16 => sys::GGML_TYPE_F16,
            KvCache::Q8_0 => sys::GGML_TYPE_Q8_0,
            KvCache::Q4_0 => sys::GGML_TYPE_Q4_0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_whole() {
        let bytes = [KvCache::F16, KvCache::Q8_0, KvCache::Q4_0].map(|kind| (kind.bytes(64), kind.bytes(33), kind.bytes(0)));
        assert_eq!(bytes, [(128, 66, 0), (68, 68, 0), (36, 36, 0)]);
    }
}
