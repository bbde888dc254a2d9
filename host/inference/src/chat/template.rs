//! A model's chat template, rendered by minijinja under limits (P-M7).
//!
//! A template is a program from whoever made the model file: it gets fuel, a bound on its output, no loader, no clock and no
//! environment. What it may say is text; which of that becomes control tokens is the codec's business.

use std::collections::BTreeMap;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Instructions that one rendering may take.
const FUEL: u64 = 500_000;
/// Bytes that it may write.
pub(crate) const MAX_OUTPUT: usize = 1024 * 1024;
/// Bytes of a template, at most.
const MAX_TEMPLATE: usize = 256 * 1024;
/// Templates within templates (macros that call themselves), at most.
const MAX_RECURSION: usize = 64;
/// Characters of an error that are passed on.
const MAX_REASON: usize = 300;

/// For models that bring none: the layout that most chat models know.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A chat template that cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model's chat template cannot be used: {0}")]
pub struct TemplateError(String);

/// Why a conversation could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RenderError {
    /// The template refuses it (a role it does not know, an order it does not want), or fails.
    Refused(String),
    /// More than [`MAX_OUTPUT`].
    TooLarge,
}

/// One message as templates know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) role: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) content: String,
}

/// A compiled template.
pub(crate) struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles `source`, or ChatML if there is none. `bos` and `eos` are the names of those tokens.
    pub(crate) fn new(source: Option<&str>, bos: String, eos: String) -> Result<Self, TemplateError> {
        let source = source.unwrap_or(CHATML);
        if source.len() > MAX_TEMPLATE {
            return Err(TemplateError(format!("it has more than {MAX_TEMPLATE} bytes")));
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        // As the tools that templates are written for set it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError(reason(&error)))?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source.to_owned()).map_err(|error| TemplateError(reason(&error)))?;
        Ok(Template { environment, bos, eos })
    }

    /// Renders a conversation up to where the model begins to speak.
    pub(crate) fn render(&self, turns: &[Turn]) -> Result<String, RenderError> {
        let messages: Vec<Value> = turns.iter().map(message).collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        let mut output = Bounded { bytes: Vec::new(), is_full: false };
        let rendered = self
            .environment
            .get_template("chat")
            .and_then(|template| template.render_captured_to(context, &mut output).map(|_| ()));
        if output.is_full {
            return Err(RenderError::TooLarge);
        }
        rendered.map_err(|error| RenderError::Refused(reason(&error)))?;
        String::from_utf8(output.bytes).map_err(|_| RenderError::Refused("the output is not text".to_owned()))
    }
}

/// A map, for templates that ask `'name' in message`.
fn message(turn: &Turn) -> Value {
    let mut message = BTreeMap::new();
    message.insert("role", Value::from(turn.role));
    message.insert("content", Value::from(turn.content.as_str()));
    if let Some(name) = &turn.name {
        message.insert("name", Value::from(name.as_str()));
    }
    Value::from(message)
}

/// What the error says, without the template's own text.
fn reason(error: &Error) -> String {
    let kind = error.kind().to_string();
    let text = match error.detail() {
        // The words of `raise_exception`, which are meant for the one who asks.
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    text.chars().take(MAX_REASON).collect()
}

/// A buffer with an end.
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_OUTPUT {
            self.is_full = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> Template {
        Template::new(Some(source), "<s>".into(), "</s>".into()).expect("a template")
    }

    fn turns() -> Vec<Turn> {
        vec![
            Turn { role: "system", name: None, content: "Be brief.".into() },
            Turn { role: "user", name: Some("ann".into()), content: " Hi \n".into() },
        ]
    }

    #[test]
    fn without_a_template_it_is_chatml() {
        let chatml = Template::new(None, String::new(), String::new()).expect("ours is good");
        let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(chatml.render(&turns()).expect("rendered"), expected);
    }

    #[test]
    fn templates_as_they_are_found_in_model_files_work() {
        let source = "{{ bos_token }}\n{%- for m in messages %}\n    {% if m['role'] == 'user' and 'name' in m %}\n\
                      [{{ m.name.upper() }}] {{ m.content | trim }}{{ eos_token }}\n    {% endif %}\n{%- endfor %}\n\
                      {%- set ns = namespace(n=0) %}{% set ns.n = 3 %}{{ messages[0].content.split(' ')[1:] | tojson }}{{ ns.n }}\
                      {% if strftime_now is defined %}clock{% endif %}";
        let text = template(source).render(&turns()).expect("rendered");
        assert!(text.starts_with("<s>") && text.contains("[ANN] Hi</s>") && text.ends_with("[\"brief.\"]3"), "{text:?}");
    }

    #[test]
    fn what_a_template_raises_is_told() {
        let source = "{{ raise_exception('System role not supported') }}";
        assert_eq!(template(source).render(&turns()), Err(RenderError::Refused("System role not supported".into())));
        assert!(Template::new(Some("{% if %}"), String::new(), String::new()).is_err());
        assert!(Template::new(Some(&" ".repeat(MAX_TEMPLATE + 1)), String::new(), String::new()).is_err());
    }

    /// P-M7: loops, output, recursion, files and attributes all end in an error.
    #[test]
    fn hostile_templates_are_stopped() {
        let hostile = [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% include '/etc/passwd' %}",
            "{% import 'os' as os %}{{ os.system('id') }}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ range(1000000000) | list }}",
            "{{ 'a' * 99999999999 }}",
            "{{ messages.pop() }}",
        ];
        for source in hostile {
            let refused = template(source).render(&turns());
            assert!(matches!(refused, Err(RenderError::Refused(_))), "{source}: {refused:?}");
        }
        let long = template(&format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "x".repeat(200))).render(&turns());
        assert_eq!(long, Err(RenderError::TooLarge));
    }
}
