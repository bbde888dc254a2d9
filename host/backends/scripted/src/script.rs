//! Commands, and the logits that lead to what they say.

use tollgate_backend::{Token, TokenKind, Tokenizer};

use crate::cells::mix;
use crate::words::{END, THINK, THOUGHT, Words};

/// Bytes of a reply that is written out in advance.
const MAX_REPLY: usize = 1024 * 1024;
/// The largest N.
const MAX_COUNT: usize = 1_000_000;
/// The longest that a step hangs.
const MAX_HANG_MS: u64 = 60_000;
/// How far what comes next is above the noise.
const ABOVE: f32 = 30.0;
/// Characters of two, three and four bytes.
const WIDE: [char; 5] = ['ß', 'é', '你', '한', '😀'];
/// Under a schema, the sooner in this list the likelier: a value is closed as soon as it can be.
const CLOSING: [u8; 6] = *b"\"}],0:";

/// What a sequence is about to say.
pub(crate) struct Reply {
    /// Where in the sequence the reply begins.
    pub(crate) start: usize,
    /// What goes wrong on the way.
    pub(crate) fault: Option<Fault>,
    script: Script,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The step of the token with this number (from 1) fails.
    Fail { at: usize },
    /// The step of the first token takes longer.
    Hang { ms: u64 },
    /// The step of the first token panics.
    Panic,
}

enum Script {
    /// These tokens, then the end.
    Fixed(Vec<Token>),
    /// These tokens again and again.
    Forever(Vec<Token>),
    /// So many tokens of printable ASCII.
    Random(usize),
    /// Whatever closes a JSON value.
    Json,
    /// Nothing that is a number.
    Nan,
}

impl Reply {
    /// Reads the command in a prompt; `adapter` stands before each word of the reply. `None` if the prompt does not end where the
    /// model is to speak.
    pub(crate) fn find(tokens: &[Token], words: &Words, adapter: &str) -> Option<Reply> {
        let mut messages = messages(tokens, words).into_iter().rev();
        let last = messages.next().filter(|message| message.role == "assistant")?;
        let user = messages.find(|message| message.role == "user");
        let command = user.map(|message| body(tokens, message.start, words)).unwrap_or_default();
        let (script, fault) = read(&command, words, adapter);
        Some(Reply { start: last.start, fault, script })
    }

    /// The token that comes next, if the script knows.
    fn next(&self, said: &[Token]) -> Option<Token> {
        let at = said.len();
        match &self.script {
            Script::Fixed(tokens) => {
                // A reply that was led off its script ends.
                let is_on_script = at == 0 || tokens.get(at - 1) == said.last();
                Some(tokens.get(at).copied().filter(|_| is_on_script).unwrap_or(END))
            }
            Script::Forever(tokens) => tokens.get(at % tokens.len().max(1)).copied(),
            Script::Random(count) => (at >= *count).then_some(END),
            Script::Json | Script::Nan => None,
        }
    }
}

struct Message {
    role: String,
    /// Where what it says begins.
    start: usize,
}

/// The messages whose header is whole.
fn messages(tokens: &[Token], words: &Words) -> Vec<Message> {
    let begins = tokens.iter().enumerate().filter(|(_, token)| words.begins_message(**token));
    begins
        .filter_map(|(at, _)| {
            let header = tokens.get(at + 1..)?;
            let length = header.iter().take(16).position(|token| *token == Token::from(b'\n'))?;
            let role = String::from_utf8(words.bytes(header.get(..length)?)).ok()?;
            Some(Message { role, start: at + 1 + length + 1 })
        })
        .collect()
}

fn body(tokens: &[Token], start: usize, words: &Words) -> String {
    let body: Vec<Token> =
        tokens.iter().skip(start).take_while(|token| words.vocabulary().kind(**token) == TokenKind::Text).copied().collect();
    String::from_utf8_lossy(&words.bytes(&body)).into_owned()
}

fn read(command: &str, words: &Words, adapter: &str) -> (Script, Option<Fault>) {
    let (name, rest) = command.split_once(' ').unwrap_or((command.trim_end(), ""));
    let plain = |text: &str| words.plain(&adapted(text, adapter));
    let fixed = |text: &str| Script::Fixed(plain(text));
    let counted = |count: usize| (1..=count).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    match name {
        "say" => (fixed(rest), None),
        "say-hex" => (fixed(&unhex(rest)), None),
        "count" => (fixed(&cut(counted(number(rest)))), None),
        "repeat" => {
            let (count, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let most = MAX_REPLY / text.len().max(1);
            (fixed(&text.repeat(number(count).min(most))), None)
        }
        "utf8" => (fixed(&cut(WIDE.iter().cycle().take(number(rest)).collect())), None),
        "think" => {
            let thought = [vec![THINK], plain(rest), vec![THOUGHT], plain("done")].concat();
            (Script::Fixed(thought), None)
        }
        "random" => (Script::Random(number(rest.split_whitespace().next().unwrap_or_default())), None),
        "json" => (Script::Json, None),
        "forever" => (Script::Forever(plain("and on ")), None),
        "fail" => {
            let at = number(rest).max(1);
            (fixed(&cut(counted(at))), Some(Fault::Fail { at }))
        }
        "hang" => {
            let ms = u64::try_from(number(rest)).unwrap_or(u64::MAX).min(MAX_HANG_MS);
            (fixed("done"), Some(Fault::Hang { ms }))
        }
        "panic" => (fixed("done"), Some(Fault::Panic)),
        "nan" => (Script::Nan, None),
        _ => (fixed(&cut(format!("You said: {command}"))), None),
    }
}

/// A text with an adapter's word before each of its own.
fn adapted(text: &str, adapter: &str) -> String {
    if adapter.is_empty() {
        return text.to_owned();
    }
    let word = |word: &str| if word.is_empty() { String::new() } else { format!("{adapter}{word}") };
    cut(text.split(' ').map(word).collect::<Vec<_>>().join(" "))
}

fn number(text: &str) -> usize {
    text.trim().parse().unwrap_or(1).min(MAX_COUNT)
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_REPLY {
        text.truncate(text.floor_char_boundary(MAX_REPLY));
    }
    text
}

/// Appends the logits for what comes after `tokens`, whose hash is `state`.
pub(crate) fn write_logits(reply: Option<&Reply>, tokens: &[Token], state: u64, words: &Words, logits: &mut Vec<f32>) {
    let vocabulary = words.vocabulary();
    let said = reply.and_then(|reply| tokens.get(reply.start..)).unwrap_or_default();
    let next = match reply {
        Some(reply) => reply.next(said),
        None => Some(END),
    };
    let script = reply.map(|reply| &reply.script);
    let size = Token::try_from(vocabulary.len()).unwrap_or(Token::MAX);
    logits.extend((0..size).map(|token| {
        let noise = noise(state, token);
        let is_printable = (0x20..0x7f).contains(&token);
        match (script, next) {
            (Some(Script::Nan), _) => f32::NAN,
            (_, Some(next)) if next == token => ABOVE + noise,
            (Some(Script::Json), _) => json(token, noise),
            (Some(Script::Random(_)), None) if is_printable => noise,
            (Some(Script::Random(_)), None) => noise - ABOVE,
            _ if vocabulary.kind(token) == TokenKind::Text => noise,
            // Nobody says structure by chance.
            _ => noise - ABOVE,
        }
    }));
}

/// Close what is open; else printable noise.
fn json(token: Token, noise: f32) -> f32 {
    if token == END {
        return 2.0 * ABOVE;
    }
    let ranks = (0_u8..).zip(CLOSING).find(|(_, byte)| Token::from(*byte) == token);
    match ranks {
        Some((rank, _)) => ABOVE - f32::from(rank) * 3.0,
        None if (0x20..0x7f).contains(&token) => noise,
        None => noise - ABOVE,
    }
}

/// From -1 up to 1, by all tokens before and the one in question.
fn noise(state: u64, token: Token) -> f32 {
    let bits = mix(state ^ u64::from(token).wrapping_mul(0xd134_2543_de82_ef95)) >> 40;
    // 24 bits are what an f32 holds exactly.
    bits as f32 / 8_388_608.0 - 1.0
}
/// Text from hex digits; what is no hex is passed over, and what is no UTF-8 becomes U+FFFD.
fn unhex(digits: &str) -> String {
    let nibbles = digits.bytes().filter_map(|byte| char::from(byte).to_digit(16)).collect::<Vec<_>>();
    let bytes =
        nibbles.chunks_exact(2).filter_map(|pair| u8::try_from(pair.iter().fold(0, |byte, nibble| byte * 16 + nibble)).ok());
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}
