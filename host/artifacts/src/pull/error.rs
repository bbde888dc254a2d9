//! Why a pull failed, for the operator who asked for it. No text here holds a token or the query of a URL.

use std::io;

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::name::RelativePath;
use crate::space::SpaceError;

/// Why a pull failed. Where nothing else is said, what was fetched is kept, and the same pull continues there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The token cannot stand in a header.
    #[error("the hub's token is not 1 to 4096 visible ASCII characters; check TOLLGATE_HUB_TOKEN")]
    Token,
    /// The token would be readable on its way.
    #[error("a token is set, and {hub} is not https: it would be sent in the clear; use an https address for the hub")]
    TokenInClear {
        /// The hub's address.
        hub: String,
    },
    /// The HTTP client cannot be made.
    #[error("HTTP cannot be set up: {0}")]
    Client(String),
    /// The folder is held by another pull.
    #[error("another pull of {origin} is running; wait for it or end it")]
    Busy {
        /// The source's text.
        origin: String,
    },
    /// 401 or 403.
    #[error(
        "{url} answers {status}: it does not exist, is private, or its terms have to be accepted on the hub first; \
         set TOLLGATE_HUB_TOKEN to a token that may read it"
    )]
    NotAllowed {
        /// What was asked for.
        url: String,
        /// The status code.
        status: u16,
    },
    /// 404 or 410.
    #[error(
        "{url} does not exist; check the names, the revision and their case (the hub hides what is private: TOLLGATE_HUB_TOKEN)"
    )]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// A status that no other try will change.
    #[error("{url} answers {status}, which is no answer to a download")]
    Status {
        /// What was asked for.
        url: String,
        /// The status code.
        status: u16,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects where no pull goes: {why}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Why it is not followed.
        why: String,
    },
    /// Every try failed without 64 KiB more.
    #[error("{url} {why}; gave up after {tries} tries without progress, the same pull continues where this one ended")]
    GaveUp {
        /// What was asked for.
        url: String,
        /// What the last try ended with.
        why: String,
        /// How many tries in a row.
        tries: u32,
    },
    /// A listing or a manifest of a hub or registry that is not understood.
    #[error("{url} is not understood: {why}")]
    Listing {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// More than one file could be meant.
    #[error("{repo} has several models; name one as {repo}:FILE\n{list}")]
    Several {
        /// The repository.
        repo: String,
        /// The files with their sizes, one a line.
        list: String,
    },
    /// Nothing that can be served.
    #[error("{origin} has no {wanted}")]
    Nothing {
        /// The source's text.
        origin: String,
        /// What was looked for.
        wanted: String,
    },
    /// The manifest is refused.
    #[error("the manifest at {url} is refused: {cause}")]
    Manifest {
        /// What was asked for.
        url: String,
        /// Why.
        cause: ManifestError,
    },
    /// More than the configured limit.
    #[error("{what} is bigger than allowed: at least {bytes} bytes where {limit} may still come")]
    TooBig {
        /// A file or the whole.
        what: String,
        /// Its size in bytes, as far as known.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk is too full.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// One part of a file arrived damaged again and again.
    #[error(
        "part {chunk} (of 8 MiB) of {path} is damaged in {copies} copies; what was fetched before it is kept: \
         the files at the source do not fit its manifest, or something between changes them"
    )]
    Chunk {
        /// The file.
        path: RelativePath,
        /// Which part, from 0.
        chunk: u64,
        /// How many copies were fetched.
        copies: u32,
    },
    /// The whole file is not what was announced.
    #[error("{path} has the digest {found} where {expected} is announced; it was thrown away: try again, or tell its publisher")]
    Digest {
        /// The file.
        path: RelativePath,
        /// What was announced.
        expected: Digest,
        /// What arrived.
        found: Digest,
    },
    /// The disk fails.
    #[error("cannot {what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        cause: io::Error,
    },
}

impl PullError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> PullError {
        let what = what.into();
        |cause| PullError::Io { what, cause }
    }
}

/// How one try ended.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another try may do better, after this long if the server says so.
    Retry { why: String, after: Option<std::time::Duration> },
    /// No try will do better.
    Fatal(PullError),
}

impl Fault {
    pub(crate) fn retry(why: impl Into<String>) -> Fault {
        Fault::Retry { why: why.into(), after: None }
    }
}

impl From<PullError> for Fault {
    fn from(error: PullError) -> Fault {
        Fault::Fatal(error)
    }
}
