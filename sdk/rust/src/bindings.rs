//! The contract's types and export macros, generated from `wit/`: one module per world, so that a plugin exports just its hooks.
//!
//! wit-component merges the worlds of all modules that a plugin uses; types are shared with the `imports` world.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated")]
#![allow(unsafe_code, reason = "generated: the canonical ABI passes values through raw memory")]

/// The host's imports, and the types of the contract.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0-draft",
        world: "imports",
        pub_export_macro: true,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}
pub use imports::tollgate::plugin::types;

macro_rules! hook_world {
    ($module:ident, $world:literal, $macro:literal $(, $types:literal: $path:path)?) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit/0.1.0-draft",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                additional_derives: [PartialEq],
                with: { $($types: $path)? },
            });
        }
    };
}

hook_world!(setup, "plugin", "export_setup");
hook_world!(resume, "resume-hook", "export_resume");
hook_world!(authenticate, "authenticate-hook", "export_authenticate", "tollgate:plugin/types@0.1.0-draft": crate::bindings::imports::tollgate::plugin::types);
hook_world!(compose, "compose-hook", "export_compose", "tollgate:plugin/types@0.1.0-draft": crate::bindings::imports::tollgate::plugin::types);
hook_world!(filter_prompt, "filter-prompt-hook", "export_filter_prompt", "tollgate:plugin/types@0.1.0-draft": crate::bindings::imports::tollgate::plugin::types);
hook_world!(filter_reply, "filter-reply-hook", "export_filter_reply", "tollgate:plugin/types@0.1.0-draft": crate::bindings::imports::tollgate::plugin::types);
hook_world!(format, "format-hook", "export_format", "tollgate:plugin/types@0.1.0-draft": crate::bindings::imports::tollgate::plugin::types);

pub use authenticate::exports::tollgate::plugin::authenticate::Decision;
pub use filter_prompt::exports::tollgate::plugin::filter_prompt::{Outcome, Verdict};
pub use filter_reply::exports::tollgate::plugin::filter_reply::Step;
