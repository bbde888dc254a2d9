//! Requests over HTTP/2 that become another request, or two, where somebody writes them down as HTTP/1.1.

use super::payloads::get;
use crate::verify::raw::{block, request};

/// One request on a fresh connection: nothing that follows from it may be more than one.
#[derive(Debug, Clone)]
pub(super) struct Downgrade {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// All of them. `key` is one that is valid.
pub(super) fn downgrades(key: &str) -> Vec<Downgrade> {
    let evil = get("evil", key, "");
    let bearer = format!("Bearer {key}");
    let plain: Fields<'_> = vec![
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/v1/chat/completions"),
        (b"authorization", bearer.as_bytes()),
        (b"content-type", b"application/json"),
    ];
    let mut list = Vec::new();
    let mut add = |name: &str, fields: &[(&[u8], &[u8])], body: Option<&[u8]>| {
        list.push(Downgrade { name: format!("h2 {name}"), bytes: request(&block(fields), body) });
    };
    add("plain", &plain, Some(b"{}"));
    for (name, field, value) in extra(&evil) {
        let more: (&[u8], &[u8]) = (&field, &value);
        add(&name, &[plain.as_slice(), &[more]].concat(), Some(evil.as_bytes()));
    }
    for (name, at, value) in pseudo(&evil) {
        let mut fields = plain.clone();
        fields[at].1 = &value;
        add(&name, &fields, Some(evil.as_bytes()));
    }
    for at in 0..4 {
        let name = String::from_utf8_lossy(plain[at].0).into_owned();
        add(&format!("{name} missing"), &[&plain[..at], &plain[at + 1..]].concat(), Some(b"{}"));
        add(&format!("{name} twice"), &[plain.as_slice(), &[plain[at]]].concat(), Some(b"{}"));
        add(&format!("{name} after a field"), &[&plain[..at], &plain[at + 1..], &[plain[at]]].concat(), Some(b"{}"));
    }
    add("a method of its own making", &[&[(&b":method"[..], &b"GET / HTTP/1.1"[..])][..], &plain[1..]].concat(), Some(b"{}"));
    add("an unknown pseudo field", &[&[(&b":evil"[..], &b"x"[..])][..], plain.as_slice()].concat(), Some(b"{}"));
    add("an answer's pseudo field", &[&[(&b":status"[..], &b"200"[..])][..], plain.as_slice()].concat(), Some(b"{}"));
    add("an extended CONNECT", &[&[(&b":protocol"[..], &b"websocket"[..])][..], plain.as_slice()].concat(), Some(b"{}"));
    list
}

/// Fields that have no place in HTTP/2, or that hold the end of a line.
fn extra(evil: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let size = evil.len().to_string();
    let lines = format!("x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{evil}");
    let split = format!("x\r\n\r\n{evil}");
    let fields: [(&[u8], &[u8]); 30] = [
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"te", b"chunked"),
        (b"connection", b"keep-alive"),
        (b"connection", b"transfer-encoding"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"0"),
        (b"content-length", b"1"),
        (b"content-length", b"9999"),
        (b"content-length", b"-1"),
        (b"content-length", b"0, 0"),
        (b"content-length", size.as_bytes()),
        (b"Content-Length", b"0"),
        (b"host", b"other"),
        (b"host", b"localhost"),
        (b"x", lines.as_bytes()),
        (b"x", split.as_bytes()),
        (b"x", b"y\nz: a"),
        (b"x", b"y\rz: a"),
        (b"x", b"y\0z"),
        (b"x", b" leading"),
        (b"x y", b"z"),
        (b"x: y\r\ntransfer-encoding", b"chunked"),
        (b"transfer-encoding: chunked\r\nx", b"y"),
        (b"x:", b"y"),
        (b"X", b"y"),
        (b"", b"y"),
        (b"\x80", b"y"),
    ];
    let named = fields.iter().map(|(name, value)| {
        let shown = String::from_utf8_lossy(&value[..value.len().min(24)]).into_owned();
        (format!("{:?}: {shown:?}", String::from_utf8_lossy(name)), name.to_vec(), value.to_vec())
    });
    named.collect()
}

/// Odd values of `:method` (0), `:scheme` (1), `:authority` (2) and `:path` (3).
fn pseudo(evil: &str) -> Vec<(String, usize, Vec<u8>)> {
    let split = format!("/ HTTP/1.1\r\nhost: localhost\r\n\r\n{evil}");
    let values: [(usize, &[u8]); 21] = [
        (0, b"POST /evil HTTP/1.1\r\nx: "),
        (0, b"post"),
        (0, b""),
        (0, b"CONNECT"),
        (1, b"https://other/x?"),
        (1, b"ftp"),
        (1, b""),
        (2, b"other@localhost"),
        (2, b"localhost\r\nx: y"),
        (2, b"localhost/evil"),
        (2, b"localhost:99999"),
        (2, b""),
        (3, split.as_bytes()),
        (3, b"/ HTTP/1.1"),
        (3, b"/\tx"),
        (3, b"/#fragment"),
        (3, b"v1/models"),
        (3, b""),
        (3, b"*"),
        (3, b"https://other/v1/models"),
        (3, b"/\0"),
    ];
    let names = [":method", ":scheme", ":authority", ":path"];
    let shown = |value: &[u8]| String::from_utf8_lossy(&value[..value.len().min(24)]).into_owned();
    values.iter().map(|(at, value)| (format!("{} {:?}", names[*at], shown(value)), *at, value.to_vec())).collect()
}
