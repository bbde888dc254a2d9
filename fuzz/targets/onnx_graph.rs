//! An ONNX model: refused, or it brings the data for its weights, and names no file outside its folder (P-M5).
#![no_main]

use std::io::Cursor;

use tollgate_formats::onnx;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(model) = onnx::read(&mut Cursor::new(data)) else { return };
    let outside = model.external.iter().map(|weight| weight.length).fold(0, u64::saturating_add);
    assert!(model.initializer_bytes.saturating_sub(outside) <= 16 * data.len() as u64, "{model:?}");
    for weight in &model.external {
        assert!(!weight.location.contains(['/', '\\', '\0']) && !weight.location.starts_with('.'), "{weight:?}");
    }
    let size = 1 << 20;
    if onnx::check_external(&model, |_| Some(size)).is_ok() {
        assert!(model.external.iter().all(|weight| weight.offset + weight.length <= size));
    }
});
