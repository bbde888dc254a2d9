//! Where a model is pulled from. What is not a known form is refused before a network or a path sees it (P-M2).

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use crate::digest::Digest;
use crate::name::{ArtifactName, RelativePath};

/// A source's text is no longer.
const MAX_TEXT: usize = 2048;
/// A name on a hub or a registry is no longer.
const MAX_COMPONENT: usize = 96;
const MAIN: &str = "main";
const LATEST: &str = "latest";

/// Where a model is pulled from. It is made by parsing only, so every part of it has its narrow form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullSource {
    /// A `.gguf`, a `.zip`, or the `manifest.json` of a folder. It has no query, no fragment and no password.
    #[non_exhaustive]
    Url(Url),
    /// A repository of the hub.
    #[non_exhaustive]
    Hub {
        /// `OWNER/NAME`.
        repo: String,
        /// The one file that is wanted, or none for what the repository's format needs.
        file: Option<RelativePath>,
        /// A branch, a tag or a commit; `main` where the text names none.
        revision: String,
    },
    /// A model of an Ollama registry.
    #[non_exhaustive]
    Ollama {
        /// `NAME` or `OWNER/NAME`.
        name: String,
        /// `latest` where the text names none.
        tag: String,
    },
}

/// A text that is no source.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// Longer than 2048 bytes.
    #[error("the source is {0} bytes long; at most {MAX_TEXT} are allowed")]
    Long(usize),
    /// None of the three forms.
    #[error(
        "{0:?} is no source; expected https://.../NAME.gguf, https://.../NAME.zip, https://.../manifest.json, \
         OWNER/NAME[:FILE][@REVISION], or ollama:NAME[:TAG]"
    )]
    Form(String),
    /// The form is known, but a part of it is not of its kind.
    #[error("{found:?} is no {part}; expected {expected}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
}

impl FromStr for PullSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.len() > MAX_TEXT {
            return Err(SourceError::Long(text.len()));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return parse_url(text);
        }
        match text.strip_prefix("ollama:") {
            Some(rest) => parse_ollama(rest),
            None => parse_hub(text),
        }
    }
}

impl fmt::Display for PullSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PullSource::Url(url) => f.write_str(url.as_str()),
            PullSource::Hub { repo, file, revision } => {
                f.write_str(repo)?;
                if let Some(file) = file {
                    write!(f, ":{file}")?;
                }
                if revision != MAIN {
                    write!(f, "@{revision}")?;
                }
                Ok(())
            }
            PullSource::Ollama { name, tag } => {
                write!(f, "ollama:{name}")?;
                if tag != LATEST {
                    write!(f, ":{tag}")?;
                }
                Ok(())
            }
        }
    }
}

impl PullSource {
    /// The name of the folder that a pull of this source works in: 64 hex digits.
    pub(crate) fn folder_name(&self) -> String {
        Digest::of(self.to_string().as_bytes()).to_string()
    }
}

/// An artifact's name made of a file's or a repository's.
pub(crate) fn suggest(text: &str) -> ArtifactName {
    let last = text.rsplit('/').next().unwrap_or(text);
    let stem = [".gguf", ".zip", ".onnx", ".safetensors"].iter().find_map(|end| last.strip_suffix(end));
    ArtifactName::suggested(stem.unwrap_or(last))
}

fn parse_url(text: &str) -> Result<PullSource, SourceError> {
    let part = |part, expected| SourceError::Part { part, found: text.to_owned(), expected };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:+[]".contains(c);
    if !text.chars().all(plain) {
        return Err(part("URL of a model", "letters, digits and -._~/:+ only; a query, a fragment and a password are not taken"));
    }
    // A URL parser would take the first name of the path for the host that is missing.
    if text.contains(":///") {
        return Err(part("URL of a model", "a host and a path"));
    }
    let mut url = Url::parse(text).map_err(|_| SourceError::Form(text.to_owned()))?;
    if !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return Err(part("URL of a model", "a host and a path"));
    }
    let last = url.path_segments().and_then(|mut all| all.next_back()).unwrap_or_default().to_owned();
    let is_file = last == "manifest.json" || last.ends_with(".gguf") || last.ends_with(".zip");
    if last.is_empty() {
        url.set_path(&format!("{}manifest.json", url.path()));
    } else if !is_file || last.parse::<RelativePath>().is_err() {
        return Err(part("URL of a model", "a path that ends in .gguf, .zip, manifest.json or /"));
    }
    Ok(PullSource::Url(url))
}

fn parse_hub(text: &str) -> Result<PullSource, SourceError> {
    let (rest, revision) = text.rsplit_once('@').unwrap_or((text, MAIN));
    let (repo, file) = match rest.split_once(':') {
        Some((repo, file)) => (repo, Some(file)),
        None => (rest, None),
    };
    let Some((owner, name)) = repo.split_once('/') else { return Err(SourceError::Form(text.to_owned())) };
    component("owner on the hub", owner)?;
    component("repository on the hub", name)?;
    component("revision", revision)?;
    let file = match file {
        Some(file) => Some(file.parse::<RelativePath>().map_err(|_| SourceError::Part {
            part: "file of a repository",
            found: file.to_owned(),
            expected: "1 to 3 names of letters, digits and ._- with / between them",
        })?),
        None => None,
    };
    Ok(PullSource::Hub { repo: repo.to_owned(), file, revision: revision.to_owned() })
}

fn parse_ollama(rest: &str) -> Result<PullSource, SourceError> {
    let (name, tag) = rest.split_once(':').unwrap_or((rest, LATEST));
    match name.split_once('/') {
        Some((owner, name)) => {
            component("owner on the registry", owner)?;
            component("model on the registry", name)?;
        }
        None => component("model on the registry", name)?,
    }
    component("tag", tag)?;
    Ok(PullSource::Ollama { name: name.to_owned(), tag: tag.to_owned() })
}

/// One name of a hub or a registry. It becomes a segment of a URL, so it holds no `/`, no `..` and nothing to be escaped.
fn component(part: &'static str, text: &str) -> Result<(), SourceError> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && text.len() <= MAX_COMPONENT && text.bytes().all(letter) && !text.contains("..") {
        return Ok(());
    }
    Err(SourceError::Part {
        part,
        found: text.to_owned(),
        expected: "1 to 96 letters, digits and ._- that begin with a letter or a digit",
    })
}
