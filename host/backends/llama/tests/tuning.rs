//! What tuning changes: how fast a model is computed, and not what it says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::Path;

use tollgate_backend::{Backend, Row, SequenceId};
use tollgate_backend_llama::{KvCache, Llama, Settings, Spin, Tuning};

/// Logits of kernels that round and add in another order, of a model in 8 bits; they spread over some 20.
const CLOSE: f32 = 0.5;

fn settings(threads: u16, tuning: Tuning) -> Settings {
    Settings {
        path: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/demo.gguf"),
        mapped: false,
        context_tokens: Some(512),
        sequences: 2,
        step_rows: 128,
        threads: Some(threads),
        apart: false,
        kv_cache: KvCache::F16,
        tuning,
    }
}

/// What comes after 100 tokens.
fn logits(llama: &mut Llama) -> Vec<f32> {
    let rows = (0..100_u32).map(|at| Row { token: 300 + at, position: at, sequence: SequenceId(0), wants_logits: at == 99 });
    llama.decode(&rows.collect::<Vec<_>>()).unwrap();
    llama.logits(99).unwrap().to_vec()
}

#[test]
fn the_same_is_said_however_it_is_computed() {
    let mut plain = Llama::load(&settings(1, Tuning::default())).unwrap();
    let expected = logits(&mut plain);
    let is_close = |found: &[f32]| {
        assert_eq!(found.len(), expected.len());
        let best =
            |logits: &[f32]| logits.iter().copied().enumerate().max_by(|one, other| one.1.total_cmp(&other.1)).map(|best| best.0);
        best(found) == best(&expected) && found.iter().zip(&expected).all(|(one, other)| (one - other).abs() < CLOSE)
    };
    let other = Tuning { repack: false, micro_batch: 32, spin: Spin::Never };
    let mut llama = Llama::load(&settings(2, other)).unwrap();
    assert!(is_close(&logits(&mut llama)));
    // The same weights again, with nothing in the cache.
    let mut llama = llama.reshaped(&settings(1, Tuning { micro_batch: 512, ..other })).unwrap();
    assert!(is_close(&logits(&mut llama)));
    assert_eq!(llama.capabilities().step_rows, 128);
}
