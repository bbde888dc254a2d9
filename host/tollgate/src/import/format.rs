//! Which kind of input a file is: by its name, or by its first line where the name says nothing.

use super::model::Format;
use super::plan::Surroundings;
use super::reading::{Input, Reading};
use super::{env_keys, model_yaml, models_json};

/// Reads an input as what it is.
///
/// # Errors
/// What keeps the file from being read as that at all, without any of its text.
pub(super) fn read(input: &Input, around: &Surroundings<'_>) -> anyhow::Result<Reading> {
    match of(input) {
        Format::ModelsJson => models_json::read(input, around),
        Format::ModelYaml => model_yaml::read(input, around),
        Format::DotEnv => Ok(env_keys::read(input, around)),
    }
}

fn of(input: &Input) -> Format {
    let name = input.path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ends = |with: &[&str]| with.iter().any(|end| name.ends_with(end));
    if ends(&[".json"]) {
        Format::ModelsJson
    } else if ends(&[".yaml", ".yml"]) {
        Format::ModelYaml
    } else if name.starts_with(".env") || ends(&[".env", ".env.example"]) {
        Format::DotEnv
    } else {
        of_text(&input.text)
    }
}

fn of_text(text: &str) -> Format {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "---");
    let first = lines.next().unwrap_or_default();
    match first.find(['=', ':']).and_then(|at| first.get(at..)) {
        _ if first.starts_with('{') => Format::ModelsJson,
        Some(rest) if rest.starts_with('=') => Format::DotEnv,
        _ => Format::ModelYaml,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_lines_tell_what_a_file_is() {
        let cases = [
            ("models.json", "", Format::ModelsJson),
            ("config/model.yaml", "{}", Format::ModelYaml),
            ("a.YML", "", Format::ModelYaml),
            (".env", "a: b", Format::DotEnv),
            (".env.example", "", Format::DotEnv),
            ("production.env", "", Format::DotEnv),
            ("settings", " {\"models\": {}}", Format::ModelsJson),
            ("settings", "# A=1\n\nexport URL=http://localhost:1", Format::DotEnv),
            ("settings", "---\nmodel:\n  name: a=b", Format::ModelYaml),
        ];
        for (path, text, format) in cases {
            assert_eq!(of(&Input { path: path.into(), text: text.to_owned() }), format, "{path} {text}");
        }
    }
}
