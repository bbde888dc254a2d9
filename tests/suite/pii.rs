//! Masks in streamed replies, as a client receives them over TLS: every value gone, everything else as it was.

use serde_json::Value;
use tokio::task::JoinSet;
use tollgate_plugin_filter_pii::corpus::{Sample, samples};
use tollgate_tests::{Client, Place};

use crate::support::Stream;

const SAMPLES: usize = 2_000;
const SEED: u64 = 20_261_120;
const CONNECTIONS: usize = 8;

/// A command that has the model say `text`, and in which a prompt filter finds nothing: a letter stands between any two bytes.
fn say(text: &str) -> String {
    let bytes = text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    format!("say-hex {}", bytes.join("z"))
}

/// Whether `received` has six characters in a row of `value`. Those that the text around the values has as well tell nothing.
fn leaks(sample: &Sample, value: &str, received: &str) -> bool {
    let characters = value.chars().collect::<Vec<_>>();
    let parts = characters.windows(6).map(|part| part.iter().collect::<String>());
    parts.filter(|part| !sample.masked.contains(part.as_str())).any(|part| received.contains(&part))
}

/// Sends the samples one after the other and returns how many values were in them.
async fn check(client: Client, samples: Vec<Sample>) -> usize {
    let mut connection = client.connect().await;
    let mut planted = 0;
    for sample in samples {
        let mut stream = Stream::over(connection, "scripted", &say(&sample.text), Value::Null).await;
        let told = stream.rest().await;
        assert!(told.is_done);
        for value in &sample.planted {
            assert!(!leaks(&sample, value, &told.content), "{value:?} is in {:?}", told.content);
        }
        assert_eq!(told.content, sample.masked, "from {:?}", sample.text);
        planted += sample.planted.len();
        connection = stream.into_connection();
    }
    planted
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_value_leaves_and_clean_text_is_untouched() {
    let place = Place::new();
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"filter-pii\"]\n");
    let gateway = place.start().await;
    let samples = samples(SAMPLES, SEED);
    let clean = samples.iter().filter(|sample| sample.planted.is_empty()).count();
    assert!(clean * 10 >= SAMPLES * 3, "{clean} of {SAMPLES} are clean");

    let mut tasks = JoinSet::new();
    for part in samples.chunks(SAMPLES.div_ceil(CONNECTIONS)) {
        tasks.spawn(check(gateway.client.clone(), part.to_vec()));
    }
    let planted = tasks.join_all().await.into_iter().sum::<usize>();
    assert!(planted >= SAMPLES - clean, "{planted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_masked_before_the_model_sees_it() {
    let place = Place::new();
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"filter-pii\"]\n");
    let gateway = place.start().await;
    // What the reply says would be masked on its way out as well. The tokens tell what the model was given.
    let told = |text: &'static str| {
        let client = gateway.client.clone();
        async move { client.chat("scripted", text, Value::Null).await }
    };
    let (long, masked) = (told("mail first.last.and.more.names77@mail.example.org").await, told("mail [EMAIL_1]").await);
    assert_eq!(long.content(), "You said: mail [EMAIL_1]");
    assert_eq!(long.json()["usage"]["prompt_tokens"], masked.json()["usage"]["prompt_tokens"]);
}
