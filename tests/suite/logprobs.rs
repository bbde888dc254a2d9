//! What is told of single tokens, and what is said of them: `logprobs`, `top_logprobs` and `logit_bias`.

use serde_json::{Value, json};
use tollgate_tests::{Gateway, Place};

use crate::support::Stream;

/// The entries of a list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A token's bytes.
fn bytes(token: &Value) -> Vec<u8> {
    list(&token["bytes"]).iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect()
}

/// Each token's text is its bytes, it is no likelier than the likeliest, and those add up to no more than 1.
fn is_sound(token: &Value, likeliest: usize) {
    let logprob = |token: &Value| token["logprob"].as_f64().unwrap();
    assert!((-9_999.0..=0.0).contains(&logprob(token)), "{token}");
    let others = list(&token["top_logprobs"]);
    assert_eq!(others.len(), likeliest, "{token}");
    assert!(others.is_sorted_by(|one, other| logprob(one) >= logprob(other)), "{token}");
    assert!(others.iter().all(|other| other.get("top_logprobs").is_none()), "{token}");
    assert!(others.iter().map(|other| logprob(other).exp()).sum::<f64>() < 1.0001, "{token}");
    if let Some(first) = others.first() {
        assert!(logprob(token) <= logprob(first) + 1e-6, "{token}");
    }
    for word in others.iter().chain([token]) {
        assert_eq!(word["token"].as_str().unwrap(), String::from_utf8_lossy(&bytes(word)), "{word}");
    }
}

/// The tokens of a reply, whole and streamed alike, and its text.
async fn told(gateway: &Gateway, model: &str, text: &str, more: Value) -> (Vec<Value>, String) {
    let whole = gateway.client.chat(model, text, more.clone()).await;
    let choice = whole.json()["choices"][0].clone();
    assert_eq!(choice["logprobs"]["refusal"], Value::Null, "{}", whole.text());
    let tokens = list(&choice["logprobs"]["content"]).to_vec();
    let stream = Stream::open(&gateway.client, model, text, more).await.rest().await;
    assert!(stream.is_done);
    assert_eq!(stream.content, whole.content());
    let mut streamed = Vec::new();
    for chunk in &stream.chunks {
        let choice = &chunk["choices"][0];
        let tokens = list(&choice["logprobs"]["content"]);
        let content = choice["delta"]["content"].as_str().unwrap_or_default();
        assert_eq!(tokens.is_empty(), content.is_empty(), "{chunk}");
        streamed.extend(tokens.to_vec());
    }
    assert_eq!(streamed, tokens, "{text}");
    (tokens, whole.content())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_of_a_reply_is_told_of_once() {
    let place = Place::new();
    // To the last bit the same twice, also where the second prompt is found in the cache.
    let demo = "backend = \"llama\"\nartifact = \"builtin:demo\"\nsequences = 4\ndeterministic = true\n";
    place.write("models/demo.toml", demo);
    let gateway = place.start().await;
    let asked = json!({ "logprobs": true, "top_logprobs": 5, "temperature": 0, "max_tokens": 60 });
    // Characters of several tokens, some cut by the limit.
    for (model, text) in [("scripted", "utf8 30"), ("scripted", "say Hello, the world"), ("demo", "What is Tollgate?")] {
        let (tokens, content) = told(&gateway, model, text, asked.clone()).await;
        assert!(!tokens.is_empty());
        tokens.iter().for_each(|token| is_sound(token, 5));
        let spelled: Vec<u8> = tokens.iter().flat_map(bytes).collect();
        assert_eq!(String::from_utf8_lossy(&spelled), content);
        // Greedy takes the likeliest.
        assert!(tokens.iter().all(|token| token["token"] == token["top_logprobs"][0]["token"]), "{tokens:?}");
    }
    let (tokens, _) = told(&gateway, "scripted", "say hi", json!({ "logprobs": true })).await;
    tokens.iter().for_each(|token| is_sound(token, 0));
    let plain = gateway.client.chat("scripted", "say hi", json!({ "logprobs": false })).await.json();
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

/// What is told ends with the text: of a stop string nothing is told but a token that it begins in the middle of.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_what_is_told() {
    let place = Place::new();
    let gateway = place.start().await;
    let more = json!({ "logprobs": true, "stop": ["d the c", "never"], "temperature": 0 });
    let (tokens, content) = told(&gateway, "scripted", "say a dog and the cat", more).await;
    assert_eq!(content, "a dog an");
    let last = tokens.last().unwrap()["token"].as_str().unwrap();
    assert_eq!((tokens.len(), last), (7, "and "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bias_bans_and_favours() {
    let place = Place::new();
    let gateway = place.start().await;
    let say = async |more: Value| gateway.client.chat("scripted", "say xyz", more).await;
    // The scripted model's first 256 tokens are the bytes; off its script it ends.
    let banned = say(json!({ "logit_bias": { "120": -100, "113": 20 }, "temperature": 0 })).await;
    assert_eq!(banned.content(), "q");
    // What is told is what the model held, not what came of it.
    let more = json!({ "logit_bias": { "120": -100, "113": 20 }, "temperature": 0, "logprobs": true, "top_logprobs": 1 });
    let choice = say(more).await.json()["choices"][0].clone();
    let first = &choice["logprobs"]["content"][0];
    assert_eq!((&first["token"], &first["top_logprobs"][0]["token"]), (&json!("q"), &json!("x")));
    // The schema wins.
    let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": { "enum": ["a", "b"] } } });
    let held = say(json!({ "logit_bias": { "113": 100, "98": 40 }, "temperature": 0, "response_format": format })).await;
    assert_eq!(held.content(), "\"b\"");

    let unknown = say(json!({ "logit_bias": { "300": 1 } })).await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (400, "unknown_token"));
    assert_eq!(unknown.json()["error"]["param"], "logit_bias.300");
    assert!(unknown.text().contains("0 to 268"), "{}", unknown.text());
}

/// Where a plugin may rewrite the reply, nothing that is told of tokens would be of what is read.
#[tokio::test(flavor = "multi_thread")]
async fn where_replies_are_rewritten_nothing_is_told() {
    let place = Place::new();
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("plugins/format-decision.toml", "component = \"builtin:format-decision\"\n");
    let jinja = "component = \"builtin:template-jinja\"\n[config]\nsystem = \"Be brief.\"\n";
    place.write("plugins/template-jinja.toml", jinja);
    place.write("models/second.toml", "backend = \"scripted\"\n");
    place.write("models/third.toml", "backend = \"scripted\"\n");
    place.write("routes/second.toml", "plugins = [\"format-decision\"]\n[match]\nmodel = \"second\"\n");
    place.write("routes/third.toml", "plugins = [\"template-jinja\"]\n[match]\nmodel = \"third\"\n");
    place.write("routes/chat.toml", "plugins = [\"filter-pii\"]\n");
    let gateway = place.start().await;
    for (model, what) in [("scripted", "filter replies"), ("second", "format replies")] {
        let refused = gateway.client.chat(model, "say hi", json!({ "logprobs": true })).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "logprobs_conflict"), "{}", refused.text());
        assert_eq!(refused.json()["error"]["param"], "logprobs");
        assert!(refused.text().contains(what), "{}", refused.text());
    }
    // A plugin that composes the prompt knows nothing of tokens and changes nothing of what is asked.
    let more = json!({ "logprobs": true, "logit_bias": { "113": 100 }, "temperature": 0, "max_tokens": 1 });
    let composed = gateway.client.chat("third", "say hi", more).await.json();
    assert_eq!(composed["choices"][0]["logprobs"]["content"][0]["token"], "q", "{composed}");
}
