//! The server that is asked first: `llama-server`, or a scripted Tollgate in a short run. It is killed and comes back on its port.

use std::path::PathBuf;

use tempfile::TempDir;
use tollgate_tests::Place;

use super::{CLIENTS, SCRIPTED};
use crate::bench::pair::cores;
use crate::bench::peers::{LlamaServer, Setting};
use crate::process::free_port;
use crate::rows::Here;

/// The server that is asked first.
pub(super) struct First {
    kind: Kind,
    /// On loopback, the same each time.
    pub(super) port: u16,
    /// Its process, while it runs. Dropping it is SIGKILL.
    running: Option<Box<dyn Send>>,
}

enum Kind {
    LlamaServer { server: LlamaServer, model: PathBuf, setting: Setting, logs: TempDir },
    Scripted(Place),
}

impl First {
    /// Starts it for the first time.
    pub(super) async fn new(here: &Here) -> anyhow::Result<Self> {
        let port = free_port()?;
        let kind = if here.is_quick {
            let place = Place::new();
            let listener = format!("address = \"127.0.0.1:{port}\"\nauthenticators = [\"auth-keys\"]\n");
            place.write("listeners/main.toml", &listener);
            place.write("models/scripted.toml", SCRIPTED);
            Kind::Scripted(place)
        } else {
            let server = LlamaServer::ensure(&here.root).await?;
            let setting = Setting { threads: cores(), sequences: CLIENTS, context_tokens: CLIENTS * 512 };
            let model = here.root.join("host/demo-model/demo.gguf");
            Kind::LlamaServer { server, model, setting, logs: tempfile::tempdir()? }
        };
        let mut first = First { kind, port, running: None };
        first.start().await?;
        Ok(first)
    }

    /// Starts it and waits until it can answer.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let running: Box<dyn Send> = match &self.kind {
            Kind::LlamaServer { server, model, setting, logs } => {
                let (process, _) = server.start_at(self.port, model, *setting, logs.path()).await?;
                Box::new(process)
            }
            Kind::Scripted(place) => Box::new(place.start().await),
        };
        self.running = Some(running);
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        drop(self.running.take());
    }

    /// What the gateway in front has to know of it.
    pub(super) fn provider(&self) -> String {
        match &self.kind {
            Kind::LlamaServer { .. } => {
                format!("[provider]\nkind = \"openai\"\nendpoint = \"http://127.0.0.1:{}/v1\"\nmodel = \"demo\"\n", self.port)
            }
            Kind::Scripted(place) => tollgate(place, self.port, "scripted"),
        }
    }

    /// What it is.
    pub(super) fn method(&self) -> String {
        match &self.kind {
            Kind::LlamaServer { server, setting, .. } => {
                format!("{}; `llama-server {}`", server.versions, server.arguments(*setting).join(" "))
            }
            Kind::Scripted(_) => "a scripted Tollgate".to_owned(),
        }
    }
}

/// What a gateway in front has to know of the one on `port`.
pub(super) fn tollgate(place: &Place, port: u16, model: &str) -> String {
    let path = |name: &str| place.data().join(name).display().to_string();
    format!(
        "[provider]\nkind = \"openai\"\nendpoint = \"https://localhost:{port}/v1\"\nmodel = \"{model}\"\nkey_file = {:?}\nca = {:?}\n",
        path("admin.key"),
        path("tls/ca.pem")
    )
}
