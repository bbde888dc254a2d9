//! Tells a service manager how the gateway is, by systemd's sd_notify protocol: one datagram per change. It asks the manager
//! nothing, and without a manager it does nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where a manager names its socket: an absolute path, or `@` and an abstract name.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The service manager that started this process, if one did.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    socket: Option<OsString>,
}

impl Manager {
    pub(crate) fn from_environment() -> Self {
        Manager { socket: std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) }
    }

    /// The gateway serves at `urls`.
    pub(crate) fn ready(&self, urls: &[String]) {
        self.tell(&format!("READY=1\nSTATUS=serving {}", urls.join(" ")));
    }

    /// The gateway takes no more requests, and lets those that run finish.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what still runs");
    }

    /// A manager that cannot be told changes nothing for those who are served.
    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            tracing::warn!(socket = %socket.display(), %error, "the service manager could not be told");
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the gateway.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_manager_hears_of_ready_and_of_stopping() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        let manager = Manager { socket: Some(path.into_os_string()) };
        manager.ready(&["https://localhost:8443".to_owned()]);
        assert_eq!(received(&socket), "READY=1\nSTATUS=serving https://localhost:8443");
        manager.stopping();
        assert!(received(&socket).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_name_that_begins_with_an_at_sign_is_an_abstract_one() {
        let name = format!("tollgate-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        send(OsStr::new(&format!("@{name}")), "READY=1").expect("sent");
        assert_eq!(received(&socket), "READY=1");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_no_more() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1").is_err());
        Manager { socket: Some("/nonexistent/notify".into()) }.stopping();
        Manager { socket: None }.ready(&[]);
    }
}
