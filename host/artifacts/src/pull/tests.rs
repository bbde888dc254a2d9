//! Downloads from a server with faults: each ends in the right file, or in a clear error (P-M9).

mod faults;
mod plain;
mod resume;
mod server;
mod sources;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use self::server::Server;
use super::{Fetched, PullError, PullSettings, PullSource, Puller};
use crate::digest::Digest;
use crate::manifest::CHUNK_BYTES;
use crate::progress::Silent;

const CHUNK: usize = 8 << 20;
const MODEL: &str = "/m/model.gguf";

/// Bytes that look like chance and are the same each time.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut chance = Chance(seed);
    (0..bytes.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes()).take(bytes).collect()
}

/// A small generator (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

fn manifest(model: &[u8], with_chunks: bool) -> Vec<u8> {
    let chunks: Vec<_> = model.chunks(CHUNK).filter(|_| with_chunks).map(|chunk| Digest::of(chunk).to_string()).collect();
    let file = json!({"path": "model.gguf", "bytes": model.len(), "sha256": Digest::of(model).to_string(), "chunks": chunks});
    let manifest = json!({
        "schema": 1, "name": "tiny", "version": 1, "created": "2026-01-31T12:00:00Z", "format": "gguf", "files": [file],
    });
    serde_json::to_vec(&manifest).unwrap()
}

/// A server of one model, with a manifest.
fn serve(model: &[u8], with_chunks: bool) -> Server {
    let server = Server::start();
    server.put("/m/manifest.json", &manifest(model, with_chunks));
    server.put(MODEL, model);
    server
}

fn settings(server: &Server) -> PullSettings {
    PullSettings {
        hub: server.url(""),
        registry: server.url(""),
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        ..PullSettings::default()
    }
}

/// For servers that stall. A machine that is busy may look as if it did, so there are more tries; nothing counts requests here.
fn hasty(server: &Server) -> PullSettings {
    PullSettings { stall: Duration::from_millis(300), tries: 8, ..settings(server) }
}

fn source(server: &Server, path: &str) -> PullSource {
    server.url(path).as_str().parse().unwrap()
}

async fn pull_with(settings: PullSettings, source: &PullSource, dir: &Path) -> Result<Fetched, PullError> {
    Puller::new(settings).unwrap().pull(source, dir, &Silent).await
}

async fn pull(server: &Server, path: &str, dir: &Path) -> Result<Fetched, PullError> {
    pull_with(settings(server), &source(server, path), dir).await
}

/// The fetched file is `model`, and so is what is said of it.
fn assert_model(fetched: &Fetched, model: &[u8]) {
    let [(path, digest, bytes)] = fetched.files.as_slice() else { panic!("one file is expected: {:?}", fetched.files) };
    assert_eq!((digest, *bytes), (&Digest::of(model), model.len() as u64));
    assert!(std::fs::read(fetched.folder.join(path.as_str())).unwrap() == model, "the file's bytes");
    assert_eq!(std::fs::read_dir(&fetched.folder).unwrap().count(), 1, "nothing else is there");
}
