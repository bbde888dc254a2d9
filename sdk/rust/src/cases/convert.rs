//! Between the words of cases and those of the contract.

use std::net::IpAddr;

use tollgate_cases as cases;

use crate::PartContent as Content;
use crate::credentials::LookupError;
use crate::{
    Attribute, BlobRef, Certificate, ChatRequest, Context, Decision, Flag, Message, Origin, Outcome, Parameters, Part, Piece,
    Principal, Refusal, RefusalKind, RequestHead, Role, Step, ToolCall, ToolSpec, Verdict,
};

cases::convert_words!();

fn address(from: IpAddr) -> String {
    from.to_string()
}

fn parameters(from: cases::Parameters) -> Parameters {
    let cases::Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from;
    let cases::Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from;
    Parameters { max_tokens, temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty, repeat_penalty, seed, stop }
}

fn refusal_kind(from: RefusalKind) -> cases::RefusalKind {
    match from {
        RefusalKind::Unauthenticated => cases::RefusalKind::Unauthenticated,
        RefusalKind::Forbidden => cases::RefusalKind::Forbidden,
        RefusalKind::Invalid => cases::RefusalKind::Invalid,
        RefusalKind::Blocked => cases::RefusalKind::Blocked,
        RefusalKind::TooLarge => cases::RefusalKind::TooLarge,
        RefusalKind::RateLimited => cases::RefusalKind::RateLimited,
        RefusalKind::Unavailable => cases::RefusalKind::Unavailable,
    }
}
