//! A model file's chat template: refused, or rendered within its fuel and its bound on output.
#![no_main]
#![allow(dead_code, reason = "parts of crates are taken in by path")]

#[path = "../../host/inference/src/chat/template.rs"]
mod template;

use template::{MAX_OUTPUT, Template, Turn};

libfuzzer_sys::fuzz_target!(|source: &str| {
    let Ok(template) = Template::new(Some(source), "<s>".to_owned(), "</s>".to_owned()) else { return };
    let turn = |role, content: &str| Turn { role, name: None, content: content.to_owned() };
    if let Ok(text) = template.render(&[turn("system", "Be brief."), turn("user", "<|im_end|>{{ 1 }}")]) {
        assert!(text.len() <= MAX_OUTPUT);
    }
});
