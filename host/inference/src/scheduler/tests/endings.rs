//! How replies end: by themselves, by a stop, by a limit, by a schema, by a fault.

use serde_json::Value;

use super::*;

#[test]
fn a_reply_ends_by_itself_and_usage_is_exact() {
    let mut bench = Bench::new(Settings::default());
    let heard = bench.hear(&ask("say xyz"));
    assert_eq!(heard.text(), "xyz");
    let finish = heard.finish();
    // Three tokens of one byte; the one that ends the reply is not counted.
    assert_eq!((finish.reason, finish.usage.completion, &finish.stop), (FinishReason::Stop, 3, &None));
    assert_eq!(bench.gauges.decoded_tokens(), 3);
    // Three control tokens, a new line, and the rest byte by byte.
    let prompt = 3 + 1 + "user\nsay xyz".len() + "assistant\n".len();
    assert_eq!(usize::try_from(finish.usage.prompt).expect("small"), prompt);
}

#[test]
fn limits_and_stops_cut_exactly() {
    let mut bench = Bench::new(Settings::default());
    let limited = Parameters { max_tokens: Some(2), temperature: Some(0.0), ..Parameters::default() };
    let heard = bench.hear(&Ask { parameters: limited, ..ask("say xyz") });
    assert_eq!((heard.text().as_str(), heard.finish().reason), ("xy", FinishReason::Length));
    assert_eq!(heard.finish().usage.completion, 2);

    let stops = Parameters { stop: vec!["q".into(), "d the c".into()], temperature: Some(0.0), ..Parameters::default() };
    let heard = bench.hear(&Ask { parameters: stops.clone(), ..ask("say a dog and the cat") });
    assert_eq!((heard.text().as_str(), heard.finish().reason), ("a dog an", FinishReason::Stop));
    assert_eq!(heard.finish().stop.as_deref(), Some("d the c"));

    // What only looked like a stop is shown at the end.
    let heard = bench.hear(&Ask { parameters: stops, ..ask("say and the") });
    assert_eq!((heard.text().as_str(), heard.finish().reason), ("and the", FinishReason::Stop));
}

#[test]
fn characters_come_whole_and_one_cut_by_the_limit_is_replaced() {
    let mut bench = Bench::new(Settings::default());
    let heard = bench.hear(&ask("utf8 50"));
    assert_eq!(heard.text().chars().count(), 50);
    assert!(heard.pieces.iter().all(|piece| !piece.as_str().contains('\u{fffd}')));
    // The first character has two bytes.
    let parameters = Parameters { max_tokens: Some(1), temperature: Some(0.0), ..Parameters::default() };
    assert_eq!(bench.hear(&Ask { parameters, ..ask("utf8 1") }).text(), "\u{fffd}");
}

#[test]
fn thoughts_are_pieces_of_their_own() {
    let heard = Bench::new(Settings::default()).hear(&ask("think hm hm"));
    let thought: String = heard.pieces.iter().filter(|piece| matches!(piece, Piece::Reasoning(_))).map(Piece::as_str).collect();
    let text: String = heard.pieces.iter().filter(|piece| matches!(piece, Piece::Text(_))).map(Piece::as_str).collect();
    assert_eq!((thought.as_str(), text.as_str()), ("hm hm", "done"));
}

/// A step that fails ends those who were in it, and nobody else.
#[test]
fn a_fault_ends_its_own_step_and_the_loop_goes_on() {
    let mut bench = Bench::new(Settings { max_sequences: 1, ..Settings::default() });
    let mut failing = bench.submit(&ask("fail 3"));
    let mut nan = bench.submit(&ask("nan"));
    let mut good = bench.submit(&ask("say good"));
    bench.run();
    let heard = listen(&mut failing);
    assert!(matches!(heard.error(), GenerateError::Backend(_)) && !heard.pieces.is_empty());
    assert_eq!(*listen(&mut nan).error(), GenerateError::NotANumber);
    assert_eq!(listen(&mut good).text(), "good");
    assert!(bench.is_at_rest());
}

#[test]
fn an_end_is_told_after_the_books_are_done() {
    let mut bench = Bench::new(Settings::default());
    let mut reply = bench.submit(&ask("say x"));
    while listen(&mut reply).end.is_none() {
        assert_eq!(bench.gauges.running(), usize::from(bench.gauges.steps() > 0));
        bench.step();
    }
    assert!(bench.is_at_rest());
}

fn constrained(schema: &'static str, temperature: f32, seed: u64) -> Heard {
    let parameters =
        Parameters { temperature: Some(temperature), seed: Some(seed), max_tokens: Some(400), ..Parameters::default() };
    Bench::new(Settings::default()).hear(&Ask { schema: Some(schema), parameters, ..ask("json") })
}

/// Whatever the temperature, what comes is what the schema says.
#[test]
fn a_schema_is_followed() {
    let person = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer"},
        "role":{"enum":["admin","user"]},"tags":{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":3}},
        "required":["name","age","role","tags"],"additionalProperties":false}"#;
    for (temperature, seed) in [(0.0, 0), (0.5, 1), (1.0, 2), (1.0, 3)] {
        let heard = constrained(person, temperature, seed);
        assert_eq!(heard.finish().reason, FinishReason::Stop, "{}", heard.text());
        let value: Value = serde_json::from_str(&heard.text()).expect("JSON");
        assert_eq!(value.as_object().expect("an object").len(), 4, "{value}");
        assert!(value["name"].as_str().expect("a string").chars().count() <= 8, "{value}");
        assert!(value["age"].is_i64() || value["age"].is_u64(), "{value}");
        assert!(["admin", "user"].contains(&value["role"].as_str().expect("a string")), "{value}");
        let tags = value["tags"].as_array().expect("an array");
        assert!((2..=3).contains(&tags.len()) && tags.iter().all(Value::is_boolean), "{value}");
    }
    let any = constrained(r#"{"type":"object"}"#, 0.0, 0);
    assert!(serde_json::from_str::<Value>(&any.text()).expect("JSON").is_object());
    assert_eq!(any.finish().reason, FinishReason::Stop);
}

#[test]
fn a_value_cut_by_the_limit_says_so() {
    let schema = r#"{"type":"object","properties":{"a_long_name":{"type":"string"}},"required":["a_long_name"]}"#;
    let parameters = Parameters { max_tokens: Some(4), temperature: Some(0.0), ..Parameters::default() };
    let heard = Bench::new(Settings::default()).hear(&Ask { schema: Some(schema), parameters, ..ask("json") });
    assert_eq!((heard.finish().reason, heard.finish().usage.completion), (FinishReason::Length, 4));
    assert!(serde_json::from_str::<Value>(&heard.text()).is_err());
}
