//! A collector of traces that keeps every byte that it is sent.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Heads and bodies as they came.
#[derive(Debug, Default)]
struct Kept {
    heads: Vec<u8>,
    bodies: Vec<u8>,
}

/// It ends with the row.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) port: u16,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    /// Listens on loopback.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, kept) = (listener.local_addr()?.port(), Arc::<Mutex<Kept>>::default());
        let all = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Ok(Collector { port, kept })
    }

    /// All bodies in a row.
    pub(super) fn bodies(&self) -> Vec<u8> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bodies.clone()
    }

    /// All heads in a row.
    pub(super) fn heads(&self) -> Vec<u8> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).heads.clone()
    }
}

async fn serve(mut stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut unread = Vec::new();
    while let Some(end) = read_until_head(&mut stream, &mut unread).await {
        let head = unread.drain(..end).collect::<Vec<_>>();
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
        while unread.len() < length {
            if !read_more(&mut stream, &mut unread).await {
                return;
            }
        }
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.heads.extend_from_slice(&head);
            kept.bodies.extend(unread.drain(..length));
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

async fn read_until_head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(at) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            return Some(at + 4);
        }
        if !read_more(stream, unread).await {
            return None;
        }
    }
}

async fn read_more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 16_384];
    match stream.read(&mut chunk).await {
        Ok(count @ 1..) => {
            unread.extend_from_slice(&chunk[..count]);
            true
        }
        _ => false,
    }
}
