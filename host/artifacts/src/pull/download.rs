//! One file, from wherever an earlier try left it until it is whole and verified (P-M9).
//!
//! The future may be dropped at any await: what is on the disk then is what a journal line vouches for, and at most one part of 8
//! MiB more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Response;

use super::Wanted;
use super::answer::{Answer, Ask};
use super::error::{Fault, PullError};
use super::hold::Hold;
use super::http::{Attempts, Http, next_piece};
use super::part::{Part, PartFault};
use crate::digest::Digest;
use crate::progress::Progress;

/// Bytes of a body that are kept in memory before they are hashed and written.
const BUFFER: usize = 1 << 20;
/// A server that sends less in a stall time is as good as still, and a try that gains less has gained nothing.
const MIN_PROGRESS: u64 = 64 << 10;
/// A damaged part is fetched this often before the pull gives up: once, and three times again.
const MAX_COPIES: u32 = 4;

/// Fetches `wanted` into the held folder. `room` is how many bytes may come at most. Answers its digest and its size.
pub(crate) async fn download(
    http: &Http,
    hold: &Arc<Hold>,
    wanted: &Wanted,
    room: u64,
    progress: &dyn Progress,
) -> Result<(Digest, u64), PullError> {
    let (held, path, expected) = (Arc::clone(hold), wanted.path.clone(), wanted.expected.clone());
    let opened = blocking(move || Part::open(held, &path, expected)).await?;
    let part = opened.map_err(PullError::io(format!("open the part of {}", wanted.path)))?;
    let mut download = Download {
        http,
        hold,
        wanted,
        room,
        part: Arc::new(Mutex::new(part)),
        meter: Meter { progress, name: wanted.path.as_str(), is_begun: false, best: 0 },
    };
    download.fetch().await?;
    download.finish().await
}

/// Runs what may wait for a disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PullError::io("work on a file")(std::io::Error::other(error)))
}

struct Download<'a> {
    http: &'a Http,
    hold: &'a Arc<Hold>,
    wanted: &'a Wanted,
    room: u64,
    part: Arc<Mutex<Part>>,
    meter: Meter<'a>,
}

impl Download<'_> {
    /// Tries until the file is whole. Each round gains 64 KiB beyond all before it or counts towards the configured tries: it
    /// ends.
    async fn fetch(&mut self) -> Result<(), PullError> {
        let mut attempts = Attempts::new(self.http.settings(), &self.wanted.url);
        if let Some(bytes) = lock(&self.part).identity().map(|identity| identity.bytes) {
            self.meter.begin(bytes);
        }
        self.meter.reached(lock(&self.part).position());
        while !lock(&self.part).is_whole() {
            let before = self.meter.best;
            match self.attempt().await {
                Ok(()) => {}
                Err(Fault::Fatal(error)) => return Err(error),
                // What came after the last byte of it is nobody's matter.
                Err(Fault::Retry { .. }) if lock(&self.part).is_whole() => {}
                Err(Fault::Retry { why, after }) => {
                    let gained = self.meter.best.saturating_sub(before);
                    attempts.pause(why, after, gained >= MIN_PROGRESS).await?;
                }
            }
        }
        Ok(())
    }

    /// One request, and as much of its body as comes.
    async fn attempt(&mut self) -> Result<(), Fault> {
        if !self.has_digest() && lock(&self.part).identity().is_some_and(|known| known.validator().is_none()) {
            // Nothing could tell whether the rest is of the same file.
            self.change(Part::reset).await?;
        }
        let (at, known) = {
            let part = lock(&self.part);
            (part.position(), part.identity().cloned())
        };
        let ask = Ask { url: &self.wanted.url, expected: &self.wanted.expected, known: known.as_ref(), at };
        let response = self.http.send(&self.wanted.url, ask.headers()).await?;
        let (mut from, mut skip) = (at, 0);
        let bytes = match ask.read(response.status(), response.headers())? {
            Answer::Rest => known.map_or(0, |known| known.bytes),
            Answer::Again => {
                (from, skip) = (0, at);
                known.map_or(0, |known| known.bytes)
            }
            Answer::Whole(identity) => {
                let bytes = identity.bytes;
                if bytes > self.room {
                    let what = self.wanted.path.to_string();
                    return Err(PullError::TooBig { what, bytes, limit: self.room }.into());
                }
                if self.wanted.expected.bytes.is_none() {
                    crate::space::check(self.hold.root(), bytes.saturating_sub(at)).map_err(PullError::from)?;
                }
                self.change(|part| part.begin(identity)).await?;
                from = 0;
                bytes
            }
            Answer::Stale(why) => {
                self.give_up_part().await?;
                return Err(Fault::retry(why));
            }
        };
        self.meter.begin(bytes);
        self.body(response, bytes.saturating_sub(from), skip).await
    }

    fn has_digest(&self) -> bool {
        self.wanted.expected.sha256.is_some()
    }

    /// Gives up what may be wrong of what is here: with a digest, which finds that out in the end, only what the journal does not
    /// name.
    async fn give_up_part(&self) -> Result<(), PullError> {
        self.change(if self.has_digest() { Part::back } else { Part::reset }).await
    }

    /// Takes the `left` bytes that come, of which the first `skip` are here already.
    async fn body(&mut self, mut response: Response, mut left: u64, mut skip: u64) -> Result<(), Fault> {
        let stall = self.http.settings().stall;
        let mut buffer = Vec::new();
        let mut pace = Pace::begin();
        let broken = loop {
            let came = match next_piece(&mut response, stall, &mut buffer).await {
                Ok(Some(came)) => came,
                Ok(None) => break None,
                Err(why) => break Some(why),
            };
            let Some(rest) = left.checked_sub(came) else {
                self.give_up_part().await?;
                return Err(Fault::retry("sends more bytes than the file has"));
            };
            left = rest;
            let here = usize::try_from(skip).unwrap_or(usize::MAX).min(buffer.len());
            buffer.drain(..here);
            skip -= here as u64;
            if left > 0 && pace.is_too_slow(came, stall) {
                break Some(format!("sends less than {} KiB in {stall:?}", MIN_PROGRESS >> 10));
            }
            if buffer.len() >= BUFFER {
                buffer = self.append(buffer).await?;
                // The disk's time is not the server's.
                pace = Pace::begin();
            }
        };
        // What came before a break is kept.
        self.append(buffer).await?;
        match broken {
            _ if left == 0 => Ok(()),
            Some(why) => Err(Fault::retry(why)),
            None => Err(Fault::retry(format!("ends {left} bytes early"))),
        }
    }

    /// Writes `buffer` and gives it back empty.
    async fn append(&mut self, mut buffer: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let part = Arc::clone(&self.part);
        let (buffer, written) = blocking(move || {
            let written = lock(&part).append(&buffer);
            buffer.clear();
            (buffer, written)
        })
        .await?;
        let path = &self.wanted.path;
        match written {
            Ok(()) => {}
            Err(PartFault::Io(cause)) => return Err(PullError::io(format!("write {path}"))(cause).into()),
            Err(PartFault::Damaged { chunk, copies }) if copies >= MAX_COPIES => {
                return Err(PullError::Chunk { path: path.clone(), chunk, copies }.into());
            }
            // The next copy is asked for at once: it is the bytes that are wrong, not the server that is busy.
            Err(PartFault::Damaged { chunk, .. }) => {
                return Err(Fault::Retry { why: format!("sends part {chunk} damaged"), after: Some(Duration::ZERO) });
            }
        }
        self.meter.reached(lock(&self.part).position());
        Ok(buffer)
    }

    async fn change(&self, change: impl FnOnce(&mut Part) -> std::io::Result<()> + Send + 'static) -> Result<(), PullError> {
        let part = Arc::clone(&self.part);
        blocking(move || change(&mut lock(&part))).await?.map_err(PullError::io(format!("write {}", self.wanted.path)))
    }

    /// Compares the digest of the whole and moves the file to its place.
    async fn finish(self) -> Result<(Digest, u64), PullError> {
        let (found, bytes) = {
            let part = lock(&self.part);
            (part.digest(), part.position())
        };
        if let Some(expected) = self.wanted.expected.sha256
            && expected != found
        {
            self.change(Part::reset).await?;
            return Err(PullError::Digest { path: self.wanted.path.clone(), expected, found });
        }
        let place = self.hold.model().join(self.wanted.path.as_str());
        self.change(move |part| part.move_to(&place)).await?;
        Ok((found, bytes))
    }
}

/// The lock is never held over an await, and what it guards is right after every step, so a panic elsewhere does not spoil it.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much comes in a stall time.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn begin() -> Self {
        Pace { since: Instant::now(), bytes: 0 }
    }

    /// Takes note of what came; answers whether the stall time that ends here brought too little.
    fn is_too_slow(&mut self, came: u64, stall: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(came);
        if self.since.elapsed() < stall {
            return false;
        }
        let is_slow = self.bytes < MIN_PROGRESS;
        *self = Pace::begin();
        is_slow
    }
}

/// Tells the progress of one file. Bytes that have to come twice are told once.
struct Meter<'a> {
    progress: &'a dyn Progress,
    name: &'a str,
    is_begun: bool,
    /// The farthest position so far.
    best: u64,
}

impl Meter<'_> {
    fn begin(&mut self, bytes: u64) {
        if !self.is_begun {
            self.progress.begin(self.name, Some(bytes));
            self.is_begun = true;
        }
    }

    fn reached(&mut self, position: u64) {
        if position > self.best {
            self.progress.advance(position - self.best);
            self.best = position;
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if self.is_begun {
            self.progress.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_too_slow() {
        assert!(Pace::begin().is_too_slow(MIN_PROGRESS - 1, Duration::ZERO));
        assert!(!Pace::begin().is_too_slow(MIN_PROGRESS, Duration::ZERO));
        assert!(!Pace::begin().is_too_slow(1, Duration::MAX), "its time is not over");
    }
}
