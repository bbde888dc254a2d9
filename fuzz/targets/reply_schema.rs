//! A client's JSON schema: refused, or a constraint.
#![no_main]

use std::cell::OnceCell;

use tollgate_backend_scripted::{Scripted, Settings};
use tollgate_domain::{ChatRequest, Message, Origin, Parameters, Role};
use tollgate_inference::ChatCodec;

thread_local! {
    static CODEC: OnceCell<ChatCodec> = const { OnceCell::new() };
}

libfuzzer_sys::fuzz_target!(|schema: &str| {
    let request = ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, "hi")],
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: None,
        model: "a".to_owned(),
        fields: Vec::new(),
    };
    CODEC.with(|codec| {
        let codec = codec.get_or_init(|| ChatCodec::new(&Scripted::new(Settings::default())).expect("a codec"));
        let _ = codec.encode(&request, Some(schema));
    });
});
