//! Lines in the gateway's log. Needs the capability `log`.

/// How grave a line is.
pub use crate::bindings::imports::tollgate::plugin::log::Level;

/// Writes one line. Never a prompt, a reply, a key or a person's data.
pub fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::imports::tollgate::plugin::log::write(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::record(level, message);
}

/// Something went wrong and the plugin went on.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Something worth knowing happened.
pub fn info(message: &str) {
    write(Level::Info, message);
}
