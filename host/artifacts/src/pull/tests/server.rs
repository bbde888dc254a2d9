//! A small HTTP/1.1 server: one thread, and one for each connection, one request on each.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Url;

use crate::digest::Digest;

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Nothing.
    Good,
    /// The connection ends without an answer.
    HangUp,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// After so many bytes of the body nothing comes, until the client leaves.
    Stall(usize),
    /// `Content-Length` and body are one byte longer.
    Longer,
    /// Chunked, with so many bytes too many.
    Endless(usize),
    /// Chunked, so without a `Content-Length`.
    NoLength,
    /// The byte at this position of the file is another.
    Flip(usize),
    /// 200 with everything, whatever was asked for.
    NoRange,
    /// 206 with a wrong `Content-Range`.
    WrongRange,
    /// 206 with another `ETag`.
    WrongEtag,
    /// A web page.
    Html,
    /// `Content-Encoding: gzip`.
    Gzip,
    /// A redirect.
    Redirect(String),
    /// A status without content, and `Retry-After: 0`.
    Status(u16),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// With its query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    extra: BTreeMap<String, String>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    seen: Vec<Seen>,
    is_without_validators: bool,
}

pub(super) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A client that leaves is what half of the tests are about.
                    let _ = answer(&stream, &state);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Server { port, state }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap()
    }

    /// Serves `bytes` at `path`, which has its query, if any.
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes.to_vec());
    }

    /// Adds a header line to each answer at `path`.
    pub(super) fn put_header(&self, path: &str, line: &str) {
        self.state.lock().unwrap().extra.insert(path.to_owned(), line.to_owned());
    }

    /// Lets the next answers at `path` go wrong.
    pub(super) fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.insert(path.to_owned(), faults.into_iter().collect());
    }

    pub(super) fn send_no_validators(&self) {
        self.state.lock().unwrap().is_without_validators = true;
    }

    /// The requests at `path` since this was last asked.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        let mut state = self.state.lock().unwrap();
        let (seen, others) = state.seen.drain(..).partition(|seen| seen.path == path);
        state.seen = others;
        seen
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = read_request(stream)?;
    let (file, fault, mut head, etag) = {
        let mut state = state.lock().unwrap();
        state.seen.push(request.clone());
        let fault = state.faults.get_mut(&request.path).and_then(VecDeque::pop_front).unwrap_or(Fault::Good);
        let file = state.files.get(&request.path).cloned();
        let etag = format!("\"{}\"", Digest::of(file.as_deref().unwrap_or_default()));
        let mut head = String::from("Connection: close\r\n");
        if let Some(line) = state.extra.get(&request.path) {
            head.push_str(&format!("{line}\r\n"));
        }
        if matches!(fault, Fault::WrongEtag) {
            head.push_str("ETag: \"another\"\r\n");
        } else if !state.is_without_validators {
            head.push_str(&format!("ETag: {etag}\r\n"));
        }
        (file, fault, head, etag)
    };
    match &fault {
        Fault::HangUp => return Ok(()),
        Fault::Status(code) => return write_head(stream, *code, &format!("{head}Retry-After: 0\r\nContent-Length: 0\r\n")),
        Fault::Redirect(to) => return write_head(stream, 302, &format!("{head}Location: {to}\r\nContent-Length: 0\r\n")),
        Fault::Html => {
            let page = "<html>Please log in</html>";
            let head = format!("{head}Content-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n", page.len());
            write_head(stream, 200, &head)?;
            return (&mut &*stream).write_all(page.as_bytes());
        }
        _ => {}
    }
    let Some(mut file) = file else { return write_head(stream, 404, &format!("{head}Content-Length: 0\r\n")) };
    if let Fault::Flip(at) = fault {
        file[at] ^= 1;
    }
    let first = range(&request, &etag).filter(|_| !matches!(fault, Fault::NoRange));
    if first.is_some_and(|first| first >= file.len()) {
        return write_head(stream, 416, &format!("{head}Content-Range: bytes */{}\r\nContent-Length: 0\r\n", file.len()));
    }
    if let Some(first) = first {
        let said = if matches!(fault, Fault::WrongRange) { first - 1 } else { first };
        head.push_str(&format!("Content-Range: bytes {said}-{}/{}\r\n", file.len() - 1, file.len()));
    }
    if matches!(fault, Fault::Gzip) {
        head.push_str("Content-Encoding: gzip\r\n");
    }
    let status = if first.is_some() { 206 } else { 200 };
    write_body(stream, status, &head, &file[first.unwrap_or(0)..], &fault)
}

fn write_body(mut stream: &TcpStream, status: u16, head: &str, body: &[u8], fault: &Fault) -> std::io::Result<()> {
    let extra = match fault {
        Fault::Endless(extra) => *extra,
        Fault::Longer => 1,
        _ => 0,
    };
    let body: Vec<u8> = body.iter().copied().chain(std::iter::repeat_n(7, extra)).collect();
    if matches!(fault, Fault::Endless(_) | Fault::NoLength) {
        write_head(stream, status, &format!("{head}Transfer-Encoding: chunked\r\n"))?;
        write!(stream, "{:x}\r\n", body.len())?;
        stream.write_all(&body)?;
        return stream.write_all(b"\r\n0\r\n\r\n");
    }
    write_head(stream, status, &format!("{head}Content-Length: {}\r\n", body.len()))?;
    match fault {
        Fault::Cut(at) => stream.write_all(&body[..(*at).min(body.len())]),
        Fault::Stall(at) => {
            stream.write_all(&body[..(*at).min(body.len())])?;
            // Nothing comes of a client but its end.
            stream.read_exact(&mut [0])
        }
        _ => stream.write_all(&body),
    }
}

fn write_head(mut stream: &TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status} Test\r\n{headers}\r\n").as_bytes())
}

/// The first byte that is asked for, where the condition holds.
fn range(request: &Seen, etag: &str) -> Option<usize> {
    if request.header("if-range").is_some_and(|condition| condition != etag) {
        return None;
    }
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn read_request(stream: &TcpStream) -> std::io::Result<Seen> {
    let mut lines = BufReader::new(stream).take(1 << 16).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Seen { path, headers })
}
