//! Downloading of models: from a URL, a hub of repositories, or an Ollama registry, into a folder that an installation reads.
//!
//! A download continues where the last one ended, and every byte is checked against what was announced of it. Nothing is trusted
//! here: signatures, formats and versions are the installation's matter.

mod answer;
mod download;
mod error;
mod hold;
mod http;
mod hub;
mod journal;
mod ollama;
mod part;
mod source;
#[cfg(test)]
mod tests;
mod web;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

pub use self::error::PullError;
pub use self::source::{PullSource, SourceError};

use self::download::{blocking, download};
use self::hold::Hold;
use self::http::Http;
use self::part::Expected;
use crate::digest::Digest;
use crate::name::{ArtifactName, RelativePath};
use crate::progress::Progress;

/// A token is no longer.
const MAX_TOKEN: usize = 4096;

/// The operator's token for the hub. It is never shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Takes a token, without the white space around it.
    ///
    /// # Errors
    /// It is empty, longer than 4096 characters, or not visible ASCII.
    pub fn new(text: &str) -> Result<Token, PullError> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PullError::Token);
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| PullError::Token)?;
        bearer.set_sensitive(true);
        Ok(Token(bearer))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How to download.
#[derive(Debug, Clone)]
pub struct PullSettings {
    /// The hub that `OWNER/NAME` is on.
    pub hub: Url,
    /// The registry that `ollama:NAME` is on.
    pub registry: Url,
    /// Sent to the scheme, host and port of `hub`, and to nowhere else.
    pub token: Option<Token>,
    /// A server that sends nothing, or less than 64 KiB, for so long is asked again.
    pub stall: Duration,
    /// A connection has to be made within this.
    pub connect: Duration,
    /// Tries in a row without 64 KiB more or the end of a file, before the pull gives up. 1 is no second try.
    pub tries: u32,
    /// The wait after a first failure, which doubles with every one that follows; up to half of it is left out by chance.
    pub backoff: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
    /// A pull takes no more bytes than this.
    pub max_bytes: u64,
}

impl Default for PullSettings {
    /// 30 s without a byte, 10 s to connect, 5 tries, waits from 0.5 s to 30 s, at most 1 TiB.
    fn default() -> Self {
        PullSettings {
            hub: Url::parse("https://huggingface.co").expect("a constant URL"),
            registry: Url::parse("https://registry.ollama.ai").expect("a constant URL"),
            token: None,
            stall: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            tries: 5,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            max_bytes: 1 << 40,
        }
    }
}

/// Downloads models.
pub struct Puller {
    http: Http,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("settings", self.http.settings()).finish_non_exhaustive()
    }
}

/// A model that was downloaded and not installed yet. As long as this lives, no other pull touches its folder.
#[derive(Debug)]
pub struct Fetched {
    /// Holds the files and nothing else, each under its path.
    pub folder: PathBuf,
    /// The bytes of `manifest.json` and of `manifest.json.sig`, where the source has them.
    pub manifest: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// The one file, where it is a `.zip`.
    pub zip: Option<PathBuf>,
    /// Path, digest and size of each file.
    pub files: Vec<(RelativePath, Digest, u64)>,
    /// What the artifact may be called: as the manifest says, else after the file or the repository.
    pub suggested_name: ArtifactName,
    hold: Arc<Hold>,
}

impl Fetched {
    /// Removes what was downloaded, once it is installed or not wanted. Without this it stays, and the next pull of the same
    /// source finds it.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn discard(self) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.hold.root())
    }
}

/// What a source consists of.
struct Plan {
    manifest: Option<(Vec<u8>, Option<Vec<u8>>)>,
    is_zip: bool,
    files: Vec<Wanted>,
    suggested_name: ArtifactName,
}

/// One file of it.
struct Wanted {
    path: RelativePath,
    url: Url,
    expected: Expected,
}

impl Puller {
    /// Sets up the client. Proxies are taken from the environment, certificates from the system.
    ///
    /// # Errors
    /// The system's certificates cannot be used, or a token is set for a hub without TLS.
    pub fn new(settings: PullSettings) -> Result<Puller, PullError> {
        Http::new(settings).map(|http| Puller { http })
    }

    /// Downloads a model below `partial_dir`, or the rest of it where an earlier pull of the same source was cut off. It may be
    /// dropped at any moment. Runs on a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(&self, source: &PullSource, partial_dir: &Path, progress: &dyn Progress) -> Result<Fetched, PullError> {
        let (dir, taken) = (partial_dir.to_owned(), source.clone());
        let hold = Arc::new(blocking(move || Hold::take(&dir, &taken)).await??);
        let plan = match source {
            PullSource::Url(url) => web::plan(&self.http, url).await?,
            PullSource::Hub { repo, file, revision } => hub::plan(&self.http, repo, file.as_ref(), revision).await?,
            PullSource::Ollama { name, tag } => ollama::plan(&self.http, name, tag).await?,
        };
        let Plan { manifest, is_zip, files: wanted, suggested_name } = plan;
        let mut room = self.http.settings().max_bytes;
        let total = wanted.iter().fold(0u64, |sum, file| sum.saturating_add(file.expected.bytes.unwrap_or(0)));
        if total > room {
            return Err(PullError::TooBig { what: source.to_string(), bytes: total, limit: room });
        }
        let held = Arc::clone(&hold);
        let wanted = blocking(move || {
            let here = held.prepare(&wanted).map_err(PullError::io(format!("prepare {}", held.root().display())))?;
            crate::space::check(held.root(), total.saturating_sub(here))?;
            Ok::<_, PullError>(wanted)
        })
        .await??;
        let mut files = Vec::with_capacity(wanted.len());
        for file in wanted {
            let (digest, bytes) = download(&self.http, &hold, &file, room, progress).await?;
            room = room.saturating_sub(bytes);
            files.push((file.path, digest, bytes));
        }
        let folder = hold.model();
        let zip = files.first().filter(|_| is_zip).map(|(path, ..)| folder.join(path.as_str()));
        Ok(Fetched { folder, manifest, zip, files, suggested_name, hold })
    }
}
