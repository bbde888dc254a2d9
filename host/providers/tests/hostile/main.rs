//! A provider over real sockets: servers that behave, and servers that do not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_config::{Provider as Spec, ProviderKind};
use tollgate_domain::{ChatRequest, FinishReason, Message, Origin, Parameters, Piece, Role, Usage};
use tollgate_providers::{BreakerState, Provider, ProviderError, RemoteEvent};

use server::{Act, Server};

/// The longest that anything may take; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";

fn spec(server: &Server, kind: ProviderKind) -> Spec {
    Spec {
        kind,
        endpoint: format!("http://127.0.0.1:{}", server.port).parse().unwrap(),
        model: "big".to_owned(),
        key_file: None,
        ca: None,
        insecure: false,
        connect_s: 5,
        first_token_s: 20,
        idle_s: 20,
        tries: 1,
    }
}

fn provider(spec: &Spec) -> Provider {
    Provider::new(spec, &PathBuf::from("/")).unwrap()
}

fn openai(server: &Server) -> Provider {
    provider(&spec(server, ProviderKind::OpenAi))
}

fn request(format: Option<&str>) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, "Why is the sky blue?")],
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: format.map(str::to_owned),
        model: "ours".to_owned(),
        fields: Vec::new(),
    }
}

/// All that comes of a request.
async fn asked(provider: &Provider, format: Option<&str>) -> Result<Vec<RemoteEvent>, ProviderError> {
    let mut reply = provider.chat(&request(format), Instant::now() + DEADLINE).await?;
    let mut events = Vec::new();
    while let Some(event) = reply.next().await {
        events.push(event);
    }
    Ok(events)
}

fn text(text: &str) -> RemoteEvent {
    RemoteEvent::Piece(Piece::Text(text.to_owned()))
}

fn done(prompt: u32, completion: u32) -> RemoteEvent {
    RemoteEvent::Done { reason: FinishReason::Stop, usage: Usage { prompt, cached: 0, completion } }
}

fn chunk(text: &str) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

fn end() -> String {
    let stop = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 2 } });
    format!("data: {stop}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

#[tokio::test]
async fn ollama_is_asked_and_read_in_its_own_words() {
    let lines = "{\"model\":\"big\",\"message\":{\"role\":\"assistant\",\"content\":\"The\"},\"done\":false}\n\
                 {\"model\":\"big\",\"message\":{\"role\":\"assistant\",\"content\":\" sky\"},\"done\":false}\n\
                 {\"model\":\"big\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\
                 \"prompt_eval_count\":26,\"eval_count\":282}\n";
    let server = Server::start(vec![Act::answer(NDJSON, lines)]);
    let provider = provider(&spec(&server, ProviderKind::Ollama));
    assert_eq!(asked(&provider, None).await.unwrap(), [text("The"), text(" sky"), done(26, 282)]);
    let seen = server.seen();
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /api/chat HTTP/1.1\r\n"), "{head}");
    let body = serde_json::from_str::<Value>(body).unwrap();
    assert_eq!((&body["model"], &body["stream"]), (&json!("big"), &json!(true)));
    assert_eq!(body["messages"], json!([{ "role": "user", "content": "Why is the sky blue?" }]));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let answer = format!(": hello\n\n{}{}{}", chunk("a"), chunk("b"), end());
    let server = Server::start(vec![Act::keep(SSE, &answer)]);
    let provider = openai(&server);
    for _ in 0..3 {
        assert_eq!(asked(&provider, None).await.unwrap(), [text("a"), text("b"), done(7, 2)]);
    }
    assert_eq!((server.seen().len(), server.connections()), (3, 1));
    assert!(server.seen()[0].starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
}

#[tokio::test]
async fn what_is_no_reply_is_refused() {
    for (act, expected) in [
        (Act::answer("text/html", "<html>log in</html>"), "its content-type is not text/event-stream"),
        (Act::answer("application/json", "{}"), "its content-type is not text/event-stream"),
        (Act::answer(SSE, "data: {\"choices\": [\n\n"), "an event is no chunk of a chat completion"),
        (Act::answer(SSE, "data: hello\n\n"), "an event is no chunk of a chat completion"),
        (Act::Flood(head(SSE), b"xxxxxxxx".to_vec()), "a line has more than 1 MiB"),
        (Act::Flood(head(SSE), b"data: x\n".to_vec()), "an event has more than 1 MiB"),
    ] {
        let server = Server::start(vec![act]);
        let provider = provider(&Spec { tries: 3, ..spec(&server, ProviderKind::OpenAi) });
        match asked(&provider, None).await {
            Err(ProviderError::Malformed(why)) => assert_eq!(why, expected),
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(server.seen().len(), 1, "it would be no better the next time: {expected}");
    }
}

fn head(media_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\nconnection: close\r\n\r\n").into_bytes()
}

/// Comments for ever are no token: time or the bound of the body ends them.
#[tokio::test]
async fn an_endless_body_that_says_nothing_ends() {
    let server = Server::start(vec![Act::Flood(head(SSE), b": still here\n\n".repeat(64))]);
    let provider = provider(&Spec { first_token_s: 1, ..spec(&server, ProviderKind::OpenAi) });
    let ended = asked(&provider, None).await;
    assert!(matches!(ended, Err(ProviderError::Late | ProviderError::TooLarge { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_tried_again_before_its_first_token_only() {
    let whole = format!("{}{}", chunk("a"), end());
    let server = Server::start(vec![Act::answer(SSE, ": nothing yet\n\n"), Act::Bytes(Vec::new()), Act::answer(SSE, &whole)]);
    let provider = provider(&Spec { tries: 3, ..spec(&server, ProviderKind::OpenAi) });
    assert_eq!(asked(&provider, None).await.unwrap(), [text("a"), done(7, 2)]);
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(vec![Act::answer(SSE, &chunk("a")), Act::answer(SSE, &whole)]);
    let provider = self::provider(&Spec { tries: 3, ..spec(&server, ProviderKind::OpenAi) });
    let events = asked(&provider, None).await.unwrap();
    assert_eq!(events[0], text("a"));
    assert!(matches!(&events[1..], [RemoteEvent::Failed(ProviderError::Cut(_))]), "{events:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn silence_ends_at_its_bound() {
    let server = Server::start(vec![Act::Hold(head(SSE))]);
    let provider = provider(&Spec { first_token_s: 1, ..spec(&server, ProviderKind::OpenAi) });
    assert_eq!(asked(&provider, None).await, Err(ProviderError::Late));

    let server = Server::start(vec![Act::Hold([head(SSE), chunk("a").into_bytes()].concat())]);
    let provider = self::provider(&Spec { idle_s: 1, ..spec(&server, ProviderKind::OpenAi) });
    assert_eq!(asked(&provider, None).await.unwrap(), [text("a"), RemoteEvent::Failed(ProviderError::Stalled)]);

    let server = Server::start(vec![Act::Hold(head(SSE))]);
    let late = openai(&server).chat(&request(None), Instant::now() + Duration::from_millis(200)).await;
    assert_eq!(late.err(), Some(ProviderError::Deadline));
}

#[tokio::test]
async fn a_busy_provider_is_asked_again_within_reason() {
    let whole = format!("{}{}", chunk("a"), end());
    let busy = |after: u32| {
        let status = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n";
        Act::Bytes(format!("{status}retry-after: {after}\r\n\r\n").into_bytes())
    };
    let server = Server::start(vec![busy(0), Act::answer(SSE, &whole)]);
    let provider = provider(&Spec { tries: 2, ..spec(&server, ProviderKind::OpenAi) });
    assert_eq!(asked(&provider, None).await.unwrap().len(), 2);

    let server = Server::start(vec![busy(100), Act::answer(SSE, &whole)]);
    let provider = self::provider(&Spec { tries: 2, ..spec(&server, ProviderKind::OpenAi) });
    let refused = asked(&provider, None).await;
    assert_eq!(refused, Err(ProviderError::Status { status: 503, code: None, retry_after_s: Some(100) }));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_key_goes_there_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "sk-secret-1\n").unwrap();
    let refusal = r#"{"error":{"message":"Incorrect API key provided: sk-secret-1","code":"invalid_api_key"}}"#;
    let status = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{refusal}", refusal.len());
    let server = Server::start(vec![Act::Bytes(status.into_bytes())]);
    let provider = provider(&Spec { key_file: Some(path.clone()), ..spec(&server, ProviderKind::OpenAi) });
    let error = asked(&provider, None).await.unwrap_err();
    assert_eq!(error.to_string(), "the provider answered 401 (invalid_api_key)");
    assert!(!format!("{provider:?} {error:?}").contains("secret"));
    // Another key counts at once.
    std::fs::write(&path, "sk-secret-2\n").unwrap();
    asked(&provider, None).await.unwrap_err();
    let seen = server.seen();
    assert!(
        seen[0].contains("authorization: Bearer sk-secret-1\r\n") && seen[1].contains("authorization: Bearer sk-secret-2\r\n")
    );
}

#[tokio::test]
async fn a_provider_that_fails_is_left_alone() {
    let server = Server::start(vec![Act::Bytes(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec())]);
    let provider = openai(&server);
    for _ in 0..5 {
        assert_eq!(provider.state(), BreakerState::Closed);
        assert!(matches!(asked(&provider, None).await, Err(ProviderError::Status { status: 500, .. })));
    }
    assert_eq!(provider.state(), BreakerState::Open);
    assert!(matches!(asked(&provider, None).await, Err(ProviderError::Open { .. })));
    assert_eq!(server.seen().len(), 5);
}

/// A request that is wrong says nothing against the provider, however often it comes.
#[tokio::test]
async fn a_wrong_request_opens_no_breaker() {
    let server = Server::start(vec![Act::Bytes(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec())]);
    let provider = openai(&server);
    for _ in 0..10 {
        assert!(asked(&provider, None).await.unwrap_err().is_of_request());
    }
    assert_eq!(provider.state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_reply_that_has_to_be_json_is() {
    let object = r#"{"type":"object"}"#;
    let answer = |text: &str| Act::answer(SSE, &format!("{}{}", chunk(text), end()));
    let server = Server::start(vec![answer("{\"a\": 1}"), answer("Sure! {\"a\": 1}")]);
    let provider = openai(&server);
    assert_eq!(asked(&provider, Some(object)).await.unwrap()[1], done(7, 2));
    assert_eq!(asked(&provider, Some(object)).await.unwrap()[1], RemoteEvent::Failed(ProviderError::NotJson));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(vec![Act::answer(SSE, &end())]);
    let moved = format!(
        "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{}/v1/chat/completions\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        elsewhere.port
    );
    let server = Server::start(vec![Act::Bytes(moved.into_bytes())]);
    assert!(matches!(asked(&openai(&server), None).await, Err(ProviderError::Status { status: 307, .. })));
    assert_eq!(elsewhere.seen().len(), 0);
}
