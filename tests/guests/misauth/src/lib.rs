//! An authenticator that goes wrong in the way that its config says (P-A5), or tells a client which address it comes from (P-E10).
//!
//! `mode` is one of those in [`Misauth::decide`]; none of them lets anybody in, unless the host fails to notice what went wrong.

use serde::Deserialize;
use tollgate_sdk::{Authenticate, Decision, Plugin, Principal, Refusal, RefusalKind, RequestHead, log};

/// More than a principal's name or a call's output may have.
const HUGE: usize = 9 << 20;

/// What the operator may set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What goes wrong.
    mode: String,
}

/// The plugin.
pub struct Misauth {
    mode: String,
}

impl Plugin for Misauth {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        match config.mode.as_str() {
            "unborn" => Err("told not to begin".to_owned()),
            "stillborn" => trap(),
            _ => Ok(Misauth { mode: config.mode }),
        }
    }
}

impl Misauth {
    fn decide(&self, head: &RequestHead) -> Decision {
        match self.mode.as_str() {
            "trap" => trap(),
            "loop" => spin(u64::MAX),
            "grow" => grow(),
            "deep" => Decision::Identity(Principal::user(deep(1).to_string())),
            "nameless" => Decision::Identity(Principal::user("")),
            "tenantless" => Decision::Identity(Principal { tenant: String::new(), ..Principal::user("x") }),
            "garbage" => Decision::Identity(Principal::user("x\u{0}\u{1b}[2J\n{\"id\":\"admin\"}")),
            "crowd" => Decision::Identity(Principal { roles: vec!["admin".to_owned(); 50_000], ..Principal::user("x") }),
            "flood" => Decision::Identity(Principal::user("x".repeat(HUGE))),
            // Far over its CPU time, and then it lets everybody in.
            "late" => {
                spin(2_000_000_000);
                Decision::Identity(Principal::user("late"))
            }
            // These do not fail; they know nobody.
            "slow" => {
                spin(2_000_000);
                Decision::Abstain
            }
            "prints" => {
                for _ in 0..500 {
                    log::info(&"\u{1b}[2Jflood\n".repeat(100));
                }
                Decision::Abstain
            }
            "lies" => Decision::Refuse(Refusal {
                kind: RefusalKind::Unauthenticated,
                code: "200 OK\r\n\r\n".to_owned(),
                message: "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
                detail: "\u{1b}[2J".to_owned(),
                retry_after: Some(u32::MAX),
            }),
            "where" => Decision::Refuse(Refusal::new(RefusalKind::Unauthenticated, "where", head.client_ip.clone())),
            _ => Decision::Abstain,
        }
    }
}

impl Authenticate for Misauth {
    fn authenticate(&self, head: RequestHead) -> Decision {
        self.decide(&head)
    }
}

#[allow(clippy::panic, reason = "the test asks for a trap")]
fn trap() -> ! {
    panic!("told to trap")
}

fn spin(rounds: u64) -> Decision {
    let mut number = 0_u64;
    while number < rounds {
        number = std::hint::black_box(number.wrapping_add(1));
    }
    Decision::Abstain
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion, reason = "the test asks for the stack's end")]
fn deep(level: u64) -> u64 {
    std::hint::black_box(deep(std::hint::black_box(level + 1)) + 1)
}

tollgate_sdk::export!(Misauth: authenticate; capabilities: log);
