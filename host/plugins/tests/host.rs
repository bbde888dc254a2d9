//! The plugin host with a real component: the probe of `tests/guests/probe`, built by `make plugins`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_domain::{ChatRequest, Context, Message, Origin, Parameters, Piece, Principal, RefusalKind, RequestHead, Role};
use tollgate_plugins::{
    Artifact, BuildFailure, BuildRequest, BuildStage, Capability, Credentials, Decision, Hook, Instance, Kill, KillReason,
    Limits, LoadError, Lookup, LookupError, MacKey, OnFailure, Plugin, PluginHost, Spec, Verdict, run_build,
};

struct NoKeys;

impl Credentials for NoKeys {
    fn lookup<'a>(&'a self, _secret: &'a str) -> Lookup<'a> {
        Box::pin(std::future::ready(Err(LookupError::Unknown)))
    }
}

const KEY: [u8; 32] = [3; 32];

fn component(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

fn spec(config: &str) -> Spec {
    Spec {
        id: "probe".to_owned(),
        config_json: config.to_owned(),
        grants: vec![Capability::Log],
        limits: Limits::default(),
        on_failure: OnFailure::Refuse,
    }
}

async fn build(dir: &Path, component: &Path, spec: &Spec) -> Result<Artifact, BuildFailure> {
    let digest = "0".repeat(64);
    let request = BuildRequest {
        id: spec.id.clone(),
        component: component.to_owned(),
        digest: digest.clone(),
        config_json: spec.config_json.clone(),
        grants: spec.grants.clone(),
        out: dir.join("probe.plugin"),
        incremental: dir.join("probe.functions"),
        quick: dir.join("probe.quick"),
        passed: dir.join("probe.cases"),
        key: hex::encode(KEY),
        time_s: 20,
    };
    run_build(&request).await?;
    Ok(Artifact::read(&request.out, &MacKey::new(KEY), &digest).unwrap())
}

struct Fixture {
    host: PluginHost,
    plugin: Arc<Plugin>,
}

impl Fixture {
    /// Both ways a plugin may run: from a snapshot, and with `init` in every request.
    async fn both(config: &str) -> [Fixture; 2] {
        [Self::of("probe", config).await, Self::of("probe-without-snapshot", config).await]
    }

    async fn of(name: &str, config: &str) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(config);
        let artifact = build(dir.path(), &component(name), &spec).await.unwrap();
        assert_eq!(artifact.report().snapshot, name == "probe", "{:?}", artifact.report().no_snapshot_because);
        let host = PluginHost::new(8, Arc::new(NoKeys)).unwrap();
        let plugin = Arc::new(host.load(&artifact, spec).unwrap());
        Fixture { host, plugin }
    }

    async fn start(&self) -> Instance {
        let mut reservation = self.host.slots().reserve(1).expect("the test holds one at a time");
        let slot = reservation.take().expect("reserved");
        self.plugin.start(slot, &"request".into(), 1_234).await.unwrap()
    }

    async fn command(&self, text: &str) -> Result<Verdict, Kill> {
        let mut instance = self.start().await;
        instance.filter_prompt(context(), request(text)).await.map(|outcome| outcome.verdict)
    }

    async fn answer(&self, text: &str) -> String {
        match self.command(text).await.unwrap() {
            Verdict::Answer(answer) => answer,
            other => panic!("{text}: {other:?}"),
        }
    }
}

fn context() -> Context {
    Context {
        request_id: "request".to_owned(),
        received_at_ms: 1_234,
        deadline_ms: 61_234,
        listener: "main".to_owned(),
        dialect: "openai".to_owned(),
        route: "chat".to_owned(),
        principal: Principal {
            id: "p".to_owned(),
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

fn request(text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, text)],
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: None,
        model: "demo".to_owned(),
        fields: Vec::new(),
    }
}

fn head(probe: Option<&str>) -> RequestHead {
    RequestHead {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: probe.map(|command| ("x-probe".to_owned(), command.to_owned())).into_iter().collect(),
        client_ip: "127.0.0.1".parse().unwrap(),
        listener: "main".to_owned(),
        peer_cert: None,
    }
}

#[tokio::test]
async fn a_pass_a_refusal_an_answer() {
    for fixture in Fixture::both(r#"{"word":"one"}"#).await {
        assert_eq!(fixture.command("hello").await.unwrap(), Verdict::Pass);
        assert_eq!(fixture.answer("answer  two  words ").await, " two  words ");
        assert_eq!(fixture.answer("config").await, "one");
        assert_eq!(fixture.answer("clock").await, "1234");
        let Verdict::Block(refusal) = fixture.command("refuse").await.unwrap() else { panic!("refused") };
        assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Blocked, "probe_refused"));
    }
}

#[tokio::test]
async fn an_authenticator_identifies_refuses_and_abstains() {
    for fixture in Fixture::both("{}").await {
        assert_eq!(fixture.start().await.authenticate(head(None)).await.unwrap(), Decision::Abstain);
        let Decision::Identity(who) = fixture.start().await.authenticate(head(Some("answer ann"))).await.unwrap() else {
            panic!("identified")
        };
        assert_eq!(who.id, "ann");
        let Decision::Refuse(refusal) = fixture.start().await.authenticate(head(Some("refuse"))).await.unwrap() else {
            panic!("refused")
        };
        assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
        // P-A5: an empty principal is none.
        let kill = fixture.start().await.authenticate(head(Some("answer"))).await.unwrap_err();
        assert!(matches!(kill.reason, KillReason::Contract(_)), "{kill}");
    }
}

/// P-W1: each is stopped for its own reason, and the next request finds everything as before.
#[tokio::test]
async fn a_trap_a_loop_and_growth_are_ended() {
    for fixture in Fixture::both("{}").await {
        let reason = |kill: Result<Verdict, Kill>| kill.unwrap_err().reason;
        assert!(matches!(reason(fixture.command("trap").await), KillReason::Trap(_)));
        assert_eq!(reason(fixture.command("loop").await), KillReason::Cpu);
        assert_eq!(reason(fixture.command("grow").await), KillReason::Memory);
        assert_eq!(fixture.host.slots().free(), 8, "every instance is gone");
        assert_eq!(fixture.command("hello").await.unwrap(), Verdict::Pass);
    }
}

/// The hooks of one request share an instance; those of another do not see it (P-W7).
#[tokio::test]
async fn hooks_of_a_request_share_their_state() {
    for fixture in Fixture::both("{}").await {
        let mut first = fixture.start().await;
        let mut second = fixture.start().await;
        assert_eq!(first.filter_prompt(context(), request("remember me")).await.unwrap().verdict, Verdict::Pass);
        for (instance, expected) in [(&mut first, "me!"), (&mut second, "!")] {
            instance.reply_begins(context(), 0).await.unwrap();
            let step = instance.push(Piece::Text("{remembered}!".to_owned())).await.unwrap();
            assert_eq!(step.release, [Piece::Text(expected.to_owned())]);
            assert_eq!(instance.finish().await.unwrap().release, []);
        }
    }
}

/// One `init` for a thousand requests, and another snapshot for another config.
#[tokio::test]
async fn init_runs_once_for_each_config() {
    for word in ["one", "two"] {
        let fixture = Fixture::of("probe", &format!(r#"{{"word":"{word}"}}"#)).await;
        for _ in 0..1_000 {
            assert_eq!(fixture.answer("inits").await, "1");
        }
        assert_eq!(fixture.answer("config").await, word);
    }
}

#[tokio::test]
async fn no_two_requests_see_the_same_entropy() {
    for fixture in Fixture::both("{}").await {
        let mut seen = HashSet::new();
        for _ in 0..500 {
            assert!(seen.insert(fixture.answer("entropy").await), "drawn twice");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_built_says_where_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let no_grant = Spec { grants: Vec::new(), ..spec("{}") };
    let probe = component("probe");
    let truncated = file("cut.wasm", &std::fs::read(&probe).unwrap()[..1_000]);
    let empty_component = file("empty.wasm", b"\0asm\x0d\0\x01\0");
    for (component, spec, stage, reason) in [
        (&probe, spec(r#"{"fail":"no such list"}"#), BuildStage::Init, "no such list"),
        (&probe, spec(r#"{"wrong":1}"#), BuildStage::Init, "unknown field `wrong`"),
        (&probe, no_grant.clone(), BuildStage::Check, r#"set `grants = ["log"]` in plugins/probe.toml"#),
        (&truncated, spec("{}"), BuildStage::Check, "not a WASM component"),
        (&file("text.wasm", b"hello"), spec("{}"), BuildStage::Check, "it is no WebAssembly file"),
        (&file("core.wasm", b"\0asm\x01\0\0\0"), spec("{}"), BuildStage::Check, "it is a core module"),
        (&empty_component, spec("{}"), BuildStage::Check, "no `tollgate:manifest` section"),
        (&component("probe-of-another-world"), spec("{}"), BuildStage::Check, "is of another world"),
    ] {
        let failure = build(dir.path(), component, &spec).await.unwrap_err();
        assert_eq!(failure.stage, stage, "{failure}");
        assert!(failure.reason.contains(reason), "{failure}");
    }
    // The second yes is asked for again at load.
    let artifact = build(dir.path(), &probe, &spec("{}")).await.unwrap();
    let host = PluginHost::new(8, Arc::new(NoKeys)).unwrap();
    assert!(matches!(host.load(&artifact, no_grant), Err(LoadError::NotGranted { .. })));
}

#[tokio::test]
async fn a_plugin_has_the_hooks_that_it_exports() {
    let fixture = Fixture::of("probe", "{}").await;
    let has = Hook::ALL.into_iter().filter(|hook| fixture.plugin.has(*hook)).map(Hook::as_str).collect::<Vec<_>>();
    assert_eq!(has, ["setup", "resume", "authenticate", "filter-prompt", "filter-reply"]);
    assert_eq!(fixture.plugin.manifest().name, "tollgate-guest-probe");
}
