//! Files of cases against a small plugin.

use super::run;
use crate::{Authenticate, Decision, Plugin, Principal, RequestHead, credentials, log, random, time};

/// Lets in who has a key, under a name with the time and a number drawn.
struct Door;

impl Plugin for Door {
    type Config = std::collections::BTreeMap<String, u32>;

    fn new(config: Self::Config) -> Result<Self, String> {
        assert!(random::u64().is_err() && credentials::lookup("key").is_err(), "a config is not a request");
        if config.is_empty() { Ok(Door) } else { Err("the door takes no config".to_owned()) }
    }
}

impl Authenticate for Door {
    fn authenticate(&self, head: RequestHead) -> Decision {
        let Some(key) = head.header("x-key") else { return Decision::Abstain };
        assert!(key != "panic", "told to panic");
        log::info("asked");
        match credentials::lookup(key) {
            Ok(who) => {
                let number = random::u64().expect("seeded");
                Decision::Identity(Principal { id: format!("{} {} {number:x}", who.id, time::now_ms()), ..who })
            }
            Err(_) => Decision::Abstain,
        }
    }
}

crate::export!(Door: authenticate);

fn outcome(text: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("door.toml"), text).expect("written");
    run::<Door>(dir.path())
}

#[test]
fn a_plugin_sees_the_host_of_its_case_and_no_other() {
    let text = r#"
head.headers = [["x-key", "key"]]

[[case]]
name = "held"
credentials.key.id = "ann"
context.received-at-ms = 7
authenticate.identity.id = "ann 7 NUMBER"

[[case]]
name = "not held here"
authenticate = "abstain"
never = ["key"]

[[case]]
name = "a config"
config.x = 1
setup.error = "takes no config"
"#;
    let failure = outcome(text).expect_err("the number is another");
    let number = failure.rsplit_once("ann 7 ").and_then(|(_, rest)| rest.split('"').next()).expect("it is told");
    // The same entropy gives the same number, so that a case can name it.
    outcome(&text.replace("NUMBER", number)).expect("it passes");
}

#[test]
fn what_is_wrong_is_told() {
    let case = |rest: &str| format!("[[case]]\nname = 'x'\n{rest}");
    for (text, part) in [
        (case("head.headers = [['x-key', 'panic']]\nauthenticate = 'abstain'"), "it panicked: told to panic"),
        (case("request.text = 'a'\ncompose = 'unchanged'"), "no hook `compose`"),
        (case("reply.text = 'a'\nfilter-reply = 'unchanged'"), "no hook `filter-reply`"),
        (case("autenticate = 'abstain'"), "did you mean `authenticate`?"),
        (case("config.x = 'y'\nsetup.error = 'invalid type'"), ""),
        (case("never = ['asked']\nhead.headers = [['x-key', 'k']]\nauthenticate = 'abstain'"), "log: expected"),
    ] {
        match outcome(&text) {
            Err(failure) => assert!(!part.is_empty() && failure.contains(part), "{text}\n{failure}"),
            Ok(()) => assert!(part.is_empty(), "{text}"),
        }
    }
    let empty = tempfile::tempdir().expect("a temporary directory");
    assert!(run::<Door>(empty.path()).expect_err("none").contains("there are no cases"));
}
