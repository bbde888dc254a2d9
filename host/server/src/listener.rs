//! The addresses of a listener, bound but not yet served.
//!
//! Binding is apart from serving so that a process can say what is wrong with its addresses before it
//! begins to do anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::limits::Limits;
use crate::tls::{CertificateStore, Tls};

/// Connections that the kernel may hold for us before we accept them.
const BACKLOG: i32 = 1024;

/// Bound sockets with a name, their TLS and their limits.
pub struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) sockets: Vec<TcpListener>,
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: Arc<Limits>,
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// There was nothing to bind.
    #[error("listener `{0}` has no address")]
    NoAddress(String),
    /// The operating system said no.
    #[error("listener `{listener}` cannot bind {address}: {source}")]
    Socket {
        /// The listener's name.
        listener: String,
        /// The address that failed.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Listener {
    /// Binds every address; one that fails fails all. Without `tls` the listener speaks plain HTTP/1.1.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] names the address.
    pub fn bind(name: &str, addresses: &[SocketAddr], tls: Option<Tls>, limits: Limits) -> Result<Self, BindError> {
        if addresses.is_empty() {
            return Err(BindError::NoAddress(name.to_owned()));
        }
        let bind = |address: &SocketAddr| {
            bind_socket(*address, limits.stream_buffer_bytes).map_err(|source| BindError::Socket {
                listener: name.to_owned(),
                address: *address,
                source,
            })
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { name: name.into(), sockets, tls, limits: Arc::new(limits) })
    }

    /// The certificate that it shows; none on a plain listener.
    #[must_use]
    pub fn certificate(&self) -> Option<&Arc<CertificateStore>> {
        self.tls.as_ref().map(Tls::store)
    }

    /// The addresses in the order they were given, with the port the system chose where that was 0.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

fn bind_socket(address: SocketAddr, send_buffer_bytes: usize) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections of the process before it to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // IPv4 has its own address in the list; which of two sockets gets a connection is never left open.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it. Left alone it grows to megabytes, and a client that stopped reading
    // would look alive for thousands of tokens (P-L4).
    socket.set_send_buffer_size(send_buffer_bytes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_chosen_port_is_told_and_a_taken_one_is_named() {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind("main", &[any], None, Limits::default()).unwrap();
        let address = listener.local_addresses()[0];
        assert_ne!(address.port(), 0);
        let error = Listener::bind("second", &[address], None, Limits::default()).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("second") && text.contains(&address.to_string()), "{text}");
    }

    #[tokio::test]
    async fn a_listener_without_an_address_is_an_error() {
        assert!(matches!(Listener::bind("none", &[], None, Limits::default()), Err(BindError::NoAddress(_))));
    }
}
