//! A web server for models that answers wrongly when it is told to: one request on each connection, and one fault for each request
//! while there are faults left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::chance::Chance;

/// The head of a request.
const MAX_HEAD: usize = 16 << 10;
/// Bytes sent at once by a server that is slow, and its pause after them.
const DRIP: usize = 128 << 10;
const PAUSE: Duration = Duration::from_millis(5);

/// What a server does wrong with one request. A share is of the body, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection ends after this share.
    Cut(usize),
    /// Nothing comes after this share, and the connection stays.
    Stall(usize),
    /// It comes in small pieces.
    Slow,
    /// More bytes are announced than come.
    TooLong,
    /// The last bytes are missing, and not announced either.
    TooShort,
    /// One bit at this share is another.
    Flip(usize),
    /// The whole file where its rest was asked for.
    NoRange,
    /// The rest of the file from another place than was asked for.
    WrongRange,
    /// Other bytes of the same length, and it says that they are others.
    Changed,
    /// A page for people, with status 200.
    Html,
    /// It is elsewhere, where it is.
    Moved,
    /// It is where it was asked for.
    Again,
    /// 503, to be asked again at once.
    Busy,
    /// 500.
    Broken,
    /// 404.
    Missing,
    /// The connection ends without an answer.
    Nothing,
    /// What is no HTTP.
    Garbage,
    /// It says that the body is compressed, and it is not.
    Encoded,
}

impl Fault {
    /// Any but a stall, which takes half a minute to be noticed.
    pub(super) fn random(chance: &mut Chance) -> Self {
        let share = chance.below(100);
        *chance.pick(&[
            Fault::Cut(share),
            Fault::Cut(share),
            Fault::Slow,
            Fault::TooLong,
            Fault::TooShort,
            Fault::Flip(share),
            Fault::Flip(share),
            Fault::NoRange,
            Fault::WrongRange,
            Fault::Changed,
            Fault::Html,
            Fault::Moved,
            Fault::Again,
            Fault::Busy,
            Fault::Broken,
            Fault::Missing,
            Fault::Nothing,
            Fault::Garbage,
            Fault::Encoded,
        ])
    }

    /// Its name, without the share.
    pub(super) fn name(self) -> String {
        format!("{self:?}").split('(').next().unwrap_or_default().to_owned()
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<Vec<u8>>>,
    faults: VecDeque<Fault>,
}

/// It ends when it is dropped.
pub(super) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, state) = (listener.local_addr()?.port(), Arc::new(Mutex::new(State::default())));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A client that leaves is what a row is about.
                tokio::spawn(async move { drop(answer(stream, &state).await) });
            }
        });
        Ok(Server { port, state, task })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) {
        lock(&self.state).files.insert(path.to_owned(), Arc::new(bytes));
    }

    pub(super) fn remove(&self, path: &str) {
        lock(&self.state).files.remove(path);
    }

    /// What it does wrong from now on: one fault a request, and none after the last.
    pub(super) fn spoil(&self, faults: &[Fault]) {
        lock(&self.state).faults = faults.iter().copied().collect();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked for.
struct Asked {
    path: String,
    /// The first byte.
    from: Option<usize>,
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Asked> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().trim_start_matches("/elsewhere").to_owned();
    let lower = text.to_ascii_lowercase();
    let range = lower.lines().find_map(|line| line.strip_prefix("range: bytes=")?.trim().strip_suffix('-')?.parse().ok());
    Ok(Asked { path, from: range })
}

async fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let asked = read(&mut stream).await?;
    let (file, fault) = {
        let mut state = lock(state);
        (state.files.get(&asked.path).cloned(), state.faults.pop_front())
    };
    let elsewhere = format!("/elsewhere{}", asked.path);
    let whole = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let page = match (fault, &file) {
        (Some(Fault::Html), _) => whole("200 OK", "Content-Type: text/html\r\n", "<html><body>Please sign in</body></html>"),
        (Some(Fault::Moved), _) => whole("302 Found", &format!("Location: {elsewhere}\r\n"), ""),
        (Some(Fault::Again), _) => whole("302 Found", &format!("Location: {}\r\n", asked.path), ""),
        (Some(Fault::Busy), _) => whole("503 Service Unavailable", "Retry-After: 0\r\n", ""),
        (Some(Fault::Broken), _) => whole("500 Internal Server Error", "", ""),
        (Some(Fault::Nothing), _) => String::new(),
        (Some(Fault::Garbage), _) => "220 smtp.invalid ESMTP ready\r\n".to_owned(),
        (Some(Fault::Missing), _) | (_, None) => whole("404 Not Found", "", ""),
        (fault, Some(file)) => return send(stream, file, asked.from, fault).await,
    };
    stream.write_all(page.as_bytes()).await
}

async fn send(mut stream: TcpStream, file: &[u8], from: Option<usize>, fault: Option<Fault>) -> std::io::Result<()> {
    let from = from.filter(|from| *from < file.len() && !matches!(fault, Some(Fault::NoRange | Fault::Changed)));
    let start = from.unwrap_or(0);
    let mut body = file[start..].to_vec();
    let at = |share: usize| (body.len() * share / 100).min(body.len().saturating_sub(1));
    let (mut announced, mut end, mut etag, mut encoding) = (body.len(), body.len(), "one", "");
    let mut shown = start;
    match fault {
        Some(Fault::Cut(share) | Fault::Stall(share)) => end = at(share),
        Some(Fault::Flip(share)) => {
            let at = at(share);
            body[at] ^= 1;
        }
        Some(Fault::TooLong) => announced += 1_000,
        Some(Fault::TooShort) => {
            end = body.len() - body.len() / 10;
            announced = end;
        }
        Some(Fault::Changed) => {
            body.iter_mut().for_each(|byte| *byte = !*byte);
            etag = "two";
        }
        Some(Fault::WrongRange) => shown = start / 2,
        Some(Fault::Encoded) => encoding = "Content-Encoding: gzip\r\n",
        _ => {}
    }
    let (status, range) = match from {
        Some(_) => ("206 Partial Content", format!("Content-Range: bytes {shown}-{}/{}\r\n", file.len() - 1, file.len())),
        None => ("200 OK", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"{etag}\"\r\nAccept-Ranges: bytes\r\n{range}{encoding}Content-Length: \
         {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    for piece in body[..end].chunks(DRIP) {
        stream.write_all(piece).await?;
        if fault == Some(Fault::Slow) {
            sleep(PAUSE).await;
        }
    }
    if matches!(fault, Some(Fault::Stall(_))) {
        // Nothing comes of a client but its end.
        let _ = stream.read(&mut [0]).await;
    }
    Ok(())
}
