//! The vocabulary: every byte, a few longer words, and ChatML's control tokens.

use tollgate_backend::{BackendError, Token, TokenKind, Tokenizer, Vocabulary};

/// Words of more than one byte, so that texts and tokens do not line up; none begins with another.
const LONGER: [&str; 8] = ["the ", "and ", " is ", "ing ", "Tollgate", "You said: ", "é", "1 2"];

const IM_START: &str = "<|im_start|>";
const IM_END: &str = "<|im_end|>";
const CONTROLS: [&str; 5] = [IM_START, IM_END, "<|endoftext|>", "<think>", "</think>"];

const FIRST_LONGER: Token = 256;
const FIRST_CONTROL: Token = FIRST_LONGER + 8;

/// The token that ends a message.
pub(crate) const END: Token = FIRST_CONTROL + 1;
/// A thought begins.
pub(crate) const THINK: Token = FIRST_CONTROL + 3;
/// A thought ends.
pub(crate) const THOUGHT: Token = FIRST_CONTROL + 4;

/// ChatML.
pub(crate) const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                                   {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The tokenizer.
pub(crate) struct Words {
    vocabulary: Vocabulary,
}

impl Words {
    pub(crate) fn new() -> Self {
        let bytes = (0..=u8::MAX).map(|byte| (vec![byte], TokenKind::Text));
        let longer = LONGER.iter().map(|word| (word.as_bytes().to_vec(), TokenKind::Text));
        let controls = CONTROLS.iter().map(|name| (name.as_bytes().to_vec(), TokenKind::Control));
        let end_of_generation = vec![END, FIRST_CONTROL + 2];
        let vocabulary = Vocabulary::new(bytes.chain(longer).chain(controls), end_of_generation, None, Some(END));
        Words { vocabulary }
    }

    /// Whether a message begins with this token.
    pub(crate) fn begins_message(&self, token: Token) -> bool {
        token == FIRST_CONTROL
    }

    /// Text without control tokens.
    pub(crate) fn plain(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        split(text.as_bytes(), false, &mut tokens);
        tokens
    }

    /// The bytes of some tokens.
    pub(crate) fn bytes(&self, tokens: &[Token]) -> Vec<u8> {
        tokens.iter().flat_map(|token| self.vocabulary.bytes(*token)).copied().collect()
    }
}

impl Tokenizer for Words {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn tokenize(&self, text: &str, parse_special: bool) -> Result<Vec<Token>, BackendError> {
        let mut tokens = Vec::new();
        split(text.as_bytes(), parse_special, &mut tokens);
        Ok(tokens)
    }
}

/// The longest word that fits, each time.
fn split(mut text: &[u8], parse_special: bool, tokens: &mut Vec<Token>) {
    while let Some((&byte, after)) = text.split_first() {
        let control = if parse_special { find(&CONTROLS, FIRST_CONTROL, text) } else { None };
        let (token, rest) = control.or_else(|| find(&LONGER, FIRST_LONGER, text)).unwrap_or((Token::from(byte), after));
        tokens.push(token);
        text = rest;
    }
}

/// The word of `list` that `text` begins with, and what follows it.
fn find<'a>(list: &[&str], first: Token, text: &'a [u8]) -> Option<(Token, &'a [u8])> {
    (first..).zip(list).find_map(|(token, word)| text.strip_prefix(word.as_bytes()).map(|rest| (token, rest)))
}
