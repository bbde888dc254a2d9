//! The header of a safetensors file: refused, or its tensors are the data without a hole or an overlap.
#![no_main]

use std::io::Cursor;

use tollgate_formats::safetensors;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(header) = safetensors::read(&mut Cursor::new(data)) else { return };
    let mut places = header.tensors.values().map(|tensor| (tensor.begin, tensor.end)).collect::<Vec<_>>();
    places.sort_unstable();
    let mut at = 0;
    for (begin, end) in places {
        assert!(begin == at && end >= begin, "{header:?}");
        at = end;
    }
    assert_eq!(header.data_offset + at, data.len() as u64);
});
