//! What the gateway makes of what a plugin returns. A case sees it as a request would, wherever the plugin runs.

use crate::words::{Flag, Principal, Refusal};

/// Longest message of a refusal, in bytes; more is cut.
const MAX_MESSAGE: usize = 2_048;
/// Longest name in a principal, in bytes.
const MAX_NAME: usize = 256;
/// Longest list in a principal.
const MAX_LIST: usize = 256;
/// Flags of one call.
const MAX_FLAGS: usize = 64;
/// A day.
const MAX_RETRY_AFTER_S: u32 = 86_400;

/// Why a principal is none.
pub(crate) fn principal(principal: &Principal) -> Result<(), &'static str> {
    let lists = [&principal.roles, &principal.scopes, &principal.models];
    if lists.iter().any(|list| list.len() > MAX_LIST) || principal.attributes.len() > MAX_LIST {
        return Err("a principal's list is too long");
    }
    let names = lists.into_iter().flatten().chain([&principal.id, &principal.tenant]).chain(&principal.default_model);
    let is_name = |text: &str| !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    if names.into_iter().any(|name| !is_name(name)) {
        return Err("a principal's name is empty, too long or has control characters");
    }
    Ok(())
}

/// A code that is none becomes `plugin_refused`; control characters become spaces.
pub(crate) fn refusal(refusal: Refusal) -> Refusal {
    Refusal {
        code: if is_code(&refusal.code) { refusal.code } else { "plugin_refused".to_owned() },
        message: one_line(&refusal.message),
        detail: one_line(&refusal.detail),
        retry_after: refusal.retry_after.map(|seconds| seconds.min(MAX_RETRY_AFTER_S)),
        ..refusal
    }
}

/// A flag whose name is none is counted as `other`.
pub(crate) fn flags(flags: Vec<Flag>) -> Vec<Flag> {
    let name = |name: String| if is_code(&name) { name } else { "other".to_owned() };
    flags.into_iter().take(MAX_FLAGS).map(|flag| Flag { name: name(flag.name), ..flag }).collect()
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_MESSAGE));
    for c in text.chars() {
        if line.len() + c.len_utf8() > MAX_MESSAGE {
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

fn is_code(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::RefusalKind;

    #[test]
    fn what_a_plugin_returns_is_made_harmless() {
        let said = Refusal {
            kind: RefusalKind::Blocked,
            code: "bad code".to_owned(),
            message: "one\r\ntwo".to_owned(),
            detail: "é".repeat(2_000),
            retry_after: Some(u32::MAX),
        };
        let taken = refusal(said);
        assert_eq!((taken.code.as_str(), taken.message.as_str()), ("plugin_refused", "one  two"));
        assert_eq!((taken.detail.len(), taken.retry_after), (2_048, Some(86_400)));
        assert_eq!(refusal(taken.clone()), taken, "what is harmless stays");
        let flag = |name: &str| Flag { name: name.to_owned(), count: 1 };
        assert_eq!(flags(vec![flag("pii.email"), flag("a@b.co")]), [flag("pii.email"), flag("other")]);
        assert!(principal(&Principal::user("ann")).is_ok());
        assert!(principal(&Principal::user("")).is_err());
    }
}
