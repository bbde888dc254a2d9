//! What ships inside the binary: the demo model, the first-party plugins, the default config.

/// Models, by name.
pub(crate) static MODELS: &[(&str, &[u8])] = &[("demo", include_bytes!("../../demo-model/demo.gguf"))];

/// Plugins, by name; `cargo xtask plugins` makes them.
pub(crate) static PLUGINS: &[(&str, &[u8])] = &[
    ("auth-keys", include_bytes!("../../../target/plugins/auth-keys.wasm")),
    ("filter-pii", include_bytes!("../../../target/plugins/filter-pii.wasm")),
    ("format-decision", include_bytes!("../../../target/plugins/format-decision.wasm")),
    ("template-jinja", include_bytes!("../../../target/plugins/template-jinja.wasm")),
];

/// The default config directory: path and text.
pub(crate) static CONFIG: &[(&str, &str)] = &[
    ("tollgate.toml", include_str!("../../../config/tollgate.toml")),
    ("listeners/main.toml", include_str!("../../../config/listeners/main.toml")),
    ("models/demo.toml", include_str!("../../../config/models/demo.toml")),
    ("plugins/auth-keys.toml", include_str!("../../../config/plugins/auth-keys.toml")),
    ("plugins/filter-pii.toml", include_str!("../../../config/plugins/filter-pii.toml")),
    ("plugins/format-decision.toml", include_str!("../../../config/plugins/format-decision.toml")),
    ("plugins/template-jinja.toml", include_str!("../../../config/plugins/template-jinja.toml")),
    ("routes/chat.toml", include_str!("../../../config/routes/chat.toml")),
    ("routes/decision.toml", include_str!("../../../config/routes/decision.toml")),
    ("keys/README.md", include_str!("../../../config/keys/README.md")),
];
