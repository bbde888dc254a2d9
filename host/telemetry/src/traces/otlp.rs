//! OTLP 1.x: spans as the protobuf message `ExportTraceServiceRequest`. Only the fields that this gateway has are written.
//!
//! Field numbers are those of `opentelemetry/proto/trace/v1/trace.proto` and its neighbours; the test compares with what the
//! official Python package makes of the same spans.

use super::span::{Kind, Span, Value};

/// The instrumentation scope of all spans.
const SCOPE: &str = "tollgate";

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// A message that is being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

/// The body of an export: `spans` of the process that `resource` describes.
pub(super) fn export(resource: &[(&'static str, Value)], version: &str, spans: &[Span]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |message| attributes(message, 1, resource));
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.text(1, SCOPE);
                scope.text(2, version);
            });
            for span in spans {
                scope_spans.message(2, |message| self::span(message, span));
            }
        });
    });
    request.0
}

fn span(message: &mut Message, span: &Span) {
    message.bytes(1, &span.trace.to_be_bytes());
    message.bytes(2, &span.id.to_be_bytes());
    if span.parent != 0 {
        message.bytes(4, &span.parent.to_be_bytes());
    }
    message.text(5, &span.name);
    message.varint(
        6,
        match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
        },
    );
    message.fixed64(7, span.start_ns);
    message.fixed64(8, span.end_ns);
    attributes(message, 9, &span.attributes);
    if span.is_error {
        message.message(15, |status| status.varint(3, 2));
    }
}

fn attributes(message: &mut Message, field: u64, attributes: &[(&'static str, Value)]) {
    for (key, value) in attributes {
        message.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| self::value(any, value));
        });
    }
}

/// A member of a `oneof` is written even if it is zero.
fn value(any: &mut Message, value: &Value) {
    match value {
        Value::Text(text) => any.text(1, text),
        Value::Bool(is_so) => any.varint(2, u64::from(*is_so)),
        Value::Int(number) => any.varint(3, number.cast_unsigned()),
        Value::Float(number) => any.fixed64(4, number.to_bits()),
        Value::Texts(texts) => any.message(5, |array| {
            for text in texts {
                array.message(1, |any| any.text(1, text));
            }
        }),
    }
}

impl Message {
    fn varint(&mut self, field: u64, number: u64) {
        self.tag(field, VARINT);
        self.raw(number);
    }

    fn fixed64(&mut self, field: u64, bits: u64) {
        self.tag(field, FIXED64);
        self.0.extend(bits.to_le_bytes());
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.raw(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend(bytes);
    }

    /// A message within this one.
    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn tag(&mut self, field: u64, wire: u64) {
        self.raw(field << 3 | wire);
    }

    /// Seven bits a byte, the lowest first; all but the last byte have the highest bit set.
    fn raw(&mut self, number: u64) {
        let mut rest = number;
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same spans, serialized by the Python package opentelemetry-proto 1.45.2.
    const OFFICIAL: &str = concat!(
        "0afe010a1c0a1a0a0c736572766963652e6e616d65120a0a08746f6c6c6761746512dd010a0d0a08746f6c6c67617465120131128d010a10",
        "4bf92f3577b34da6a3ce929d0e0e4736120800f067aa0ba902b7220800000000000000012a0663686174206d30023900002a36fe9c971741",
        "0065f753fe9c97174a090a016112040a02c3a94a070a0162120210014a100a0163120b18fdffffffffffffffff014a0e0a01641209210000",
        "00000000e03f4a0f0a0165120a2a080a060a0473746f707a021802123c0a100000000000000000000000000000000f120800000000000000",
        "0e2a017830013901000000000000004102000000000000004a070a016612021000",
    );

    #[test]
    fn spans_are_written_as_others_write_them() {
        let text = |text: &str| Value::Text(text.to_owned());
        let chat = Span {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            id: 0x00f0_67aa_0ba9_02b7,
            parent: 1,
            name: "chat m".to_owned(),
            kind: Kind::Server,
            start_ns: 1_700_000_000_000_000_000,
            end_ns: 1_700_000_000_500_000_000,
            attributes: vec![
                ("a", text("é")),
                ("b", Value::Bool(true)),
                ("c", Value::Int(-3)),
                ("d", Value::Float(0.5)),
                ("e", Value::Texts(vec!["stop".to_owned()])),
            ],
            is_error: true,
        };
        let other = Span {
            trace: 15,
            id: 14,
            parent: 0,
            name: "x".to_owned(),
            kind: Kind::Internal,
            start_ns: 1,
            end_ns: 2,
            attributes: vec![("f", Value::Bool(false))],
            is_error: false,
        };
        let written = export(&[("service.name", text("tollgate"))], "1", &[chat, other]);
        let hex = written.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex, OFFICIAL);
    }
}
