//! The router without a pipeline: what matches, and what the table says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::HeaderValue;

use super::*;

const ALL: [&str; 1] = [openai::DIALECT];

fn path_of(path: &str) -> Option<&'static str> {
    find(&ALL, path).map(|(route, _)| route.path)
}

#[test]
fn the_public_routes_are_two() {
    // P-A1: the public list is a constant.
    let public = routes().iter().filter(|route| route.public).map(|route| route.path).collect::<Vec<_>>();
    assert_eq!(public, ["/health", "/ready"]);
    for route in routes() {
        let answers = matches!(route.endpoint, Endpoint::Health | Endpoint::Ready);
        assert_eq!(route.public, answers, "{}", route.path);
    }
}

#[test]
fn each_path_is_in_the_table_once() {
    for route in routes() {
        assert_eq!(routes().iter().filter(|other| other.path == route.path).count(), 1, "{}", route.path);
    }
}

#[test]
fn paths_match_to_the_letter() {
    // P-A1: variants of a path are other paths.
    for path in ["/health", "/ready", "/v1/models", "/v1/chat/completions", "/v1/embeddings", "/v1/rerank"] {
        assert_eq!(path_of(path), Some(path));
        let variants = [
            path.to_uppercase(),
            format!("/{path}"),
            format!("{path};x"),
            format!("{path}%20"),
            format!("{path}."),
            format!("/.{path}"),
            format!("/x/..{path}"),
            path.replacen('/', "%2f", 1),
            path.replacen('/', "\\", 1),
            path.trim_start_matches('/').to_owned(),
        ];
        for variant in variants {
            assert_eq!(path_of(&variant), None, "{variant}");
        }
    }
    for path in ["", "/", "*", "/v1", "/v1/", "/v1/models/", "/v1//models", "/v1/chat", "/v1/chat/completions/", "/health/"] {
        assert_eq!(path_of(path), None, "{path}");
    }
}

#[test]
fn a_models_id_may_hold_slashes() {
    for id in ["demo", "org/model:q8", "a%2fb", "/x", ".."] {
        let path = format!("/v1/models/{id}");
        assert_eq!(find(&ALL, &path).map(|(route, tail)| (route.endpoint, tail)), Some((Endpoint::Model, id)));
    }
}

#[test]
fn a_dialect_that_the_listener_does_not_speak_has_no_routes() {
    assert!(find(&[], "/v1/models").is_none());
    assert!(find(&[], "/health").is_some());
}

#[test]
fn get_takes_head_and_nothing_else() {
    let (models, _) = find(&ALL, "/v1/models").unwrap();
    assert!(models.takes(&Method::GET) && models.takes(&Method::HEAD));
    assert_eq!(models.allow(), "GET, HEAD");
    let (chat, _) = find(&ALL, "/v1/chat/completions").unwrap();
    assert!(chat.takes(&Method::POST));
    assert_eq!(chat.allow(), "POST");
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS, Method::from_bytes(b"post").unwrap()] {
        assert!(!chat.takes(&method), "{method}");
    }
}

#[test]
fn the_head_is_what_authenticators_want() {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::POST;
    parts.uri = http::Uri::from_static("/v1/models?key=secret");
    parts.headers.insert("X-Api-Key", HeaderValue::from_static("abc"));
    parts.headers.insert("x-bad", HeaderValue::from_bytes(b"\xff").unwrap());
    let client = ClientInfo { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), listener: Arc::from("main"), scheme: "https" };
    let head = head_of(&parts, &client);
    assert_eq!((head.method.as_str(), head.path.as_str(), head.listener.as_str()), ("POST", "/v1/models", "main"));
    // Two credentials must not look like one because one of them is no text.
    let expected = [("x-api-key", "abc"), ("x-bad", "\u{fffd}")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(head.headers, expected);
}
