//! Request ids, and W3C trace context in and out.

use std::fmt;

/// A new request id: UUID version 7 (RFC 9562), so that ids sort by time.
#[must_use]
pub fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// `traceparent` of W3C Trace Context, level 1: which trace a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace: u128,
    pub(crate) parent: u64,
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// Reads the header's value. Anything that the specification does not allow is `None`: the trace then begins here.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let mut parts = header.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2];
        if !lengths || ![version, trace, parent, flags].into_iter().all(is_hex) || version == "ff" {
            return None;
        }
        // A later version may have more parts; version 00 has none.
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let parent = u64::from_str_radix(parent, 16).ok().filter(|parent| *parent != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(TraceContext { trace, parent, sampled })
    }

    /// A trace that begins here.
    ///
    /// # Errors
    /// The machine gives no random numbers.
    pub fn begin() -> Result<Self, getrandom::Error> {
        let mut trace = [0; 16];
        getrandom::fill(&mut trace)?;
        Ok(TraceContext { trace: u128::from_be_bytes(trace).max(1), parent: getrandom::u64()?.max(1), sampled: false })
    }

    /// The same trace with a span of its own.
    ///
    /// # Errors
    /// The machine gives no random numbers.
    pub fn child(self) -> Result<Self, getrandom::Error> {
        Ok(TraceContext { parent: getrandom::u64()?.max(1), ..self })
    }

    /// The trace's id, 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(header).expect("valid");
        assert_eq!(context.to_string(), header);
        let child = context.child().expect("random numbers");
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child.to_string(), header);
    }

    #[test]
    fn what_is_not_allowed_begins_a_new_trace() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
