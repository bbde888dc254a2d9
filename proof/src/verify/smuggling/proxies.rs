//! Real proxies in front of the gateway, each with its own count of the requests that it sent on.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::Command;
use tollgate_tests::Place;

use crate::process::{Process, free_port};

/// A proxy that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: &'static str,
    /// Takes HTTP/1.1.
    pub(super) http1: u16,
    /// Takes HTTP/2 without TLS.
    pub(super) http2: u16,
    log: PathBuf,
    _process: Process,
}

/// Seconds after which a proxy gives up on a client that is not done.
const PATIENCE_S: u64 = 1;

impl Proxy {
    /// Starts `name` in front of the gateway's listener on `port`; `None` where it is not installed.
    pub(super) async fn start(name: &'static str, place: &Place, port: u16) -> anyhow::Result<Option<Self>> {
        let program = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
        let Some(program) = program.into_iter().find(|program| program.exists()) else { return Ok(None) };
        let folder = place.data().join(name);
        std::fs::create_dir_all(&folder)?;
        let (http1, http2) = (free_port()?, free_port()?);
        let (config, log) = (folder.join("conf"), folder.join("requests"));
        let ca = place.data().join("tls/ca.pem");
        let mut command = Command::new(program);
        if name == "haproxy" {
            std::fs::write(&config, haproxy(http1, http2, port, &ca))?;
            command.arg("-db").arg("-f").arg(&config);
        } else {
            std::fs::write(&config, nginx(http1, http2, port, &ca, &folder))?;
            command.arg("-p").arg(&folder).arg("-c").arg(&config).arg("-e").arg(folder.join("errors"));
        }
        // HAProxy's log is its standard output; nginx writes its own file.
        let output = if name == "haproxy" { log.clone() } else { folder.join("output") };
        let mut process = Process::spawn(name, &mut command, &output)?;
        let is_up = || async move { TcpStream::connect((Ipv4Addr::LOCALHOST, http1)).await.is_ok() };
        process.until(Duration::from_secs(10), is_up).await?;
        Ok(Some(Proxy { name, http1, http2, log, _process: process }))
    }

    /// How many requests it has sent on to the gateway, by its log: those that were answered, and those that it gave up on.
    pub(super) fn sent_on(&self) -> anyhow::Result<Sent> {
        let text = std::fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())?;
        let mut sent = Sent::default();
        for line in text.lines() {
            let word = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or("-");
            // HAProxy's server, or the bytes that nginx sent.
            if ["-", "0", "<NOSRV>"].contains(&word("to=")) {
                continue;
            }
            // nginx closes a connection that it gives up on at once, and the gateway may never see what was sent.
            if line.contains("upstream=") && word("upstream=") == "-" { sent.given_up += 1 } else { sent.answered += 1 }
        }
        Ok(sent)
    }
}

/// What a proxy sent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) answered: u64,
    /// Closed before there was an answer; nothing can follow on such a connection.
    pub(super) given_up: u64,
}

impl Sent {
    /// Since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Sent { answered: self.answered - before.answered, given_up: self.given_up - before.given_up }
    }

    /// Whether the gateway's count is right.
    pub(super) fn agrees(self, counted: u64) -> bool {
        (self.answered..=self.answered + self.given_up).contains(&counted)
    }
}

/// Connections to the gateway are kept and shared by all clients, which is where smuggled requests wait for a victim.
fn haproxy(http1: u16, http2: u16, port: u16, ca: &Path) -> String {
    let ca = ca.display();
    format!(
        "global\n  log stdout format raw local0\n  nbthread 1\n  ca-base /\n\
         defaults\n  mode http\n  log global\n  log-format \"to=%s status=%ST state=%tsc request=%{{+Q}}r\"\n  retries 0\n\
         \x20 timeout connect 5s\n  timeout client {PATIENCE_S}s\n  timeout server 20s\n  timeout http-request {PATIENCE_S}s\n\
         \x20 timeout http-keep-alive {PATIENCE_S}s\n  http-reuse always\n\
         frontend one\n  bind 127.0.0.1:{http1}\n  default_backend gateway\n\
         frontend two\n  bind 127.0.0.1:{http2} proto h2\n  default_backend gateway\n\
         backend gateway\n  server tollgate 127.0.0.1:{port} ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost \
         pool-purge-delay 5s\n"
    )
}

fn nginx(http1: u16, http2: u16, port: u16, ca: &Path, folder: &Path) -> String {
    let (ca, folder) = (ca.display(), folder.display());
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/errors warn;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  log_format sent 'to=$upstream_bytes_sent status=$status upstream=$upstream_status request=\"$request\"';\n\
         \x20 access_log {folder}/requests sent;\n\
         \x20 client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/fastcgi;\n\
         \x20 uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n\
         \x20 client_header_timeout {PATIENCE_S}s;\n  client_body_timeout {PATIENCE_S}s;\n  keepalive_timeout {PATIENCE_S}s;\n\
         \x20 lingering_timeout {PATIENCE_S}s;\n\
         \x20 upstream gateway {{ server 127.0.0.1:{port}; keepalive 16; keepalive_timeout 5s; }}\n\
         \x20 server {{\n    listen 127.0.0.1:{http1};\n    listen 127.0.0.1:{http2} http2;\n    location / {{\n\
         \x20     proxy_pass https://gateway;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n\
         \x20     proxy_set_header Host $http_host;\n      proxy_ssl_verify on;\n      proxy_ssl_trusted_certificate {ca};\n\
         \x20     proxy_ssl_name localhost;\n      proxy_ssl_server_name on;\n      proxy_next_upstream off;\n\
         \x20     proxy_request_buffering off;\n    }}\n  }}\n}}\n"
    )
}
