//! A gateway process and its directories.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::Client;

/// The first start compiles four plugins on a machine that may be busy.
const START: Duration = Duration::from_secs(120);

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The gateway's binary: `target/release/tollgate`, or what `TOLLGATE_PROGRAM` names, for runs that outlast the next build.
#[must_use]
pub fn program() -> PathBuf {
    let path = std::env::var_os("TOLLGATE_PROGRAM").map_or_else(|| repository().join("target/release/tollgate"), PathBuf::from);
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

/// A built component.
#[must_use]
pub fn plugin_file(name: &str) -> PathBuf {
    let path = repository().join("target/plugins").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

/// The directories of a gateway that may be started and stopped.
#[derive(Debug)]
pub struct Place {
    root: TempDir,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// A config with a scripted model called `scripted`, one TLS listener on a free port, `auth-keys`, and one route without
    /// plugins.
    #[must_use]
    pub fn new() -> Self {
        let place = Place { root: tempfile::tempdir().unwrap() };
        place.write("listeners/main.toml", "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\n");
        place.write("models/scripted.toml", "backend = \"scripted\"\nqueue = 4096\n");
        place.write("plugins/auth-keys.toml", "component = \"builtin:auth-keys\"\ngrants = [\"credentials\", \"log\"]\n");
        place.write("routes/chat.toml", "plugins = []\n");
        place.write("tollgate.toml", "[reload]\npoll_s = 1\ndebounce_ms = 20\n");
        place
    }

    /// The config directory.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.path().join("config")
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Writes a file of the config directory.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.config().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Removes a file of the config directory.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.config().join(name)).unwrap();
    }

    /// A plugin called `id` from a built component.
    pub fn plugin(&self, id: &str, component: &str, rest: &str) {
        let file = plugin_file(component);
        self.write(&format!("plugins/{id}.toml"), &format!("component = {:?}\n{rest}", file.display().to_string()));
    }

    /// A service manager: the gateways that start here from now on tell it how they are.
    #[must_use]
    pub fn manager(&self) -> UnixDatagram {
        UnixDatagram::bind(self.manager_socket()).unwrap()
    }

    fn manager_socket(&self) -> PathBuf {
        self.root.path().join("notify")
    }

    /// Starts a gateway here.
    pub async fn start(&self) -> Gateway {
        self.start_under(&[]).await
    }

    /// Starts a gateway here through `wrapper`, a command that ends by executing its arguments: `taskset -c 0`, `prlimit --as=N`.
    pub async fn start_under(&self, wrapper: &[&str]) -> Gateway {
        let (child, line, log) = self.spawn(wrapper).await;
        match line {
            Some(line) => Gateway::new(self, child, &line),
            None => panic!("the gateway did not start:\n{log}"),
        }
    }

    /// Starts a gateway that is expected to refuse; returns what it says.
    pub async fn start_fails(&self) -> String {
        let (mut child, line, log) = self.spawn(&[]).await;
        assert_eq!(line, None, "the gateway started");
        assert!(!child.wait().await.unwrap().success());
        log
    }

    async fn spawn(&self, wrapper: &[&str]) -> (Child, Option<String>, String) {
        let log = self.root.path().join("log");
        let program = program();
        let mut command = match wrapper.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        if self.manager_socket().exists() {
            command.env("NOTIFY_SOCKET", self.manager_socket());
        }
        let mut child = command
            .args(["serve", "--config"])
            .arg(self.config())
            .arg("--data")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with("ready: ") {
                    return Some(line);
                }
            }
            None
        };
        let line = tokio::time::timeout(START, ready).await.expect("the gateway is ready or ends in time");
        (child, line, self.log())
    }

    /// What the gateways here have logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }
}

/// A running gateway. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    /// `https://localhost:PORT`.
    pub url: String,
    /// Speaks to it with the admin key.
    pub client: Client,
    data: PathBuf,
}

impl Gateway {
    fn new(place: &Place, child: Child, line: &str) -> Self {
        let url = line.split_whitespace().nth(1).unwrap().to_owned();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        let data = place.data();
        let key = std::fs::read_to_string(data.join("admin.key")).unwrap().trim().to_owned();
        Gateway { child, client: Client::new(port, &data.join("tls/ca.pem"), key), url, data }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await.expect("it ends in time").unwrap()
    }

    /// Asks its admin channel through the command line.
    pub async fn admin(&self, verb: &[&str]) -> Value {
        let output = self.admin_output(verb).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Has it take in its config, and returns the status that comes of it.
    pub async fn reload(&self) -> Value {
        self.admin(&["reload"]).await
    }

    async fn admin_output(&self, verb: &[&str]) -> std::process::Output {
        Command::new(program()).args(verb).arg("--json").arg("--data").arg(&self.data).output().await.unwrap()
    }
}
