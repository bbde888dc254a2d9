//! A model as older systems describe one: settings with the places that they come from, and the fields of `models/ID.toml` that
//! they become.

use std::collections::BTreeMap;

use super::weights::Weights;

/// One value of an input, with where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The input's name.
    pub(super) file: String,
    /// The key in it: `models.llama.threads`, `MODEL_PATH`.
    pub(super) key: String,
    /// The value; of a number, as TOML.
    pub(super) value: String,
}

/// A kind of input. The order is the order in which they count where two of them set the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    /// `models.json`: many models by name.
    ModelsJson,
    /// `model.yaml`: one model, how to sample, and prompts.
    ModelYaml,
    /// `.env`: one model among settings of everything else.
    DotEnv,
}

/// A model before it has an id.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// The kind of input that it comes from.
    pub(super) format: Format,
    /// What it is called; `.env` has no name for it.
    pub(super) name: Option<Setting>,
    /// Its weights, and the setting that names them.
    pub(super) weights: Option<(Setting, Weights)>,
    /// What ran it.
    pub(super) kind: Option<Setting>,
    /// How its weights were quantized.
    pub(super) quantization: Option<Setting>,
    /// Numbers, each in its range.
    pub(super) fields: BTreeMap<Field, Setting>,
}

impl Draft {
    /// A model of which nothing is known.
    pub(super) fn new(format: Format) -> Self {
        Self { format, name: None, weights: None, kind: None, quantization: None, fields: BTreeMap::new() }
    }

    /// Every setting of the draft, with what it is called here.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        let texts = [
            ("name", self.name.as_ref()),
            ("artifact", self.weights.as_ref().map(|(setting, _)| setting)),
            ("backend", self.kind.as_ref()),
            ("quantization", self.quantization.as_ref()),
        ];
        let texts = texts.into_iter().filter_map(|(name, setting)| Some((name, setting?)));
        texts.chain(self.fields.iter().map(|(field, setting)| (field.name(), setting)))
    }

    /// Takes from `other` what is not known here yet.
    pub(super) fn fill(&mut self, other: Self) {
        self.name = self.name.take().or(other.name);
        self.weights = self.weights.take().or(other.weights);
        self.kind = self.kind.take().or(other.kind);
        self.quantization = self.quantization.take().or(other.quantization);
        for (field, setting) in other.fields {
            self.fields.entry(field).or_insert(setting);
        }
    }
}

/// A number in `models/ID.toml`. The samplers come last, and in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    /// `context_tokens`
    ContextTokens,
    /// `threads`
    Threads,
    /// `step_tokens`
    StepTokens,
    /// `defaults.temperature`
    Temperature,
    /// `defaults.top_p`
    TopP,
    /// `defaults.top_k`
    TopK,
    /// `defaults.repeat_penalty`
    RepeatPenalty,
    /// `defaults.max_tokens`
    MaxTokens,
}

/// A closed range.
enum Range {
    Whole(i64, i64),
    Real(f64, f64),
}

impl Field {
    /// The key.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ContextTokens => "context_tokens",
            Self::Threads => "threads",
            Self::StepTokens => "step_tokens",
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::TopK => "top_k",
            Self::RepeatPenalty => "repeat_penalty",
            Self::MaxTokens => "max_tokens",
        }
    }

    /// Whether it stands under `[defaults]`.
    pub(super) fn is_sampling(self) -> bool {
        self >= Self::Temperature
    }

    /// What a reader should know of the field beside its name; may be empty.
    pub(super) fn note(self) -> &'static str {
        match self {
            Self::ContextTokens => "shared by all sequences of the model",
            Self::StepTokens => "tokens of one decode step, all sequences together",
            _ => "",
        }
    }

    /// The field that samplers of older systems mean by `name`.
    pub(super) fn sampler(name: &str) -> Option<Self> {
        Some(match name {
            "temperature" => Self::Temperature,
            "top_p" => Self::TopP,
            "top_k" => Self::TopK,
            "repeat_penalty" => Self::RepeatPenalty,
            "max_tokens" => Self::MaxTokens,
            _ => return None,
        })
    }

    /// The number in `text` as TOML, or why it cannot be the field's value. Only numbers are repeated in that.
    pub(super) fn checked(self, text: &str) -> Result<String, String> {
        let (name, range) = (self.name(), self.range());
        match range {
            Range::Whole(least, most) => match whole(text) {
                Some(number) if (least..=most).contains(&number) => Ok(number.to_string()),
                Some(number) => Err(format!("is {number}, but `{name}` may be {least} to {most}")),
                None => Err(format!("is not a whole number, but `{name}` is one, {least} to {most}")),
            },
            Range::Real(least, most) => match text.trim().parse::<f64>().ok().filter(|number| number.is_finite()) {
                // `Debug` writes a decimal point or an exponent always, so TOML reads a float.
                Some(number) if (least..=most).contains(&number) => Ok(format!("{number:?}")),
                Some(number) => Err(format!("is {number:?}, but `{name}` may be {least} to {most}")),
                None => Err(format!("is not a number, but `{name}` is one, {least} to {most}")),
            },
        }
    }

    fn range(self) -> Range {
        match self {
            Self::ContextTokens => Range::Whole(128, 1_048_576),
            Self::Threads => Range::Whole(1, 512),
            Self::StepTokens => Range::Whole(16, 8_192),
            Self::Temperature => Range::Real(0.0, 2.0),
            Self::TopP => Range::Real(0.001, 1.0),
            Self::TopK => Range::Whole(0, 1_000),
            Self::RepeatPenalty => Range::Real(0.01, 2.0),
            Self::MaxTokens => Range::Whole(1, 131_072),
        }
    }
}

/// A whole number, also where it is written with a fraction of zero.
fn whole(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && number.abs() < 1e15)?;
        format!("{number:.0}").parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Field; 8] = [
        Field::ContextTokens,
        Field::Threads,
        Field::StepTokens,
        Field::Temperature,
        Field::TopP,
        Field::TopK,
        Field::RepeatPenalty,
        Field::MaxTokens,
    ];

    #[test]
    fn ranges_are_those_of_the_config() {
        let schemas = tollgate_config::schemas();
        let model = &schemas.iter().find(|(name, _)| *name == "model").unwrap().1;
        let find = |field: Field| -> Option<(f64, f64)> {
            let properties = &model["properties"];
            let properties = if field.is_sampling() {
                // Inlined, or one of the alternatives beside a default.
                let defaults = &properties["defaults"];
                if defaults["properties"].is_object() { &defaults["properties"] } else { &defaults["allOf"][0]["properties"] }
            } else {
                properties
            };
            let schema = &properties[field.name()];
            Some((schema["minimum"].as_f64()?, schema["maximum"].as_f64()?))
        };
        for field in ALL {
            let range = match field.range() {
                // All of them are far below 2^53.
                Range::Whole(least, most) => (least as f64, most as f64),
                Range::Real(least, most) => (least, most),
            };
            assert_eq!(find(field), Some(range), "{}", field.name());
        }
    }

    #[test]
    fn numbers_are_checked_and_written_as_toml() {
        assert_eq!(Field::ContextTokens.checked(" 4096 "), Ok("4096".to_owned()));
        assert_eq!(Field::ContextTokens.checked("4096.0"), Ok("4096".to_owned()));
        assert_eq!(Field::Temperature.checked("1"), Ok("1.0".to_owned()));
        assert_eq!(Field::Temperature.checked(".3"), Ok("0.3".to_owned()));
        let refused = |field: Field, text: &str| field.checked(text).unwrap_err();
        assert_eq!(refused(Field::ContextTokens, "64"), "is 64, but `context_tokens` may be 128 to 1048576");
        assert_eq!(refused(Field::TopP, "0"), "is 0.0, but `top_p` may be 0.001 to 1");
        assert!(refused(Field::Threads, "hunter2").starts_with("is not a whole number"));
        assert!(!refused(Field::Threads, "hunter2").contains("hunter2"));
        for text in ["NaN", "inf", "1e999", ""] {
            assert!(Field::Temperature.checked(text).is_err(), "{text}");
        }
    }
}
