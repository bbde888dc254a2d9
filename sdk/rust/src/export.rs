//! From the traits of this crate to the contract's exports.

use std::cell::{OnceCell, RefCell};
use std::marker::PhantomData;

use crate::bindings::types::{ChatRequest, Content, Context, JsonSchema, Piece, Refusal, RequestHead};
use crate::bindings::{authenticate, compose, filter_prompt, filter_reply, format, resume, setup};
use crate::{Authenticate, Compose, Decision, FilterPrompt, FilterReply, Format, Outcome, Plugin, Step, config};

/// Where the one instance of a plugin lives. [`export!`](crate::export!) implements it.
pub trait Instance: Plugin {
    /// The cell of this plugin on the only thread that a component has.
    fn with<R>(f: impl FnOnce(&OnceCell<Self>) -> R) -> R;

    /// Runs `f` on the plugin. The host calls `init` before any other hook, so it is there.
    fn get<R>(f: impl FnOnce(&Self) -> R) -> R {
        Self::with(|cell| f(cell.get().expect("the host calls setup.init first")))
    }
}

/// Implements the contract's exports for a plugin.
pub struct Hooks<P>(PhantomData<P>);

impl<P: Instance> setup::exports::tollgate::plugin::setup::Guest for Hooks<P> {
    fn init(config: String) -> Result<(), String> {
        let plugin = P::new(config::read(&config)?)?;
        P::with(|cell| cell.set(plugin)).map_err(|_| "init was called twice".to_owned())
    }
}

impl<P: Instance> resume::exports::tollgate::plugin::resume::Guest for Hooks<P> {
    fn resume(entropy: Vec<u8>, now_ms: u64) {
        crate::random::reseed(&entropy);
        crate::time::set(now_ms);
    }
}

impl<P: Instance + Authenticate> authenticate::exports::tollgate::plugin::authenticate::Guest for Hooks<P> {
    fn authenticate(head: RequestHead) -> Decision {
        P::get(|plugin| plugin.authenticate(head))
    }
}

impl<P: Instance + Compose> compose::exports::tollgate::plugin::compose::Guest for Hooks<P> {
    fn compose(ctx: Context, request: ChatRequest) -> Result<ChatRequest, Refusal> {
        P::get(|plugin| plugin.compose(ctx, request))
    }
}

impl<P: Instance + FilterPrompt> filter_prompt::exports::tollgate::plugin::filter_prompt::Guest for Hooks<P> {
    fn filter(ctx: Context, request: ChatRequest) -> Outcome {
        P::get(|plugin| plugin.filter_prompt(ctx, request))
    }
}

impl<P: Instance + FilterReply> filter_reply::exports::tollgate::plugin::filter_reply::Guest for Hooks<P> {
    type Reply = Reply<P>;
}

/// One reply in the making, behind the contract's `reply` resource.
pub struct Reply<P: FilterReply>(RefCell<P::Reply>);

impl<P: Instance + FilterReply> filter_reply::exports::tollgate::plugin::filter_reply::GuestReply for Reply<P> {
    fn new(ctx: Context, choice: u32) -> Self {
        Reply(RefCell::new(P::get(|plugin| plugin.start(ctx, choice))))
    }

    fn push(&self, piece: Piece) -> Step {
        P::get(|plugin| plugin.push(&mut self.0.borrow_mut(), piece))
    }

    fn finish(&self) -> Step {
        P::get(|plugin| plugin.finish(&mut self.0.borrow_mut()))
    }
}

impl<P: Instance + Format> format::exports::tollgate::plugin::format::Guest for Hooks<P> {
    fn constraint(ctx: Context) -> Option<JsonSchema> {
        P::get(|plugin| plugin.constraint(ctx))
    }

    fn format(ctx: Context, reply: String) -> Result<Content, Refusal> {
        P::get(|plugin| plugin.format(ctx, reply))
    }
}

/// The manifest's text as the bytes of a custom section.
///
/// # Panics
/// At compile time, when `N` is not the text's length.
#[must_use]
pub const fn manifest_bytes<const N: usize>(text: &str) -> [u8; N] {
    let from = text.as_bytes();
    assert!(from.len() == N, "the section is as long as its text");
    let mut bytes = [0; N];
    let mut at = 0;
    #[allow(clippy::indexing_slicing, reason = "both are N long, and iterators are not const")]
    while at < N {
        bytes[at] = from[at];
        at += 1;
    }
    bytes
}

/// Exports a plugin with any set of hooks, and writes its manifest: its crate's name and version, its hooks, and the capabilities
/// that it asks for.
///
/// ```text
/// tollgate_sdk::export!(FilterPii: filter_prompt, filter_reply);
/// tollgate_sdk::export!(AuthKeys: authenticate; capabilities: credentials, log);
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ident: $($hook:ident),+ $(,)? $(; capabilities: $($capability:ident),* $(,)?)?) => {
        const _: () = {
            thread_local! {
                static INSTANCE: ::std::cell::OnceCell<$plugin> = const { ::std::cell::OnceCell::new() };
            }
            impl $crate::Instance for $plugin {
                fn with<R>(f: impl FnOnce(&::std::cell::OnceCell<Self>) -> R) -> R {
                    INSTANCE.with(f)
                }
            }
        };

        #[cfg(not(target_arch = "wasm32"))]
        impl $crate::cases::Hooks for $plugin {
            $($crate::export!(@case $hook);)+
        }

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the contract's exports are symbols")]
        const _: () = {
            type Exported = $crate::Hooks<$plugin>;
            $crate::export!(@hook setup Exported);
            $crate::export!(@hook resume Exported);
            $($crate::export!(@hook $hook Exported);)+

            const MANIFEST: &str = concat!(
                "{\"name\":\"", env!("CARGO_PKG_NAME"), "\",\"version\":\"", env!("CARGO_PKG_VERSION"),
                "\",\"hooks\":\"setup resume", $(" ", stringify!($hook),)+ "\",\"capabilities\":\"",
                $($(stringify!($capability), " ",)*)? "\"}"
            );
            #[unsafe(link_section = "tollgate:manifest")]
            #[used]
            static SECTION: [u8; MANIFEST.len()] = $crate::manifest_bytes(MANIFEST);
        };
    };
    (@hook setup $ty:ident) => { $crate::bindings::setup::export_setup!($ty with_types_in $crate::bindings::setup); };
    (@hook resume $ty:ident) => { $crate::bindings::resume::export_resume!($ty with_types_in $crate::bindings::resume); };
    (@hook authenticate $ty:ident) => {
        $crate::bindings::authenticate::export_authenticate!($ty with_types_in $crate::bindings::authenticate);
    };
    (@hook compose $ty:ident) => { $crate::bindings::compose::export_compose!($ty with_types_in $crate::bindings::compose); };
    (@hook filter_prompt $ty:ident) => {
        $crate::bindings::filter_prompt::export_filter_prompt!($ty with_types_in $crate::bindings::filter_prompt);
    };
    (@hook filter_reply $ty:ident) => {
        $crate::bindings::filter_reply::export_filter_reply!($ty with_types_in $crate::bindings::filter_reply);
    };
    (@hook format $ty:ident) => { $crate::bindings::format::export_format!($ty with_types_in $crate::bindings::format); };
    (@case authenticate) => {
        fn call_authenticate(&self, head: $crate::RequestHead) -> ::std::option::Option<$crate::Decision> {
            ::std::option::Option::Some($crate::Authenticate::authenticate(self, head))
        }
    };
    (@case compose) => {
        fn call_compose(
            &self,
            ctx: $crate::Context,
            request: $crate::ChatRequest,
        ) -> ::std::option::Option<::std::result::Result<$crate::ChatRequest, $crate::Refusal>> {
            ::std::option::Option::Some($crate::Compose::compose(self, ctx, request))
        }
    };
    (@case filter_prompt) => {
        fn call_filter_prompt(&self, ctx: $crate::Context, request: $crate::ChatRequest) -> ::std::option::Option<$crate::Outcome> {
            ::std::option::Option::Some($crate::FilterPrompt::filter_prompt(self, ctx, request))
        }
    };
    (@case filter_reply) => {
        fn call_filter_reply(
            plugin: &::std::rc::Rc<Self>,
            ctx: $crate::Context,
            choice: u32,
        ) -> ::std::option::Option<::std::boxed::Box<dyn $crate::cases::Stream>> {
            ::std::option::Option::Some($crate::cases::begin(plugin, ctx, choice))
        }
    };
    (@case format) => {
        fn call_constraint(&self, ctx: $crate::Context) -> ::std::option::Option<::std::option::Option<$crate::JsonSchema>> {
            ::std::option::Option::Some($crate::Format::constraint(self, ctx))
        }
        fn call_format(
            &self,
            ctx: $crate::Context,
            reply: ::std::string::String,
        ) -> ::std::option::Option<::std::result::Result<$crate::Content, $crate::Refusal>> {
            ::std::option::Option::Some($crate::Format::format(self, ctx, reply))
        }
    };
}
