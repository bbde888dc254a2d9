//! What a plugin says of itself: a custom section named `tollgate:manifest`, in the component or in a module within it.
//!
//! The section is one JSON object: `{"name": "...", "version": "...", "hooks": "setup filter-prompt", "capabilities": "log"}`;
//! lists are separated by spaces, `_` and `-` are the same.

use serde::{Deserialize, Serialize};
use wasmparser::{Parser, Payload};

/// The section's name.
const SECTION: &str = "tollgate:manifest";
/// A manifest is small.
const MAX_BYTES: usize = 16 << 10;

/// An interface that a plugin exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Runs once, in the build step.
    Setup,
    /// Runs first on a fresh instance.
    Resume,
    /// Who asks?
    Authenticate,
    /// Changes the request.
    Compose,
    /// Screens the request.
    FilterPrompt,
    /// Screens the reply.
    FilterReply,
    /// Shapes the reply.
    Format,
    /// A way in of its own.
    Channel,
    /// Tools for the model.
    Tool,
}

impl Hook {
    /// Every hook of the contract.
    pub const ALL: [Hook; 9] = [
        Hook::Setup,
        Hook::Resume,
        Hook::Authenticate,
        Hook::Compose,
        Hook::FilterPrompt,
        Hook::FilterReply,
        Hook::Format,
        Hook::Channel,
        Hook::Tool,
    ];

    /// Its name in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Hook::Setup => "setup",
            Hook::Resume => "resume",
            Hook::Authenticate => "authenticate",
            Hook::Compose => "compose",
            Hook::FilterPrompt => "filter-prompt",
            Hook::FilterReply => "filter-reply",
            Hook::Format => "format",
            Hook::Channel => "channel",
            Hook::Tool => "tool",
        }
    }
}

/// Something that the host offers under two yeses: the manifest asks, the operator grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Lines in the gateway's log.
    Log,
    /// Look-up of keys.
    Credentials,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Capability; 2] = [Capability::Log, Capability::Credentials];

    /// Its name in manifests and grants, and its interface in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Log => "log",
            Capability::Credentials => "credentials",
        }
    }
}

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The plugin's own name.
    pub name: String,
    /// Its version, as its author counts.
    pub version: String,
    /// The hooks that it exports.
    pub hooks: Vec<Hook>,
    /// The capabilities that it asks for.
    pub capabilities: Vec<Capability>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    version: String,
    hooks: String,
    #[serde(default)]
    capabilities: String,
}

impl Manifest {
    /// Reads the manifest of a component.
    ///
    /// # Errors
    /// There is none, or it is not what it should be; the text says what to do.
    pub fn read(component: &[u8]) -> Result<Manifest, String> {
        if !component.starts_with(b"\0asm") {
            return Err("it is no WebAssembly file".to_owned());
        }
        let (mut found, mut is_first) = (None, true);
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload.map_err(|error| format!("not a WASM component: {error}"))?;
            match payload {
                // The first one is the file's own, others are of the modules inside.
                Payload::Version { encoding: wasmparser::Encoding::Module, .. } if is_first => {
                    return Err("it is a core module, not a component: `tollgate plugin pack` makes one of it".to_owned());
                }
                Payload::CustomSection(section) if section.name() == SECTION => found = Some(section.data()),
                _ => {}
            }
            is_first = false;
        }
        let data = found.ok_or_else(|| {
            format!("it has no `{SECTION}` section: build it with the SDK, or add one (see wit/README.md, \"The manifest\")")
        })?;
        if data.len() > MAX_BYTES {
            return Err(format!("its `{SECTION}` section has {} bytes; {MAX_BYTES} at most", data.len()));
        }
        let section: Section = serde_json::from_slice(data).map_err(|error| format!("its `{SECTION}` section: {error}"))?;
        let words = |text: &str| text.split_whitespace().map(|word| word.replace('_', "-")).collect::<Vec<_>>();
        let hooks = words(&section.hooks)
            .iter()
            .map(|word| {
                Hook::ALL
                    .into_iter()
                    .find(|hook| hook.as_str() == word)
                    .ok_or_else(|| format!("it names the unknown hook `{word}`"))
            })
            .collect::<Result<_, _>>()?;
        let capabilities = words(&section.capabilities)
            .iter()
            .map(|word| {
                let known = Capability::ALL.into_iter().find(|capability| capability.as_str() == word);
                known.ok_or_else(|| format!("it asks for the unknown capability `{word}`"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Manifest { name: section.name, version: section.version, hooks, capabilities })
    }
}
