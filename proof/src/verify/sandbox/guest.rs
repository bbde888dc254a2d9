//! Guests written by hand: a core module as text, made into a component of the contract. What a guest does is its own row's business.
//!
//! Text is used because no language lets a program return a string that is not there or a pointer that is not aligned. Every guest has
//! `setup` and `filter-prompt`; memory from `ZEROS` on is zero, and so is the answer "pass" there.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tollgate_tests::{Place, repository};
use wasm_encoder::{ComponentSection, CustomSection};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A function of the host's that a guest imports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Import {
    /// The interface, with its version.
    pub(crate) interface: &'static str,
    /// The function in it.
    pub(crate) function: &'static str,
    /// What the guest calls it, and the types after lowering.
    pub(crate) kind: &'static str,
}

/// A guest before it is a component.
#[derive(Debug, Clone)]
pub(crate) struct Guest<'a> {
    /// The plugin's id.
    pub(crate) name: &'a str,
    /// What it imports.
    pub(crate) imports: &'a [Import],
    /// What its manifest asks for.
    pub(crate) capabilities: &'a str,
    /// Pages of memory that it begins with.
    pub(crate) pages: u32,
    /// Tables, globals and functions of its own.
    pub(crate) items: Cow<'a, str>,
    /// What `filter` does: the parameter is `$in`, there are `$a` to `$d` (i32) and `$x` (i64), the result is an address.
    pub(crate) filter: &'a str,
    /// What `authenticate` does, in the same words; empty: it has no such hook.
    pub(crate) authenticate: &'a str,
    /// What stands before the allocator's own work, with `$size` and `$align`.
    pub(crate) realloc: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Guest {
            name: "hostile",
            imports: &[],
            capabilities: "",
            pages: 2,
            items: Cow::Borrowed(""),
            filter: "(i32.const 1024)",
            authenticate: "",
            realloc: "",
        }
    }
}

/// The standard interfaces as far as guests here use them.
const WASI: [&str; 6] = [
    "package wasi:io@0.2.0;
     interface error { resource error; }
     interface poll { resource pollable { ready: func() -> bool; block: func(); } }
     interface streams {
         use error.{error};
         variant stream-error { last-operation-failed(error), closed }
         resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
     }",
    "package wasi:cli@0.2.0;
     interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
     interface environment {
         get-environment: func() -> list<tuple<string, string>>;
         get-arguments: func() -> list<string>;
         initial-cwd: func() -> option<string>;
     }",
    "package wasi:clocks@0.2.0;
     interface monotonic-clock { use wasi:io/poll@0.2.0.{pollable}; subscribe-duration: func(when: u64) -> pollable; }",
    "package wasi:random@0.2.0;
     interface random { get-random-bytes: func(len: u64) -> list<u8>; }",
    "package wasi:filesystem@0.2.0;
     interface types { resource descriptor; }
     interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }",
    "package wasi:sockets@0.2.0;
     interface network {
         resource network;
         enum error-code {
             unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict, not-in-progress,
             would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use, remote-unreachable,
             connection-refused, connection-reset, connection-aborted, datagram-too-large, name-unresolvable,
             temporary-resolver-failure, permanent-resolver-failure
         }
         enum ip-address-family { ipv4, ipv6 }
     }
     interface instance-network { use network.{network}; instance-network: func() -> network; }
     interface tcp { resource tcp-socket; }
     interface udp { resource udp-socket; }
     interface tcp-create-socket {
         use network.{error-code, ip-address-family};
         use tcp.{tcp-socket};
         create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
     }
     interface udp-create-socket {
         use network.{error-code, ip-address-family};
         use udp.{udp-socket};
         create-udp-socket: func(address-family: ip-address-family) -> result<udp-socket, error-code>;
     }
     interface ip-name-lookup {
         use network.{network, error-code};
         resource resolve-address-stream;
         resolve-addresses: func(network: borrow<network>, name: string) -> result<resolve-address-stream, error-code>;
     }",
];

/// Interfaces that the gateway does not have: taken away, or never there.
const STRANGE: [&str; 2] = [
    "package tollgate:plugin@0.0.9;
     interface log { write: func(message: string); }",
    "package wasi:http@0.2.0;
     interface outgoing-handler { handle: func(url: string); }",
];

impl Guest<'_> {
    fn text(&self) -> String {
        let mut imports = String::new();
        for Import { interface, function, kind } in self.imports {
            let _ = writeln!(imports, "(import \"{interface}\" \"{function}\" (func {kind}))");
        }
        let Guest { pages, items, realloc, .. } = self;
        let mut hooks = String::new();
        for (name, body) in self.hooks() {
            let _ = writeln!(
                hooks,
                "(func (export \"tollgate:plugin/{name}\") (param $in i32) (result i32)
                (local $a i32) (local $b i32) (local $c i32) (local $d i32) (local $x i64) {body})"
            );
        }
        format!(
            r#"(module {imports}
            (memory (export "memory") {pages})
            (global $bump (mut i32) (i32.const 65536))
            {items}
            (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32) (local $at i32)
                {realloc}
                (local.set $at (i32.and (i32.add (global.get $bump) (i32.sub (local.get $align) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $bump (i32.add (local.get $at) (local.get $size)))
                (block $fits (loop $more
                    (br_if $fits (i32.le_u (global.get $bump) (i32.mul (memory.size) (i32.const 65536))))
                    (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
                    unreachable))
                (local.get $at))
            (func (export "tollgate:plugin/setup@0.1.0-draft#init") (param i32 i32) (result i32) (i32.const 1024))
            {hooks})"#
        )
    }

    /// The functions that the host calls, and what they do.
    fn hooks(&self) -> Vec<(&'static str, &str)> {
        let mut hooks = vec![("filter-prompt@0.1.0-draft#filter", self.filter)];
        if !self.authenticate.is_empty() {
            hooks.push(("authenticate@0.1.0-draft#authenticate", self.authenticate));
        }
        hooks
    }

    /// The component.
    pub(crate) fn component(&self) -> anyhow::Result<Vec<u8>> {
        let text = self.text();
        let mut module = wat::parse_str(&text).with_context(|| self.name.to_owned())?;
        let mut resolve = Resolve::default();
        resolve.push_path(repository().join("wit/0.1.0-draft"))?;
        for package in WASI.iter().chain(&STRANGE) {
            resolve.push_source("package.wit", package)?;
        }
        let mut world = String::from("package hostile:guest; world guest {\n");
        for interface in self.imports.iter().map(|import| import.interface).collect::<BTreeSet<_>>() {
            let _ = writeln!(world, "import {interface};");
        }
        for (name, _) in self.hooks() {
            let _ = writeln!(world, "export tollgate:plugin/{};", name.split('#').next().unwrap_or_default());
        }
        world.push_str("export tollgate:plugin/setup@0.1.0-draft; }");
        let package = resolve.push_source("guest.wit", &world)?;
        let world = resolve.select_world(&[package], Some("guest"))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        let mut component = ComponentEncoder::default().module(&module)?.validate(true).encode().context(self.name.to_owned())?;
        let hooks = if self.authenticate.is_empty() { "setup filter-prompt" } else { "setup authenticate filter-prompt" };
        manifest(&mut component, hooks, self.capabilities);
        Ok(component)
    }

    /// Writes the component into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let file = folder.join(format!("{}.wasm", self.name));
        std::fs::write(&file, self.component()?)?;
        Ok(file)
    }

    /// Makes it a plugin of `place`, on a route of its own for the model's name `NAME`. `rest` are more lines of its file.
    pub(crate) fn install(&self, place: &Place, rest: &str) -> anyhow::Result<()> {
        let name = self.name;
        let folder = place.data().join("guests");
        std::fs::create_dir_all(&folder)?;
        let file = self.write(&folder)?;
        place.write(&format!("plugins/{name}.toml"), &plugin_text(&file, rest));
        place.write(
            &format!("routes/{name}.toml"),
            &format!("plugins = [\"{name}\"]\nmodel = \"scripted\"\n[match]\nmodel = \"{name}\"\n"),
        );
        Ok(())
    }
}

/// A plugin's file.
pub(crate) fn plugin_text(component: &Path, rest: &str) -> String {
    format!("component = {:?}\n{rest}\n", component.display().to_string())
}

/// Puts a manifest into a component.
pub(crate) fn manifest(component: &mut Vec<u8>, hooks: &str, capabilities: &str) {
    let text = serde_json::json!({ "name": "hostile", "version": "1", "hooks": hooks, "capabilities": capabilities }).to_string();
    CustomSection { name: "tollgate:manifest".into(), data: text.as_bytes().into() }.append_to_component(component);
}
