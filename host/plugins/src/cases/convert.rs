//! Between the words of cases and those of `domain`.

use std::net::IpAddr;

use tollgate_cases as cases;
use tollgate_domain::{
    Attribute, BlobRef, Certificate, ChatRequest, Content, Context, Flag, Message, Origin, Parameters, Part, Piece, Principal,
    Refusal, RefusalKind, RequestHead, Role, ToolCall, ToolSpec,
};

use crate::imports::LookupError;
use crate::instance::{Decision, Outcome, Step, Verdict};

cases::convert_words!();

fn address(from: IpAddr) -> IpAddr {
    from
}

/// What is said of single tokens stays with the host.
fn parameters(from: cases::Parameters) -> Parameters {
    let cases::Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from;
    let cases::Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from;
    Parameters {
        max_tokens,
        temperature,
        top_p,
        top_k,
        min_p,
        frequency_penalty,
        presence_penalty,
        repeat_penalty,
        seed,
        stop,
        ..Parameters::default()
    }
}

/// The contract has no kind for what does not exist, so no plugin says it.
fn refusal_kind(from: RefusalKind) -> cases::RefusalKind {
    match from {
        RefusalKind::Unauthenticated => cases::RefusalKind::Unauthenticated,
        RefusalKind::Forbidden => cases::RefusalKind::Forbidden,
        RefusalKind::Invalid | RefusalKind::NotFound => cases::RefusalKind::Invalid,
        RefusalKind::Blocked => cases::RefusalKind::Blocked,
        RefusalKind::TooLarge => cases::RefusalKind::TooLarge,
        RefusalKind::RateLimited => cases::RefusalKind::RateLimited,
        RefusalKind::Unavailable => cases::RefusalKind::Unavailable,
    }
}
