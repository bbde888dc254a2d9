//! What an earlier pull left, and pulls that end in the middle.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::server::Fault;
use super::*;
use crate::progress::Progress;

fn once(server: &Server) -> PullSettings {
    PullSettings { tries: 1, ..settings(server) }
}

/// The one file below `dir` whose name ends in `end`.
fn left_behind(dir: &Path, end: &str) -> PathBuf {
    let source = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    source.join("work").join(format!("model.gguf{end}"))
}

/// The ranges that were asked for at [`MODEL`].
fn ranges(server: &Server) -> Vec<Option<String>> {
    server.seen(MODEL).iter().map(|seen| seen.header("range").map(str::to_owned)).collect()
}

fn from(byte: usize) -> Option<String> {
    Some(format!("bytes={byte}-"))
}

#[tokio::test]
async fn a_cut_is_continued_at_its_byte_and_a_damaged_part_at_its_beginning() {
    let model = noise(11, 2 * CHUNK + 5000);
    let server = serve(&model, true);
    server.fail(MODEL, [Fault::Cut(50_000), Fault::Flip(CHUNK + 9), Fault::Good]);
    let dir = tempfile::tempdir().unwrap();
    assert_model(&pull(&server, "/m/manifest.json", dir.path()).await.unwrap(), &model);
    let seen = server.seen(MODEL);
    let asked: Vec<_> = seen.iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(asked, [None, from(50_000), from(CHUNK)]);
    assert_eq!(seen[1].header("if-range"), None, "the digest tells whether it is the same file");

    server.fail(MODEL, [Fault::Cut(50_000), Fault::Good]);
    assert_model(&pull(&server, MODEL, dir.path()).await.unwrap(), &model);
    let etag = format!("\"{}\"", Digest::of(&model));
    assert_eq!(server.seen(MODEL)[1].header("if-range"), Some(etag.as_str()));
}

#[tokio::test]
async fn the_next_pull_continues_after_the_last_good_part() {
    let model = noise(12, 2 * CHUNK + 5000);
    for (with_chunks, path) in [(true, "/m/manifest.json"), (false, "/m/manifest.json"), (false, MODEL)] {
        let server = serve(&model, with_chunks);
        let dir = tempfile::tempdir().unwrap();
        server.fail(MODEL, [Fault::Cut(CHUNK + 10)]);
        let error = pull_with(once(&server), &source(&server, path), dir.path()).await.unwrap_err();
        assert!(matches!(error, PullError::GaveUp { .. }), "{error}");
        assert_model(&pull(&server, path, dir.path()).await.unwrap(), &model);
        assert_eq!(ranges(&server), [None, from(CHUNK)], "{path}");
    }
}

#[tokio::test]
async fn what_rotted_on_the_disk_is_fetched_again() {
    let model = noise(13, 2 * CHUNK + 5000);
    // The byte that rots, what the journal still is, and where the next pull begins.
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(usize, Spoil, usize); 6] = [
        (0, |_| (), 0),
        (CHUNK, |_| (), CHUNK),
        (2 * CHUNK, |_| (), 2 * CHUNK),
        (2 * CHUNK, |journal| journal.truncate(journal.len() - 1), CHUNK),
        (2 * CHUNK, |journal| journal.truncate(5), 0),
        (2 * CHUNK, |journal| journal.push(0xff), 0),
    ];
    for (at, spoil, begin) in cases {
        let server = serve(&model, false);
        let dir = tempfile::tempdir().unwrap();
        server.fail(MODEL, [Fault::Cut(2 * CHUNK + 10)]);
        pull_with(once(&server), &source(&server, "/m/manifest.json"), dir.path()).await.unwrap_err();
        let (part, journal) = (left_behind(dir.path(), ".part"), left_behind(dir.path(), ".journal"));
        let mut bytes = std::fs::read(&part).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&part, bytes).unwrap();
        let mut lines = std::fs::read(&journal).unwrap();
        spoil(&mut lines);
        std::fs::write(&journal, lines).unwrap();
        assert_model(&pull(&server, "/m/manifest.json", dir.path()).await.unwrap(), &model);
        assert_eq!(ranges(&server), [None, (begin > 0).then(|| from(begin)).flatten()], "byte {at}");
    }
}

#[tokio::test]
async fn parts_of_two_files_are_never_mixed() {
    let (old, new) = (noise(14, 2 * CHUNK), noise(15, 2 * CHUNK));
    let server = serve(&old, true);
    let dir = tempfile::tempdir().unwrap();
    server.fail(MODEL, [Fault::Cut(CHUNK + 10)]);
    pull_with(once(&server), &source(&server, MODEL), dir.path()).await.unwrap_err();
    server.put(MODEL, &new);
    assert_model(&pull(&server, MODEL, dir.path()).await.unwrap(), &new);
    assert_eq!(ranges(&server), [None, from(CHUNK)], "If-Range made the server begin anew");

    // The file became shorter than what is here, at a server without validators: the digest of the new manifest tells.
    server.send_no_validators();
    let dir = tempfile::tempdir().unwrap();
    server.put("/m/manifest.json", &manifest(&new, true));
    server.fail(MODEL, [Fault::Cut(CHUNK + 10)]);
    pull_with(once(&server), &source(&server, "/m/"), dir.path()).await.unwrap_err();
    let short = noise(16, 1000);
    server.put("/m/manifest.json", &manifest(&short, true));
    server.put(MODEL, &short);
    assert_model(&pull(&server, "/m/", dir.path()).await.unwrap(), &short);
    assert_eq!(ranges(&server), [None, None]);
}

#[tokio::test]
async fn without_a_digest_or_a_validator_nothing_is_continued_by_another_pull() {
    let model = noise(17, CHUNK + 5000);
    let server = serve(&model, true);
    server.send_no_validators();
    let dir = tempfile::tempdir().unwrap();
    server.fail(MODEL, [Fault::Cut(CHUNK + 10)]);
    pull_with(once(&server), &source(&server, MODEL), dir.path()).await.unwrap_err();
    assert_model(&pull(&server, MODEL, dir.path()).await.unwrap(), &model);
    assert_eq!(ranges(&server), [None, None]);

    server.fail(MODEL, [Fault::Cut(50_000), Fault::Good]);
    let dir = tempfile::tempdir().unwrap();
    assert_model(&pull(&server, MODEL, dir.path()).await.unwrap(), &model);
    assert_eq!(ranges(&server), [None, None], "nor by another try of the same pull");
}

#[tokio::test]
async fn with_a_digest_finished_parts_stay_whatever_a_server_answers() {
    let model = noise(22, 2 * CHUNK + 5000);
    let server = serve(&model, false);
    for (fault, next) in [(Fault::Status(416), CHUNK), (Fault::Longer, CHUNK + 10_000), (Fault::Html, CHUNK + 10_000)] {
        let dir = tempfile::tempdir().unwrap();
        server.fail(MODEL, [Fault::Cut(CHUNK + 10_000), fault.clone(), Fault::Good]);
        assert_model(&pull(&server, "/m/", dir.path()).await.unwrap(), &model);
        assert_eq!(ranges(&server), [None, from(CHUNK + 10_000), from(next)], "{fault:?}");
    }
    // 200 with everything: the beginning is passed over.
    let dir = tempfile::tempdir().unwrap();
    server.fail(MODEL, [Fault::Cut(CHUNK + 10_000), Fault::NoRange]);
    assert_model(&pull(&server, "/m/", dir.path()).await.unwrap(), &model);
    assert_eq!(ranges(&server), [None, from(CHUNK + 10_000)]);
}

#[tokio::test]
async fn without_a_digest_a_short_answer_does_not_replace_a_long_part() {
    let model = noise(23, CHUNK + 5000);
    let server = serve(&model, false);
    let dir = tempfile::tempdir().unwrap();
    server.fail(MODEL, [Fault::Cut(CHUNK + 10)]);
    pull_with(once(&server), &source(&server, MODEL), dir.path()).await.unwrap_err();
    server.put(MODEL, br#"{"error": "busy"}"#);
    let error = pull_with(once(&server), &source(&server, MODEL), dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("only 17 bytes"), "{error}");
    server.put(MODEL, &model);
    assert_model(&pull(&server, MODEL, dir.path()).await.unwrap(), &model);
    assert_eq!(ranges(&server), [None, from(CHUNK), from(CHUNK)]);
}

#[tokio::test]
async fn a_range_that_is_out_of_the_file_begins_it_anew() {
    let model = noise(18, 60_000);
    let server = serve(&model, true);
    server.send_no_validators();
    let dir = tempfile::tempdir().unwrap();
    server.fail(MODEL, [Fault::Cut(50_000), Fault::Status(416), Fault::Good]);
    assert_model(&pull(&server, "/m/", dir.path()).await.unwrap(), &model);
    assert_eq!(ranges(&server), [None, from(50_000), None]);
}

#[tokio::test]
async fn a_download_that_was_not_installed_is_found_again() {
    let model = noise(19, CHUNK + 5000);
    let server = serve(&model, true);
    for (path, again) in [("/m/manifest.json", vec![]), (MODEL, vec![from(CHUNK)])] {
        let dir = tempfile::tempdir().unwrap();
        let fetched = pull(&server, path, dir.path()).await.unwrap();
        // An installation that was interrupted has made it part of the store.
        let store = tempfile::tempdir().unwrap();
        let linked = store.path().join("blob");
        std::fs::hard_link(fetched.folder.join("model.gguf"), &linked).unwrap();
        std::fs::set_permissions(&linked, std::fs::Permissions::from_mode(0o444)).unwrap();
        drop(fetched);
        assert_eq!(ranges(&server), [None]);
        let fetched = pull(&server, path, dir.path()).await.unwrap();
        assert_model(&fetched, &model);
        assert!(std::fs::metadata(&linked).unwrap().ino() != std::fs::metadata(fetched.folder.join("model.gguf")).unwrap().ino());
        assert!(std::fs::read(&linked).unwrap() == model, "what the store has is not touched");
        assert_eq!(ranges(&server), again, "{path}: only a file without a digest is asked for again, and only its last part");
    }
}

#[tokio::test]
async fn a_second_pull_of_the_same_source_is_told_of_the_first() {
    let model = noise(20, 1000);
    let server = serve(&model, true);
    let dir = tempfile::tempdir().unwrap();
    let first = pull(&server, MODEL, dir.path()).await.unwrap();
    let error = pull(&server, MODEL, dir.path()).await.unwrap_err();
    assert!(matches!(error, PullError::Busy { .. }), "{error}");
    assert_model(&pull(&server, "/m/", dir.path()).await.unwrap(), &model);
    assert_model(&first, &model);
    drop(first);
    assert_model(&pull(&server, MODEL, dir.path()).await.unwrap(), &model);
}

/// Says when so many bytes are here.
struct Reached {
    bytes: AtomicU64,
    wanted: u64,
    notify: Notify,
}

impl Progress for Reached {
    fn begin(&self, what: &str, total_bytes: Option<u64>) {
        assert_eq!((what, total_bytes), ("model.gguf", Some(CHUNK_BYTES + 2_500_000)));
    }

    fn advance(&self, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.wanted {
            self.notify.notify_one();
        }
    }

    fn end(&self) {}
}

#[tokio::test]
async fn a_pull_that_is_dropped_is_continued() {
    let model = noise(21, CHUNK + 2_500_000);
    let server = serve(&model, true);
    server.fail(MODEL, [Fault::Stall(CHUNK + 1_000_000)]);
    let dir = tempfile::tempdir().unwrap();
    let puller = Puller::new(settings(&server)).unwrap();
    let source = source(&server, "/m/");
    let reached = Reached { bytes: AtomicU64::new(0), wanted: CHUNK_BYTES, notify: Notify::new() };
    tokio::select! {
        ended = puller.pull(&source, dir.path(), &reached) => panic!("the server is still: {ended:?}"),
        () = reached.notify.notified() => {}
    }
    // A write that was under way still holds the folder until it is done.
    let fetched = loop {
        match pull(&server, "/m/", dir.path()).await {
            Err(PullError::Busy { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_model(&fetched, &model);
    assert_eq!(ranges(&server), [None, from(CHUNK)]);
}
