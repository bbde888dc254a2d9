//! Prompts as Jinja templates: a system prompt, and named templates for what the user says.
//!
//! | config | values | default |
//! |---|---|---|
//! | `system` | a template; its output is a system message in front of the others | none |
//! | `templates` | name = template; the chosen one's output stands in place of the last user message's text | none |
//! | `default` | a name out of `templates`, for requests that choose none | none |
//!
//! **Choice.** The route's attribute `template`, else the request's field `template`, else `default`, else the message stays as it is.
//! A name that the client sent and that does not exist is refused with the names that do.
//!
//! **Variables.** `message` (the last user message's text), `messages` (each with `role` and `content`), `fields` (what the client sent
//! besides, as JSON values: `fields.context`), `principal` (`id`, `tenant`, `roles`), `model`. What is not there prints as nothing;
//! write `{{ fields.context | default("none") }}` for something else. Only a look inside what is not there is an error.
//!
//! **Origin.** A named template's output holds the user's words, so it keeps the origin `user` and filters screen it whole. The system
//! message has the origin `template` when it reads none of the variables; it is then rendered once, when the plugin is built. Otherwise
//! it may hold the client's words and has the origin `user` as well. One that pulls in another template counts as if it did.
//!
//! **Bounds.** All templates are compiled when the plugin is built, and an error names the template and its line. There is no loader:
//! `include` and `import` find the configured templates and nothing else. A rendering runs 100,000 instructions and writes 1 MiB at most.
//! Nothing is escaped: a prompt is plain text.

mod prompt;
mod variables;

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{AutoEscape, Environment, Error};
use serde::Deserialize;
use tollgate_sdk::{ChatRequest, Compose, Context, Message, Origin, Plugin, Refusal, RefusalKind, Role};

use crate::variables::Variables;

/// The text of the decision prompt (E25) that goes with the plugin `format-decision`: four numbered sections about `message`, with
/// `fields.context` where the client sent it.
pub const DECISION: &str = include_str!("../decision.jinja");

/// What one rendering may run, in the template machine's instructions.
const FUEL: u64 = 100_000;

/// The system template's name in error texts. No name out of `templates` can be the same.
const SYSTEM: &str = "(system)";

/// What the operator may set.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The system prompt.
    system: Option<String>,
    /// Named templates.
    templates: BTreeMap<String, String>,
    /// Which of them when nobody chooses.
    default: Option<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct TemplateJinja {
    environment: Environment<'static>,
    system: System,
    names: BTreeSet<String>,
    default: Option<String>,
}

/// What stands in front of the messages.
#[derive(Debug)]
enum System {
    None,
    /// Always the same text.
    Fixed(String),
    /// Depends on the request.
    Rendered,
}

impl Plugin for TemplateJinja {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.system.is_none() && config.templates.is_empty() {
            return Err("nothing to do: set `system` or `templates`".to_owned());
        }
        if let Some(default) = config.default.as_ref().filter(|name| !config.templates.contains_key(*name)) {
            return Err(format!("default: there is no template `{default}`; {}", known(config.templates.keys())));
        }
        if let Some(name) = config.templates.keys().find(|name| !is_name(name)) {
            return Err(format!("templates: `{name}` is no name: use 1 to 64 letters, digits, `.`, `_` and `-`"));
        }
        let names = config.templates.keys().cloned().collect();
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        for (name, source) in config.templates {
            environment.add_template_owned(name, source).map_err(|error| told(&error))?;
        }
        let system = match config.system {
            None => System::None,
            Some(source) => {
                environment.add_template_owned(SYSTEM, source).map_err(|error| told(&error))?;
                fix(&environment)?
            }
        };
        Ok(TemplateJinja { environment, system, names, default: config.default })
    }
}

impl Compose for TemplateJinja {
    fn compose(&self, ctx: Context, mut request: ChatRequest) -> Result<ChatRequest, Refusal> {
        let name = self.choose(&ctx, &request)?;
        let (user, system) = {
            let variables = Variables::of(&ctx, &request);
            let user = name.map(|name| prompt::render(&self.environment, name, &variables)).transpose()?;
            let system = match &self.system {
                System::None => None,
                System::Fixed(text) => Some((Origin::Template, text.clone())),
                System::Rendered => Some((Origin::User, prompt::render(&self.environment, SYSTEM, &variables)?)),
            };
            (user, system)
        };
        if let Some(text) = user {
            prompt::replace_last_user(&mut request, text)?;
        }
        if let Some((origin, text)) = system {
            request.messages.insert(0, Message::text(Role::System, origin, text));
        }
        Ok(request)
    }
}

impl TemplateJinja {
    /// The template for this request, if it takes one.
    fn choose(&self, ctx: &Context, request: &ChatRequest) -> Result<Option<&str>, Refusal> {
        if let Some(json) = ctx.attribute("template") {
            return self.find(json).map(Some).ok_or_else(|| {
                Refusal::new(RefusalKind::Unavailable, "unknown_template", "The route's prompt template does not exist.")
                    .detail(format!("route={} attribute template; {}", ctx.route, known(self.names.iter())))
            });
        }
        if let Some(json) = request.field("template") {
            return self.find(json).map(Some).ok_or_else(|| {
                let message = format!("`template` has to name a prompt template of this route; {}.", known(self.names.iter()));
                Refusal::new(RefusalKind::Invalid, "unknown_template", message)
            });
        }
        Ok(self.default.as_deref())
    }

    /// `json` is a JSON string with a template's name.
    fn find(&self, json: &str) -> Option<&str> {
        let name: String = serde_json::from_str(json).ok()?;
        self.names.get(&name).map(String::as_str)
    }
}

/// Renders the system prompt once and for all when no request can change it.
fn fix(environment: &Environment<'static>) -> Result<System, String> {
    let template = environment.get_template(SYSTEM).map_err(|error| told(&error))?;
    let reads = template.undeclared_variables(false);
    let may_read_elsewhere = ["include", "import", "extends"].iter().any(|word| template.source().contains(word));
    if may_read_elsewhere || variables::NAMES.iter().any(|name| reads.contains(*name)) {
        return Ok(System::Rendered);
    }
    template.render(()).map(System::Fixed).map_err(|error| told(&error))
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn known<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "there are none".to_owned() } else { format!("known are: {}", names.join(", ")) }
}

/// The error with its template and line, for the operator, who wrote the template.
fn told(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
    format!("template `{}`{line}: {}{detail}", error.name().unwrap_or(SYSTEM), error.kind())
}

tollgate_sdk::export!(TemplateJinja: compose);

#[cfg(test)]
mod tests;
