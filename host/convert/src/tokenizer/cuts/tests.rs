//! Which expressions are known, and which are not.

use serde_json::{Value, json};

use super::*;

fn named(pre: &Value, keeps_words: bool) -> Result<&'static str, String> {
    of(Some(pre)).and_then(|cuts| name(&cuts, keeps_words)).map_err(|error| error.to_string())
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn sequence(mut steps: Vec<Value>, regex: bool) -> Value {
    steps.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex}));
    json!({"type": "Sequence", "pretokenizers": steps})
}

#[test]
fn the_known_ways_have_their_names() {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    assert_eq!(named(&bytes, false), Ok("gpt-2"));
    let llama = sequence(vec![split(LLAMA3)], false);
    assert_eq!(named(&llama, true), Ok("llama-bpe"));
    assert_eq!(named(&llama, false), Ok("dbrx"));
    assert_eq!(named(&sequence(vec![split(QWEN2)], false), false), Ok("qwen2"));
    assert_eq!(named(&sequence(vec![split(TEKKEN)], false), true), Ok("tekken"));
    assert_eq!(named(&sequence(vec![split(GPT4O)], false), false), Ok("gpt-4o"));
    let digits = json!({"type": "Digits", "individual_digits": true});
    assert_eq!(named(&sequence(vec![digits], true), false), Ok("smollm"));
    let three = [r"\p{N}{1,3}", DEEPSEEK_V3_EAST, DEEPSEEK_V3].map(split).to_vec();
    assert_eq!(named(&sequence(three, false), false), Ok("deepseek-v3"));
}

#[test]
fn keeping_only_what_matches_is_the_same() {
    let step = json!({"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Removed", "invert": true});
    assert_eq!(named(&sequence(vec![step], false), false), Ok("dbrx"));
}

#[test]
fn an_unknown_expression_is_named() {
    let refusal = named(&sequence(vec![split(r"\w+|\W+")], false), false).unwrap_err();
    assert!(refusal.contains(r"\w+|\W+"), "{refusal}");
    assert!(refusal.contains("llama.cpp"), "{refusal}");
    let spaced = json!({"type": "ByteLevel", "add_prefix_space": true});
    assert!(named(&spaced, false).unwrap_err().contains("add_prefix_space"));
}

#[test]
fn hostile_steps_are_refused_and_not_followed() {
    for pre in [
        json!({"type": "Split"}),
        json!({"type": "Split", "pattern": "x", "behavior": 3}),
        json!([1, 2]),
        json!("x"),
        json!({"type": "Sequence", "pretokenizers": vec![split("a"); 17]}),
        json!({"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": []}]}),
    ] {
        assert!(named(&pre, false).is_err(), "{pre}");
    }
}

#[test]
fn where_a_space_is_put_first() {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
    let llama2 = json!({"type": "Sequence", "normalizers": [prepend, replace]});
    assert!(space_first(Some(&llama2), &[]).unwrap());
    let gemma =
        of(Some(&json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false})));
    assert!(!space_first(Some(&replace), &gemma.unwrap()).unwrap());
    let mistral = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false});
    assert!(space_first(None, &of(Some(&mistral)).unwrap()).unwrap());
    let never = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never", "split": false});
    assert!(!space_first(None, &of(Some(&never)).unwrap()).unwrap());
    assert!(space_first(Some(&json!({"type": "Lowercase"})), &[]).is_err());
    assert!(space_first(None, &[]).is_err());
}
