//! llama.cpp's vocabulary and tokenizer, for any thread.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use tollgate_backend::{BackendError, Token, TokenKind, Tokenizer, Vocabulary};

/// Longer texts would overflow llama.cpp's integers long after any context is full.
const MAX_TEXT_BYTES: usize = 256 << 20;

pub(crate) struct LlamaTokenizer {
    model: Arc<LlamaModel>,
    vocabulary: Vocabulary,
}

impl LlamaTokenizer {
    pub(crate) fn new(model: Arc<LlamaModel>) -> Self {
        let vocabulary = read_vocabulary(&model);
        LlamaTokenizer { model, vocabulary }
    }
}

fn read_vocabulary(model: &LlamaModel) -> Vocabulary {
    let vocab = model.vocab();
    let words = vocab.tokens().map(|token| {
        let attributes = vocab.attr(token).0;
        let kind = if vocab.is_control(token) {
            TokenKind::Control
        } else if attributes.contains(LlamaTokenAttr::Unused) {
            TokenKind::Unused
        } else {
            TokenKind::Text
        };
        (vocab.token_to_piece(token, true, None), kind)
    });
    let known = |token: LlamaToken| Token::try_from(token.0).ok();
    let end_of_generation = vocab.tokens().filter(|token| vocab.is_eog(*token)).filter_map(known).collect();
    let bos = vocab.should_add_bos().then(|| known(vocab.bos())).flatten();
    Vocabulary::new(words, end_of_generation, bos, known(vocab.eos()))
}

impl Tokenizer for LlamaTokenizer {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn tokenize(&self, text: &str, parse_special: bool) -> Result<Vec<Token>, BackendError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(BackendError::Tokenize(format!("it has {} bytes; {MAX_TEXT_BYTES} at most", text.len())));
        }
        let tokens = self.model.vocab().tokenize(text.as_bytes(), false, parse_special);
        Ok(tokens.into_iter().filter_map(|token| Token::try_from(token.0).ok()).collect())
    }
}
