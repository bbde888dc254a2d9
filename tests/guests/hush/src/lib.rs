//! The smallest whole plugin: it blocks prompts that have a word in them. A place to begin one's own.

use serde::Deserialize;
use tollgate_sdk::{ChatRequest, Context, FilterPrompt, Outcome, Plugin, Refusal, RefusalKind};

/// What the operator sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What no prompt may say, in whatever case.
    word: String,
}

/// The plugin.
pub struct Hush {
    word: String,
}

impl Plugin for Hush {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.word.is_empty() {
            return Err("`word` is empty: every prompt would be blocked".to_owned());
        }
        Ok(Hush { word: config.word.to_lowercase() })
    }
}

impl FilterPrompt for Hush {
    fn filter_prompt(&self, _ctx: Context, mut request: ChatRequest) -> Outcome {
        if request.texts_mut().any(|(_, _, text)| text.to_lowercase().contains(&self.word)) {
            return Outcome::block(Refusal::new(RefusalKind::Blocked, "hushed", "This is not spoken of here."));
        }
        Outcome::pass()
    }
}

tollgate_sdk::export!(Hush: filter_prompt);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_cases() {
        tollgate_sdk::cases::check::<Hush>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn a_word_is_needed() {
        assert!(Hush::new(Config { word: String::new() }).is_err());
    }
}
