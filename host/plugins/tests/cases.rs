//! Golden cases on real components: those of the first-party plugins, and some for the probe of `tests/guests/probe`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use tollgate_plugins::{
    BuildFailure, BuildReport, BuildRequest, BuildStage, Capability, TestRequest, Tested, run_build, run_cases,
};

/// Cases that the probe passes under any config that lets it start.
const GOOD: &str = r#"
[[case]]
name = "an answer"
request.text = "answer hi"
filter-prompt.answer = "hi"

[[case]]
name = "a word of its own"
config.word = "pear"
request.text = "config"
filter-prompt.answer = "pear"

[[case]]
name = "the time is the case's"
context.received-at-ms = 7
request.text = "clock"
filter-prompt.answer = "7"

[[case]]
name = "hooks share an instance, and its log is told from init's"
head.headers = [["x-probe", "answer ann"]]
authenticate.identity.id = "ann"
request.text = "remember me"
filter-prompt = "pass"
reply.pieces = ["{remembered}", "!"]
filter-reply = { text = "me!", releases = ["me", "!", ""] }
never = ["init ran"]

[[case]]
name = "a refusal"
request.text = "refuse"
filter-prompt.block = { kind = "blocked", code = "probe_refused" }

[[case]]
name = "a config that is refused"
config.fail = "no such list"
setup.error = "such list"
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn component(name: &str) -> Vec<u8> {
    let path = root().join("target/plugins").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|_| panic!("{} is missing: run `make plugins`", path.display()))
}

/// A component with a file of cases in a section of its own.
fn with_cases(name: &str, cases: &str) -> Vec<u8> {
    let section = "tollgate:cases/probe.toml";
    let content = [&[u8::try_from(section.len()).unwrap()], section.as_bytes(), cases.as_bytes()].concat();
    let size = [u8::try_from(content.len() & 127).unwrap() | 128, u8::try_from(content.len() >> 7).unwrap()];
    [component(name), vec![0], size.to_vec(), content].concat()
}

fn case(name: &str, rest: &str) -> String {
    format!("[[case]]\nname = \"{name}\"\n{rest}\n")
}

async fn build(dir: &Path, component: &[u8], config_json: &str) -> Result<BuildReport, BuildFailure> {
    let path = dir.join("probe.wasm");
    std::fs::write(&path, component).unwrap();
    let request = BuildRequest {
        id: "probe".to_owned(),
        component: path,
        digest: "0".repeat(64),
        config_json: config_json.to_owned(),
        grants: vec![Capability::Log],
        out: dir.join("probe.plugin"),
        incremental: dir.join("probe.functions"),
        quick: dir.join("probe.quick"),
        passed: dir.join("probe.cases"),
        key: hex::encode([3; 32]),
        time_s: 60,
    };
    run_build(&request).await
}

async fn test(component: &[u8], cases: &str, time_s: u64) -> Tested {
    let files = [("a.toml".to_owned(), cases.to_owned())];
    let request = TestRequest { component, files: Some(&files), config_json: "{}", filter: "", time_s };
    run_cases(&request).await.unwrap()
}

#[tokio::test]
async fn the_first_party_plugins_bring_their_cases_and_pass_them() {
    for name in ["auth-keys", "filter-pii", "format-decision", "template-jinja"] {
        let component = component(name);
        let request = TestRequest { component: &component, files: None, config_json: "{}", filter: "", time_s: 600 };
        let tested = run_cases(&request).await.unwrap();
        assert!(tested.failures.is_empty() && tested.unfinished == 0, "{name}: {:?}", tested.failures);
        let files = tollgate_cases::sources(&root().join("plugins").join(name).join("cases")).unwrap();
        let set = tollgate_cases::Set::read(&files).unwrap();
        assert_eq!(tested.cases, set.cases().len(), "{name} is older than its cases: run `make plugins`");
    }
}

#[tokio::test]
async fn a_plugin_that_passes_is_built() {
    for name in ["probe", "probe-without-snapshot"] {
        let dir = tempfile::tempdir().unwrap();
        let any = format!("{GOOD}{}", case("any", "config = \"any\"\nrequest.text = \"config\"\nfilter-prompt.answer = \"one\""));
        let component = with_cases(name, &any);
        let report = build(dir.path(), &component, r#"{"word":"one"}"#).await.unwrap();
        assert_eq!((report.cases, report.snapshot), (7, name == "probe"));
        assert!(dir.path().join("probe.plugin").exists() && dir.path().join("probe.cases").exists());
        // A case of any config holds the operator to it.
        let failure = build(dir.path(), &component, r#"{"word":"two"}"#).await.unwrap_err();
        assert_eq!(failure.stage, BuildStage::Cases);
        let reason = r#"the case `any` (probe.toml:"#;
        assert!(failure.reason.starts_with(reason), "{failure}");
        assert!(failure.reason.ends_with(r#"failed: filter-prompt.answer: expected "one", got "two""#), "{failure}");
    }
}

#[tokio::test]
async fn a_plugin_that_fails_is_not_built_and_says_why() {
    for (cases, reason) in [
        (
            case("x", "request.text = \"answer hi\"\nfilter-prompt.answer = \"ho\""),
            r#"the case `x` (probe.toml:1) failed: filter-prompt.answer: expected "ho", got "hi""#,
        ),
        (
            case("x", "reply = { text = \"abc\", splits = \"every\" }\nfilter-reply.text = \"a\""),
            r#"the case `x` (probe.toml:1) failed: filter-reply.text: expected "a", got "abc""#,
        ),
        (
            case("x", "request.text = \"trap\"\nfilter-prompt = \"pass\""),
            r#"filter-prompt: expected "an outcome", got "it trapped: "#,
        ),
        (case("x", "request.text = \"a\"\ncompose = \"unchanged\""), "it has no such hook"),
        (case("x", "config.wrong = 1\nauthenticate = \"abstain\""), "unknown field `wrong`"),
        (
            case("x", "config.init = \"trap\"\nauthenticate = \"abstain\""),
            "setup: expected \"an instance\", got \"init: it trapped",
        ),
        ("[[case]]\nname = 1".to_owned(), "probe.toml:1:1: the case expects nothing; add one of `setup`, "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let failure = build(dir.path(), &with_cases("probe", &cases), "{}").await.unwrap_err();
        assert_eq!(failure.stage, BuildStage::Cases, "{cases}\n{failure}");
        assert!(failure.reason.contains(reason), "{cases}\n{failure}");
        assert!(!dir.path().join("probe.plugin").exists() && !dir.path().join("probe.cases").exists());
    }
}

/// Cases under configs of their own are not run again for another config of the operator's; those under his are.
#[tokio::test]
async fn what_passed_before_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path(), &with_cases("probe", GOOD), r#"{"word":"a"}"#).await.unwrap();
    let wrong = case("x", "config.word = \"b\"\nrequest.text = \"config\"\nfilter-prompt.answer = \"c\"");
    let wrong = with_cases("probe", &wrong);
    // The note is the test's: a real one is for another component.
    build(dir.path(), &wrong, r#"{"word":"a"}"#).await.unwrap();
    assert!(build(dir.path(), &wrong, r#"{"word":"b"}"#).await.is_err());
    std::fs::write(dir.path().join("probe.cases"), "forged").unwrap();
    assert!(build(dir.path(), &wrong, r#"{"word":"a"}"#).await.is_err());
}

#[tokio::test]
async fn chance_is_the_same_in_every_run() {
    let cases = case("x", "request.text = \"entropy\"\nfilter-prompt.answer = \"?\"");
    let mut seen = Vec::new();
    for name in ["probe", "probe", "probe-without-snapshot"] {
        seen.push(test(&component(name), &cases, 60).await.failures);
    }
    assert_eq!((seen[0].len(), &seen[0], &seen[0]), (1, &seen[1], &seen[2]));
}

#[tokio::test]
async fn cases_end_when_their_time_is_up() {
    let spin = |name: &str| case(name, "request.text = \"loop\"\nfilter-prompt = \"pass\"");
    let tested = test(&component("probe"), &format!("{}{}", spin("a"), spin("b")), 3).await;
    assert_eq!((tested.cases, tested.failures.len(), tested.unfinished), (2, 1, 1));
    assert!(tested.failures[0].to_string().contains("it used up its CPU time"), "{}", tested.failures[0]);
}
