//! From wire to request, and what is refused on the way.

use proptest::prelude::*;
use tollgate_domain::{KeepAlive, RefusalKind};

use super::*;
use crate::json;
use crate::openai::{FIELDS, Treatment};

/// A request with `value` as its field `name`.
fn with(name: &str, value: &str) -> String {
    let mut fields = vec![("model", "\"demo\""), ("messages", r#"[{"role":"user","content":"hi"}]"#)];
    if name == "stream_options" {
        fields.push(("stream", "true"));
    }
    if name == "top_logprobs" {
        fields.push(("logprobs", "true"));
    }
    fields.retain(|(held, _)| *held != name);
    fields.push((name, value));
    let entries = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>();
    format!("{{{}}}", entries.join(","))
}

fn decoded(text: &str) -> Result<Decoded, Refusal> {
    decode(json::parse(text.as_bytes()).expect("JSON"))
}

#[test]
fn every_row_of_the_table_is_true() {
    for field in FIELDS {
        // Any JSON is a context.
        let has_examples = !field.taken.is_empty() && (!field.refused.is_empty() || field.name == "context");
        assert!(has_examples, "{} has no examples", field.name);
        for value in field.taken {
            let text = with(field.name, value);
            assert!(decoded(&text).is_ok(), "{text}: {:?}", decoded(&text));
        }
        for value in field.refused {
            let text = with(field.name, value);
            let refusal = decoded(&text).expect_err(&text);
            assert_eq!(refusal.kind, RefusalKind::Invalid, "{text}");
            let named = refusal.field.unwrap_or_default();
            assert!(named.starts_with(field.name), "{text} names {named}");
            assert!(refusal.message.contains(field.name), "{text} says {}", refusal.message);
        }
    }
}

#[test]
fn null_is_absent() {
    let plain = decoded(&with("user", "\"x\"")).unwrap();
    // Tried apart: the two that are required, and those that this test sends with another.
    let apart = ["messages", "model", "stream_options", "top_logprobs"];
    for field in FIELDS.iter().filter(|field| !apart.contains(&field.name)) {
        assert_eq!(decoded(&with(field.name, "null")).as_ref(), Ok(&plain), "{}", field.name);
    }
    assert_eq!(decoded(&with("model", "null")).unwrap().chat.model, "");
    assert!(!decoded(&with("stream_options", "null")).unwrap().include_usage);
    assert_eq!(decoded(&with("top_logprobs", "null")).unwrap().chat.parameters.logprobs, Some(0));
    assert_eq!(decoded(&with("messages", "null")).unwrap_err().code, "missing_required_parameter");
}

#[test]
fn what_is_accepted_or_refused_changes_nothing() {
    let plain = decoded(&with("stream", "false")).unwrap();
    for field in FIELDS {
        if matches!(field.treatment, Treatment::Accepted | Treatment::Refused) {
            for value in field.taken {
                assert_eq!(decoded(&with(field.name, value)).as_ref(), Ok(&plain), "{} = {value}", field.name);
            }
        }
    }
}

#[test]
fn what_is_honoured_arrives() {
    let text = r#"{"model":"demo","messages":[{"role":"user","content":"hi"}],"temperature":0.5,"top_p":0.25,"top_k":40,
        "min_p":0.125,"repeat_penalty":1.5,"frequency_penalty":-2,"presence_penalty":2,"max_completion_tokens":7,"seed":3,
        "logit_bias":{"50":-100,"7":2.5,"8":null},"logprobs":true,"top_logprobs":5,"stop":["a","b"],
        "stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},
        "template":"decision","context":{"z":1,"a":[2]},"keep_alive":"5m"}"#;
    let decoded = decoded(text).unwrap();
    assert!(decoded.is_stream && decoded.include_usage);
    assert_eq!(decoded.keep_alive, Some(KeepAlive::Seconds(300)));
    let expected = Parameters {
        max_tokens: Some(7),
        temperature: Some(0.5),
        top_p: Some(0.25),
        top_k: Some(40),
        min_p: Some(0.125),
        frequency_penalty: Some(-2.0),
        presence_penalty: Some(2.0),
        repeat_penalty: Some(1.5),
        seed: Some(3),
        stop: vec!["a".to_owned(), "b".to_owned()],
        logit_bias: vec![(50, -100.0), (7, 2.5)],
        logprobs: Some(5),
    };
    assert_eq!(decoded.chat.parameters, expected);
    let attribute = |name: &str, value: &str| Attribute { name: name.to_owned(), value: value.to_owned() };
    // The order of names is the client's.
    let fields = [attribute("template", "\"decision\""), attribute("context", r#"{"z":1,"a":[2]}"#)];
    assert_eq!(decoded.chat.fields, fields);
    assert_eq!((decoded.chat.model.as_str(), decoded.chat.format), ("demo", None));
}

#[test]
fn a_bias_is_bounded() {
    let biases = |count: u32| {
        let entries = (0..count).map(|token| format!("\"{token}\":1")).collect::<Vec<_>>();
        decoded(&with("logit_bias", &format!("{{{}}}", entries.join(","))))
    };
    assert_eq!(biases(300).unwrap().chat.parameters.logit_bias.len(), 300);
    assert_eq!(biases(301).unwrap_err().message, "`logit_bias` may have 300 entries; it has 301.");
    let refusal = decoded(&with("logit_bias", r#"{"4294967296":1}"#)).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("logit_bias.4294967296"));
}

#[test]
fn a_top_p_of_zero_keeps_the_likeliest_token() {
    let top_p = decoded(&with("top_p", "0")).unwrap().chat.parameters.top_p.unwrap();
    assert!(top_p > 0.0 && top_p < 1e-6);
}

#[test]
fn formats_become_schemas() {
    let format = |value: &str| decoded(&with("response_format", value)).unwrap().chat.format;
    assert_eq!(format(r#"{"type":"text"}"#), None);
    assert_eq!(format(r#"{"type":"json_object"}"#).as_deref(), Some(r#"{"type":"object"}"#));
    let schema = r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}"#;
    let named = format!(r#"{{"type":"json_schema","json_schema":{{"name":"n","strict":true,"schema":{schema}}}}}"#);
    // The order of properties is the order in which they are written.
    assert_eq!(format(&named).as_deref(), Some(schema));
}

#[test]
fn fields_that_go_together_are_checked_together() {
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    let cases = [
        (r#""max_tokens":1,"max_completion_tokens":1"#, "max_tokens"),
        (r#""stream_options":{"include_usage":true}"#, "stream_options"),
        (r#""stream":false,"stream_options":{}"#, "stream_options"),
        (r#""top_logprobs":5"#, "top_logprobs"),
        (r#""top_logprobs":1,"logprobs":false"#, "top_logprobs"),
        (r#""temprature":1"#, "temprature"),
    ];
    for (fields, named) in cases {
        let refusal = decoded(&format!("{{{messages},{fields}}}")).unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some(named), "{fields}");
    }
    assert_eq!(decoded("[]").unwrap_err().message, "The body has to be an object; it is an array.");
}

#[test]
fn an_unknown_name_is_shown_in_part_only() {
    let refusal = decoded(&with(&"x".repeat(5_000), "1")).unwrap_err();
    assert_eq!(refusal.code, "unknown_parameter");
    assert!(refusal.message.len() < 200);
}

/// Any JSON, small.
fn any_json() -> impl Strategy<Value = Json> {
    let word = prop::sample::select(vec!["role", "content", "type", "text", "user", "name", "json_schema", "schema", "", "x"]);
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|number| Json::Number(number.into())),
        (-4_i32..5).prop_map(|number| Json::Number(number.into())),
        word.clone().prop_map(|text| Json::Text(text.to_owned())),
        "[a-z<>| ]{0,8}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let entries = prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Json::List),
            entries.prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

/// A refusal is the client's fault and says which, in a bounded text.
fn is_sound(result: Result<Decoded, Refusal>) -> Result<(), TestCaseError> {
    if let Err(refusal) = result {
        prop_assert_eq!(refusal.kind, RefusalKind::Invalid);
        prop_assert!(!refusal.code.is_empty() && refusal.message.len() < 1_000);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_json_is_taken_or_refused(json in any_json()) {
        is_sound(decode(json))?;
    }

    #[test]
    fn any_value_of_any_field_is_taken_or_refused(at in 0..FIELDS.len(), value in any_json()) {
        let text = with(FIELDS[at].name, &value.to_text());
        is_sound(decoded(&text))?;
    }
}
