//! The words of a model.

/// A token: its index in the vocabulary.
pub type Token = u32;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text, or bytes of it.
    Text,
    /// Structure: never shown.
    Control,
    /// Not used by the model.
    Unused,
}

/// Every token's bytes and kind. A character of several bytes may be spread over several tokens.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    end_of_generation: Vec<Token>,
    bos: Option<Token>,
    eos: Option<Token>,
}

impl Vocabulary {
    /// Builds a vocabulary from each token's bytes and kind in order. `end_of_generation` are the tokens that end a reply.
    ///
    /// # Panics
    /// If all tokens together have more than 4 GiB.
    pub fn new<B: AsRef<[u8]>>(
        words: impl IntoIterator<Item = (B, TokenKind)>,
        end_of_generation: Vec<Token>,
        bos: Option<Token>,
        eos: Option<Token>,
    ) -> Self {
        let (mut bytes, mut ends, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for (word, kind) in words {
            bytes.extend_from_slice(word.as_ref());
            ends.push(u32::try_from(bytes.len()).expect("a vocabulary has less than 4 GiB of text"));
            kinds.push(kind);
        }
        Vocabulary { bytes, ends, kinds, end_of_generation, bos, eos }
    }

    /// How many words there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// A token's bytes; for a control token its name as written. Empty for a token that does not exist.
    #[must_use]
    pub fn bytes(&self, token: Token) -> &[u8] {
        let at = token as usize;
        let end = self.ends.get(at).copied().unwrap_or(0) as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0) as usize;
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// What a token is for.
    #[must_use]
    pub fn kind(&self, token: Token) -> TokenKind {
        self.kinds.get(token as usize).copied().unwrap_or(TokenKind::Unused)
    }

    /// Whether a token ends a reply.
    #[must_use]
    pub fn ends_generation(&self, token: Token) -> bool {
        self.end_of_generation.contains(&token)
    }

    /// The tokens that end a reply.
    #[must_use]
    pub fn end_of_generation(&self) -> &[Token] {
        &self.end_of_generation
    }

    /// What a sequence begins with, where the model wants that.
    #[must_use]
    pub fn bos(&self) -> Option<Token> {
        self.bos
    }

    /// What a sequence ends with.
    #[must_use]
    pub fn eos(&self) -> Option<Token> {
        self.eos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_bytes_and_kinds() {
        let words = [("a", TokenKind::Text), ("", TokenKind::Unused), ("<|end|>", TokenKind::Control)];
        let vocabulary = Vocabulary::new(words, vec![2], None, Some(2));
        assert_eq!(vocabulary.len(), 3);
        assert_eq!(vocabulary.bytes(0), b"a");
        assert_eq!(vocabulary.bytes(1), b"");
        assert_eq!(vocabulary.bytes(2), b"<|end|>");
        assert_eq!(vocabulary.bytes(3), b"");
        assert_eq!(vocabulary.kind(3), TokenKind::Unused);
        assert!(vocabulary.ends_generation(2) && !vocabulary.ends_generation(0));
    }
}
