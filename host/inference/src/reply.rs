//! One reply: tokens in, pieces out.
//!
//! Bytes become characters, thoughts are told from text, stop strings are cut. It does not decide when a reply ends.

use tollgate_backend::{Token, TokenKind, Vocabulary};
use tollgate_domain::Piece;

use crate::chat::ReasoningTokens;
use crate::stops::StopMatcher;
use crate::utf8::Utf8Assembler;

/// What one token adds to a reply.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Addition {
    /// To be shown now.
    pub(crate) piece: Option<Piece>,
    /// The stop string that the token completed.
    pub(crate) stop: Option<String>,
}

/// A reply in the making.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    utf8: Utf8Assembler,
    stops: StopMatcher,
    reasoning: Option<ReasoningTokens>,
    is_thinking: bool,
    /// After a thought: white space before the text is not part of it.
    skips_space: bool,
}

impl Reply {
    /// A reply that ends before any of `stops`, and that begins within a thought if the prompt opened one.
    pub(crate) fn new(stops: Vec<String>, reasoning: Option<ReasoningTokens>, is_thinking: bool) -> Self {
        Reply {
            utf8: Utf8Assembler::default(),
            stops: StopMatcher::new(stops),
            reasoning,
            is_thinking: is_thinking && reasoning.is_some(),
            skips_space: false,
        }
    }

    /// Takes a token in. Control tokens are structure and show nothing.
    pub(crate) fn push(&mut self, token: Token, vocabulary: &Vocabulary) -> Addition {
        let border = self.reasoning.map(|reasoning| if self.is_thinking { reasoning.close } else { reasoning.open });
        if border == Some(token) {
            let piece = self.finish();
            self.is_thinking = !self.is_thinking;
            self.skips_space = true;
            return Addition { piece, stop: None };
        }
        if vocabulary.kind(token) != TokenKind::Text {
            return Addition::default();
        }
        let mut text = String::new();
        self.utf8.push(vocabulary.bytes(token), &mut text);
        self.show(text)
    }

    /// The reply ends here: what was held back is shown.
    pub(crate) fn finish(&mut self) -> Option<Piece> {
        let mut text = String::new();
        self.utf8.finish(&mut text);
        if self.is_thinking {
            return self.piece(text);
        }
        let mut shown = String::new();
        // A stop that the replacement character completes changes nothing: the reply ends anyway.
        if self.stops.push(&text, &mut shown).is_none() {
            self.stops.finish(&mut shown);
        }
        self.piece(shown)
    }

    fn show(&mut self, mut text: String) -> Addition {
        if self.skips_space {
            let space = text.len() - text.trim_start().len();
            text.drain(..space);
            self.skips_space = text.is_empty();
        }
        // Stop strings are looked for in the text alone.
        if self.is_thinking {
            return Addition { piece: self.piece(text), stop: None };
        }
        let mut shown = String::new();
        let stop = self.stops.push(&text, &mut shown);
        Addition { piece: self.piece(shown), stop }
    }

    fn piece(&self, text: String) -> Option<Piece> {
        match (text.is_empty(), self.is_thinking) {
            (true, _) => None,
            (false, true) => Some(Piece::Reasoning(text)),
            (false, false) => Some(Piece::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [(&str, TokenKind); 8] = [
        ("Hello", TokenKind::Text),
        ("\n\n", TokenKind::Text),
        (" STOP", TokenKind::Text),
        (" ST", TokenKind::Text),
        ("<think>", TokenKind::Control),
        ("</think>", TokenKind::Control),
        ("<|end|>", TokenKind::Control),
        ("é", TokenKind::Text),
    ];
    const THOUGHTS: Option<ReasoningTokens> = Some(ReasoningTokens { open: 4, close: 5 });

    fn pieces(mut reply: Reply, tokens: &[Token]) -> Vec<Piece> {
        let vocabulary = Vocabulary::new(WORDS, vec![6], None, Some(6));
        let mut pieces = Vec::new();
        for &token in tokens {
            let addition = reply.push(token, &vocabulary);
            pieces.extend(addition.piece);
            if addition.stop.is_some() {
                return pieces;
            }
        }
        pieces.extend(reply.finish());
        pieces
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    #[test]
    fn thoughts_are_told_from_text() {
        let thought = Piece::Reasoning("Hello".into());
        let whole = pieces(Reply::new(vec![], THOUGHTS, false), &[4, 1, 0, 5, 1, 7]);
        assert_eq!(whole, [thought.clone(), text("é")]);
        let opened_by_the_prompt = pieces(Reply::new(vec![], THOUGHTS, true), &[0, 5, 0]);
        assert_eq!(opened_by_the_prompt, [thought, text("Hello")]);
    }

    #[test]
    fn control_tokens_show_nothing_and_white_space_is_kept_without_a_thought() {
        assert_eq!(pieces(Reply::new(vec![], None, false), &[1, 6, 4, 0]), [text("\n\n"), text("Hello")]);
    }

    #[test]
    fn stops_end_text_but_not_thoughts() {
        let stops = || vec!["STOP".to_owned()];
        assert_eq!(pieces(Reply::new(stops(), THOUGHTS, false), &[0, 2, 0]), [text("Hello"), text(" ")]);
        let thought = Piece::Reasoning("STOP".into());
        assert_eq!(pieces(Reply::new(stops(), THOUGHTS, false), &[4, 2, 5, 0]), [thought, text("Hello")]);
        assert_eq!(pieces(Reply::new(stops(), None, false), &[0, 3]), [text("Hello"), text(" "), text("ST")]);
    }
}
