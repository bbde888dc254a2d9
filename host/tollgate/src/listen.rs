//! From the config's listeners to open sockets.

use std::time::Duration;

use anyhow::Context;
use tollgate_config::{Config, Listener as Spec, ListenerLimits, Object};
use tollgate_server::{CertificatePaths, Cidr, Drain, Limits, Listener, LocalCa, Tls};

/// How often certificates are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(1);

/// A listener that is bound but does not serve yet.
pub(crate) struct Bound {
    pub(crate) id: String,
    pub(crate) listener: Listener,
    pub(crate) urls: Vec<String>,
    pub(crate) trusted: Vec<Cidr>,
}

/// Binds every listener of the config.
pub(crate) fn bind(config: &Config, local: &LocalCa, drain: &Drain) -> anyhow::Result<Vec<Bound>> {
    config.listeners.values().map(|spec| bind_one(config, spec, local, drain).with_context(|| spec.file.clone())).collect()
}

fn bind_one(config: &Config, spec: &Object<Spec>, local: &LocalCa, drain: &Drain) -> anyhow::Result<Bound> {
    let tls = if spec.plain_http {
        None
    } else {
        let paths = match &spec.tls {
            None => local.server.clone(),
            Some(tls) => CertificatePaths { certificate: config.resolve(&tls.certificate), key: config.resolve(&tls.key) },
        };
        let tls = Tls::new(paths)?;
        tls.store().watch(CERTIFICATE_INTERVAL, drain);
        Some(tls)
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listener = Listener::bind(spec.id.as_str(), &spec.address, tls, limits_of(&spec.limits))?;
    let mut urls = listener.local_addresses().iter().map(|address| url(scheme, *address)).collect::<Vec<_>>();
    // Both loopback addresses have one name.
    urls.dedup();
    let trusted = spec.trusted_proxies.iter().map(|network| network.to_string().parse()).collect::<Result<_, _>>()?;
    Ok(Bound { id: spec.id.as_str().to_owned(), listener, urls, trusted })
}

/// Loopback is called by its name, which the local certificate has too.
fn url(scheme: &str, address: std::net::SocketAddr) -> String {
    if address.ip().is_loopback() { format!("{scheme}://localhost:{}", address.port()) } else { format!("{scheme}://{address}") }
}

fn limits_of(spec: &ListenerLimits) -> Limits {
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    Limits {
        tls_handshake: seconds(spec.tls_handshake_s),
        first_byte: seconds(spec.first_byte_s),
        header: seconds(spec.header_s),
        idle: seconds(spec.idle_s),
        body_total: seconds(spec.body_s),
        body_idle: seconds(spec.body_idle_s),
        body_min_bytes_per_s: u64::from(spec.body_min_bytes_per_s),
        stalled_reader: seconds(spec.stalled_reader_s),
        connections: spec.connections as usize,
        connections_per_ip: spec.connections_per_ip as usize,
        header_bytes: (spec.header_kib as usize) << 10,
        headers: spec.headers as usize,
        body_bytes: u64::from(spec.body_mib) << 20,
        stream_buffer_bytes: (spec.stream_buffer_kib as usize) << 10,
        h2_streams: spec.h2_streams,
        h2_pending_reset_streams: spec.h2_pending_reset_streams as usize,
        h2_local_reset_streams: spec.h2_local_reset_streams as usize,
        h2_header_list_bytes: spec.h2_header_list_kib << 10,
        h2_stream_window_bytes: spec.h2_stream_window_kib << 10,
        h2_connection_window_bytes: spec.h2_connection_window_kib << 10,
        ..Limits::default()
    }
}
