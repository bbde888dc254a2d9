//! Rendering within bounds, and putting the result into the request. Which template it is was decided before.

use std::io;

use minijinja::Environment;
use tollgate_sdk::{ChatRequest, Origin, Part, PartContent, Refusal, RefusalKind, Role};

use crate::variables::Variables;

/// The longest prompt that a template may write, in bytes.
pub(crate) const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// The template's output.
///
/// # Errors
/// The template failed, ran too long or wrote too much. The refusal says which template and line, never a value out of the request.
pub(crate) fn render(environment: &Environment<'_>, name: &str, variables: &Variables<'_>) -> Result<String, Refusal> {
    let mut output = Bounded { bytes: Vec::new(), is_full: false };
    let result = match environment.get_template(name) {
        Ok(template) => template.render_captured_to(variables.to_value(), &mut output).map(drop),
        Err(error) => Err(error),
    };
    if output.is_full {
        let message = format!("The prompt is longer than {MAX_OUTPUT_BYTES} bytes once its template is filled in.");
        return Err(Refusal::new(RefusalKind::TooLarge, "template_output_too_large", message));
    }
    result.map_err(|error| {
        let place = format!("template={} line={} kind={}", error.name().unwrap_or(name), error.line().unwrap_or(0), error.kind());
        failed(place)
    })?;
    String::from_utf8(output.bytes).map_err(|_| failed(format!("template={name} kind=not UTF-8")))
}

/// Puts `text` in place of the text of the last user message. What else the message holds stays where it is.
///
/// # Errors
/// The request has no user message.
pub(crate) fn replace_last_user(request: &mut ChatRequest, text: String) -> Result<(), Refusal> {
    let message = request.messages.iter_mut().rev().find(|message| message.role == Role::User).ok_or_else(|| {
        Refusal::new(RefusalKind::Invalid, "template_without_message", "A prompt template needs a message with the role `user`.")
    })?;
    let is_text = |part: &Part| matches!(part.content, PartContent::Text(_));
    // What is in front of the first text part stays, so that the place is still there once the texts are gone.
    let at = message.parts.iter().position(is_text).unwrap_or(0);
    message.parts.retain(|part| !is_text(part));
    message.parts.insert(at, Part { origin: Origin::User, content: PartContent::Text(text) });
    Ok(())
}

fn failed(detail: String) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "template_failed", "The prompt template could not be filled in.").detail(detail)
}

/// A buffer that refuses what is too much, so that a template cannot fill the memory first.
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_OUTPUT_BYTES {
            self.is_full = true;
            return Err(io::Error::other("the output is full"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
