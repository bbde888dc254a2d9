//! The bare server that added latency is measured against: hyper over rustls, which reads a request whole and answers the same
//! bytes always. It runs as a process of its own, like the gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::load::Target;
use crate::process::{Process, free_port};

/// How it is started.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    port: u16,
    certificate: PathBuf,
    key: PathBuf,
    /// A file with what it answers.
    answer: PathBuf,
}

/// Serves until it is killed.
pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let chain = CertificateDer::pem_file_iter(&arguments.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&arguments.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key)?));
    let answer = Bytes::from(std::fs::read(&arguments.answer)?);
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port))).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, acceptor.clone(), answer.clone()));
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, answer: Bytes) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            request.into_body().collect().await?;
            let mut response = Response::new(Full::new(answer));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, hyper::Error>(response)
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// Starts it with the gateway's own certificate (in `tls`) and waits until it answers.
pub(crate) async fn start(tls: &Path, answer: &[u8], folder: &Path) -> anyhow::Result<(Process, Target)> {
    let (port, file) = (free_port()?, folder.join("answer.json"));
    std::fs::write(&file, answer).with_context(|| file.display().to_string())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("__bare").arg(port.to_string()).arg(tls.join("server.pem")).arg(tls.join("server.key")).arg(&file);
    let mut process = Process::spawn("the bare server", &mut command, &folder.join("bare.log"))?;
    let target = Target::tls("bare", port, &tls.join("ca.pem"), "none", "scripted")?;
    let is_up = || async { target.get("/").await.is_ok() };
    process.until(Duration::from_secs(10), is_up).await?;
    Ok((process, target))
}
