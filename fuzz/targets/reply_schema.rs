//! A client's JSON schema: refused, or a constraint.
#![no_main]

use std::cell::OnceCell;

use tollgate_backend_scripted::{Scripted, Settings};
use tollgate_domain::{ChatRequest, Message, Origin, Parameters, Role};
use tollgate_inference::{Engine, Settings as EngineSettings};

thread_local! {
    static ENGINE: OnceCell<Engine> = const { OnceCell::new() };
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
    ENGINE.with(|engine| {
        let start = || Engine::start("fuzz", Box::new(Scripted::new(Settings::default())), EngineSettings::default());
        let engine = engine.get_or_init(|| start().expect("an engine"));
        let _ = engine.codec().encode(&request, Some(schema));
    });
});
