//! The plugin against its generated corpus, at every split.

use tollgate_sdk::{
    Attribute, ChatRequest, Context, FilterPrompt, FilterReply, Message, Origin, Outcome, Piece, Plugin, Role, Step, ToolCall,
    Verdict, testing,
};

use super::{Config, FilterPii, corpus};

fn plugin(config: &str) -> FilterPii {
    let config: Config = serde_json::from_str(config).expect("the config is well-formed");
    FilterPii::new(config).expect("the config is accepted")
}

fn replaced(outcome: Outcome) -> ChatRequest {
    match outcome.verdict {
        Verdict::Replace(request) => request,
        other => panic!("expected another request, got {other:?}"),
    }
}

fn flags(outcome: &Outcome) -> Vec<(&str, u32)> {
    outcome.flags.iter().map(|flag| (flag.name.as_str(), flag.count)).collect()
}

fn text_of(mut request: ChatRequest) -> String {
    request.texts_mut().map(|(_, _, text)| text.clone()).collect::<Vec<_>>().join("|")
}

/// What leaves of one reply, stream by stream: text, reasoning, and the tools' names and arguments.
fn reply(plugin: &FilterPii, pieces: impl IntoIterator<Item = Piece>) -> (String, String, String) {
    reply_in(testing::context(), plugin, pieces)
}

fn reply_in(ctx: Context, plugin: &FilterPii, pieces: impl IntoIterator<Item = Piece>) -> (String, String, String) {
    let mut reply = plugin.start(ctx, 0);
    let mut steps: Vec<Step> = pieces.into_iter().map(|piece| plugin.push(&mut reply, piece)).collect();
    steps.push(plugin.finish(&mut reply));
    let (mut text, mut reasoning, mut tools) = (String::new(), String::new(), String::new());
    for piece in steps.into_iter().flat_map(|step| step.release) {
        match piece {
            Piece::Text(part) => text.push_str(&part),
            Piece::Reasoning(part) => reasoning.push_str(&part),
            Piece::ToolName(part) => tools.push_str(&format!("<{part}>")),
            Piece::ToolArguments(part) => tools.push_str(&part),
        }
    }
    (text, reasoning, tools)
}

fn by_character(text: &str) -> impl Iterator<Item = Piece> {
    text.chars().map(|c| Piece::Text(c.to_string()))
}

#[test]
fn a_prompt_is_masked_but_for_what_the_operator_wrote() {
    let mut request = testing::request("I am a@b.co and A@B.CO");
    request.messages.insert(0, Message::text(Role::System, Origin::Template, "Mail help@b.co"));
    request.messages.push(Message::text(Role::Tool, Origin::Retrieved, "call 081234567890"));
    let mut turn = Message::text(Role::Assistant, Origin::History, "a@b.co");
    turn.tool_calls.push(ToolCall {
        id: "1".to_owned(),
        name: "pay".to_owned(),
        arguments: r#"{"card":4111111111111111}"#.to_owned(),
    });
    request.messages.push(turn);
    let outcome = plugin("{}").filter_prompt(testing::context(), request);
    assert_eq!(flags(&outcome), [("pii.email", 3), ("pii.card", 1), ("pii.phone", 1)]);
    let request = replaced(outcome);
    let call = request.messages.last().and_then(|message| message.tool_calls.first()).expect("the call stays");
    assert_eq!(call.arguments, r#"{"card":"[CARD_1]"}"#);
    assert_eq!(text_of(request), "Mail help@b.co|I am [EMAIL_1] and [EMAIL_1]|call [PHONE_1]|[EMAIL_1]");
}

#[test]
fn a_clean_prompt_passes() {
    let outcome = plugin("{}").filter_prompt(testing::context(), testing::request("2026-05-01, Rp 62.500.000.000, v1.2.3"));
    assert!(matches!(outcome.verdict, Verdict::Pass));
    assert!(outcome.flags.is_empty());
}

#[test]
fn a_reply_is_masked_and_its_numbers_go_on() {
    let plugin = plugin("{}");
    replaced(plugin.filter_prompt(testing::context(), testing::request("a@b.co")));
    let (text, _, _) = reply(&plugin, by_character("Ask [EMAIL_1], a@b.co or c@d.co."));
    assert_eq!(text, "Ask [EMAIL_1], [EMAIL_1] or [EMAIL_2].");
}

#[test]
fn planted_values_are_restored_and_no_others() {
    let plugin = plugin(r#"{"restore":true}"#);
    replaced(plugin.filter_prompt(testing::context(), testing::request("I am a@b.co, +62 812-3456-7890")));
    let (text, _, _) = reply(&plugin, by_character("Dear [EMAIL_1] ([PHONE_1]), not [EMAIL_2] but c@d.co"));
    assert_eq!(text, "Dear a@b.co (+62 812-3456-7890), not [EMAIL_2] but [EMAIL_2]");
}

#[test]
fn streams_do_not_mix() {
    let pieces = [
        Piece::Reasoning("who is a@".to_owned()),
        Piece::Text("It is 0812345".to_owned()),
        Piece::Reasoning("b.co".to_owned()),
        Piece::Text("67890".to_owned()),
        Piece::ToolName("mail".to_owned()),
        Piece::ToolArguments(r#"{"to":"c@"#.to_owned()),
        Piece::ToolArguments(r#"d.co"}"#.to_owned()),
        Piece::ToolName("call".to_owned()),
        Piece::ToolArguments("6281234567890".to_owned()),
    ];
    let (text, reasoning, tools) = reply(&plugin("{}"), pieces);
    assert_eq!(text, "It is [PHONE_1]");
    // The reasoning's address is decided last: until the end it could go on.
    assert_eq!(reasoning, "who is [EMAIL_2]");
    assert_eq!(tools, r#"<mail>{"to":"[EMAIL_1]"}<call>"[PHONE_2]""#);
}

#[test]
fn a_step_says_what_it_masked() {
    let plugin = plugin("{}");
    let mut reply = plugin.start(testing::context(), 0);
    let step = plugin.push(&mut reply, Piece::Text("a@b.co, 0812".to_owned()));
    assert_eq!(step.release, [Piece::Text("[EMAIL_1], ".to_owned())]);
    assert_eq!(step.flags.iter().map(|flag| (flag.name.as_str(), flag.count)).collect::<Vec<_>>(), [("pii.email", 1)]);
    let step = plugin.push(&mut reply, Piece::Text("3456789".to_owned()));
    assert!(step.release.is_empty() && step.flags.is_empty() && step.cut.is_none());
    let step = plugin.finish(&mut reply);
    assert_eq!(step.release, [Piece::Text("[PHONE_1]".to_owned())]);
}

/// P-W9 through the hooks: what a client receives is the masked text, piece by piece.
#[test]
fn the_corpus_streams_masked() {
    for sample in corpus::samples(300, 2) {
        let (text, _, _) = reply(&plugin("{}"), by_character(&sample.text));
        assert_eq!(text, sample.masked);
    }
}

#[test]
fn the_config_is_strict() {
    assert!(serde_json::from_str::<Config>(r#"{"kind":["email"]}"#).is_err());
    assert!(serde_json::from_str::<Config>(r#"{"kinds":["name"]}"#).is_err());
    let none: Config = serde_json::from_str(r#"{"kinds":[]}"#).expect("well-formed");
    assert!(FilterPii::new(none).is_err());
    let only = plugin(r#"{"kinds":["email"]}"#);
    let outcome = only.filter_prompt(testing::context(), testing::request("a@b.co 081234567890"));
    assert_eq!(text_of(replaced(outcome)), "[EMAIL_1] 081234567890");
}

/// P-W9: an escape's letter is no part of a word, and a reply under a schema stays JSON.
#[test]
fn a_reply_under_a_schema_is_screened_as_json() {
    let mut ctx = testing::context();
    ctx.attributes.push(Attribute { name: "format".to_owned(), value: "\"json\"".to_owned() });
    let (text, _, _) = reply_in(ctx.clone(), &plugin("{}"), by_character(r#"{"t":"Call:\n081234567890"}"#));
    assert_eq!(text, r#"{"t":"Call:\n[PHONE_1]"}"#);
    let (text, _, _) = reply_in(ctx, &plugin("{}"), by_character(r#"{"n":4111111111111111}"#));
    assert_eq!(text, r#"{"n":"[CARD_1]"}"#);
}

#[test]
fn a_speakers_name_is_masked_too() {
    let mut request = testing::request("hello");
    for message in &mut request.messages {
        message.name = Some("bob@corp.example".to_owned());
    }
    let screened = replaced(plugin("{}").filter_prompt(testing::context(), request));
    assert_eq!(screened.messages.first().and_then(|message| message.name.as_deref()), Some("[EMAIL_1]"));
}

/// A full stop after an address of any length belongs to the sentence.
#[test]
fn the_longest_domain_may_end_a_sentence() {
    let domain = format!("{}.{}.org", "a".repeat(30), "b".repeat(27));
    assert_eq!(domain.len(), 62);
    for end in ["", ".", ". Next", " next"] {
        let (text, _, _) = reply(&plugin("{}"), by_character(&format!("x@{domain}{end}")));
        assert_eq!(text, format!("[EMAIL_1]{end}"));
    }
}

#[test]
fn golden_cases() {
    tollgate_sdk::cases::check::<FilterPii>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
}
