//! A plugin host in this process, for rows that need more calls than a gateway answers, or a call's future in their hands.

use std::sync::Arc;

use anyhow::Context as _;
use tempfile::TempDir;
use tollgate_domain::{ChatRequest, Context, Message, Origin, Parameters, Principal, RequestHead, Role};
use tollgate_plugins::{
    BuildLimits, Builder, Credentials, Instance, Kill, Limits, Lookup, LookupError, MacKey, OnFailure, Plugin, PluginHost, Spec,
};

use super::guest::Guest;

/// Nobody has a key.
struct Nobody;

impl Credentials for Nobody {
    fn lookup<'a>(&'a self, _secret: &'a str) -> Lookup<'a> {
        Box::pin(std::future::ready(Err(LookupError::Unknown)))
    }
}

/// A host with one plugin.
pub(crate) struct Inside {
    /// The host.
    pub(crate) host: PluginHost,
    plugin: Arc<Plugin>,
    _cache: TempDir,
}

impl Inside {
    /// Builds the guest as the gateway does, and loads it.
    pub(crate) async fn new(guest: &Guest<'_>, slots: u32) -> anyhow::Result<Self> {
        let cache = tempfile::tempdir()?;
        let limits = BuildLimits { memory_bytes: 512 << 20, time_s: 60 };
        let builder =
            Builder::new(tollgate_tests::program(), "__build-plugin", cache.path().to_owned(), MacKey::new([7; 32]), limits)?;
        let spec = Spec {
            id: guest.name.to_owned(),
            config_json: "{}".to_owned(),
            grants: Vec::new(),
            limits: Limits::default(),
            on_failure: OnFailure::Refuse,
        };
        let artifact = builder.build(&guest.write(cache.path())?, &spec).await?;
        let host = PluginHost::new(slots, Arc::new(Nobody))?;
        let plugin = Arc::new(host.load(&artifact, spec)?);
        Ok(Inside { host, plugin, _cache: cache })
    }

    /// A fresh instance, or why there is none.
    pub(crate) async fn start(&self) -> anyhow::Result<Result<Instance, Kill>> {
        let slot = self.host.slots().reserve(1).and_then(|mut reservation| reservation.take()).context("a slot is free")?;
        Ok(self.plugin.start(slot, &"request".into(), 1_234).await)
    }
}

/// A request's surroundings.
pub(crate) fn context() -> Context {
    Context {
        request_id: "request".to_owned(),
        received_at_ms: 1_234,
        deadline_ms: 61_234,
        listener: "main".to_owned(),
        dialect: "openai".to_owned(),
        route: "chat".to_owned(),
        principal: Principal {
            id: "ann".to_owned(),
            tenant: "default".to_owned(),
            roles: Vec::new(),
            scopes: Vec::new(),
            models: Vec::new(),
            default_model: None,
            attributes: Vec::new(),
        },
        model: "demo".to_owned(),
        is_stream: false,
        conversation: None,
        attributes: Vec::new(),
    }
}

/// A request with one message.
pub(crate) fn request(text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, text)],
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: None,
        model: "demo".to_owned(),
        fields: Vec::new(),
    }
}

/// A request's head with one header.
pub(crate) fn head(value: String) -> RequestHead {
    RequestHead {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: vec![("x-image".to_owned(), value)],
        client_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        listener: "main".to_owned(),
        peer_cert: None,
    }
}
