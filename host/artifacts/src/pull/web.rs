//! What a URL offers: one file, or a folder that its manifest lists.

use std::time::SystemTime;

use reqwest::Url;

use super::error::PullError;
use super::http::{Document, Http, shown};
use super::part::Expected;
use super::source::suggest;
use super::{Plan, Wanted};
use crate::manifest::{MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_FILE};

/// A signature is 88 characters.
const MAX_SIGNATURE: u64 = 4 << 10;

/// What to fetch for a URL.
pub(super) async fn plan(http: &Http, url: &Url) -> Result<Plan, PullError> {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    if name == MANIFEST_FILE {
        return folder(http, url).await;
    }
    let path = name.parse().map_err(|_| listing(url, "its last part is no file name"))?;
    let expected = Expected { bytes: None, sha256: None, chunks: Vec::new() };
    let wanted = Wanted { path, url: url.clone(), expected };
    Ok(Plan { manifest: None, is_zip: name.ends_with(".zip"), files: vec![wanted], suggested_name: suggest(name) })
}

async fn folder(http: &Http, url: &Url) -> Result<Plan, PullError> {
    let Document { bytes, .. } = http.document(url, "application/json", MAX_MANIFEST_BYTES).await?;
    // An expired or malformed manifest costs no download. Its signature is the installation's matter.
    let manifest = Manifest::parse(&bytes, SystemTime::now()).map_err(|cause| PullError::Manifest { url: shown(url), cause })?;
    let signature = match http.document(&beside(url, SIGNATURE_FILE)?, "*/*", MAX_SIGNATURE).await {
        Ok(document) => Some(document.bytes),
        // Object stores answer 403 for what is not there, unless one may list their folders.
        Err(PullError::NotFound { .. } | PullError::NotAllowed { .. }) => None,
        Err(error) => return Err(error),
    };
    let mut files = Vec::with_capacity(manifest.files.len());
    for file in manifest.files {
        let expected = Expected { bytes: Some(file.bytes), sha256: Some(file.sha256), chunks: file.chunks };
        files.push(Wanted { url: beside(url, file.path.as_str())?, path: file.path, expected });
    }
    Ok(Plan { manifest: Some((bytes, signature)), is_zip: false, files, suggested_name: manifest.name })
}

/// The address of `path` in the folder of `url`. `path` is made of checked names, so it stays below that folder.
fn beside(url: &Url, path: &str) -> Result<Url, PullError> {
    url.join(path).map_err(|error| listing(url, &error.to_string()))
}

fn listing(url: &Url, why: &str) -> PullError {
    PullError::Listing { url: shown(url), why: why.to_owned() }
}
