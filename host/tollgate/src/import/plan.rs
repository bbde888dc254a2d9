//! What an import comes to: the files to write, what was understood, and what was not kept and why. A function of the inputs'
//! texts and of two questions about what is around them; nothing is written here.
//!
//! Where several inputs set the same thing, `models.json` goes before `model.yaml`, and that before `.env`; of several of a kind,
//! the one that is named first.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use tollgate_config::Name;

use super::format;
use super::model::{Draft, Format, Setting};
use super::provider::ProviderModel;
use super::reading::Input;
use super::toml_text::{self, shown};
use super::weights::{self, Place, Weights};

/// The rule for several inputs, for the output.
pub(super) const PRECEDENCE: &str =
    "Where files set the same thing, models.json goes before model.yaml, and that before .env; of two of a kind, the first.";
/// A config directory has as many files of a kind at most.
const MAX_MODELS: usize = 1_000;
/// Characters of an id.
const MAX_ID: usize = 64;

/// What is around the inputs.
pub(crate) struct Surroundings<'a> {
    /// Where a path in an input leads.
    pub(crate) locate: &'a dyn Fn(&Input, &str) -> Option<Place>,
    /// The id of the model in the config directory that has a name already.
    pub(crate) holder: &'a dyn Fn(&str) -> Option<String>,
}

/// What an import comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The files to write.
    pub(crate) files: Vec<PlannedFile>,
    /// What is in them, and where it was.
    pub(crate) kept: Vec<Kept>,
    /// What is not in them.
    pub(crate) dropped: Vec<Dropped>,
    /// What has to be pasted into files that have an owner already.
    pub(crate) paste: Vec<Paste>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFile {
    /// Its path, relative to the config directory.
    pub(crate) path: String,
    /// What it will hold.
    pub(crate) toml: String,
}

/// A setting that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The input.
    pub(crate) file: String,
    /// The key in it.
    pub(crate) from: String,
    /// The file and the line that it became.
    pub(crate) to: String,
    /// What has to be known besides; may be empty.
    pub(crate) note: String,
}

/// A setting that is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// The input.
    pub(crate) file: String,
    /// The key in it.
    pub(crate) key: String,
    /// Why, as what follows the key in a sentence.
    pub(crate) why: String,
    /// What to do instead.
    pub(crate) instead: String,
}

/// Text to paste by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paste {
    /// The file of the config directory.
    pub(crate) into: String,
    /// The key of the input that it was.
    pub(crate) key: String,
    /// TOML.
    pub(crate) text: String,
}

/// Makes a plan of the inputs.
///
/// # Errors
/// An input that cannot be read as what it is, or more models than a config directory may have.
pub(crate) fn build(inputs: &[Input], around: &Surroundings<'_>) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    let (mut drafts, mut providers) = (Vec::new(), Vec::new());
    for input in inputs {
        let mut reading = format::read(input, around).with_context(|| input.name())?;
        plan.dropped.append(&mut reading.dropped);
        plan.paste.append(&mut reading.paste);
        drafts.append(&mut reading.models);
        providers.extend(reading.provider);
        if drafts.len() + providers.len() > MAX_MODELS {
            bail!("there are more than {MAX_MODELS} models, and a config directory has {MAX_MODELS} at most: import fewer");
        }
    }
    // Equals stay in the order in which they were named.
    drafts.sort_by_key(|draft| draft.format);
    let mut models = Vec::new();
    for draft in drafts {
        plan.place(draft, &mut models);
    }
    let ids = ids(&models, around);
    let mut names = ids.iter().cloned().collect::<BTreeSet<_>>();
    for (model, id) in models.iter().zip(&ids) {
        plan.write(model, id, &mut names, around);
    }
    for model in &providers {
        plan.write_provider(model, &mut names, around);
    }
    Ok(plan)
}

impl Plan {
    /// Adds a draft to the models, or to the one of them that it is about.
    fn place(&mut self, draft: Draft, models: &mut Vec<Draft>) {
        let same = match (draft.format, draft.name.as_ref()) {
            (Format::DotEnv, _) => meant_by_environment(&draft, models),
            (_, Some(name)) => models.iter().position(|model| model.name.as_ref().is_some_and(|other| other.value == name.value)),
            (_, None) => None,
        };
        if let Some(model) = same.and_then(|at| models.get_mut(at)) {
            self.note_overridden(model, &draft);
            model.fill(draft);
        } else if draft.format == Format::DotEnv && draft.weights.is_none() {
            for (what, setting) in draft.settings() {
                let instead = format!("set `{what}` in the file of the model that it was for, or import both together");
                self.drop_setting(setting, "is of a model that the file does not name", instead);
            }
        } else {
            models.push(draft);
        }
    }

    /// Notes what `draft` says otherwise than `model`, which goes first.
    fn note_overridden(&mut self, model: &Draft, draft: &Draft) {
        let bare = |setting: &Setting| setting.value.trim_start_matches("./").to_owned();
        for (what, setting) in draft.settings() {
            let first = model.settings().find(|(other, _)| *other == what).map(|(_, first)| first);
            if let Some(first) = first.filter(|first| bare(first) != bare(setting)) {
                let why = format!("is set in {} too, which goes first", first.file);
                self.drop_setting(setting, why, "nothing, or change the written file where this one is right");
            }
        }
    }

    fn drop_setting(&mut self, setting: &Setting, why: impl Into<String>, instead: impl Into<String>) {
        let (file, key) = (setting.file.clone(), setting.key.clone());
        self.dropped.push(Dropped { file, key, why: why.into(), instead: instead.into() });
    }

    fn keep(&mut self, setting: &Setting, id: &str, line: &str, note: impl Into<String>) {
        let (file, from) = (setting.file.clone(), setting.key.clone());
        self.kept.push(Kept { file, from, to: format!("models/{id}.toml: {line}"), note: note.into() });
    }

    /// Adds the file of one model, and says what became of each of its settings.
    fn write(&mut self, model: &Draft, id: &str, names: &mut BTreeSet<String>, around: &Surroundings<'_>) {
        let mut lines = vec!["backend = \"llama\"".to_owned()];
        let to_do = match &model.weights {
            Some((setting, weights)) => {
                let line = format!("artifact = {}", toml_text::string(&weights.artifact(id)));
                let to_do = weights.to_do(id);
                if *weights != Weights::Pickle {
                    self.keep(setting, id, &line, to_do.clone().unwrap_or_default());
                }
                lines.push(line);
                to_do
            }
            None => {
                lines.push(format!("artifact = \"installed:{id}\""));
                Some(format!("no weights are named; install some: tollgate model import PATH --name {id}"))
            }
        };
        if let Some(alias) = model.name.as_ref().and_then(|name| self.alias(name, id, names, around)) {
            lines.push(format!("aliases = [{}]", toml_text::string(&alias)));
        }
        self.note_kind(model, id);
        let quantization = self.note_quantization(model, id, &mut lines);
        self.numbers(model, id, &mut lines);

        let mut inputs = model.settings().map(|(_, setting)| setting.file.as_str()).collect::<Vec<_>>();
        inputs.sort_unstable();
        inputs.dedup();
        let mut toml = format!("# Made by `tollgate import` from {}.\n", inputs.join(", "));
        let quantization =
            quantization.map(|name| format!("the older system ran it quantized: quantization = \"{name}\" at install"));
        for note in to_do.iter().chain(&quantization) {
            toml.extend(["# ", note.as_str(), "\n"]);
        }
        toml.extend(["\n", &lines.join("\n"), "\n"]);
        self.files.push(PlannedFile { path: format!("models/{id}.toml"), toml });
    }

    /// Adds the file of a provider's model, and the line that lets prompts go there, which nobody writes but the operator.
    fn write_provider(&mut self, model: &ProviderModel, names: &mut BTreeSet<String>, around: &Surroundings<'_>) {
        let name = &model.name;
        let is_free = |id: &String| !names.contains(id) && (around.holder)(id).is_none_or(|holder| holder == *id);
        let id = free_id(&id_of(&name.value), is_free);
        names.insert(id.clone());
        let alias = if name.value == id { None } else { self.alias(name, &id, names, around) };
        let mut toml = format!("# Made by `tollgate import` from {}.\n", name.file);
        for note in model.to_do(&id) {
            toml.extend(["# ", note.as_str(), "\n"]);
        }
        toml.push('\n');
        for (setting, line) in model.lines(&id, alias.as_deref()) {
            if let Some(setting) = setting {
                self.keep(setting, &id, &line, "");
            }
            toml.extend([line.as_str(), "\n"]);
        }
        self.files.push(PlannedFile { path: format!("models/{id}.toml"), toml });
        let text = format!("[models]\n{}\n", model.egress());
        self.paste.push(Paste { into: "tollgate.toml".to_owned(), key: "AI_BASE_URL".to_owned(), text });
    }

    /// The name that clients know a model by, where it can be an alias.
    fn alias(&mut self, setting: &Setting, id: &str, names: &mut BTreeSet<String>, around: &Surroundings<'_>) -> Option<String> {
        let name = setting.value.as_str();
        if name == id {
            self.keep(setting, id, "its id", "");
            return None;
        }
        let is_elsewhere = names.contains(name) || (around.holder)(name).is_some_and(|holder| holder != id);
        if name.parse::<Name>().is_err() {
            let why = "has characters that no name may have, so it is not an alias";
            self.drop_setting(setting, why, format!("ask for the model as `{id}`"));
            return None;
        }
        if is_elsewhere {
            self.drop_setting(setting, "is a name of another model", format!("ask for the model as `{id}`"));
            return None;
        }
        names.insert(name.to_owned());
        self.keep(setting, id, "its id, and an alias", "clients may go on using the name");
        Some(name.to_owned())
    }

    fn note_kind(&mut self, model: &Draft, id: &str) {
        const KNOWN: [&str; 8] = ["transformers", "gguf", "ggml", "llama", "llama.cpp", "llamacpp", "llama-cpp", "ollama"];
        let Some(setting) = &model.kind else { return };
        if KNOWN.iter().any(|known| setting.value.eq_ignore_ascii_case(known)) {
            self.keep(setting, id, "backend = \"llama\"", "llama.cpp runs it");
        } else {
            let why = format!("is `{}`, and `backend = \"llama\"` was written", shown(&setting.value, 32));
            self.drop_setting(setting, why, "change `backend` where another one runs it; docs/config.md lists them");
        }
    }

    /// Writes a quantization down where there is one like it; else gives its name, if it has one, for the operator to choose by.
    fn note_quantization(&mut self, model: &Draft, id: &str, lines: &mut Vec<String>) -> Option<&'static str> {
        let setting = model.quantization.as_ref()?;
        if matches!(model.weights, Some((_, Weights::Gguf { .. }))) {
            self.drop_setting(setting, "is in the GGUF file already", "nothing");
            return None;
        }
        let name = weights::quantization(&setting.value);
        if let Some(name @ ("q4_k_m" | "q8_0" | "f16")) = name {
            let line = format!("quantization = \"{name}\"");
            self.keep(setting, id, &line, "weights are quantized when they are installed");
            lines.push(line);
            return None;
        }
        let why = "is none that weights are quantized to when they are installed";
        self.drop_setting(setting, why, "choose `quantization` by docs/config.md; without it, what fits is taken");
        name
    }

    /// The lines of numbers, those of sampling under `[defaults]`.
    fn numbers(&mut self, model: &Draft, id: &str, lines: &mut Vec<String>) {
        let mut is_sampling = false;
        // Samplers are the last in the order of fields.
        for (field, setting) in &model.fields {
            if field.is_sampling() && !is_sampling {
                is_sampling = true;
                lines.push("\n[defaults]".to_owned());
            }
            let line = format!("{} = {}", field.name(), setting.value);
            let to = if field.is_sampling() { format!("defaults.{line}") } else { line.clone() };
            self.keep(setting, id, &to, field.note());
            lines.push(line);
        }
    }
}

/// Which of the models a `.env` is about: the one with the same weights, or the only one of a `model.yaml` beside it, or, where
/// it names no weights, the only one at all.
fn meant_by_environment(draft: &Draft, models: &[Draft]) -> Option<usize> {
    let weights = draft.weights.as_ref().map(|(_, weights)| weights);
    let is_same = |model: &Draft| model.weights.as_ref().is_some_and(|(_, other)| Some(other) == weights);
    let same = models.iter().position(is_same);
    let of_yaml = || only(models.iter().enumerate().filter(|(_, model)| model.format == Format::ModelYaml).map(|(at, _)| at));
    let of_all = || only(0..models.len()).filter(|_| weights.is_none());
    same.or_else(of_yaml).or_else(of_all)
}

/// The one item, where there is exactly one.
fn only(mut items: impl Iterator<Item = usize>) -> Option<usize> {
    items.next().filter(|_| items.next().is_none())
}

/// An id for each model, that no other has: neither of these, nor in the config directory by another name.
fn ids(models: &[Draft], around: &Surroundings<'_>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut ids = Vec::new();
    for model in models {
        let base = id_of(&name_of(model));
        let is_free = |id: &String| !taken.contains(id) && (around.holder)(id).is_none_or(|holder| holder == *id);
        let id = free_id(&base, is_free);
        taken.insert(id.clone());
        ids.push(id);
    }
    ids
}

/// `base`, or the first of it with a number behind that is free.
fn free_id(base: &str, is_free: impl Fn(&String) -> bool) -> String {
    let numbered = |number: usize| {
        let suffix = format!("-{number}");
        format!("{}{suffix}", base.get(..MAX_ID - suffix.len()).unwrap_or(base))
    };
    // There are fewer names than this in a config directory, so one of them is free.
    std::iter::once(base.to_owned()).chain((2..1_000_000).map(numbered)).find(is_free).unwrap_or_else(|| base.to_owned())
}

/// What a model is called, or its weights' file.
fn name_of(model: &Draft) -> String {
    let named = model.name.as_ref().map(|name| name.value.clone());
    let path = model.weights.as_ref().map(|(setting, _)| std::path::Path::new(&setting.value));
    let stem = path.and_then(|path| path.file_stem()?.to_str()).map(str::to_owned);
    named.or(stem).unwrap_or_default()
}

/// The id that is nearest to a name: in lower case, with `-` for what an id does not take.
fn id_of(name: &str) -> String {
    let mut id = String::new();
    for char in name.chars().map(|char| char.to_ascii_lowercase()) {
        let is_first = char.is_ascii_lowercase() || char.is_ascii_digit();
        if is_first || (!id.is_empty() && "._-".contains(char)) {
            id.push(char);
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
        if id.len() == MAX_ID {
            break;
        }
    }
    let id = id.trim_end_matches(['-', '.', '_']);
    if id.is_empty() { "model".to_owned() } else { id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_near_to_their_names() {
        let cases = [
            ("mistral-7b-instruct", "mistral-7b-instruct"),
            ("DeepSeek R1 (1.5B)", "deepseek-r1-1.5b"),
            ("gemma3:4b", "gemma3-4b"),
            ("-.x", "x"),
            ("ä", "model"),
            ("", "model"),
        ];
        for (name, id) in cases {
            assert_eq!(id_of(name), id, "{name}");
        }
        assert_eq!(id_of(&"x".repeat(100)).len(), MAX_ID);
    }
}
