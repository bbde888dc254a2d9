//! A PEFT adapter beside the demo model's safetensors.

#[path = "../../hf/tests/shared/adapters.rs"]
mod shared;

use tollgate_backend_candle::{Candle, Settings};

fn load() -> Candle {
    let folder = shared::demo("hf");
    let settings = Settings { folder, context_tokens: Some(4_096), sequences: 8, step_rows: 2_048, threads: Some(1) };
    Candle::load(&settings).expect("the demo model loads")
}

#[test]
fn replies_with_and_without_the_adapter_are_the_references() {
    shared::replies_with_and_without_the_adapter_are_the_references(&mut load());
}

#[test]
fn adapters_come_and_go() {
    shared::adapters_come_and_go(&mut load());
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    shared::what_is_no_adapter_of_the_model_is_refused(&mut load());
}
