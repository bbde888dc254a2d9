//! The canaries: what each is, how it gets in, and where it may be found afterwards.

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tollgate_tests::Place;

/// A word that stands for a secret.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) name: &'static str,
    pub(super) word: String,
    /// Beginnings of the names of places that are meant to have it.
    pub(super) may: &'static [&'static str],
}

/// All of them.
#[derive(Debug)]
pub(super) struct Planted(Vec<Canary>);

/// Name, how the word begins, and the places that are meant to have it.
const SENT: [(&str, &str, &[&str]); 27] = [
    ("user key", "tg-", &[]),
    ("bad bearer key", "sk-proj-", &[]),
    ("bad X-API-Key", "sk-ant-", &[]),
    ("basic credentials", "", &[]),
    ("other credentials", "", &[]),
    ("cookie", "session-", &[]),
    ("query", "", &[]),
    ("path", "", &[]),
    ("model", "", &[]),
    ("prompt", "", &[]),
    ("system prompt", "", &[]),
    ("reply", "", &[]),
    ("name", "", &[]),
    ("tool", "", &[]),
    ("user field", "", &[]),
    ("metadata", "", &[]),
    ("stop", "", &[]),
    ("unknown field", "", &[]),
    ("request id", "", &[]),
    ("user agent", "", &[]),
    ("baggage", "", &[]),
    ("trace state", "", &[]),
    ("control characters", "", &[]),
    ("malformed request", "", &[]),
    ("operator's slip", "", &[]),
    // Who asks is what the access log is for: the name that an authenticator gives, not what was shown to it.
    ("principal", "", &["log"]),
    // A plugin's config is no place for a secret, and is part of the plugin that is built from it.
    ("plugin config", "", &["config/plugins/", "data/cache/"]),
];

impl Planted {
    /// With a word for each.
    pub(super) fn new() -> Self {
        let word = |at: usize, begin: &str| {
            let digest = Sha256::digest(format!("canary {at}").as_bytes());
            format!("{begin}canary{at:02}{}", hex::encode(&digest[..8]))
        };
        let sent = SENT.iter().enumerate().map(|(at, (name, begin, may))| Canary { name, word: word(at, begin), may });
        let collector =
            Canary { name: "collector's key", word: word(SENT.len(), ""), may: &["config/collector", "traces' headers"] };
        Planted(sent.chain([collector]).collect())
    }

    /// The word of a canary.
    pub(super) fn word(&self, name: &str) -> &str {
        self.0.iter().find(|canary| canary.name == name).map(|canary| canary.word.as_str()).expect("a canary of the list")
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Canary] {
        &self.0
    }

    /// A config that has those that stand in files, and tells all that it can.
    pub(super) fn write(&self, place: &Place, collector: u16) {
        place.write(
            "tollgate.toml",
            &format!(
                "[log]\nlevel = \"trace\"\n[reload]\npoll_s = 3600\ndebounce_ms = 3600\n[telemetry]\n\
                 endpoint = \"http://127.0.0.1:{collector}\"\ninterval_s = 1\nheaders_file = \"collector\"\n"
            ),
        );
        place.write("collector", &format!("x-collector-key: {}\n", self.word("collector's key")));
        let hash = hex::encode(Sha256::digest(self.word("user key").as_bytes()));
        place.write("keys/user.toml", &format!("sha256 = \"{hash}\"\nscopes = [\"chat\", \"models\"]\n"));
        place.plugin("probe", "probe", &format!("grants = [\"log\"]\n[config]\nword = {:?}\n", self.word("plugin config")));
        place.write("routes/chat.toml", "plugins = [\"probe\"]\n");
        place.write("routes/doomed.toml", "plugins = []\nmodel = \"doomed\"\n[match]\nmodel = \"doomed\"\n");
        place.write("models/doomed.toml", "backend = \"scripted\"\n");
        place.write(
            "listeners/main.toml",
            "address = \"127.0.0.1:0\"\nauthenticators = [\"probe\", \"auth-keys\"]\n\
             [limits]\nheader_s = 1\nbody_idle_s = 1\nfirst_byte_s = 1\n",
        );
    }

    /// Adds what the gateway made for itself: its admin key, its own secrets, its private keys.
    pub(super) fn take_made(&mut self, place: &Place) -> anyhow::Result<()> {
        let read = |name: &str| std::fs::read_to_string(place.data().join(name)).with_context(|| name.to_owned());
        self.0.push(Canary { name: "admin key", word: read("admin.key")?.trim().to_owned(), may: &["data/admin.key"] });
        for (name, file, may) in [
            ("server secret", "server.secret", &["data/server.secret"][..]),
            ("cache secret", "cache.secret", &["data/cache.secret"]),
        ] {
            self.0.push(Canary { name, word: read(file)?.trim().to_owned(), may });
        }
        for entry in std::fs::read_dir(place.data().join("tls"))? {
            let text = std::fs::read_to_string(entry?.path())?;
            let Some((_, key)) = text.split_once("PRIVATE KEY-----") else { continue };
            // The second line: the first begins alike in every key of its kind.
            let line = key.lines().filter(|line| !line.is_empty()).nth(1).context("a key of several lines")?;
            self.0.push(Canary { name: "TLS key", word: line.to_owned(), may: &["data/tls/"] });
        }
        Ok(())
    }

    /// Headers of every request.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let trace = self.word("trace state");
        vec![
            ("cookie", format!("session={}", self.word("cookie"))),
            ("x-request-id", self.word("request id").to_owned()),
            ("user-agent", self.word("user agent").to_owned()),
            ("referer", format!("https://example.org/{}", self.word("user agent"))),
            ("baggage", format!("userId={}", self.word("baggage"))),
            ("tracestate", format!("vendor={trace}")),
            ("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")),
            ("x-forwarded-for", self.word("user agent").to_owned()),
            ("openai-organization", self.word("request id").to_owned()),
        ]
    }

    /// Credentials that open nothing, each in a request of its own.
    pub(super) fn credentials(&self) -> Vec<(&'static str, String)> {
        vec![
            ("authorization", format!("Bearer {}", self.word("bad bearer key"))),
            ("authorization", format!("Bearer {} {}", self.word("bad bearer key"), self.word("other credentials"))),
            ("x-api-key", self.word("bad X-API-Key").to_owned()),
            ("authorization", format!("Basic {}", self.word("basic credentials"))),
            ("authorization", format!("Digest username=\"{0}\", response=\"{0}\"", self.word("other credentials"))),
            ("x-probe", format!("answer {}", self.word("principal"))),
            ("x-probe", format!("trap {}", self.word("other credentials"))),
        ]
    }

    /// Requests whose targets hold something.
    pub(super) fn targets(&self) -> Vec<(&'static str, String)> {
        let (path, query) = (self.word("path"), self.word("query"));
        vec![
            ("GET", format!("/{path}?api_key={query}")),
            ("GET", format!("/v1/models/{path}?key={query}")),
            ("GET", format!("/v1/models/%1b%5b31m{path}%0d%0a{path}")),
            ("DELETE", format!("{}?access_token={query}", super::CHAT)),
            ("GET", format!("/health?token={query}")),
            ("GET", format!("/metrics?token={query}")),
        ]
    }

    /// Fields of a chat's body, well-formed or not.
    pub(super) fn fields(&self, noise: &str) -> Value {
        let tool = self.word("tool");
        json!({
            "user": format!("{}{noise}", self.word("user field")),
            "metadata": { self.word("metadata"): format!("{}{noise}", self.word("metadata")) },
            "stop": [self.word("stop")],
            "tools": [{
                "type": "function",
                "function": { "name": tool, "description": format!("{tool}{noise}"), "parameters": { "type": "object" } },
            }],
            self.word("unknown field"): self.word("unknown field"),
        })
    }
}
