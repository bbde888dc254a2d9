//! The reply as one decision object (E2): the situation, the options, a recommendation.
//!
//! ```json
//! {"analysis": {
//!   "situation": ["..."],
//!   "options": [{"option": "...", "pros": ["..."], "cons": ["..."], "timeline": "..."}],
//!   "recommendation": {"primary": "...", "reasoning": "...", "next_steps": ["..."]}}}
//! ```
//!
//! The plugin asks for its schema as a decoding constraint, so that a model can write nothing else; every list and text of the schema
//! is bounded, so that decoding ends. The finished reply is read as that object and returned in canonical form: fields in the order
//! above, no white space. A reply that is not that object, as a model can give that knows no constraints or ran out of tokens, is refused with
//! `format_failed`. The plugin looks at the shape only, never at what is said.
//!
//! | config | values | default |
//! |---|---|---|
//! | none | | |
//!
//! The prompt that goes with it is `decision` of the plugin `template-jinja`.

use serde::{Deserialize, Serialize};
use tollgate_sdk::{Content, Context, Format, JsonSchema, Plugin, Refusal, RefusalKind};

/// What the model's reply has to match: JSON Schema, draft 2020-12.
const SCHEMA: &str = include_str!("schema.json");

/// What the operator may set: nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The plugin.
#[derive(Debug)]
pub struct FormatDecision;

impl Plugin for FormatDecision {
    type Config = Config;

    fn new(_config: Config) -> Result<Self, String> {
        Ok(FormatDecision)
    }
}

impl Format for FormatDecision {
    fn constraint(&self, _ctx: Context) -> Option<JsonSchema> {
        Some(SCHEMA.to_owned())
    }

    fn format(&self, _ctx: Context, reply: String) -> Result<Content, Refusal> {
        let decision: Decision = serde_json::from_str(&reply).map_err(|error| failed(&error))?;
        let text = serde_json::to_string(&decision).map_err(|error| failed(&error))?;
        Ok(Content::text(text))
    }
}

/// The object, in the order in which it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    analysis: Analysis,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Analysis {
    situation: Vec<String>,
    options: Vec<Choice>,
    recommendation: Recommendation,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    option: String,
    pros: Vec<String>,
    cons: Vec<String>,
    timeline: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recommendation {
    primary: String,
    reasoning: String,
    next_steps: Vec<String>,
}

/// The error's own text may quote the reply, so only its class and place go to the log.
fn failed(error: &serde_json::Error) -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        "format_failed",
        "The model's reply was not the decision object that this route returns.",
    )
    .detail(format!("class={:?} line={} column={}", error.classify(), error.line(), error.column()))
}

tollgate_sdk::export!(FormatDecision: format);

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tollgate_sdk::{Format, Plugin, RefusalKind, testing};

    use super::{Config, FormatDecision};

    const REPLY: &str = r#" { "analysis": { "recommendation": { "primary": "B", "next_steps": ["call", "sign"], "reasoning": "cheaper" },
        "options": [ { "option": "A", "pros": ["near"], "cons": ["dear"], "timeline": "2 weeks" } ], "situation": ["two vendors"] } }
"#;
    const CANONICAL: &str = concat!(
        r#"{"analysis":{"situation":["two vendors"],"options":[{"option":"A","pros":["near"],"cons":["dear"],"timeline":"2 weeks"}],"#,
        r#""recommendation":{"primary":"B","reasoning":"cheaper","next_steps":["call","sign"]}}}"#
    );

    fn plugin() -> FormatDecision {
        FormatDecision::new(Config {}).expect("it takes no config")
    }

    #[test]
    fn a_decision_comes_back_in_canonical_form() {
        let content = plugin().format(testing::context(), REPLY.to_owned()).expect("it has the shape");
        assert_eq!(content.text, CANONICAL);
        assert!(content.attributes.is_empty());
        let again = plugin().format(testing::context(), content.text).expect("it has the shape still");
        assert_eq!(again.text, CANONICAL);
    }

    #[test]
    fn anything_else_is_refused_without_quoting_it() {
        let missing = CANONICAL.replace(r#""timeline":"2 weeks""#, r#""when":"secret""#);
        let cut = CANONICAL.get(..CANONICAL.len() / 2).expect("ASCII").to_owned();
        let doubled = format!("{CANONICAL}{CANONICAL}");
        for reply in
            ["", "secret words", "{}", "[]", r#"{"analysis":"secret"}"#, missing.as_str(), cut.as_str(), doubled.as_str()]
        {
            let refusal = plugin().format(testing::context(), reply.to_owned()).expect_err(reply);
            assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Unavailable, "format_failed"));
            assert!(!format!("{} {}", refusal.message, refusal.detail).contains("secret"), "{refusal:?}");
        }
    }

    #[test]
    fn golden_cases() {
        tollgate_sdk::cases::check::<FormatDecision>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn the_config_takes_no_key() {
        assert!(serde_json::from_str::<Config>("{}").is_ok());
        assert!(serde_json::from_str::<Config>(r#"{"x":1}"#).is_err());
    }

    /// Decoding under the schema ends: every text has a greatest length, every list a greatest count, every object a closed set of keys.
    #[test]
    fn every_part_of_the_schema_is_bounded() {
        let schema = plugin().constraint(testing::context()).expect("it asks for one");
        let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
        assert_bounded(&schema);
    }

    fn assert_bounded(schema: &Value) {
        let at_most = |name: &str| schema.get(name).and_then(Value::as_u64);
        match schema.get("type").and_then(Value::as_str) {
            Some("string") => assert!(at_most("maxLength").is_some_and(|most| most <= 1000), "{schema}"),
            Some("array") => {
                assert!(at_most("maxItems").is_some_and(|most| most <= 8), "{schema}");
                assert!(at_most("minItems") == Some(1), "{schema}");
                assert_bounded(schema.get("items").expect("a list says what it holds"));
            }
            Some("object") => {
                assert_eq!(schema.get("additionalProperties"), Some(&Value::Bool(false)), "{schema}");
                let properties = schema.get("properties").and_then(Value::as_object).expect("an object names its properties");
                let required = schema.get("required").and_then(Value::as_array).expect("an object says what it must have");
                assert_eq!(required.len(), properties.len(), "{schema}");
                properties.values().for_each(assert_bounded);
            }
            other => panic!("an unknown type {other:?} in {schema}"),
        }
    }
}
