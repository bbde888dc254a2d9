//! JSON schemas as decoding constraints, through llguidance.
//!
//! A schema comes from a stranger: its size, depth and cost are bounded before and while it is compiled, and a bad one is a typed
//! error. The compiler is built at first use, away from the model thread, which computes one mask per constrained row and step.

use std::fmt;
use std::sync::{Arc, OnceLock};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use tollgate_backend::{Token, TokenKind, Tokenizer, Vocabulary};

/// Bytes of a schema, at most.
const MAX_BYTES: usize = 64 * 1024;
/// Values within values, at most.
const MAX_DEPTH: usize = 64;
/// Bytes of a word that a constraint may use; the trie has no room for longer ones.
const MAX_WORD: usize = 512;
/// Characters of a reason that are passed on.
const MAX_REASON: usize = 300;

/// Why a schema cannot be a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// More than 64 KiB.
    #[error("the schema has {bytes} bytes and 65536 is the most")]
    TooLarge {
        /// What it has.
        bytes: usize,
    },
    /// More than 64 values within values.
    #[error("the schema is more than 64 values deep")]
    TooDeep,
    /// Not JSON.
    #[error("the schema is not JSON: {0}")]
    Json(String),
    /// JSON, but not a schema that can be followed; the text says why.
    #[error("the schema cannot be followed: {0}")]
    Unsupported(String),
}

/// What a reply has to be, and how far it has come.
#[derive(Clone)]
pub(crate) struct Constraint(Matcher);

impl Constraint {
    /// The words that may come next, and the end of the reply where the schema is satisfied.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, String> {
        self.0.compute_mask_or_eos().map_err(|error| reason(&error.to_string()))
    }

    /// Takes in the word that came. Returns whether nothing may follow.
    pub(crate) fn accept(&mut self, token: Token) -> Result<bool, String> {
        self.0.consume_token(token).map_err(|error| reason(&error.to_string()))?;
        if self.0.is_stopped() && !self.0.stop_reason().is_ok() {
            return Err(format!("{:?}", self.0.stop_reason()));
        }
        Ok(self.0.is_stopped())
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

/// Compiles schemas for one vocabulary.
pub(crate) struct Schemas {
    tokenizer: Arc<dyn Tokenizer>,
    factory: OnceLock<Result<ParserFactory, SchemaError>>,
}

impl Schemas {
    pub(crate) fn new(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Schemas { tokenizer, factory: OnceLock::new() }
    }

    /// Makes a constraint of a JSON Schema (draft 2020-12 or earlier, as far as llguidance goes; references within the document).
    pub(crate) fn compile(&self, schema: &str) -> Result<Constraint, SchemaError> {
        let schema = parse(schema)?;
        let factory = self.factory.get_or_init(|| factory(self.tokenizer.vocabulary())).as_ref().map_err(Clone::clone)?;
        let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema)).map_err(|error| unsupported(&error))?;
        Ok(Constraint(Matcher::new(Ok(parser))))
    }
}

/// The schema as a value, within its bounds, and told not to leave room for white space: a weak model would wander off in it.
fn parse(schema: &str) -> Result<Value, SchemaError> {
    if schema.len() > MAX_BYTES {
        return Err(SchemaError::TooLarge { bytes: schema.len() });
    }
    let mut value: Value = serde_json::from_str(schema).map_err(|error| SchemaError::Json(error.to_string()))?;
    if depth(&value) > MAX_DEPTH {
        return Err(SchemaError::TooDeep);
    }
    match &mut value {
        // What a client wrote there itself is replaced: these are the compiler's settings, not the schema's.
        Value::Object(members) => {
            members.insert("x-guidance".to_owned(), json!({"whitespace_flexible": false}));
        }
        Value::Bool(true) => value = json!({"x-guidance": {"whitespace_flexible": false}}),
        _ => return Err(SchemaError::Unsupported("a schema is an object".to_owned())),
    }
    Ok(value)
}

/// serde_json has refused what is more than 128 deep, so the recursion is bounded.
fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => None,
    };
    1 + deepest.unwrap_or(0)
}

/// The vocabulary as llguidance wants it. Control tokens are marked so that no text can match them.
fn factory(vocabulary: &Vocabulary) -> Result<ParserFactory, SchemaError> {
    let size = u32::try_from(vocabulary.len()).map_err(|_| SchemaError::Unsupported("vocabulary".to_owned()))?;
    let ends: Vec<Token> = vocabulary.end_of_generation().iter().copied().filter(|token| *token < size).collect();
    let Some(&end) = ends.first() else {
        return Err(SchemaError::Unsupported("this model has no token that ends a reply".to_owned()));
    };
    let words: Vec<Vec<u8>> = (0..size).map(|token| word(vocabulary, token)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(&ends);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).map_err(|error| unsupported(&error))?;
    factory.quiet();
    // 50,000 units of lexer fuel are about 1 ms while compiling and 14,000 while computing a mask; a lexer state is 1 to 2 KiB.
    let limits = factory.limits_mut();
    limits.initial_lexer_fuel = 1_000_000;
    limits.step_lexer_fuel = 100_000;
    limits.step_max_items = 20_000;
    limits.max_lexer_states = 20_000;
    limits.max_grammar_size = 200_000;
    limits.verbose_errors = false;
    Ok(factory)
}

fn word(vocabulary: &Vocabulary, token: Token) -> Vec<u8> {
    let bytes = vocabulary.bytes(token);
    if vocabulary.kind(token) == TokenKind::Control || vocabulary.ends_generation(token) {
        let mut marked = vec![TokTrie::SPECIAL_TOKEN_MARKER];
        marked.extend_from_slice(bytes);
        return marked;
    }
    // 0xff is in no valid text, and as a first byte of several it would read as a mark.
    let is_usable = vocabulary.kind(token) == TokenKind::Text
        && bytes.len() <= MAX_WORD
        && (bytes.len() == 1 || bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER));
    if is_usable { bytes.to_vec() } else { Vec::new() }
}

fn unsupported(error: &impl fmt::Display) -> SchemaError {
    SchemaError::Unsupported(reason(&error.to_string()))
}

/// The first line: what follows is the compiler's own state.
fn reason(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use tollgate_backend::BackendError;

    use super::*;

    /// One word for each byte, and an end.
    struct Bytes(Vocabulary);

    impl Tokenizer for Bytes {
        fn vocabulary(&self) -> &Vocabulary {
            &self.0
        }

        fn tokenize(&self, text: &str, _: bool) -> Result<Vec<Token>, BackendError> {
            Ok(text.bytes().map(Token::from).collect())
        }
    }

    const END: Token = 256;

    fn schemas() -> Schemas {
        let bytes = (0..=255_u8).map(|byte| (vec![byte], TokenKind::Text));
        let words = bytes.chain([(b"<|end|>".to_vec(), TokenKind::Control)]);
        Schemas::new(Arc::new(Bytes(Vocabulary::new(words, vec![END], None, Some(END)))))
    }

    /// Whether `text` may be said under `schema`, and whether the reply may end after it.
    fn follows(schema: &str, text: &str) -> (bool, bool) {
        let mut constraint = schemas().compile(schema).expect("a schema");
        let mut is_complete = false;
        for byte in text.bytes() {
            let mask = constraint.mask().expect("a mask");
            if !mask.is_allowed(Token::from(byte)) {
                return (false, false);
            }
            is_complete = constraint.accept(Token::from(byte)).expect("an allowed word");
        }
        (true, is_complete || constraint.mask().expect("a mask").is_allowed(END))
    }

    #[test]
    fn a_schema_is_followed_to_its_end() {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}"#;
        assert!(follows(schema, r#"{"n": 12}"#).0 || follows(schema, r#"{"n":12}"#).0);
        assert!(!follows(schema, r#"{"x"#).0);
        assert!(!follows(schema, "<|end|>").0, "a control token spelled out is no control token");
        assert_eq!(follows(r#"{"enum":["yes","no"]}"#, r#""yes""#), (true, true));
        assert_eq!(follows(r#"{"enum":["yes","no"]}"#, r#""ye"#), (true, false));
        assert_eq!(follows(r#"{"type":"object"}"#, "{}"), (true, true));
    }

    #[test]
    fn clients_do_not_set_the_compiler() {
        let schema = r#"{"type":"object","x-guidance":{"whitespace_flexible":true}}"#;
        assert!(!follows(schema, "{\n\n\n").0);
    }

    /// P-M6: depth, size and cost have caps, and what is no schema is an error.
    #[test]
    fn hostile_schemas_are_refused() {
        let schemas = schemas();
        let error = |schema: &str| schemas.compile(schema).expect_err("no schema");
        assert!(matches!(error("{"), SchemaError::Json(_)));
        assert!(matches!(error("[]"), SchemaError::Unsupported(_)));
        assert!(matches!(error(r#"{"type":"no such type"}"#), SchemaError::Unsupported(_)));
        assert!(matches!(error(r##"{"$ref":"#/nowhere"}"##), SchemaError::Unsupported(_)));
        assert_eq!(error(&" ".repeat(MAX_BYTES + 1)), SchemaError::TooLarge { bytes: MAX_BYTES + 1 });
        let deep = format!("{}{}", r#"{"items":"#.repeat(70), "{}".to_owned() + &"}".repeat(70));
        assert_eq!(error(&deep), SchemaError::TooDeep);
    }

    /// P-M6: a pattern that explodes is given up on the way, and one that only looks like it is followed.
    #[test]
    fn costly_patterns_come_to_an_end() {
        let reaches = |pattern: &str| {
            let mut constraint = schemas().compile(&format!(r#"{{"type":"string","pattern":"{pattern}"}}"#)).expect("a pattern");
            let text = std::iter::once(b'"').chain(b"ab".iter().copied().cycle());
            let advance = |byte: u8| {
                assert!(constraint.mask()?.is_allowed(Token::from(byte)));
                constraint.accept(Token::from(byte))
            };
            text.take(1_000).map(advance).take_while(Result::is_ok).count()
        };
        let explodes = reaches("^(([a-z]{1,500}){1,500}[0-9]){1,500}$");
        assert!((1..1_000).contains(&explodes), "{explodes}");
        assert_eq!(reaches("^(a|b)*a(a|b){30}$"), 1_000);
    }

    #[test]
    fn a_schema_that_refers_to_itself_is_compiled() {
        let tree = r##"{"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"t":{"$ref":"#/$defs/t"}},"additionalProperties":false}}}"##;
        assert_eq!(follows(tree, "{}"), (true, true));
    }
}
