//! The contract as wasmtime sees it. Nothing here leaves the crate.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0-draft",
    world: "everything",
    imports: { default: async },
    exports: { default: async },
});

pub use exports::tollgate::plugin as hooks;
pub use tollgate::plugin::{credentials, log, types};
