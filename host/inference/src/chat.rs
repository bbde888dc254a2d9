//! The chat codec: a conversation to the tokens of a prompt, and a schema to a constraint.
//!
//! The model's own template lays the conversation out. What people write stays text: a message that spells out a control token
//! (`<|im_end|>`) goes through the template as a random number, and is put back after the template's own control tokens have been
//! read. It knows no dialect; which fields a request may have was decided before.

mod reasoning;
mod template;

use std::sync::Arc;

use tollgate_backend::{Backend, BackendError, Token, TokenKind, Tokenizer, Vocabulary};
use tollgate_domain::{ChatRequest, Content, Message};

pub(crate) use reasoning::ReasoningTokens;
pub use template::TemplateError;
use template::{MAX_OUTPUT, RenderError, Template, Turn};

use crate::constraint::{Constraint, SchemaError, Schemas};

/// Digits of a stand-in's number within the request.
const INDEX_DIGITS: usize = 6;

/// A conversation as the model reads it, and what its reply has to be.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub(crate) tokens: Vec<Token>,
    pub(crate) constraint: Option<Constraint>,
    /// Whether the template has opened a thought that the reply begins in.
    pub(crate) is_thinking: bool,
}

impl Prompt {
    /// How many tokens it has.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// Why a request cannot become a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The model's template refuses the conversation; the text is the template's.
    #[error("the model does not take this conversation: {0}")]
    Template(String),
    /// The conversation is too large to be looked at.
    #[error("the conversation has more than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The prompt leaves no room for a reply.
    #[error("the prompt has {tokens} tokens, {} more than the {limit} that fit", excess(.tokens, .limit))]
    TooLong {
        /// What it has; more than `limit`.
        tokens: usize,
        /// What it may have.
        limit: usize,
    },
    /// A message has an image or another blob.
    #[error("this model reads text only")]
    Images,
    /// The schema cannot be followed.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The text has no tokens in this model.
    #[error(transparent)]
    Tokenize(#[from] BackendError),
}

fn excess(tokens: &usize, limit: &usize) -> usize {
    tokens.saturating_sub(*limit)
}

/// Turns requests into prompts for one model. It may be used from any thread; a long conversation or a large schema takes
/// milliseconds.
pub struct ChatCodec {
    tokenizer: Arc<dyn Tokenizer>,
    template: Template,
    controls: Controls,
    schemas: Schemas,
    reasoning: Option<ReasoningTokens>,
    max_prompt_tokens: usize,
}

impl ChatCodec {
    pub(crate) fn new(backend: &dyn Backend) -> Result<Self, TemplateError> {
        let tokenizer = backend.tokenizer();
        let vocabulary = tokenizer.vocabulary();
        let name = |token: Option<Token>| {
            String::from_utf8_lossy(token.map(|token| vocabulary.bytes(token)).unwrap_or_default()).into_owned()
        };
        let template = Template::new(backend.chat_template(), name(vocabulary.bos()), name(vocabulary.eos()))?;
        let limit = backend.capabilities().sequence_tokens.saturating_sub(1);
        Ok(ChatCodec {
            template,
            controls: Controls::new(vocabulary),
            reasoning: ReasoningTokens::find(vocabulary),
            schemas: Schemas::new(Arc::clone(&tokenizer)),
            max_prompt_tokens: usize::try_from(limit).unwrap_or(usize::MAX),
            tokenizer,
        })
    }

    /// The most tokens that a prompt may have: one is left for the reply.
    #[must_use]
    pub fn max_prompt_tokens(&self) -> usize {
        self.max_prompt_tokens
    }

    /// Makes the prompt of `request`. The reply has to match `schema`, or else the request's own `format`;
    /// `{"type":"object"}` stands for any JSON object.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self, request: &ChatRequest, schema: Option<&str>) -> Result<Prompt, EncodeError> {
        let constraint = match schema.or(request.format.as_deref()) {
            Some(schema) => Some(self.schemas.compile(schema)?),
            None => None,
        };
        let turns = request.messages.iter().map(turn).collect::<Result<Vec<_>, _>>()?;
        let mut tokens = self.tokenize(turns)?;
        if let Some(bos) = self.tokenizer.vocabulary().bos() {
            // Most templates write it themselves.
            if tokens.first() != Some(&bos) {
                tokens.insert(0, bos);
            }
        }
        if tokens.len() > self.max_prompt_tokens {
            return Err(EncodeError::TooLong { tokens: tokens.len(), limit: self.max_prompt_tokens });
        }
        // A reply that has to match a schema is all text: there is no room in it for a thought.
        let is_thinking = constraint.is_none() && self.reasoning.is_some_and(|reasoning| reasoning.is_open_after(&tokens));
        Ok(Prompt { tokens, constraint, is_thinking })
    }

    /// The model's words.
    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        self.tokenizer.vocabulary()
    }

    pub(crate) fn reasoning(&self) -> Option<ReasoningTokens> {
        self.reasoning
    }

    fn tokenize(&self, turns: Vec<Turn>) -> Result<Vec<Token>, EncodeError> {
        let (turns, hidden) = Hidden::take(turns, &self.controls)?;
        let rendered = self.template.render(&turns).map_err(|error| match error {
            RenderError::Refused(reason) => EncodeError::Template(reason),
            RenderError::TooLarge => EncodeError::TooLarge { limit: MAX_OUTPUT },
        })?;
        let Some(hidden) = hidden else { return Ok(self.tokenizer.tokenize(&rendered, true)?) };
        let mut tokens = Vec::new();
        for segment in hidden.put_back(&rendered)? {
            match segment {
                Segment::Template(text) => tokens.extend(self.tokenizer.tokenize(text, true)?),
                Segment::Outside(text) => tokens.extend(self.tokenizer.tokenize(text, false)?),
            }
        }
        Ok(tokens)
    }
}

/// A message as templates know it.
fn turn(message: &Message) -> Result<Turn, EncodeError> {
    if message.parts.iter().any(|part| matches!(part.content, Content::Blob(_))) {
        return Err(EncodeError::Images);
    }
    Ok(Turn { role: message.role.as_str(), name: message.name.clone(), content: message.joined_text() })
}

/// The names of a model's control tokens, to find them in text.
struct Controls {
    /// Sorted, and none begins with another: so at most one can stand at a place, and a binary search finds it.
    names: Vec<Vec<u8>>,
}

impl Controls {
    fn new(vocabulary: &Vocabulary) -> Self {
        let size = Token::try_from(vocabulary.len()).unwrap_or(Token::MAX);
        let mut names: Vec<Vec<u8>> = (0..size)
            .filter(|token| vocabulary.kind(*token) == TokenKind::Control || vocabulary.ends_generation(*token))
            .map(|token| vocabulary.bytes(token).to_vec())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        // After sorting, a name follows those it begins with.
        names.dedup_by(|later, earlier| later.starts_with(earlier));
        Controls { names }
    }

    fn are_spelled_in(&self, text: &str) -> bool {
        let text = text.as_bytes();
        (0..text.len()).filter_map(|at| text.get(at..)).any(|rest| {
            let after = self.names.partition_point(|name| name.as_slice() <= rest);
            after.checked_sub(1).and_then(|at| self.names.get(at)).is_some_and(|name| rest.starts_with(name))
        })
    }
}

/// Texts that spell out control tokens, and the stand-ins that went through the template for them.
struct Hidden {
    /// Digits that nobody can guess, and that no change of case alters.
    mark: String,
    texts: Vec<String>,
}

/// A stretch of a rendered prompt.
enum Segment<'a> {
    /// Control tokens are read in it.
    Template(&'a str),
    /// It is text, whatever it says.
    Outside(&'a str),
}

impl Hidden {
    /// Replaces what must not reach the template.
    fn take(mut turns: Vec<Turn>, controls: &Controls) -> Result<(Vec<Turn>, Option<Hidden>), EncodeError> {
        let mut texts: Vec<String> = Vec::new();
        let mark = format!("{:020}{:020}", random(), random());
        for turn in &mut turns {
            let fields = [Some(&mut turn.content), turn.name.as_mut()];
            for field in fields.into_iter().flatten().filter(|field| controls.are_spelled_in(field)) {
                let stand_in = format!("{mark}{:0INDEX_DIGITS$}", texts.len());
                texts.push(std::mem::replace(field, stand_in));
            }
        }
        if texts.iter().map(String::len).sum::<usize>() > MAX_OUTPUT {
            return Err(EncodeError::TooLarge { limit: MAX_OUTPUT });
        }
        let hidden = (!texts.is_empty()).then_some(Hidden { mark, texts });
        Ok((turns, hidden))
    }

    /// Splits what the template wrote at the stand-ins.
    fn put_back<'a>(&'a self, rendered: &'a str) -> Result<Vec<Segment<'a>>, EncodeError> {
        let broken = || EncodeError::Template("it takes messages apart".to_owned());
        let mut parts = rendered.split(self.mark.as_str());
        let mut segments: Vec<Segment<'a>> = parts.next().map(Segment::Template).into_iter().collect();
        let mut bytes = rendered.len();
        for part in parts {
            let (index, rest) = part.split_at_checked(INDEX_DIGITS).ok_or_else(broken)?;
            let text = index.parse().ok().and_then(|index: usize| self.texts.get(index)).ok_or_else(broken)?;
            // A template may write a message more than once.
            bytes = bytes.saturating_add(text.len());
            if bytes > MAX_OUTPUT {
                return Err(EncodeError::TooLarge { limit: MAX_OUTPUT });
            }
            segments.extend([Segment::Outside(text), Segment::Template(rest)]);
        }
        Ok(segments)
    }
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

#[cfg(test)]
mod tests;
