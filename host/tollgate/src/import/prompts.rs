//! Prompts of older systems as text to paste into `plugins/template-jinja.toml`. That file has an owner already, so nothing is
//! written into it.

use super::plan::Paste;
use super::reading::Reading;
use super::toml_text;

/// The plugin that builds prompts.
const TEMPLATES: &str = "plugins/template-jinja.toml";

/// A system prompt.
pub(super) fn system(reading: &mut Reading, key: &str, text: &str) {
    let instead = format!("paste what is printed for it into {TEMPLATES}, and name the plugin `template-jinja` in the routes");
    reading.leave_out(key, "is not the model's: system prompts are in the plugin template-jinja", instead);
    let text = format!("[config]\nsystem = {}\n", toml_text::lines(text));
    reading.paste.push(paste(key, text));
}

/// The template of a decision, whose `{situation}` and `{context}` become what `template-jinja` calls them.
pub(super) fn decision(reading: &mut Reading, key: &str, text: &str) {
    let why = "is not the model's: templates are in the plugin template-jinja, and the form of a decision in format-decision";
    let instead =
        format!("paste what is printed for it into {TEMPLATES} in place of the `decision` there; routes/decision.toml uses both");
    reading.leave_out(key, why, instead);
    let text = format!("[config.templates]\ndecision = {}\n", toml_text::lines(&jinja(text)));
    reading.paste.push(paste(key, text));
}

fn paste(key: &str, text: String) -> Paste {
    Paste { into: TEMPLATES.to_owned(), key: key.to_owned(), text }
}

/// A template of Python's `str.format` in Jinja: `{name}` is a value, `{{` and `}}` are braces.
fn jinja(text: &str) -> String {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.find(['{', '}']).and_then(|at| rest.split_at_checked(at)) {
        written.push_str(before);
        rest = if let Some(rest) = after.strip_prefix("{{") {
            brace(&mut written, '{', rest);
            rest
        } else if let Some(rest) = after.strip_prefix("}}") {
            brace(&mut written, '}', rest);
            rest
        } else if let Some((name, rest)) =
            after.strip_prefix('{').and_then(|after| after.split_once('}')).filter(|(name, _)| is_name(name))
        {
            match name {
                "situation" => written.push_str("{{ message }}"),
                name => written.extend(["{{ fields.", name, " }}"]),
            }
            rest
        } else {
            let mut chars = after.chars();
            brace(&mut written, chars.next().unwrap_or('{'), chars.as_str());
            chars.as_str()
        };
    }
    written.push_str(rest);
    written
}

/// A brace that means itself: written as a value where Jinja could take it for the beginning of something else.
fn brace(written: &mut String, brace: char, rest: &str) {
    let is_plain = brace == '}' || !rest.starts_with(['{', '%', '#']);
    if is_plain {
        written.push(brace);
    } else {
        written.push_str("{{ '{' }}");
    }
}

fn is_name(name: &str) -> bool {
    let is_first = name.chars().next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    is_first && name.len() <= 64 && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_values_and_braces_stay() {
        let cases = [
            ("Situation: {situation}\nContext: {context}", "Situation: {{ message }}\nContext: {{ fields.context }}"),
            ("{audience}", "{{ fields.audience }}"),
            ("as {{\"a\": 1}}", "as {\"a\": 1}"),
            ("{{{{x", "{{ '{' }}{x"),
            ("{{% if", "{{ '{' }}% if"),
            ("{not a name} {", "{not a name} {"),
            ("}", "}"),
        ];
        for (python, expected) in cases {
            assert_eq!(jinja(python), expected, "{python}");
        }
    }
}
