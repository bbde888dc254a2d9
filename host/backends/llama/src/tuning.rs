//! What computes a model faster on one machine and slower on another, and changes nothing but that.

/// How a model is computed. The default is llama.cpp's own, and suits most machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Whether matrices may be stored in another order, which llama.cpp has faster code for. Of a mapped file it is a copy.
    pub repack: bool,
    /// Rows that are computed at once, 1 to 8,192; a step may be longer.
    pub micro_batch: u32,
    /// How threads wait for each other.
    pub spin: Spin,
}

/// How threads that compute wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// They spin for long while no other program wants the cores.
    Auto,
    /// They always sleep soon.
    Never,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { repack: true, micro_batch: 512, spin: Spin::Auto }
    }
}
