//! What needs no server: sources, journals, redirects, tokens.

use proptest::prelude::*;
use reqwest::Url;

use super::super::http::{refused_redirect, shown};
use super::super::journal::{Identity, Journal, part_line};
use super::super::{PullSettings, Puller, Token};
use super::*;

#[test]
fn sources_are_read_and_written() {
    let cases = [
        ("https://example.test/a/b.gguf", "https://example.test/a/b.gguf"),
        ("http://example.test:8080/a.zip", "http://example.test:8080/a.zip"),
        ("https://example.test/a/", "https://example.test/a/manifest.json"),
        ("https://example.test", "https://example.test/manifest.json"),
        ("https://example.test/x/../a/manifest.json", "https://example.test/a/manifest.json"),
        ("Owner/Name-1.5", "Owner/Name-1.5"),
        ("o/n:sub/f.gguf@v1.0", "o/n:sub/f.gguf@v1.0"),
        ("o/n@main", "o/n"),
        ("ollama:qwen2.5", "ollama:qwen2.5"),
        ("ollama:o/n:7b-q4_K_M", "ollama:o/n:7b-q4_K_M"),
        ("ollama:qwen:latest", "ollama:qwen"),
    ];
    for (text, written) in cases {
        let source: PullSource = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(source.to_string(), written);
        assert_eq!(written.parse(), Ok(source));
    }
}

#[test]
fn what_is_no_source_is_refused() {
    let long = format!("https://example.test/{}.gguf", "a".repeat(3000));
    let cases = [
        "",
        "name",
        "/abs/olute",
        "../up",
        "o/../n",
        "o/n/m",
        "o/.hidden",
        "o/n:../../etc/passwd",
        "o/n:/etc/passwd",
        "o/n:a/b/c/d",
        "o/n@a/b",
        "o/n@",
        "o/n:",
        "o/n%2f",
        "o/n?x",
        "o/n\0",
        "ollama:",
        "ollama:a/b/c",
        "ollama:a:b:c",
        "ollama:../a",
        "file:///etc/passwd",
        "ftp://example.test/a.gguf",
        "https://",
        "https:///a.gguf",
        "https://user:pass@example.test/a.gguf",
        "https://example.test/a.gguf?token=x",
        "https://example.test/a.gguf#x",
        "https://example.test/a.bin",
        "https://example.test/.gguf",
        "https://example.test/a%2f..%2fb.gguf",
        long.as_str(),
    ];
    for text in cases {
        assert!(text.parse::<PullSource>().is_err(), "{text:?}");
    }
}

#[test]
fn a_redirect_keeps_tls_and_ends() {
    let url = |text: &str| Url::parse(text).unwrap();
    let (plain, tls) = (url("http://a.test/"), url("https://a.test/"));
    assert_eq!(refused_redirect(std::slice::from_ref(&plain), &tls), None);
    assert_eq!(refused_redirect(std::slice::from_ref(&tls), &tls), None);
    assert!(refused_redirect(&[plain.clone(), tls.clone()], &plain).unwrap().contains("without TLS"));
    assert_eq!(refused_redirect(&vec![tls.clone(); 10], &tls), None);
    assert!(refused_redirect(&vec![tls.clone(); 11], &tls).unwrap().contains("more than 10"));
}

#[test]
fn what_is_shown_of_a_url_opens_no_door() {
    let url = Url::parse("https://user:pass@a.test/b.gguf?signature=x#y").unwrap();
    assert_eq!(shown(&url), "https://a.test/b.gguf");
}

#[test]
fn a_token_is_checked_hidden_and_sent_by_tls_only() {
    for bad in ["", "  ", "a b", "a\nb", "ü", &"a".repeat(4097)] {
        assert!(Token::new(bad).is_err(), "{bad:?}");
    }
    let token = Token::new("hf_secret").unwrap();
    assert_eq!(format!("{token:?}"), "Token(..)");
    let hub = |text: &str| PullSettings { hub: Url::parse(text).unwrap(), token: Some(token.clone()), ..PullSettings::default() };
    assert!(Puller::new(hub("https://example.test")).is_ok());
    let error = Puller::new(hub("http://example.test")).unwrap_err().to_string();
    assert!(error.contains("in the clear") && !error.contains("hf_secret"), "{error}");
}

fn identity() -> impl Strategy<Value = Identity> {
    let text = proptest::option::of("[ -~]{1,40}");
    (any::<u64>(), proptest::option::of(any::<u64>()), text.clone(), text).prop_map(|(bytes, sha256, etag, modified)| Identity {
        bytes,
        sha256: sha256.map(|seed| Digest::of(&seed.to_le_bytes())),
        etag,
        modified,
    })
}

proptest! {
    #[test]
    fn a_source_comes_back_and_stays_inside(text in "(https?://|ollama:)?[a-zA-Z0-9./:@_%?~-]{0,40}(\\.gguf|/)?") {
        if let Ok(source) = text.parse::<PullSource>() {
            let written = source.to_string();
            prop_assert_eq!(written.parse::<PullSource>(), Ok(source.clone()));
            prop_assert_eq!(source.folder_name().len(), 64);
            prop_assert!(written.split(['/', ':', '@']).all(|name| name != ".."));
        }
    }

    #[test]
    fn no_text_ends_a_parser(text in any::<String>()) {
        let _ = text.parse::<PullSource>();
        let _ = Journal::parse(&text, 10);
    }

    #[test]
    fn a_journal_that_was_torn_keeps_its_whole_lines(mut identity in identity(), parts in 0..20u64, cut in 0..4000usize) {
        identity.bytes = parts * 10;
        let mut text = identity.line();
        let header_end = text.len();
        let mut ends = Vec::new();
        for index in 0..parts {
            let digest = Digest::of(&index.to_le_bytes());
            text.push_str(&part_line(index, &digest));
            ends.push((digest, text.len() as u64));
        }
        let cut = cut.min(text.len());
        let journal = Journal::parse(&text[..cut], 10);
        if cut < header_end {
            prop_assert_eq!(journal, None);
        } else {
            ends.retain(|(_, end)| *end <= cut as u64);
            prop_assert_eq!(journal, Some(Journal { identity, header_end: header_end as u64, parts: ends }));
        }
    }
}
