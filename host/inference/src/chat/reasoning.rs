//! Where a model thinks aloud: between two tokens of its own.
//!
//! Only for models that have a token for each; a tag that is spelled out over several tokens is text.

use tollgate_backend::{Token, Vocabulary};

/// How many of the last tokens of a prompt are looked at: a template that opens a thought does so at the very end.
const TAIL: usize = 8;

/// The tokens that open and close a thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReasoningTokens {
    /// `<think>`
    pub(crate) open: Token,
    /// `</think>`
    pub(crate) close: Token,
}

impl ReasoningTokens {
    /// Finds them in a vocabulary.
    pub(crate) fn find(vocabulary: &Vocabulary) -> Option<Self> {
        let size = Token::try_from(vocabulary.len()).unwrap_or(Token::MAX);
        let token = |name: &[u8]| (0..size).find(|token| vocabulary.bytes(*token) == name);
        Some(ReasoningTokens { open: token(b"<think>")?, close: token(b"</think>")? })
    }

    /// Whether a prompt ends within a thought.
    pub(crate) fn is_open_after(&self, prompt: &[Token]) -> bool {
        let tail = prompt.get(prompt.len().saturating_sub(TAIL)..).unwrap_or_default();
        tail.iter().rev().find(|token| [self.open, self.close].contains(token)) == Some(&self.open)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_backend::TokenKind;

    use super::*;

    #[test]
    fn both_tokens_or_none() {
        let words = |names: &[&'static str]| {
            let words: Vec<_> = names.iter().map(|name| (*name, TokenKind::Text)).collect();
            Vocabulary::new(words, vec![], None, None)
        };
        assert_eq!(ReasoningTokens::find(&words(&["a", "<think>"])), None);
        let found = ReasoningTokens::find(&words(&["a", "<think>", "</think>"]));
        assert_eq!(found, Some(ReasoningTokens { open: 1, close: 2 }));
    }

    #[test]
    fn only_the_end_of_a_prompt_opens_a_thought() {
        let tokens = ReasoningTokens { open: 1, close: 2 };
        assert!(tokens.is_open_after(&[0, 0, 1, 0]));
        assert!(!tokens.is_open_after(&[0, 1, 0, 2, 0]));
        assert!(!tokens.is_open_after(&[1, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!tokens.is_open_after(&[]));
    }
}
