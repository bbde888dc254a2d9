//! Choice, variables, origins and bounds.

use tollgate_sdk::{
    Attribute, BlobRef, ChatRequest, Compose, Context, Message, Origin, Part, PartContent, Plugin, Refusal, RefusalKind, Role,
    testing,
};

use super::{Config, DECISION, TemplateJinja, prompt};

fn build(config: serde_json::Value) -> Result<TemplateJinja, String> {
    TemplateJinja::new(serde_json::from_value::<Config>(config).expect("the config is well-formed"))
}

fn plugin(config: serde_json::Value) -> TemplateJinja {
    build(config).expect("the config is accepted")
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: value.to_owned() }
}

fn on_route(template: &str) -> Context {
    Context { attributes: vec![attribute("template", template)], ..testing::context() }
}

/// Role, origin and text of every text part.
fn texts(mut request: ChatRequest) -> Vec<(Role, Origin, String)> {
    request.texts_mut().map(|(role, origin, text)| (role, origin, text.clone())).collect()
}

fn only_text(result: Result<ChatRequest, Refusal>) -> String {
    let texts = texts(result.expect("it composes"));
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts.into_iter().map(|(_, _, text)| text).collect()
}

#[test]
fn a_fixed_system_prompt_is_the_operators_text() {
    let plugin = plugin(serde_json::json!({"system": "Be brief{{ '.' ~ '..' }}"}));
    let request = plugin.compose(testing::context(), testing::request("hi")).expect("it composes");
    assert_eq!(
        texts(request),
        [(Role::System, Origin::Template, "Be brief...".to_owned()), (Role::User, Origin::User, "hi".to_owned())]
    );
}

#[test]
fn a_system_prompt_with_words_of_the_request_is_screened_like_the_users() {
    for (system, text) in [
        ("For {{ principal.tenant }} by {{ model }}", "For default by demo"),
        ("{{ messages[0].role }}: {{ messages[0].content }}", "user: hi"),
        ("{% include 'quote' %}", "> hi"),
    ] {
        let plugin = plugin(serde_json::json!({"system": system, "templates": {"quote": "> {{ message }}"}}));
        let request = plugin.compose(testing::context(), testing::request("hi")).expect("it composes");
        assert_eq!(texts(request).first(), Some(&(Role::System, Origin::User, text.to_owned())));
    }
}

#[test]
fn the_route_chooses_before_the_request_before_the_default() {
    let plugin = plugin(serde_json::json!({
        "default": "c",
        "templates": {"a": "A {{ message }}", "b": "B {{ message }}", "c": "C {{ message }}"}
    }));
    let with_field = || ChatRequest { fields: vec![attribute("template", "\"b\"")], ..testing::request("hi") };
    assert_eq!(only_text(plugin.compose(on_route("\"a\""), with_field())), "A hi");
    assert_eq!(only_text(plugin.compose(testing::context(), with_field())), "B hi");
    assert_eq!(only_text(plugin.compose(testing::context(), testing::request("hi"))), "C hi");
}

#[test]
fn without_a_choice_the_message_stays() {
    let plugin = plugin(serde_json::json!({"templates": {"a": "A"}}));
    assert_eq!(only_text(plugin.compose(testing::context(), testing::request("hi"))), "hi");
}

#[test]
fn an_unknown_name_is_refused_with_the_known_ones() {
    let plugin = plugin(serde_json::json!({"templates": {"alpha": "A", "beta": "B"}}));
    for value in ["\"gamma\"", "\"(system)\"", "7", "nonsense"] {
        let request = ChatRequest { fields: vec![attribute("template", value)], ..testing::request("hi") };
        let refusal = plugin.compose(testing::context(), request).expect_err(value);
        assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Invalid, "unknown_template"));
        assert!(refusal.message.contains("alpha, beta"), "{}", refusal.message);
    }
    let refusal = plugin.compose(on_route("\"gamma\""), testing::request("hi")).expect_err("the route is wrong");
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
}

#[test]
fn only_the_last_user_messages_text_is_replaced() {
    let blob = BlobRef { media_type: "image/png".to_owned(), size: 1, sha256: "0".repeat(64) };
    let mut last = Message::text(Role::User, Origin::User, "two");
    last.parts.insert(0, Part { origin: Origin::User, content: PartContent::Blob(blob) });
    last.parts.push(Part { origin: Origin::User, content: PartContent::Text("three".to_owned()) });
    let request = ChatRequest {
        messages: vec![
            Message::text(Role::User, Origin::History, "one"),
            last,
            Message::text(Role::Assistant, Origin::History, "answer"),
        ],
        ..testing::request("")
    };
    let plugin = plugin(serde_json::json!({"default": "q", "templates": {"q": "<{{ message }}>"}}));
    let request = plugin.compose(testing::context(), request).expect("it composes");
    let parts = &request.messages.get(1).expect("the messages stay").parts;
    assert!(matches!(parts.first().map(|part| &part.content), Some(PartContent::Blob(_))), "{parts:?}");
    assert_eq!(parts.len(), 2);
    assert_eq!(
        texts(request),
        [
            (Role::User, Origin::History, "one".to_owned()),
            (Role::User, Origin::User, "<two\nthree>".to_owned()),
            (Role::Assistant, Origin::History, "answer".to_owned()),
        ]
    );
}

#[test]
fn a_template_without_a_user_message_is_refused() {
    let plugin = plugin(serde_json::json!({"default": "q", "templates": {"q": "Q"}}));
    let request = ChatRequest { messages: Vec::new(), ..testing::request("") };
    let refusal = plugin.compose(testing::context(), request).expect_err("nothing to replace");
    assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Invalid, "template_without_message"));
}

/// E25: four numbered sections, the situation, and the context where there is one.
#[test]
fn the_decision_template_has_its_four_sections() {
    let plugin = plugin(serde_json::json!({"default": "decision", "templates": {"decision": DECISION}}));
    let fields = vec![attribute("context", "\"Budget: 10 <million> & \\\"firm\\\"\"")];
    let with_context = ChatRequest { fields, ..testing::request("Vendor A or B?") };
    let text = only_text(plugin.compose(testing::context(), with_context));
    for part in ["Vendor A or B?", "Context:\nBudget: 10 <million> & \"firm\"", "\n1. ", "\n2. ", "\n3. ", "\n4. "] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    let text = only_text(plugin.compose(testing::context(), testing::request("Vendor A or B?")));
    assert!(!text.contains("Context:"), "{text:?}");
}

#[test]
fn what_the_user_writes_is_never_a_template() {
    let plugin = plugin(serde_json::json!({"default": "q", "templates": {"q": "{{ message }}"}}));
    let text = "{{ principal.id }} {% for x in y %} {# c #}";
    assert_eq!(only_text(plugin.compose(testing::context(), testing::request(text))), text);
}

#[test]
fn a_template_that_runs_or_writes_too_much_is_refused() {
    let plugin = plugin(serde_json::json!({"templates": {
        "loop": "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
        "wide": "{% for a in range(1000) %}{{ message }}{% endfor %}",
        "odd": "line one\n{{ fields.absent.deeper }}",
    }}));
    let long = "x".repeat(prompt::MAX_OUTPUT_BYTES / 1000 + 1);
    for (name, kind, code) in [
        ("loop", RefusalKind::Unavailable, "template_failed"),
        ("wide", RefusalKind::TooLarge, "template_output_too_large"),
        ("odd", RefusalKind::Unavailable, "template_failed"),
    ] {
        let refusal = plugin.compose(on_route(&format!("\"{name}\"")), testing::request(&long)).expect_err(name);
        assert_eq!((refusal.kind, refusal.code.as_str()), (kind, code), "{refusal:?}");
        assert!(!refusal.detail.contains("xxx"), "{}", refusal.detail);
        if name == "odd" {
            assert!(refusal.detail.contains("template=odd line=2"), "{}", refusal.detail);
        }
    }
}

#[test]
fn a_broken_config_says_where() {
    for (config, part) in [
        (serde_json::json!({}), "nothing to do"),
        (serde_json::json!({"templates": {"a": "ok\n\n{{ open"}}), "template `a`, line 3"),
        (serde_json::json!({"system": "{% if %}"}), "template `(system)`, line 1"),
        (serde_json::json!({"default": "b", "templates": {"a": "A"}}), "known are: a"),
        (serde_json::json!({"templates": {"a b": "A"}}), "`a b` is no name"),
    ] {
        let error = build(config).expect_err(part);
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
    assert!(serde_json::from_str::<Config>(r#"{"sytem":"x"}"#).is_err());
}

#[test]
fn golden_cases() {
    tollgate_sdk::cases::check::<TemplateJinja>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
}
