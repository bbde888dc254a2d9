//! Single faults, lasting faults, and a series of random ones.

use super::server::{Fault, Server};
use super::*;

const SMALL: usize = 100_000;

#[tokio::test]
async fn a_fault_that_ends_leaves_no_trace_in_the_file() {
    let model = noise(1, SMALL);
    let cases: [&[Fault]; 15] = [
        &[],
        &[Fault::HangUp],
        &[Fault::Cut(0), Fault::Cut(1), Fault::Cut(50_000)],
        &[Fault::Stall(0)],
        &[Fault::Stall(50_000)],
        &[Fault::Longer],
        &[Fault::Endless(10)],
        &[Fault::NoLength],
        &[Fault::Flip(77)],
        &[Fault::Cut(50_000), Fault::NoRange],
        &[Fault::Cut(50_000), Fault::WrongRange],
        &[Fault::Cut(50_000), Fault::WrongEtag],
        &[Fault::Html, Fault::Gzip],
        &[Fault::Cut(50_000), Fault::Html],
        &[Fault::Status(503), Fault::Status(429), Fault::Status(500)],
    ];
    for faults in cases {
        let server = serve(&model, true);
        server.fail(MODEL, faults.iter().cloned());
        let dir = tempfile::tempdir().unwrap();
        let fetched = pull_with(hasty(&server), &source(&server, "/m/"), dir.path()).await;
        let fetched = fetched.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_model(&fetched, &model);
        fetched.discard().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{faults:?}");
    }
}

#[tokio::test]
async fn a_fault_of_the_manifest_that_ends_does_no_harm() {
    let model = noise(2, 10);
    let server = serve(&model, false);
    server.fail("/m/manifest.json", [Fault::HangUp, Fault::Cut(20), Fault::Stall(20), Fault::Html, Fault::Status(503)]);
    let dir = tempfile::tempdir().unwrap();
    let fetched = pull_with(hasty(&server), &source(&server, "/m/"), dir.path()).await.unwrap();
    assert_model(&fetched, &model);
    assert_eq!(fetched.manifest, Some((manifest(&model, false), None)));
}

#[tokio::test]
async fn a_lasting_fault_is_named_and_nothing_is_handed_out() {
    let model = noise(3, SMALL);
    let cases = [
        (Fault::HangUp, 5, "gave up after 5 tries without progress"),
        (Fault::Stall(0), 5, "sends nothing for 300ms"),
        (Fault::Longer, 5, "sends 100001 bytes, but the file is announced with 100000"),
        (Fault::Endless(1), 5, "sends more bytes than the file has"),
        (Fault::Html, 5, "a web page (text/html)"),
        (Fault::Gzip, 5, "encoded as \"gzip\""),
        (Fault::Flip(0), 4, "is damaged in 4 copies"),
        (Fault::Status(503), 5, "answers 503"),
        (Fault::Status(401), 1, "TOLLGATE_HUB_TOKEN"),
        (Fault::Status(403), 1, "TOLLGATE_HUB_TOKEN"),
        (Fault::Status(404), 1, "does not exist"),
        (Fault::Status(418), 1, "answers 418"),
        (Fault::Redirect(MODEL.to_owned()), 11, "more than 10 redirects"),
    ];
    for (fault, requests, words) in cases {
        let server = serve(&model, true);
        server.fail(MODEL, std::iter::repeat_n(fault.clone(), 20));
        let dir = tempfile::tempdir().unwrap();
        let usual = settings(&server);
        let settings = if matches!(fault, Fault::Stall(_)) { PullSettings { tries: 5, ..hasty(&server) } } else { usual };
        let error = pull_with(settings, &source(&server, "/m/"), dir.path()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{fault:?}: {error}");
        assert_eq!(server.seen(MODEL).len(), requests, "{fault:?}: {error}");
        server.fail(MODEL, []);
        assert_model(&pull(&server, "/m/", dir.path()).await.unwrap(), &model);
    }
}

#[tokio::test]
async fn without_digests_of_parts_a_damaged_file_is_thrown_away() {
    let model = noise(4, SMALL);
    let server = serve(&model, false);
    server.fail(MODEL, [Fault::Cut(10), Fault::Flip(99_999)]);
    let dir = tempfile::tempdir().unwrap();
    let error = pull(&server, "/m/manifest.json", dir.path()).await.unwrap_err();
    assert!(matches!(error, PullError::Digest { .. }), "{error}");
    server.seen(MODEL);
    assert_model(&pull(&server, "/m/manifest.json", dir.path()).await.unwrap(), &model);
    assert_eq!(server.seen(MODEL)[0].header("range"), None, "nothing was kept");
}

#[tokio::test]
async fn a_file_of_unknown_length_is_refused_and_a_limit_holds() {
    let model = noise(5, SMALL);
    let server = serve(&model, true);
    let dir = tempfile::tempdir().unwrap();
    server.fail(MODEL, std::iter::repeat_n(Fault::NoLength, 5));
    let error = pull(&server, MODEL, dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("does not say how long"), "{error}");

    for path in ["/m/manifest.json", MODEL] {
        let little = PullSettings { max_bytes: 99_999, ..settings(&server) };
        let error = pull_with(little, &source(&server, path), dir.path()).await.unwrap_err();
        assert!(matches!(error, PullError::TooBig { bytes: 100_000, limit: 99_999, .. }), "{error}");
        let enough = PullSettings { max_bytes: 100_000, ..settings(&server) };
        assert_model(&pull_with(enough, &source(&server, path), dir.path()).await.unwrap(), &model);
    }
}

#[tokio::test]
async fn thirty_downloads_with_random_faults_all_end_well() {
    let model = noise(6, CHUNK + 700_000);
    let server = serve(&model, true);
    let mut chance = Chance(20_260_131);
    for round in 0..30 {
        let faults: Vec<_> = (0..1 + chance.below(4)).map(|_| random(&mut chance, model.len())).collect();
        server.fail(MODEL, faults.iter().cloned());
        let dir = tempfile::tempdir().unwrap();
        let fetched = pull_with(hasty(&server), &source(&server, "/m/"), dir.path()).await;
        let fetched = fetched.unwrap_or_else(|error| panic!("round {round}, {faults:?}: {error}"));
        assert_model(&fetched, &model);
    }
}

fn random(chance: &mut Chance, bytes: usize) -> Fault {
    match chance.below(12) {
        0 => Fault::HangUp,
        1..=3 => Fault::Cut(chance.below(bytes)),
        4 => Fault::Stall(chance.below(bytes)),
        5 => Fault::Longer,
        6 => Fault::Endless(1 + chance.below(bytes)),
        7 => Fault::Flip(chance.below(bytes)),
        8 => Fault::NoRange,
        9 => Fault::Html,
        10 => Fault::Gzip,
        _ => Fault::Status(503),
    }
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_not_where_it_redirects_to() {
    let model = noise(7, 1000);
    let (hub, storage) = (Server::start(), Server::start());
    hub.put("/api/models/o/n/tree/main?recursive=true", br#"[{"type": "file", "path": "a.gguf", "size": 1000}]"#);
    hub.put("/o/n/resolve/main/a.gguf", b"");
    hub.fail("/o/n/resolve/main/a.gguf", [Fault::Redirect(storage.url("/blob?signature=x").into())]);
    storage.put("/blob?signature=x", &model);
    let token = Some(crate::pull::Token::new(" secret\n").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let with_token = PullSettings { token, ..settings(&hub) };
    assert!(!format!("{with_token:?}").contains("secret"));
    let fetched = pull_with(with_token.clone(), &"o/n".parse().unwrap(), dir.path()).await.unwrap();
    assert_model(&fetched, &model);
    for path in ["/api/models/o/n/tree/main?recursive=true", "/o/n/resolve/main/a.gguf"] {
        assert_eq!(hub.seen(path)[0].header("authorization"), Some("Bearer secret"), "{path}");
    }
    assert_eq!(storage.seen("/blob?signature=x")[0].header("authorization"), None);

    pull_with(with_token, &source(&storage, "/m.zip"), dir.path()).await.unwrap_err();
    assert_eq!(storage.seen("/m.zip")[0].header("authorization"), None, "another origin than the hub's");
}
