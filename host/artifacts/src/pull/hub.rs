//! What a repository of the hub offers, and which of its files make one model.

mod choose;

use reqwest::Url;
use serde::Deserialize;

use self::choose::{HubFile, choose};
use super::error::PullError;
use super::http::{Http, shown, under};
use super::part::Expected;
use super::source::suggest;
use super::{Plan, Wanted};
use crate::digest::Digest;
use crate::name::RelativePath;

/// All pages of a listing together.
const MAX_LISTING: u64 = 16 << 20;
const MAX_ENTRIES: usize = 10_000;
const MAX_PAGES: usize = 20;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// What to fetch for a repository.
pub(super) async fn plan(http: &Http, repo: &str, file: Option<&RelativePath>, revision: &str) -> Result<Plan, PullError> {
    let hub = &http.settings().hub;
    let listed = list(http, under(hub, &format!("api/models/{repo}/tree/{revision}"))).await?;
    let chosen = choose(repo, &listed, file)?;
    let suggested_name = match chosen.as_slice() {
        [only] => suggest(only.path.as_str()),
        _ => suggest(repo),
    };
    let files = chosen.into_iter().map(|file| Wanted {
        path: file.path.clone(),
        url: under(hub, &format!("{repo}/resolve/{revision}/{}", file.path)),
        expected: Expected { bytes: Some(file.bytes), sha256: file.sha256, chunks: Vec::new() },
    });
    Ok(Plan { manifest: None, is_zip: false, files: files.collect(), suggested_name })
}

/// All files of a repository whose paths an artifact can have.
async fn list(http: &Http, mut url: Url) -> Result<Vec<HubFile>, PullError> {
    url.set_query(Some("recursive=true"));
    let (mut files, mut entries, mut left) = (Vec::new(), 0, MAX_LISTING);
    for _ in 0..MAX_PAGES {
        let document = http.document(&url, "application/json", left).await?;
        left = left.saturating_sub(crate::digest::len(&document.bytes));
        let listing = |why: String| PullError::Listing { url: shown(&url), why };
        let page: Vec<Entry> = serde_json::from_slice(&document.bytes).map_err(|error| listing(error.to_string()))?;
        entries += page.len();
        if entries > MAX_ENTRIES {
            return Err(listing(format!("it lists more than {MAX_ENTRIES} files")));
        }
        for entry in page.into_iter().filter(|entry| entry.kind == "file") {
            files.extend(read(entry).map_err(listing)?);
        }
        match document.next {
            None => return Ok(files),
            Some(next) if next.origin() == http.settings().hub.origin() => url = next,
            Some(_) => return Err(listing("its next page is on another host".to_owned())),
        }
    }
    Err(PullError::Listing { url: shown(&url), why: format!("its listing has more than {MAX_PAGES} pages") })
}

/// A file of the listing; none where its path cannot be one of an artifact, and so cannot be meant.
fn read(entry: Entry) -> Result<Option<HubFile>, String> {
    let Ok(path) = entry.path.parse::<RelativePath>() else { return Ok(None) };
    let (bytes, sha256) = match entry.lfs {
        None => (entry.size, None),
        Some(lfs) => {
            let digest = lfs.oid.parse::<Digest>().map_err(|error| format!("the digest of {path} is {error}"))?;
            (lfs.size, Some(digest))
        }
    };
    Ok(Some(HubFile { path, bytes, sha256 }))
}
