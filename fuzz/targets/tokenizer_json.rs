//! `tokenizer.json`: refused, or its ids are below the size of its vocabulary.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = tollgate_formats::tokenizer::read(data) else { return };
    assert!((1..=4 << 20).contains(&tokenizer.vocabulary));
    assert!(tokenizer.added.iter().all(|token| token.id < tokenizer.vocabulary && !token.content.is_empty()));
});
