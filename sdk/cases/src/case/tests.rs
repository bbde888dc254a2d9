//! What a file may say, and what is said of one that is wrong.

use super::*;
use crate::words::{Origin, Piece, Role};

fn read(text: &str) -> Result<Set, Problems> {
    Set::read(&[("a.toml", text)])
}

fn problems(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

fn only(text: &str) -> Case {
    read(text).expect("it is well-formed").cases().first().expect("it has one").clone()
}

#[test]
fn a_file_sets_what_its_cases_leave_open() {
    let text = r#"
config = { kinds = ["email"], limit = 3, share = 0.5 }
credentials = { key = { id = "ann", roles = [] }, old = { expired-at-ms = 7 }, gone = "revoked" }
context.route = "short"
head.headers = [["x-a", "1"], ["x-a", "2"]]

[[case]]
name = "one"
authenticate = "abstain"

[[case]]
name = "two"
config = "any"
credentials = {}
context.received-at-ms = 5
head.client-ip = "::1"
authenticate.identity.id = "ann"
"#;
    let set = read(text).expect("well-formed");
    let [one, two] = set.cases() else { panic!("two cases") };
    assert_eq!(*one.config(), Config::Given(serde_json::json!({ "kinds": ["email"], "limit": 3, "share": 0.5 })));
    assert_eq!(one.lookup("key").expect("held").roles, Vec::<String>::new());
    assert_eq!(one.lookup("old"), Err(LookupError::Expired(7)));
    assert_eq!((one.lookup("gone"), one.lookup("x")), (Err(LookupError::Revoked), Err(LookupError::Unknown)));
    assert_eq!((one.context.route.as_str(), one.head.headers.len(), one.place().as_str()), ("short", 2, "a.toml:7"));
    // A case's own table takes the place of the file's as a whole.
    assert_eq!(*two.config(), Config::Any);
    assert_eq!((two.lookup("key"), two.context.route.as_str()), (Err(LookupError::Unknown), "chat"));
    assert_eq!((two.now_ms(), two.context.deadline_ms), (5, 60_005));
    assert!(two.head.headers.is_empty());
}

#[test]
fn a_request_is_marked_as_the_gateway_marks_it() {
    let case = only(
        r#"
[[case]]
name = "one"
request.messages = [
    { role = "system", text = "be brief" },
    { role = "assistant", tool-calls = [{ id = "1", name = "f", arguments = "{}" }] },
    { role = "user", name = "bob", parts = [{ text = "a" }, { text = "b", origin = "retrieved" }] },
]
request.parameters = { temperature = 0.7, seed = 9 }
request.fields = { context = { budget = 10 } }
compose.request.messages = [{ role = "user", text = "x" }]
"#,
    );
    let request = case.request.expect("given");
    let origins = request.messages.iter().flat_map(|message| message.parts.iter().map(|part| part.origin)).collect::<Vec<_>>();
    assert_eq!(origins, [Origin::History, Origin::User, Origin::Retrieved]);
    assert_eq!(
        request.messages.iter().map(|message| message.role).collect::<Vec<_>>(),
        [Role::System, Role::Assistant, Role::User]
    );
    assert_eq!((request.parameters.temperature, request.parameters.seed, request.model.as_str()), (Some(0.7), Some(9), "demo"));
    let Some(Composed::Request(like)) = &case.expect.compose else { panic!("a request") };
    let expected = like.over(&request);
    assert_eq!((expected.messages.len(), &expected.fields), (1, &request.fields), "what is not written stays as it came");
}

#[test]
fn a_reply_may_be_cut_in_every_way() {
    let case = only(
        r#"
[[case]]
name = "one"
reply.pieces = ["ab", { reasoning = "c" }, { tool-name = "mail" }, { tool-arguments = "{}" }]
reply.splits = [1, 8]
filter-reply = { unchanged = true, releases = ["a", "b", [{ reasoning = "c" }], "", "", "", ""] }
"#,
    );
    let reply = case.reply.expect("given");
    assert_eq!(reply.splits, Splits::At(vec![1, 8]));
    assert_eq!(splits::cut(&reply.pieces, &[1, 8]).first(), Some(&Piece::Text("a".to_owned())));
    let every = "[[case]]\nname = 'x'\nreply = { text = 'abcde', splits = 'every' }\nfilter-reply = 'unchanged'";
    assert_eq!(only(every).runs(), 1 + 4 + 6 + 1);
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    for (text, problem) in [
        ("confg = {}", "a.toml:1:1: unknown key `confg`; did you mean `config`?"),
        ("[[case]]\nname = 'x'\nautenticate = 'abstain'", "a.toml:3:1: unknown key `autenticate`; did you mean `authenticate`?"),
        ("[[case]]\nname = 'x'\nfilter_prompt = 'pass'", "did you mean `filter-prompt`?"),
        (
            "[[case]]\nname = 'x'\nrequest = { txt = 'a' }\ncompose = 'unchanged'",
            "unknown key `request.txt`; did you mean `text`?",
        ),
        (
            "[[case]]\nname = 'x'\nauthenticate.refuse = { kind = 'forbiden', code = 'c' }",
            "`authenticate.refuse.kind` cannot be `forbiden`; did you mean `forbidden`?",
        ),
        ("[[case]]\nname = 'x'\nauthenticate = 'abstein'", "did you mean `abstain`?"),
    ] {
        let found = problems(text);
        assert!(found.contains(problem), "{text}\n{found}");
    }
}

#[test]
fn what_makes_no_case_is_refused() {
    let case = |rest: &str| format!("[[case]]\nname = 'x'\n{rest}");
    for (text, problem) in [
        (String::new(), "the file has no case"),
        ("[[case]]".to_owned(), "`name` is missing"),
        (case(""), "the case expects nothing"),
        (case("request.text = 'a'\nauthenticate = 'abstain'"), "`request` is used by no hook"),
        (case("filter-prompt = 'pass'"), "`request` is missing"),
        (case("filter-reply = 'unchanged'"), "`reply` is missing"),
        (case("format.text = 'a'"), "`format` has no `reply`"),
        (case("reply.text = 'a'\nformat.constraint = true"), "nothing is expected of it"),
        (case("reply = { text = 'abc', splits = 'every' }\nformat.text = 'a'"), "`reply.splits` is for `filter-reply`"),
        (case("reply = { text = 'abc', splits = [2, 1] }\nfilter-reply = 'unchanged'"), "has to rise"),
        (case("reply = { text = 'abc', splits = [3] }\nfilter-reply = 'unchanged'"), "has to rise, and to cut inside a piece"),
        (case("reply.text = 'a'\nfilter-reply.releases = ['a']"), "has 1 entries for 1 pieces and the end"),
        (
            case("reply = { text = 'abc', splits = 'every' }\nfilter-reply = { text = 'abc', releases = [] }"),
            "depends on the split",
        ),
        (
            case("request.text = 'a'\nfilter-prompt.answer = 'b'\nreply.text = 'c'\nfilter-reply = 'unchanged'"),
            "ends in `filter-prompt`, and `filter-reply` comes after it",
        ),
        (case("setup.error = 'a'\nauthenticate = 'abstain'"), "ends in `setup`"),
        (case("request = { text = 'a', messages = [] }\ncompose = 'unchanged'"), "needs one of `text`, `messages`"),
        (case("head.headers = [['X-A', 'b']]\nauthenticate = 'abstain'"), "write the name in lower case"),
        (case("head.headers = [['x-a']]\nauthenticate = 'abstain'"), "a pair of name and value"),
        (case("head.client-ip = 'here'\nauthenticate = 'abstain'"), "no IP address"),
        (case("config.at = 2020-01-01\nauthenticate = 'abstain'"), "put it in quotes"),
        (case("request = { text = 'a', parameters = { temperature = 3 } }\ncompose = 'unchanged'"), "its range is 0 to 2"),
        (case("request = { text = 'a', format = '{' }\ncompose = 'unchanged'"), "text that is no JSON"),
        (case("filter-prompt = { pass = true, answer = 'a' }\nrequest.text = 'a'"), "needs one of `pass`, `replace`"),
        (case("filter-prompt.pass = false\nrequest.text = 'a'"), "`filter-prompt.pass` is true or false"),
        (format!("{}\n{}", case("authenticate = 'abstain'"), case("authenticate = 'abstain'")), "has the same name"),
        (
            case("reply.pieces = [{ text = 'a', reasoning = 'b' }]\nfilter-reply = 'unchanged'"),
            "needs one of `text`, `reasoning`",
        ),
    ] {
        let found = problems(&text);
        assert!(found.contains(problem), "{text}\n{found}");
        assert!(found.starts_with("a.toml:"), "{found}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let long = format!(
        "[[case]]\nname = 'x'\nreply = {{ text = '{}', splits = 'every' }}\nfilter-reply = 'unchanged'",
        "a".repeat(4_098)
    );
    assert!(problems(&long).contains("shorten the reply to 4096 or fewer"));
    let text = |at: usize| {
        format!(
            "[[case]]\nname = '{at}'\nreply = {{ text = '{}', splits = 'every' }}\nfilter-reply = 'unchanged'\n",
            "a".repeat(4_000)
        )
    };
    let many = (0..6).map(text).collect::<String>();
    assert!(problems(&many).contains("the cases need 24006 runs; 20000 at most"), "{}", problems(&many));
    let cases = (0..=MAX_CASES).map(|at| format!("[[case]]\nname = '{at}'\nauthenticate = 'abstain'\n")).collect::<String>();
    assert!(problems(&cases).contains("1000 at most"));
    let big = format!("#{}", "x".repeat(MAX_FILE_BYTES));
    assert!(problems(&big).contains("split it"));
    assert!(Set::read(&vec![("a.toml", ""); MAX_FILES + 1]).is_err());
    let name = Set::read(&[("a\nb.toml", "")]).expect_err("no name").to_string();
    assert!(name.starts_with("cases: a file is called `a\\nb.toml`"), "{name}");
    assert!(Set::read(&[("a.toml", b"\xff")]).expect_err("no text").to_string().contains("UTF-8"));
    let deep = format!("config = {}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(!problems(&deep).is_empty(), "depth ends the parser and not the process");
}

#[test]
fn a_filter_keeps_the_cases_that_it_names() {
    let text = "[[case]]\nname = 'an email'\nauthenticate = 'abstain'\n[[case]]\nname = 'a card'\nauthenticate = 'abstain'";
    let set = read(text).expect("well-formed");
    assert_eq!(set.clone().filtered("card").cases().len(), 1);
    assert!(set.filtered("iban").is_empty());
}
