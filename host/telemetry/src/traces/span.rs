//! A span as it is sent.

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) trace: u128,
    pub(super) id: u64,
    /// 0: it has none.
    pub(super) parent: u64,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Nanoseconds since 1970.
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) is_error: bool,
}

/// On which side of a call it is (OTLP's `SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// On none.
    #[default]
    Internal,
    /// It answers.
    Server,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}
