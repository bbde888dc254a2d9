//! One reply: tokens in, pieces out.
//!
//! Bytes become characters, thoughts are told from text, stop strings are cut. It does not decide when a reply ends.

use std::collections::VecDeque;

use tollgate_backend::{Token, TokenKind, Vocabulary};
use tollgate_domain::{Piece, TokenLogprobs};

use crate::chat::ReasoningTokens;
use crate::stops::StopMatcher;
use crate::utf8::Utf8Assembler;

/// What one token adds to a reply.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Addition {
    /// To be shown now.
    pub(crate) piece: Option<Piece>,
    /// What is told of the tokens whose text that begins or goes on with.
    pub(crate) logprobs: Vec<TokenLogprobs>,
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
    told: Told,
}

/// What is told of tokens, until their text is shown: a token of which nothing is shown is not told of either.
#[derive(Debug, Clone, Default)]
struct Told {
    /// With the length of the text before each.
    waiting: VecDeque<(usize, TokenLogprobs)>,
    /// Bytes of text that came, thoughts apart.
    came: usize,
    /// Of these, those that were shown.
    shown: usize,
}

impl Told {
    /// What is told of the tokens that `text`, which is shown now, is of.
    fn release(&mut self, text: &str) -> Vec<TokenLogprobs> {
        self.shown = self.shown.saturating_add(text.len());
        let ready = self.waiting.iter().take_while(|(before, _)| *before < self.shown).count();
        self.waiting.drain(..ready).map(|(_, told)| told).collect()
    }
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
            told: Told::default(),
        }
    }

    /// Takes a token in. Control tokens are structure and show nothing.
    pub(crate) fn push(&mut self, token: Token, logprobs: Option<TokenLogprobs>, vocabulary: &Vocabulary) -> Addition {
        let border = self.reasoning.map(|reasoning| if self.is_thinking { reasoning.close } else { reasoning.open });
        if border == Some(token) {
            let addition = self.finish();
            self.is_thinking = !self.is_thinking;
            self.skips_space = true;
            return addition;
        }
        if vocabulary.kind(token) != TokenKind::Text {
            return Addition::default();
        }
        let mut text = String::new();
        self.utf8.push(vocabulary.bytes(token), &mut text);
        self.show(text, logprobs)
    }

    /// The reply ends here: what was held back is shown.
    pub(crate) fn finish(&mut self) -> Addition {
        let mut text = String::new();
        self.utf8.finish(&mut text);
        if self.is_thinking {
            return self.addition(text, None);
        }
        self.told.came = self.told.came.saturating_add(text.len());
        // A stop that the replacement character completes changes nothing: the reply ends anyway.
        let (mut shown, stop) = self.stops.push(text);
        if stop.is_none() {
            self.stops.finish(&mut shown);
        }
        self.addition(shown, None)
    }

    fn show(&mut self, mut text: String, logprobs: Option<TokenLogprobs>) -> Addition {
        if self.skips_space {
            let space = text.len() - text.trim_start().len();
            text.drain(..space);
            self.skips_space = text.is_empty();
        }
        // Stop strings are looked for in the text alone, and only its tokens are told of.
        if self.is_thinking {
            return self.addition(text, None);
        }
        if let Some(logprobs) = logprobs
            && !(text.is_empty() && self.utf8.is_empty())
        {
            self.told.waiting.push_back((self.told.came, logprobs));
        }
        self.told.came = self.told.came.saturating_add(text.len());
        let (shown, stop) = self.stops.push(text);
        self.addition(shown, stop)
    }

    fn addition(&mut self, text: String, stop: Option<String>) -> Addition {
        let logprobs = if self.is_thinking { Vec::new() } else { self.told.release(&text) };
        Addition { piece: self.piece(text), logprobs, stop }
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
            let addition = reply.push(token, None, &vocabulary);
            pieces.extend(addition.piece);
            if addition.stop.is_some() {
                return pieces;
            }
        }
        pieces.extend(reply.finish().piece);
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

    /// The text, and which of the tokens were told of.
    fn told(mut reply: Reply, tokens: &[&str]) -> (String, Vec<String>) {
        let kind = |word: &str| if word.starts_with('<') { TokenKind::Control } else { TokenKind::Text };
        let bytes = |word: &str| {
            word.strip_prefix('%').map_or(word.as_bytes().to_vec(), |hex| {
                hex.as_bytes()
                    .chunks(2)
                    .map(|two| u8::from_str_radix(std::str::from_utf8(two).expect("hex"), 16).expect("hex"))
                    .collect()
            })
        };
        let vocabulary = Vocabulary::new(tokens.iter().map(|word| (bytes(word), kind(word))), vec![], None, None);
        let (mut text, mut told) = (String::new(), Vec::new());
        let mut take = |addition: Addition| {
            assert!(addition.logprobs.is_empty() || addition.piece.is_some(), "what is told comes with text");
            text.push_str(addition.piece.as_ref().map_or("", Piece::as_str));
            let named = |told: &TokenLogprobs| tokens.iter().find(|word| bytes(word) == told.own().0).expect("a word");
            told.extend(addition.logprobs.iter().map(|told| (*named(told)).to_owned()));
            addition.stop.is_some()
        };
        for at in 0..tokens.len() {
            let token = Token::try_from(at).expect("few");
            let logprobs = TokenLogprobs::new(vocabulary.bytes(token), -1.0, 0);
            if take(reply.push(token, Some(logprobs), &vocabulary)) {
                return (text, told);
            }
        }
        take(reply.finish());
        (text, told)
    }

    #[test]
    fn tokens_are_told_of_when_their_text_is_shown() {
        let plain = || Reply::new(vec![], None, false);
        let stop = |stop: &str| Reply::new(vec![stop.to_owned()], None, false);
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(plain(), &["a", "<x>", "", "b"]), ("ab".to_owned(), words(&["a", "b"])));
        // A character in parts, then one that never becomes whole.
        assert_eq!(
            told(plain(), &["%f09f", "%98", "%80", "%f0"]),
            ("😀\u{fffd}".to_owned(), words(&["%f09f", "%98", "%80", "%f0"]))
        );
        // Of a stop nothing is told but the token that it begins in the middle of.
        assert_eq!(told(stop("END"), &["a", "bE", "N", "D", "c"]), ("ab".to_owned(), words(&["a", "bE"])));
        assert_eq!(told(stop("END"), &["a", "E", "ND"]), ("a".to_owned(), words(&["a"])));
        // What only looked like one is told when it is shown.
        assert_eq!(told(stop("END"), &["a", "E", "N"]), ("aEN".to_owned(), words(&["a", "E", "N"])));
    }

    #[test]
    fn nothing_is_told_of_thoughts_and_the_space_after_them() {
        let reasoning = Some(ReasoningTokens { open: 0, close: 2 });
        let (text, told) = told(Reply::new(vec![], reasoning, false), &["<think>", "hm", "</think>", "\n\n", "a", "b"]);
        assert_eq!((text.as_str(), told.join(" ").as_str()), ("hmab", "a b"));
    }
}
