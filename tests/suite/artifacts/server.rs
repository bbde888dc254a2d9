//! A web server for models: one thread, and one for each connection, one request on each. It counts what it sends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Bytes of bodies, by path.
    sent: BTreeMap<String, usize>,
    /// After so many bytes of a body nothing comes any more.
    held_after: Option<usize>,
}

pub(super) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that is killed is what a test is about.
                std::thread::spawn(move || drop(answer(&stream, &state)));
            }
        });
        Server { port, state }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub(super) fn hold_after(&self, bytes: Option<usize>) {
        self.state.lock().unwrap().held_after = bytes;
    }

    /// Bytes that were sent of `path` since this was last asked.
    pub(super) fn sent(&self, path: &str) -> usize {
        self.state.lock().unwrap().sent.remove(path).unwrap_or(0)
    }
}

fn answer(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let (path, from) = read_request(stream)?;
    let (file, held_after) = {
        let state = state.lock().unwrap();
        (state.files.get(&path).cloned(), state.held_after)
    };
    let Some(file) = file else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    };
    let (status, range) = match from {
        Some(from) => ("206 Partial Content", format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len())),
        None => ("200 OK", String::new()),
    };
    let body = &file[from.unwrap_or(0)..];
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"one\"\r\nAccept-Ranges: bytes\r\n{range}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let part = &body[..held_after.unwrap_or(body.len()).min(body.len())];
    *state.lock().unwrap().sent.entry(path).or_default() += part.len();
    stream.write_all(part)?;
    if part.len() < body.len() {
        // Nothing comes of a client but its end.
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

/// The path without its query, and the first byte that is asked for.
fn read_request(stream: &TcpStream) -> std::io::Result<(String, Option<usize>)> {
    let mut lines = BufReader::new(stream).take(1 << 16).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let target = first.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    Ok((path, from))
}
