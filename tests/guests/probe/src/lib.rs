//! A plugin that does what its input says, for tests of the plugin host.
//!
//! Contract: the last message's text is a command. `answer TEXT`, `refuse`, `trap`, `loop`, `grow`, `entropy`, `clock`, `inits`,
//! `config`, `remember TEXT` (then `{remembered}` in the reply becomes TEXT); anything else passes. The header `x-probe` takes the
//! same commands in `authenticate`, and the config's `init` while the plugin is built.

use std::cell::{Cell, RefCell};

use serde::Deserialize;
use tollgate_sdk::{
    Authenticate, ChatRequest, Context, Decision, FilterPrompt, FilterReply, Outcome, Piece, Plugin, Principal, Refusal,
    RefusalKind, RequestHead, Step, Verdict, random, time,
};

/// What the operator may set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Comes back for the command `config`.
    #[serde(default)]
    word: String,
    /// Makes `init` fail, with this text.
    #[serde(default)]
    fail: Option<String>,
    /// A command for `init`.
    #[serde(default)]
    init: String,
}

/// The plugin.
pub struct Probe {
    word: String,
    /// Grows by one in every `init` of this memory.
    inits: Cell<u32>,
    remembered: RefCell<String>,
}

impl Plugin for Probe {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if let Some(reason) = config.fail {
            return Err(reason);
        }
        let probe = Probe { word: config.word, inits: Cell::new(0), remembered: RefCell::default() };
        probe.inits.set(probe.inits.get() + 1);
        // Only the commands that do not return matter here.
        let _ = probe.obey(&config.init);
        tollgate_sdk::log::info("init ran");
        Ok(probe)
    }
}

impl Probe {
    /// Does what `command` says; `None` is to pass.
    fn obey(&self, command: &str) -> Option<Result<String, Refusal>> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        Some(Ok(match verb {
            "answer" => rest.to_owned(),
            "config" => self.word.clone(),
            "inits" => self.inits.get().to_string(),
            "clock" => time::now_ms().to_string(),
            "entropy" => random::u64().map(|number| format!("{number:016x}")).unwrap_or_else(|error| error.to_string()),
            "refuse" => return Some(Err(Refusal::new(RefusalKind::Blocked, "probe_refused", "The probe was told to refuse."))),
            "trap" => trap(),
            "loop" => spin(),
            "grow" => grow(),
            _ => {
                self.remembered.replace(rest.to_owned());
                return None;
            }
        }))
    }
}

#[allow(clippy::panic, reason = "the test asks for a trap")]
fn trap() -> ! {
    panic!("told to trap")
}

fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

impl Authenticate for Probe {
    fn authenticate(&self, head: RequestHead) -> Decision {
        match head.header("x-probe").map(|command| self.obey(command)) {
            None => Decision::Abstain,
            Some(None) => Decision::Identity(Principal::user("probe")),
            Some(Some(Ok(id))) => Decision::Identity(Principal::user(id)),
            Some(Some(Err(refusal))) => Decision::Refuse(Refusal { kind: RefusalKind::Unauthenticated, ..refusal }),
        }
    }
}

impl FilterPrompt for Probe {
    fn filter_prompt(&self, _ctx: Context, mut request: ChatRequest) -> Outcome {
        let command = request.texts_mut().last().map(|(_, _, text)| text.clone()).unwrap_or_default();
        match self.obey(&command) {
            None => Outcome::pass(),
            Some(Ok(text)) => Outcome { verdict: Verdict::Answer(text), flags: Vec::new() },
            Some(Err(refusal)) => Outcome::block(refusal),
        }
    }
}

impl FilterReply for Probe {
    type Reply = ();

    fn start(&self, _ctx: Context, _choice: u32) {}

    fn push(&self, (): &mut (), piece: Piece) -> Step {
        Step::release(vec![match piece {
            Piece::Text(text) => Piece::Text(text.replace("{remembered}", &self.remembered.borrow())),
            other => other,
        }])
    }
}

tollgate_sdk::export!(Probe: authenticate, filter_prompt, filter_reply; capabilities: log);
