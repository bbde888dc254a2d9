//! How likely a model held what it said.

/// A token of a reply with its log-probability, and the likeliest tokens in its place. In one piece of memory each, since a reply
/// may have thousands of them.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The reply's own token first, then the likeliest: the log-probability of each, and where its bytes end.
    tokens: Vec<(f32, u32)>,
    bytes: Vec<u8>,
}

impl TokenLogprobs {
    /// The reply's own token; `likeliest` is for how many more there is to be room.
    #[must_use]
    pub fn new(bytes: &[u8], logprob: f32, likeliest: usize) -> Self {
        let mut token = TokenLogprobs { tokens: Vec::with_capacity(likeliest.saturating_add(1)), bytes: Vec::new() };
        token.push(bytes, logprob);
        token
    }

    /// Appends to the likeliest tokens in its place.
    pub fn push(&mut self, bytes: &[u8], logprob: f32) {
        self.bytes.extend_from_slice(bytes);
        self.tokens.push((logprob, u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)));
    }

    /// The reply's own token: its bytes, which may be a part of a character, and its natural logarithm of a probability.
    #[must_use]
    pub fn own(&self) -> (&[u8], f32) {
        self.all().next().unwrap_or((&[], 0.0))
    }

    /// The likeliest tokens in its place, the likeliest first; the own token is among them only if it is one of those.
    pub fn likeliest(&self) -> impl ExactSizeIterator<Item = (&[u8], f32)> {
        self.all().skip(1)
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.tokens.len().saturating_mul(size_of::<(f32, u32)>()))
            .saturating_add(self.bytes.len())
    }

    fn all(&self) -> impl ExactSizeIterator<Item = (&[u8], f32)> {
        let mut start = 0;
        self.tokens.iter().map(move |&(logprob, end)| {
            let end = usize::try_from(end).unwrap_or(usize::MAX);
            let bytes = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            (bytes, logprob)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_bytes_and_their_order() {
        let mut token = TokenLogprobs::new(b"a", -1.0, 2);
        assert_eq!((token.own(), token.likeliest().len()), ((&b"a"[..], -1.0), 0));
        token.push(b"\xf0\x9f", -0.5);
        token.push(b"", -2.0);
        assert_eq!(token.own(), (&b"a"[..], -1.0));
        assert_eq!(token.likeliest().collect::<Vec<_>>(), [(&b"\xf0\x9f"[..], -0.5), (&b""[..], -2.0)]);
    }
}
