//! The header of a GGUF file: refused, or every tensor lies inside the file, after the one before.
#![no_main]

use std::io::Cursor;

use tollgate_formats::gguf;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(header) = gguf::read(&mut Cursor::new(data)) else { return };
    let mut at = header.data_offset;
    for tensor in &header.tensors {
        let begin = header.data_offset + tensor.offset;
        assert!(at <= begin && begin + tensor.bytes <= data.len() as u64, "{tensor:?}");
        at = begin + tensor.bytes;
    }
    if gguf::check_model(&header).is_ok() {
        assert!(header.tensor("token_embd.weight").is_some());
    }
    if gguf::check_adapter(&header).is_ok() {
        assert!(header.tensors.len().is_multiple_of(2));
    }
});
