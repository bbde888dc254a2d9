//! Stands in for the host in a plugin's own tests: `cargo test` runs the logic natively.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::credentials::LookupError;
use crate::log::Level;
use crate::{ChatRequest, Context, Message, Origin, Parameters, Principal, RequestHead, Role};

/// What stands in for the host's keys.
#[cfg(not(target_arch = "wasm32"))]
type Lookups = Box<dyn Fn(&str) -> Result<Principal, LookupError>>;

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static LOOKUPS: RefCell<Option<Lookups>> = const { RefCell::new(None) };
}

thread_local! {
    static KEYS: RefCell<HashMap<String, Result<Principal, LookupError>>> = RefCell::new(HashMap::new());
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// What [`credentials::lookup`](crate::credentials::lookup) answers for `secret` on this thread.
pub fn answer_lookup(secret: &str, answer: Result<Principal, LookupError>) {
    KEYS.with_borrow_mut(|keys| keys.insert(secret.to_owned(), answer));
}

/// The lines that were logged on this thread since the last call.
#[must_use]
pub fn logged() -> Vec<(Level, String)> {
    LINES.take()
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn lookup(secret: &str) -> Result<Principal, LookupError> {
    let answer = LOOKUPS.with_borrow(|lookups| lookups.as_ref().map(|lookups| lookups(secret)));
    answer.unwrap_or_else(|| KEYS.with_borrow(|keys| keys.get(secret).cloned().unwrap_or(Err(LookupError::Unknown))))
}

/// From now on every look-up on this thread goes to `answer`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn answer_lookups(answer: impl Fn(&str) -> Result<Principal, LookupError> + 'static) {
    LOOKUPS.set(Some(Box::new(answer)));
}

/// The host as it is while a plugin is made: no keys, no chance, no time.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn reset() {
    answer_lookups(|_| Err(LookupError::Unavailable));
    crate::random::forget();
    crate::time::set(0);
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn record(level: Level, message: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}

/// A request head with these headers.
#[must_use]
pub fn head(headers: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        client_ip: "127.0.0.1".to_owned(),
        listener: "main".to_owned(),
        peer_cert: None,
    }
}

/// A context as a chat route has it.
#[must_use]
pub fn context() -> Context {
    Context {
        request_id: "test".to_owned(),
        received_at_ms: 1_000,
        deadline_ms: 61_000,
        listener: "main".to_owned(),
        dialect: "openai".to_owned(),
        route: "chat".to_owned(),
        principal: Principal::user("tester"),
        model: "demo".to_owned(),
        is_stream: false,
        conversation: None,
        attributes: Vec::new(),
    }
}

/// A request with one message of the user's.
#[must_use]
pub fn request(text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, text)],
        tools: Vec::new(),
        parameters: Parameters {
            max_tokens: None,
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            frequency_penalty: None,
            presence_penalty: None,
            repeat_penalty: None,
            seed: None,
            stop: Vec::new(),
        },
        format: None,
        model: "demo".to_owned(),
        fields: Vec::new(),
    }
}
