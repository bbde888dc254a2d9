//! Requests over HTTP/1.1 that two readers may count differently. Each is followed by one more that is plain.
//!
//! What no reader may take for a request of its own asks for the model `evil`; the plain one at the end asks for `tail`.

/// How many answers a payload may have, the one to the plain request behind it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// It can be read in two ways: one refusal, and the connection is closed.
    Refused,
    /// It can be read in one way: so many answers.
    Served(usize),
    /// Its body may be left unread: an answer and a close, or both answers.
    OneOrTwo,
}

/// One conversation.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) expect: Expect,
}

use Expect::{OneOrTwo, Refused, Served};

/// The head of a request, with a good key, so that its answer names the model that it asks for.
pub(super) fn get(model: &str, key: &str, more: &str) -> String {
    format!("GET /v1/models/{model} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n{more}\r\n")
}

/// All of them. `key` is one that is valid.
pub(super) fn payloads(key: &str) -> Vec<Payload> {
    let evil = get("evil", key, "");
    let mut list = Vec::new();
    let auth = format!("host: localhost\r\nauthorization: Bearer {key}\r\n");
    let mut add = |name: String, head: &str, body: &[u8], expect| {
        let head = head.replace("{auth}", &auth).into_bytes();
        list.push(Payload { name, bytes: [&head, body, get("tail", key, "connection: close\r\n").as_bytes()].concat(), expect });
    };
    codings(&evil, &mut add);
    lengths(&evil, &mut add);
    chunks(&evil, &mut add);
    lines(&evil, &mut add);
    bodies_and_upgrades(&evil, &mut add);
    list
}

/// Takes a name, a head with `{auth}` for host and key, a body, and what to expect.
type Add<'a> = dyn FnMut(String, &str, &[u8], Expect) + 'a;

const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\n{auth}content-type: application/json\r\n";

/// Transfer-Encoding as one reader takes it for `chunked` and another does not.
const CODINGS: [&str; 36] = [
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: \u{c}chunked",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: identity",
    "Transfer-Encoding:",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: \u{0}chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding\r\n: chunked",
    "Transfer-Encoding: chunked\u{0}",
    "Transfer\u{0}-Encoding: chunked",
    "\u{ff}Transfer-Encoding: chunked",
    ": chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding",
];

/// CL.TE, TE.CL and TE.TE: the coding in all the ways that one reader knows and another does not.
fn codings(evil: &str, add: &mut Add<'_>) {
    for (at, field) in CODINGS.into_iter().enumerate() {
        let body = format!("0\r\n\r\n{evil}");
        let both = [format!("content-length: {}\r\n{field}", body.len()), format!("{field}\r\ncontent-length: 5")];
        add(format!("CL.TE {field:?}"), &format!("{POST}{}\r\n\r\n", both[0]), body.as_bytes(), Refused);
        // Every other one is left out: the order of the two fields matters to few readers.
        if at % 2 == 0 {
            add(format!("TE.CL {field:?}"), &format!("{POST}{}\r\n\r\n", both[1]), body.as_bytes(), Refused);
        }
    }
    // The coding itself is valid here; beside a length it never is.
    for field in [
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "TRANSFER-ENCODING: Chunked",
        "Transfer-Encoding:\tCHUNKED \t",
    ] {
        let body = format!("0\r\n\r\n{evil}");
        add(
            format!("CL.TE {field:?}"),
            &format!("{POST}content-length: {}\r\n{field}\r\n\r\n", body.len()),
            body.as_bytes(),
            Refused,
        );
        add(format!("TE.CL {field:?}"), &format!("{POST}{field}\r\ncontent-length: 3\r\n\r\n"), body.as_bytes(), Refused);
        add(format!("TE {field:?}"), &format!("{POST}{field}\r\n\r\n"), b"2\r\n{}\r\n0\r\n\r\n", Served(2));
    }
    // Names that are another field's: the length counts.
    for field in [
        "Transfer_Encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "Transfer-Encodin: chunked",
        "Transfer-Encoding-X: chunked",
    ] {
        let body = format!("0\r\n\r\n{evil}");
        add(
            format!("no coding {field:?}"),
            &format!("{POST}content-length: {}\r\n{field}\r\n\r\n", body.len()),
            body.as_bytes(),
            Served(2),
        );
    }
    let old = "POST /v1/chat/completions HTTP/1.0\r\n{auth}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    add("coding on HTTP/1.0".to_owned(), old, format!("0\r\n\r\n{evil}").as_bytes(), Refused);
}

/// Content-Length in all the ways that it can be read as another number, or twice.
fn lengths(evil: &str, add: &mut Add<'_>) {
    let long = evil.len();
    let bad = [
        format!("content-length: 0\r\ncontent-length: {long}"),
        format!("content-length: {long}\r\ncontent-length: 0"),
        format!("content-length: {long}\r\nContent-Length: {long}"),
        format!("content-length: {long}, {long}"),
        format!("content-length: 0, {long}"),
        format!("content-length: +{long}"),
        format!("content-length: -{long}"),
        format!("content-length: 0x{long:x}"),
        format!("content-length: {long}.0"),
        "content-length: 1e2".to_owned(),
        "content-length: 1_0".to_owned(),
        "content-length: 1 0".to_owned(),
        "content-length:".to_owned(),
        "content-length: \u{b}0".to_owned(),
        "content-length: 0\u{0}".to_owned(),
        "content-length: \u{665}".to_owned(),
        "content-length: 18446744073709551616".to_owned(),
        "content-length: 99999999999999999999999999".to_owned(),
        format!("content-length : {long}"),
        format!("content-length\t: {long}"),
        format!(" content-length: {long}"),
        format!("content-length:\r\n {long}"),
        format!("x: y\r\n content-length: {long}"),
        format!("x: y\ncontent-length: {long}"),
        format!("x: y\rcontent-length: {long}"),
        format!("content-length;x: {long}"),
        format!("content\u{0}-length: {long}"),
        format!("content-length: {long};x"),
        format!("content-length: \"{long}\""),
        format!("content-length {long}"),
    ];
    for field in bad {
        add(format!("CL {field:?}"), &format!("{POST}{field}\r\n\r\n"), evil.as_bytes(), Refused);
    }
    for field in [format!("content-length: {long}"), format!("Content-Length:  {long} \t"), format!("content-length: 000{long}")]
    {
        add(format!("CL {field:?}"), &format!("{POST}{field}\r\n\r\n"), evil.as_bytes(), Served(2));
    }
    let underscore = format!("{POST}content_length: {long}\r\ncontent-length: 2\r\n\r\n");
    add("no length \"content_length\"".to_owned(), &underscore, b"{}", Served(2));
}

/// Chunked bodies that end elsewhere for another reader.
fn chunks(evil: &str, add: &mut Add<'_>) {
    let size = evil.len();
    let head = format!("{POST}transfer-encoding: chunked\r\n\r\n");
    // Their head is good, so that the one answer is the refusal of the body.
    let bad = [
        "2\n{}\r\n0\r\n\r\n".to_owned(),
        "2\r\n{}\n0\r\n\r\n".to_owned(),
        "2\r\n{}\r\n0\n\n".to_owned(),
        "2\r\n{}\r\n0\r\n\n".to_owned(),
        "2\r\n{}0\r\n\r\n".to_owned(),
        "2\r\n{}xx0\r\n\r\n".to_owned(),
        "2\r\n{}\r\r\n0\r\n\r\n".to_owned(),
        "1\r\n{}\r\n0\r\n\r\n".to_owned(),
        "0x2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "+2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "-2\r\n{}\r\n0\r\n\r\n".to_owned(),
        " 2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "2 \r\n{}\r\n0\r\n\r\n".to_owned(),
        "2\t\r\n{}\r\n0\r\n\r\n".to_owned(),
        "\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "2h\r\n{}\r\n0\r\n\r\n".to_owned(),
        "g\r\n{}\r\n0\r\n\r\n".to_owned(),
        ";a\r\n{}\r\n0\r\n\r\n".to_owned(),
        "2\u{0}\r\n{}\r\n0\r\n\r\n".to_owned(),
        format!("2;a\n{size:x}\r\n{{}}\r\n0\r\n\r\n{evil}"),
        format!("2;a\r{size:x}\r\n{{}}\r\n0\r\n\r\n{evil}"),
        format!("2;\u{0}\r\n{{}}\r\n0\r\n\r\n{evil}"),
        format!("10000000000000002\r\n{{}}\r\n0\r\n\r\n{evil}"),
        format!("fffffffffffffffe\r\n{{}}\r\n0\r\n\r\n{evil}"),
        format!("0\r\n transfer-encoding: chunked\r\n\r\n{evil}"),
        format!("0\r\nx: y\n\r\n{evil}"),
        format!("0\r\nx: \u{0}\r\n\r\n{evil}"),
    ];
    for body in bad {
        add(format!("chunk {:?}", &body[..body.len().min(24)]), &head, body.as_bytes(), Expect::Served(1));
    }
    for body in [
        "2\r\n{}\r\n0\r\n\r\n",
        "02\r\n{}\r\n000\r\n\r\n",
        "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        "2;a=b;c=\"d\"\r\n{}\r\n0;e\r\n\r\n",
        "2\r\n{}\r\n0\r\nx-trailer: y\r\n\r\n",
        "2\r\n{}\r\n0\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nhost: other\r\n\r\n",
    ] {
        add(format!("chunk {body:?}"), &head, body.as_bytes(), Served(2));
    }
}

/// Request lines, hosts and line ends.
fn lines(evil: &str, add: &mut Add<'_>) {
    let bad = [
        "GET /v1/models/a\r\n{auth}\r\n",
        "GET /v1/models/a HTTP/1.2\r\n{auth}\r\n",
        "GET /v1/models/a HTTP/0.9\r\n{auth}\r\n",
        "GET /v1/models/a HTTP/1.1 HTTP/1.1\r\n{auth}\r\n",
        "GET /v1/models/a HTTP/1.1\n{auth}\r\n",
        "GET /v1/models/a\u{0} HTTP/1.1\r\n{auth}\r\n",
        "GET  /v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "GET\t/v1/models/a\tHTTP/1.1\r\n{auth}\r\n",
        " GET /v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "G\u{e9}T /v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "GET /v1/models/a#x HTTP/1.1\r\n{auth}\r\n",
        "GET v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "GET http://other/v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "GET * HTTP/1.1\r\n{auth}\r\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}host: other\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}host: localhost\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\nhost: other@localhost\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\nhost: localhost/evil\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\nhost: localhost, other\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\nhost:\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}nonsense\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}: empty\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}x: y\n\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}x: y\r\r\n\r\n",
        "GET /v1/models/a HTTP/1.1\r\n{auth}x\u{0}: y\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for head in bad {
        add(format!("line {:?}", head.replace("/v1/models/", "")), head, evil.as_bytes(), Refused);
    }
    for head in [
        "GET /v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "GET http://localhost/v1/models/a HTTP/1.1\r\n{auth}\r\n",
        "GET /v1/models/a?x=%0d%0aHost:%20evil HTTP/1.1\r\n{auth}\r\n",
        "GET /v1/models/a%0d%0a%0d%0aGET%20/ HTTP/1.1\r\n{auth}\r\n",
    ] {
        add(format!("line {:?}", head.replace("/v1/models/", "")), head, b"", Served(2));
    }
}

/// Bodies where none is wanted, upgrades that nobody asked for, and what waits for a word of the server's.
fn bodies_and_upgrades(evil: &str, add: &mut Add<'_>) {
    let size = evil.len();
    for (method, path) in [
        ("GET", "/v1/models"),
        ("GET", "/health"),
        ("DELETE", "/v1/models/a"),
        ("OPTIONS", "/v1/models"),
        ("POST", "/nowhere"),
        ("PUT", "/v1/chat/completions"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\n{{auth}}content-length: {size}\r\n\r\n");
        add(format!("body left on {method} {path}"), &head, evil.as_bytes(), OneOrTwo);
        let head = format!("{method} {path} HTTP/1.1\r\n{{auth}}transfer-encoding: chunked\r\n\r\n");
        let body = format!("{size:x}\r\n{evil}\r\n0\r\n\r\n");
        add(format!("chunks left on {method} {path}"), &head, body.as_bytes(), OneOrTwo);
    }
    let stranger = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n");
    add("a stranger's body".to_owned(), &stranger, evil.as_bytes(), OneOrTwo);
    let expects = format!("{POST}content-length: {size}\r\nexpect: 100-continue\r\n\r\n");
    add("expect 100-continue, body at once".to_owned(), &expects, evil.as_bytes(), OneOrTwo);
    for (name, fields) in [
        ("WebSocket", "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAA"),
        ("WebSocket of a wrong version", "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 777"),
        ("h2c", "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("upgrade without a connection", "upgrade: h2c"),
    ] {
        add(
            format!("early upgrade: {name}"),
            &format!("GET /v1/models HTTP/1.1\r\n{{auth}}{fields}\r\n\r\n"),
            evil.as_bytes(),
            Refused,
        );
    }
    add("CONNECT".to_owned(), "CONNECT localhost:443 HTTP/1.1\r\n{auth}\r\n", evil.as_bytes(), Refused);
}
