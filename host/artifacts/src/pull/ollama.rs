//! What an Ollama registry offers: the weights among the layers of an image. Templates, parameters and licences are left there.

use serde::Deserialize;

use super::error::PullError;
use super::http::{Http, shown, under};
use super::part::Expected;
use super::{Plan, Wanted};
use crate::digest::Digest;
use crate::name::ArtifactName;

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MODEL_TYPE: &str = "application/vnd.ollama.image.model";
const ADAPTER_TYPE: &str = "application/vnd.ollama.image.adapter";
/// An image manifest is a few KiB.
const MAX_MANIFEST: u64 = 1 << 20;

#[derive(Deserialize)]
struct Image {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
}

/// What to fetch for a model of the registry.
pub(super) async fn plan(http: &Http, name: &str, tag: &str) -> Result<Plan, PullError> {
    let repository = if name.contains('/') { name.to_owned() } else { format!("library/{name}") };
    let registry = &http.settings().registry;
    let url = under(registry, &format!("v2/{repository}/manifests/{tag}"));
    let document = http.document(&url, MANIFEST_TYPE, MAX_MANIFEST).await?;
    let listing = |why: String| PullError::Listing { url: shown(&url), why };
    let image: Image = serde_json::from_slice(&document.bytes).map_err(|error| listing(error.to_string()))?;
    let mut files = Vec::new();
    for (media_type, file) in [(MODEL_TYPE, "model.gguf"), (ADAPTER_TYPE, "adapter.gguf")] {
        let mut layers = image.layers.iter().filter(|layer| layer.media_type == media_type);
        let Some(layer) = layers.next() else { continue };
        if layers.next().is_some() {
            return Err(listing(format!("it has several layers of {media_type}; at most one can be served")));
        }
        let sha256 = layer.digest.strip_prefix("sha256:").and_then(|digest| digest.parse::<Digest>().ok());
        let Some(sha256) = sha256 else { return Err(listing("a layer's digest is not sha256: and 64 hex digits".to_owned())) };
        files.push(Wanted {
            path: file.parse().expect("a constant file name"),
            url: under(registry, &format!("v2/{repository}/blobs/sha256:{sha256}")),
            expected: Expected { bytes: Some(layer.size), sha256: Some(sha256), chunks: Vec::new() },
        });
    }
    if files.first().is_none_or(|file| file.path.as_str() != "model.gguf") {
        return Err(PullError::Nothing { origin: shown(&url), wanted: format!("layer of {MODEL_TYPE}") });
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let suggested_name = ArtifactName::suggested(&if tag == "latest" { last.to_owned() } else { format!("{last}-{tag}") });
    Ok(Plan { manifest: None, is_zip: false, files, suggested_name })
}
