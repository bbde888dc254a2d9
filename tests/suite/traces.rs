//! Traces, as a collector receives them: one per request, whole, with nothing in them that is a client's own; and a collector that is
//! slow, broken or gone is nobody's problem but its own (P-A8).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tollgate_tests::{Gateway, Place};

use crate::support::until;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A message of protobuf: its fields, in their order.
struct Message<'a>(Vec<(u64, Field<'a>)>);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    fn read(mut rest: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let tag = varint(&mut rest);
            let field = match tag & 7 {
                0 => Field::Number(varint(&mut rest)),
                1 => Field::Number(u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
                2 => {
                    let length = usize::try_from(varint(&mut rest)).unwrap();
                    Field::Bytes(take(&mut rest, length))
                }
                wire => panic!("wire type {wire}"),
            };
            fields.push((tag >> 3, field));
        }
        Message(fields)
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(move |(found, value)| match value {
            Field::Bytes(bytes) if *found == field => Some(*bytes),
            _ => None,
        })
    }

    fn text(&self, field: u64) -> String {
        self.all(field).next().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).unwrap_or_default()
    }

    fn hex(&self, field: u64) -> String {
        self.all(field).flatten().map(|byte| format!("{byte:02x}")).collect()
    }

    fn number(&self, field: u64) -> u64 {
        let found = self.0.iter().find_map(|(found, value)| match value {
            Field::Number(number) if *found == field => Some(*number),
            _ => None,
        });
        found.unwrap_or_default()
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

/// A span as it came.
#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    status: u64,
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn read(bytes: &[u8]) -> Self {
        let span = Message::read(bytes);
        Span {
            trace: span.hex(1),
            id: span.hex(2),
            parent: span.hex(4),
            name: span.text(5),
            kind: span.number(6),
            start_ns: span.number(7),
            end_ns: span.number(8),
            status: span.all(15).next().map(|status| Message::read(status).number(3)).unwrap_or_default(),
            attributes: attributes(&span, 9),
        }
    }

    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Attributes as text, whatever they are.
fn attributes(message: &Message<'_>, field: u64) -> BTreeMap<String, String> {
    let pairs = message.all(field).map(Message::read);
    pairs.map(|pair| (pair.text(1), shown(&Message::read(pair.all(2).next().unwrap())))).collect()
}

fn shown(any: &Message<'_>) -> String {
    match any.0.first().unwrap() {
        (1, Field::Bytes(text)) => String::from_utf8(text.to_vec()).unwrap(),
        (2, Field::Number(number)) => (*number == 1).to_string(),
        (3, Field::Number(number)) => number.cast_signed().to_string(),
        (4, Field::Number(bits)) => f64::from_bits(*bits).to_string(),
        (5, Field::Bytes(array)) => {
            let values = Message::read(array);
            values.all(1).map(|value| shown(&Message::read(value))).collect::<Vec<_>>().join(",")
        }
        (field, _) => panic!("field {field}"),
    }
}

/// What a collector does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Takes,
    /// Says 503 to the first, and takes what comes then.
    FirstBusy,
    /// Takes what comes, and closes the connection with each answer.
    Closes,
    Hangs,
}

/// A collector that keeps what it is sent.
#[derive(Clone)]
struct Collector {
    port: u16,
    kept: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    asked: Arc<Mutex<usize>>,
}

impl Collector {
    /// With `tls`, it shows the certificate in that directory.
    async fn start(manner: Manner, tls: Option<&Path>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Collector { port: listener.local_addr().unwrap().port(), kept: Arc::default(), asked: Arc::default() };
        let acceptor = tls.map(acceptor);
        let own = collector.clone();
        #[allow(clippy::disallowed_methods, reason = "the collector ends with the test")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, acceptor) = (own.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => own.serve(stream, manner).await,
                        Some(acceptor) => own.serve(acceptor.accept(stream).await.unwrap(), manner).await,
                    }
                });
            }
        });
        collector
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, manner: Manner) {
        let answer = service_fn(|request: Request<Incoming>| async move {
            let (parts, body) = request.into_parts();
            assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/v1/traces"));
            let body = body.collect().await.unwrap().to_bytes();
            let is_first = std::mem::replace(&mut *self.asked.lock().unwrap(), 1) == 0;
            let mut response = Response::new(Full::new(Bytes::new()));
            match manner {
                Manner::Hangs => std::future::pending::<()>().await,
                Manner::FirstBusy if is_first => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                Manner::Takes | Manner::FirstBusy | Manner::Closes => self.kept.lock().unwrap().push((parts.headers, body)),
            }
            if matches!(manner, Manner::Closes) {
                response.headers_mut().insert("connection", "close".parse().unwrap());
            }
            Ok::<_, Infallible>(response)
        });
        // Its end is the gateway's.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
    }

    fn spans(&self) -> Vec<Span> {
        let kept = self.kept.lock().unwrap();
        let mut spans = Vec::new();
        for (headers, body) in kept.iter() {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            for resource_spans in Message::read(body).all(1).map(Message::read) {
                let resource = Message::read(resource_spans.all(1).next().unwrap());
                assert_eq!(attributes(&resource, 1)["service.name"], "tollgate");
                for scope_spans in resource_spans.all(2).map(Message::read) {
                    spans.extend(scope_spans.all(2).map(Span::read));
                }
            }
        }
        spans
    }

    /// The spans of one trace, when all are there: the request's own is the last to end.
    async fn trace(&self, trace: &str) -> Vec<Span> {
        let of_trace = || self.spans().into_iter().filter(|span| span.trace == trace).collect::<Vec<_>>();
        until("the trace is there", async || of_trace().iter().any(|span| span.kind == 2)).await;
        of_trace()
    }
}

fn acceptor(directory: &Path) -> TlsAcceptor {
    let certificates = CertificateDer::pem_file_iter(directory.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(certificates.collect::<Result<_, _>>().unwrap(), key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn place(settings: &str) -> Place {
    let place = Place::new();
    place.write("plugins/pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"pii\"]\n");
    place.write("tollgate.toml", &format!("[telemetry]\ninterval_s = 1\n{settings}"));
    place
}

/// How many spans came to `outcome`.
async fn counted(gateway: &Gateway, outcome: &str) -> u64 {
    let text = gateway.client.get("/metrics").await.text();
    let series = format!("tollgate_trace_spans_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |value| value.parse().unwrap())
}

async fn traced_chat(gateway: &Gateway, text: &str, more: Value) -> tollgate_tests::Answer {
    let mut body = json!({ "model": "scripted", "messages": [{ "role": "user", "content": text }], "user": "canary-user" });
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let headers = [("content-type", "application/json"), ("traceparent", CALLER), ("user-agent", "canary-agent")];
    gateway.client.send("POST", "/v1/chat/completions?canary-query", &headers, body.to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace() {
    let collector = Collector::start(Manner::Takes, None).await;
    let place = place(&format!("endpoint = \"http://127.0.0.1:{}\"\n", collector.port));
    let gateway = place.start().await;
    let answer = traced_chat(&gateway, "say canary-reply and more", json!({ "temperature": 0.5 })).await;
    assert_eq!(answer.status, StatusCode::OK);
    let (_, trace) = CALLER.split_at(3);
    let trace = &trace[..32];
    let spans = collector.trace(trace).await;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));

    let request = named("POST /v1/chat/completions");
    assert_eq!(answer.header("traceparent"), format!("00-{trace}-{}-01", request.id));
    assert_eq!((request.parent.as_str(), request.kind, request.status), ("00f067aa0ba902b7", 2, 0));
    assert_eq!(
        (request.attribute("http.route"), request.attribute("http.response.status_code")),
        ("/v1/chat/completions", "200")
    );
    assert_eq!(request.attribute("tollgate.request_id"), answer.header("x-request-id"));
    assert_eq!((named("identify").parent.as_str(), named("identify").kind), (request.id.as_str(), 1));

    let chat = named("chat scripted");
    assert_eq!(chat.parent, request.id);
    let usage = &answer.json()["usage"];
    assert_eq!(chat.attribute("gen_ai.usage.output_tokens"), usage["completion_tokens"].to_string());
    assert_eq!(chat.attribute("gen_ai.usage.input_tokens"), usage["prompt_tokens"].to_string());
    assert_eq!(chat.attribute("gen_ai.response.finish_reasons"), "stop");
    assert_eq!((chat.attribute("gen_ai.request.temperature"), chat.attribute("gen_ai.request.model")), ("0.5", "scripted"));
    for stage in ["admit", "compose", "screen", "encode", "queue", "prefill", "decode"] {
        assert_eq!(named(stage).parent, chat.id, "{stage}");
        assert!(named(stage).start_ns <= named(stage).end_ns, "{stage}");
    }
    for order in [["admit", "screen"], ["screen", "queue"], ["queue", "prefill"], ["prefill", "decode"]] {
        assert!(named(order[0]).start_ns <= named(order[1]).start_ns, "{order:?}");
    }
    let ids = spans.iter().map(|span| &span.id).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids.len(), spans.len(), "an id is there twice");

    // What went wrong is said, and what was a stranger's is not.
    let refused = gateway.client.with_key("tg-canary-key").get("/canary-path").await;
    let own = refused.header("traceparent")[3..35].to_owned();
    let spans = collector.trace(&own).await;
    let request = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((request.name.as_str(), request.status, request.parent.as_str()), ("GET", 0, ""));
    assert_eq!((request.attribute("error.type"), request.attribute("http.response.status_code")), ("unauthenticated", "401"));
    for (_, body) in collector.kept.lock().unwrap().iter() {
        assert!(!String::from_utf8_lossy(body).contains("canary"), "{:?}", String::from_utf8_lossy(body));
    }
    assert!(counted(&gateway, "exported").await >= 10);
    assert_eq!((counted(&gateway, "failed").await, counted(&gateway, "dropped").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_decides_only_where_it_is_followed() {
    let collector = Collector::start(Manner::Takes, None).await;
    let endpoint = format!("endpoint = \"http://127.0.0.1:{}\"\nsampling = 0\n", collector.port);
    let unmoved = place(&endpoint);
    let mut gateway = unmoved.start().await;
    let answer = traced_chat(&gateway, "say a", Value::Null).await;
    assert!(answer.header("traceparent").ends_with("-00"), "{}", answer.header("traceparent"));
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    assert_eq!(collector.spans().len(), 0);

    let following = place(&format!("{endpoint}follow_parent = true\n"));
    let mut gateway = following.start().await;
    assert!(traced_chat(&gateway, "say a", Value::Null).await.header("traceparent").ends_with("-01"));
    gateway.client.get("/v1/models").await;
    // What waits is sent at the end.
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    let spans = collector.spans();
    assert!(spans.len() >= 9 && spans.iter().all(|span| CALLER.contains(&span.trace)), "{spans:#?}");
}

/// By TLS, to a collector that wants a key and is busy at first.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_may_want_tls_and_a_key() {
    let place = place("");
    let mut gateway = place.start().await;
    gateway.signal("TERM");
    gateway.ended().await;
    let directory = place.data().join("tls");
    let collector = Collector::start(Manner::FirstBusy, Some(&directory)).await;
    place.write("otlp.headers", "# for the collector\nauthorization: Bearer canary-collector\n");
    let (port, ca) = (collector.port, directory.join("ca.pem"));
    let settings = format!("endpoint = \"https://localhost:{port}\"\nca = {ca:?}\nheaders_file = \"otlp.headers\"\n");
    place.write("tollgate.toml", &format!("[telemetry]\ninterval_s = 1\n{settings}"));
    let gateway = place.start().await;
    traced_chat(&gateway, "say a", Value::Null).await;
    until("the spans are there", async || !collector.spans().is_empty()).await;
    assert_eq!(collector.kept.lock().unwrap()[0].0["authorization"], "Bearer canary-collector");
    assert!(!place.log().contains("canary"));

    // One that it does not trust gets nothing.
    place.write("tollgate.toml", &format!("[telemetry]\ninterval_s = 1\n{}", settings.replace("ca.pem", "none.pem")));
    let log = place.start_fails().await;
    assert!(log.contains("none.pem"), "{log}");
}

/// What is answered has been taken, also where the connection ends with the answer: nothing is sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_may_close_with_each_answer() {
    let collector = Collector::start(Manner::Closes, None).await;
    let place = place(&format!("endpoint = \"http://127.0.0.1:{}\"\n", collector.port));
    let gateway = place.start().await;
    for number in 1..=3 {
        traced_chat(&gateway, "say a", Value::Null).await;
        until("the spans are there", async || collector.kept.lock().unwrap().len() >= number).await;
    }
    until("they are counted", async || counted(&gateway, "exported").await > 0).await;
    assert_eq!(counted(&gateway, "failed").await, 0);
    let kept = collector.kept.lock().unwrap();
    let bodies = kept.iter().map(|(_, body)| body).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(bodies.len(), kept.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_holds_up_nobody() {
    let collector = Collector::start(Manner::Hangs, None).await;
    let place = place(&format!("endpoint = \"http://127.0.0.1:{}\"\nqueue = 64\ntimeout_s = 60\n", collector.port));
    let mut gateway = place.start().await;
    until("spans are dropped", async || {
        for _ in 0..20 {
            assert_eq!(traced_chat(&gateway, "say a", Value::Null).await.status, StatusCode::OK);
        }
        *collector.asked.lock().unwrap() > 0 && counted(&gateway, "dropped").await > 0
    })
    .await;
    assert_eq!(counted(&gateway, "exported").await, 0);
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_is_said_once() {
    // Bound and not listening: nobody else takes the port, and connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let place = place(&format!("endpoint = \"http://{}\"\ntimeout_s = 1\n", socket.local_addr().unwrap()));
    let gateway = place.start().await;
    for batch in 0..2 {
        assert_eq!(traced_chat(&gateway, "say a", Value::Null).await.status, StatusCode::OK);
        let before = counted(&gateway, "failed").await;
        until("the batch is given up", async || counted(&gateway, "failed").await > before).await;
        let lines = place.log().lines().filter(|line| line.contains("traces cannot be exported")).count();
        assert_eq!(lines, 1, "after batch {batch}");
    }
    // To change it takes a restart, and a collector's key does not go over the network in the clear.
    place.write("tollgate.toml", "[telemetry]\nsampling = 0.5\n");
    let status = gateway.reload().await;
    assert!(status["needs_restart"].to_string().contains("[telemetry]"), "{status}");
}
