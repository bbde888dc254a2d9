//! What a model wants around a text, and around a query and a document.

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use tollgate_backend::{BackendError, Token, Tokenizer};

/// Where the file has a template for pairs. llama-cpp-2's `chat_template` reads a name that it has freed, so it is not asked.
const TEMPLATE: &str = "tokenizer.chat_template.rerank";
const QUERY: &str = "{query}";
const DOCUMENT: &str = "{document}";

/// Whether the vocabulary is BERT's. llama-cpp-2's `vocab_type` panics at it: it numbers the types otherwise than llama.cpp.
fn is_word_piece(model: &LlamaModel) -> bool {
    model.meta_val_str("tokenizer.ggml.model").is_ok_and(|name| name == "bert")
}

/// What stands before a text and after it.
pub(super) struct Frame {
    before: Vec<Token>,
    after: Vec<Token>,
}

impl Frame {
    /// As llama.cpp puts it there by itself.
    pub(super) fn of(model: &LlamaModel) -> Self {
        let vocab = model.vocab();
        // llama.cpp frames BERT's texts whatever the file says of it.
        let is_framed = is_word_piece(model);
        let end = if is_framed { known(vocab.sep()) } else { known(vocab.eos()).filter(|_| vocab.should_add_eos()) };
        let begin = known(vocab.bos()).filter(|_| is_framed || vocab.should_add_bos());
        Frame { before: begin.into_iter().collect(), after: end.into_iter().collect() }
    }

    /// How many they are.
    pub(super) fn tokens(&self) -> usize {
        self.before.len() + self.after.len()
    }

    pub(super) fn around(&self, text: &[Token]) -> Vec<Token> {
        [self.before.as_slice(), text, self.after.as_slice()].concat()
    }
}

/// What stands before a query, between it and a document, and after that.
pub(super) struct Pair {
    before: Vec<Token>,
    between: Vec<Token>,
    after: Vec<Token>,
}

impl Pair {
    /// The model's own template if it has one, else as llama-server does it by the vocabulary.
    pub(super) fn of(model: &LlamaModel, tokenizer: &dyn Tokenizer) -> Result<Self, BackendError> {
        if let Ok(template) = model.meta_val_str(TEMPLATE) {
            return Self::from_template(&template, tokenizer);
        }
        let vocab = model.vocab();
        let Frame { before, after } = Frame::of(model);
        let separator = known(vocab.sep());
        if is_word_piece(model) {
            // BERT was trained on one separator after each of the two.
            return Ok(Pair { before, between: after.clone(), after });
        }
        let end = known(vocab.eos()).or(separator).filter(|_| vocab.should_add_eos());
        let separator = separator.filter(|_| vocab.should_add_sep());
        Ok(Pair { before, between: end.into_iter().chain(separator).collect(), after: end.into_iter().collect() })
    }

    /// The texts are tokenized apart from what is around them, so that nothing in them can become a part of that.
    fn from_template(template: &str, tokenizer: &dyn Tokenizer) -> Result<Self, BackendError> {
        let parts = template.split_once(QUERY).and_then(|(before, rest)| {
            let (between, after) = rest.split_once(DOCUMENT)?;
            Some([before, between, after])
        });
        let Some([before, between, after]) = parts else {
            let what = format!("its template for ranking (`{TEMPLATE}`) does not have {QUERY} and {DOCUMENT} in this order");
            return Err(BackendError::Load(what));
        };
        let tokens = |text: &str| if text.is_empty() { Ok(Vec::new()) } else { tokenizer.tokenize(text, true) };
        Ok(Pair { before: tokens(before)?, between: tokens(between)?, after: tokens(after)? })
    }

    /// How many they are.
    pub(super) fn tokens(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }

    pub(super) fn around(&self, query: &[Token], document: &[Token]) -> Vec<Token> {
        [self.before.as_slice(), query, self.between.as_slice(), document, self.after.as_slice()].concat()
    }
}

/// A token that the vocabulary has; llama.cpp's is negative where it has none.
fn known(token: LlamaToken) -> Option<Token> {
    Token::try_from(token.0).ok()
}
