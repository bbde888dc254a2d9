//! A `tokenizer.json`, for any thread.

use std::collections::HashMap;

use tollgate_backend::{BackendError, Token, TokenKind, Tokenizer, Vocabulary};

use crate::words::Spelling;

/// Longer texts fill no context.
const MAX_TEXT_BYTES: usize = 64 << 20;
/// More words than any model has.
const MAX_WORDS: usize = 4 << 20;

/// What the rest of a folder says of its tokens.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    /// Words that the model knows; by default those of the tokenizer.
    pub(crate) words: Option<usize>,
    /// What a sequence may begin with.
    pub(crate) bos: Option<Named>,
    /// Whether it does; by default as the tokenizer's own template says.
    pub(crate) adds_bos: Option<bool>,
    /// What a sequence ends with.
    pub(crate) eos: Option<Named>,
    /// Whatever ends a reply.
    pub(crate) ends: Vec<Token>,
}

/// A token by its name or its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    Name(String),
    Id(Token),
}

/// The tokenizer of a Hugging Face folder.
pub struct HfTokenizer {
    /// Special tokens in the text become tokens.
    special: tokenizers::Tokenizer,
    /// They are text like any other. A copy, since the library has this as a setting of the whole tokenizer.
    plain: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    before: Vec<Token>,
    after: Vec<Token>,
}

impl HfTokenizer {
    pub(crate) fn new(json: &[u8], roles: Roles) -> Result<Self, BackendError> {
        let load = |error: tokenizers::Error| BackendError::Load(format!("tokenizer.json cannot be used: {error}"));
        let mut special = tokenizers::Tokenizer::from_bytes(json).map_err(load)?;
        // A text is neither cut nor filled up behind its caller's back.
        special.with_padding(None);
        special.with_truncation(None).map_err(load)?;
        special.set_encode_special_tokens(false);
        let mut plain = special.clone();
        plain.set_encode_special_tokens(true);
        let (before, after) = frame(&special).map_err(load)?;
        let vocabulary = read_vocabulary(&special, &before, roles)?;
        Ok(HfTokenizer { special, plain, vocabulary, before, after })
    }

    /// Tokens that the tokenizer's own template puts around a text (`[CLS]` and `[SEP]`, or a BOS).
    #[must_use]
    pub fn frame_tokens(&self) -> usize {
        self.before.len().saturating_add(self.after.len())
    }

    /// A text with what the template puts around it, for an encoder that reads `most` tokens of a text.
    ///
    /// # Errors
    /// It is longer, has a token that the model does not know, or nothing is left to be read.
    pub fn framed(&self, text: &[Token], most: usize) -> Result<Vec<Token>, BackendError> {
        if text.len() > most {
            return Err(BackendError::Tokenize(format!("it has {} tokens; the model reads {most}", text.len())));
        }
        let tokens: Vec<Token> = self.before.iter().chain(text).chain(&self.after).copied().collect();
        if tokens.is_empty() {
            return Err(BackendError::Tokenize("it has no tokens".to_owned()));
        }
        self.known(tokens)
    }

    fn known(&self, tokens: Vec<Token>) -> Result<Vec<Token>, BackendError> {
        let words = self.vocabulary.len();
        match tokens.iter().find(|token| usize::try_from(**token).map_or(true, |token| token >= words)) {
            Some(token) => Err(BackendError::Tokenize(format!("the model has no word for token {token}; it has {words} words"))),
            None => Ok(tokens),
        }
    }

    fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<Token>, BackendError> {
        let encoding = tokenizer.encode_fast(text, false).map_err(|error| BackendError::Tokenize(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A vocabulary may have a control token among its ordinary words, where no setting keeps a text from reaching it. Such a
    /// token is spelt out by its characters.
    fn spell_out(&self, text: &str, tokens: Vec<Token>) -> Result<Vec<Token>, BackendError> {
        // Each is looked for once, however often it is there.
        let mut controls: HashMap<Token, bool> = HashMap::new();
        for token in tokens.iter().filter(|token| self.vocabulary.kind(**token) == TokenKind::Control) {
            let name = || std::str::from_utf8(self.vocabulary.bytes(*token)).unwrap_or_default();
            controls.entry(*token).or_insert_with(|| !name().is_empty() && text.contains(name()));
        }
        let is_written = |token: Token| controls.get(&token).copied().unwrap_or(false);
        if !controls.values().any(|is_written| *is_written) {
            return Ok(tokens);
        }
        let mut spelt = Vec::with_capacity(tokens.len());
        for token in tokens {
            if !is_written(token) {
                spelt.push(token);
                continue;
            }
            for character in String::from_utf8_lossy(self.vocabulary.bytes(token)).chars() {
                let tokens = Self::encode(&self.plain, character.encode_utf8(&mut [0; 4]))?;
                spelt.extend(tokens.into_iter().filter(|token| self.vocabulary.kind(*token) != TokenKind::Control));
            }
        }
        Ok(spelt)
    }
}

/// What the template puts around a text.
fn frame(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<Token>, Vec<Token>)> {
    let (bare, framed) = (tokenizer.encode_fast("a", false)?, tokenizer.encode_fast("a", true)?);
    let (bare, framed) = (bare.get_ids(), framed.get_ids());
    if bare.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let at = framed.windows(bare.len()).position(|part| part == bare);
    let around = at.map(|at| {
        let before: Vec<Token> = framed.iter().take(at).copied().collect();
        let after: Vec<Token> = framed.iter().skip(at.saturating_add(bare.len())).copied().collect();
        (before, after)
    });
    Ok(around.unwrap_or_default())
}

fn read_vocabulary(tokenizer: &tokenizers::Tokenizer, before: &[Token], roles: Roles) -> Result<Vocabulary, BackendError> {
    let highest = tokenizer.get_vocab(true).values().copied().max();
    let own = highest.and_then(|id| usize::try_from(id).ok()).map_or(0, |id| id.saturating_add(1));
    let count = roles.words.unwrap_or(own);
    if !(1..=MAX_WORDS).contains(&count) {
        return Err(BackendError::Load(format!("tokenizer.json has {count} words, and 1 to {MAX_WORDS} are possible")));
    }
    let parts = [
        serde_json::to_string(&tokenizer.get_normalizer()),
        serde_json::to_string(&tokenizer.get_pre_tokenizer()),
        serde_json::to_string(&tokenizer.get_decoder()),
    ];
    let spelling = Spelling::find(&parts.into_iter().flatten().collect::<String>());
    let added = tokenizer.get_added_tokens_decoder();
    let words = (0..count).map(|id| {
        let id = Token::try_from(id).unwrap_or(Token::MAX);
        if let Some(word) = added.get(&id) {
            let kind = if word.special { TokenKind::Control } else { TokenKind::Text };
            return (word.content.clone().into_bytes(), kind);
        }
        match tokenizer.id_to_token(id) {
            Some(word) => (spelling.bytes(&word), TokenKind::Text),
            // A model may have more rows than its tokenizer has words.
            None => (Vec::new(), TokenKind::Unused),
        }
    });
    let find = |named: Named| match named {
        Named::Name(name) => tokenizer.token_to_id(&name),
        Named::Id(id) => Some(id),
    };
    let is_known = |id: &Token| usize::try_from(*id).is_ok_and(|id| id < count);
    let eos = roles.eos.and_then(find).or_else(|| roles.ends.first().copied()).filter(is_known);
    let mut ends: Vec<Token> = roles.ends.into_iter().chain(eos).filter(is_known).collect();
    ends.sort_unstable();
    ends.dedup();
    let bos = roles.bos.and_then(find).filter(is_known);
    let adds_bos = roles.adds_bos.unwrap_or_else(|| bos.is_some() && before.first() == bos.as_ref());
    Ok(Vocabulary::new(words, ends, bos.filter(|_| adds_bos), eos))
}

impl Tokenizer for HfTokenizer {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn tokenize(&self, text: &str, parse_special: bool) -> Result<Vec<Token>, BackendError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(BackendError::Tokenize(format!("it has {} bytes; {MAX_TEXT_BYTES} at most", text.len())));
        }
        let tokens = if parse_special {
            Self::encode(&self.special, text)?
        } else {
            self.spell_out(text, Self::encode(&self.plain, text)?)?
        };
        self.known(tokens)
    }
}
