//! Holds a TOML document against a JSON Schema and reports all that differs, each with its place.
//!
//! It knows the part of JSON Schema that this crate's types produce (`schema`'s tests hold them to it): types, enumerations,
//! closed ranges, bounds of lists, tables with known or with free keys, alternatives, and the `format`s of our own texts.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Lines, Positions};
use crate::files::{File, Kind};
use crate::key::Timestamp;
use crate::listener::Addresses;
use crate::network::Network;
use crate::problem::{Position, Problem, shown, suggest};
use crate::provider::HostPort;
use crate::source::Source;
use crate::telemetry::Endpoint;
use crate::text::{Allowed, Id, Malformed, Name, PublicKey, Sha256Hex};

/// Problems of one file that are worth reading.
const MAX_PROBLEMS: usize = 25;
/// Fields whose place is kept for `validate`.
const MAX_POSITIONS: usize = 1_024;

pub(super) struct Check<'a> {
    file: &'a File,
    lines: &'a Lines<'a>,
    positions: Positions,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    pub(super) fn new(file: &'a File, lines: &'a Lines<'a>) -> Self {
        Self { file, lines, positions: Positions::new(), problems: Vec::new() }
    }

    /// Where what stands, and what is wrong, from top to bottom.
    pub(super) fn finish(mut self) -> (Positions, Vec<Problem>) {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        (self.positions, self.problems)
    }

    /// Checks a whole document.
    pub(super) fn document(&mut self, schema: &Value, table: &DeTable<'_>) {
        self.table("", None, schema, table);
    }

    fn value(&mut self, path: &str, schema: &Value, value: &Spanned<DeValue<'_>>) {
        if is_free(schema) {
            self.free(path, value);
            return;
        }
        let at = self.lines.position(value.span().start);
        if self.positions.len() < MAX_POSITIONS {
            self.positions.insert(path.to_owned(), at);
        }
        let alternatives = alternatives(schema);
        let fitting: Vec<&Value> = alternatives.iter().copied().filter(|schema| fits(schema, value.get_ref())).collect();
        let Some(first) = fitting.first() else {
            self.wrong_type(path, at, &alternatives, value.get_ref());
            return;
        };
        match value.get_ref() {
            DeValue::String(text) => self.text(path, at, &fitting, text),
            DeValue::Integer(number) => {
                // Range ends are far below 2^53, so the conversion cannot move a number over one.
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64);
                self.number(path, at, first, parsed, number.as_str());
            }
            DeValue::Float(number) => self.number(path, at, first, number.as_str().parse().ok(), number.as_str()),
            DeValue::Array(items) => self.array(path, at, first, items),
            DeValue::Table(table) => self.table(path, Some(at), first, table),
            DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn table(&mut self, path: &str, at: Option<Position>, schema: &Value, table: &DeTable<'_>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        if let Some(most) = schema.get("maxProperties").and_then(Value::as_u64)
            && table.len() as u64 > most
        {
            self.report(at, path, format!("`{path}` has more than {most} keys"), "remove some".to_owned());
            return;
        }
        for (key, value) in table {
            let name: &str = key.get_ref();
            let child = join(path, name);
            if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
                self.value(&child, schema, value);
            } else if let Some(schema) = additional.filter(|schema| **schema != Value::Bool(false)) {
                self.value(&child, schema, value);
            } else {
                let at = self.lines.position(key.span().start);
                let known = properties.into_iter().flatten().map(|(name, _)| name.as_str());
                let cure = self.cure_for_unknown(name, known);
                self.report(Some(at), &child, format!("unknown key `{child}`"), cure);
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in required.filter(|name| !table.contains_key(*name)) {
            let child = join(path, name);
            self.report(at, &child, format!("`{child}` is missing"), "add it".to_owned());
        }
    }

    fn array(&mut self, path: &str, at: Position, schema: &Value, items: &[Spanned<DeValue<'_>>]) {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        let least = bound("minItems").unwrap_or(0);
        let most = bound("maxItems").unwrap_or(u64::MAX);
        let length = items.len() as u64;
        if length < least || length > most {
            let message = format!("`{path}` has {length} entries, but may have {least} to {most}");
            self.report(Some(at), path, message, "add or remove some".to_owned());
            return;
        }
        let free = Value::Bool(true);
        let schema = schema.get("items").unwrap_or(&free);
        for (index, item) in items.iter().enumerate() {
            self.value(&format!("{path}[{index}]"), schema, item);
        }
    }

    fn number(&mut self, path: &str, at: Position, schema: &Value, number: Option<f64>, written: &str) {
        let end = |key: &str| schema.get(key).filter(|end| end.is_number());
        let (Some(least), Some(most)) = (end("minimum"), end("maximum")) else { return };
        let is_inside = |number: f64| Some(number) >= least.as_f64() && Some(number) <= most.as_f64();
        // A NaN is inside no range, and neither is a number too large to be read.
        if !number.is_some_and(is_inside) {
            let message = format!("`{path}` is {}, but its range is {least} to {most}", shown(written));
            self.report(Some(at), path, message, "choose a number in that range".to_owned());
        }
    }

    fn text(&mut self, path: &str, at: Position, fitting: &[&Value], text: &str) {
        let allowed: Vec<&str> = fitting.iter().flat_map(|schema| enumerated(schema)).collect();
        if !allowed.is_empty() {
            if !allowed.contains(&text) {
                let cure = suggest(text, allowed.iter().copied(), || format!("choose {}", one_of(&allowed)));
                self.report(Some(at), path, format!("`{path}` cannot be `{}`", shown(text)), cure);
            }
            return;
        }
        let Some(schema) = fitting.first() else { return };
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        let length = text.chars().count() as u64;
        let (least, most) = (bound("minLength").unwrap_or(0), bound("maxLength").unwrap_or(u64::MAX));
        if length < least || length > most {
            let message = format!("`{path}` has {length} characters, but may have {least} to {most}");
            self.report(Some(at), path, message, "change it".to_owned());
        }
        // The text itself is not shown: it may be a secret in the wrong place.
        if let Some(malformed) = schema.get("format").and_then(Value::as_str).and_then(|format| malformed(format, text)) {
            self.report(Some(at), path, format!("`{path}` is not {}", malformed.what), malformed.cure.to_owned());
        }
    }

    /// Values under free keys become JSON, so what JSON has no word for is refused.
    fn free(&mut self, path: &str, value: &Spanned<DeValue<'_>>) {
        let refusal = match value.get_ref() {
            DeValue::Datetime(_) => Some(("a date-time, which JSON has not", "put it in quotes")),
            DeValue::Float(number) if !number.as_str().parse::<f64>().is_ok_and(f64::is_finite) => {
                Some(("not a finite number", "write a finite number"))
            }
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
                Some(("an integer beyond 64 bits", "put it in quotes"))
            }
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.free(&format!("{path}[{index}]"), item);
                }
                None
            }
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.free(&join(path, key.get_ref()), value);
                }
                None
            }
            _ => None,
        };
        if let Some((what, cure)) = refusal {
            let at = self.lines.position(value.span().start);
            self.report(Some(at), path, format!("`{path}` is {what}"), cure.to_owned());
        }
    }

    fn wrong_type(&mut self, path: &str, at: Position, alternatives: &[&Value], value: &DeValue<'_>) {
        let mut wanted: Vec<&str> = Vec::new();
        for name in alternatives.iter().flat_map(|schema| types(schema)).filter_map(described) {
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        let wanted = wanted.join(" or ");
        let found = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date-time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let cure = match value {
            DeValue::Datetime(_) => "put it in quotes".to_owned(),
            _ => format!("write {wanted}"),
        };
        self.report(Some(at), path, format!("`{path}` is {found}, but should be {wanted}"), cure);
    }

    fn cure_for_unknown<'k>(&self, name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
        if self.file.kind == Kind::Key && matches!(name, "secret" | "key" | "token" | "password") {
            return "a key file has the SHA-256 of the secret only: remove it, and make a new key with `tollgate keys add`"
                .to_owned();
        }
        suggest(name, known.clone(), || {
            let known: Vec<&str> = known.collect();
            format!("remove it; known here: {}", one_of(&known))
        })
    }

    fn report(&mut self, at: Option<Position>, path: &str, message: String, cure: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem::new(self.file.name.as_str(), at, path, message, cure));
        }
    }
}

/// What of a text is wrong, by the `format` of its type.
fn malformed(format: &str, text: &str) -> Option<Malformed> {
    match format {
        Id::FORMAT => text.parse::<Id>().err(),
        Name::FORMAT => text.parse::<Name>().err(),
        Allowed::FORMAT => text.parse::<Allowed>().err(),
        Sha256Hex::FORMAT => text.parse::<Sha256Hex>().err(),
        PublicKey::FORMAT => text.parse::<PublicKey>().err(),
        Network::FORMAT => text.parse::<Network>().err(),
        Source::FORMAT => text.parse::<Source>().err(),
        Timestamp::FORMAT => text.parse::<Timestamp>().err(),
        Endpoint::FORMAT => text.parse::<Endpoint>().err(),
        HostPort::FORMAT => text.parse::<HostPort>().err(),
        Addresses::FORMAT => text.parse::<std::net::SocketAddr>().err().map(|_| Malformed {
            what: "an IP address with a port",
            cure: "write one, such as `127.0.0.1:8443` or `[::1]:8443`; host names are not resolved",
        }),
        _ => None,
    }
}

/// Whether anything may stand here: the values under a plugin's `config`.
fn is_free(schema: &Value) -> bool {
    match schema {
        Value::Object(schema) => !["type", "anyOf", "oneOf"].iter().any(|key| schema.contains_key(*key)),
        _ => true,
    }
}

/// The schema itself, or the schemas that it is a choice of.
fn alternatives(schema: &Value) -> Vec<&Value> {
    match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        Some(choices) => choices.iter().flat_map(alternatives).collect(),
        None => vec![schema],
    }
}

/// JSON Schema's names of the types that a schema allows.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A type's name for people. TOML has no null: a key is left out.
fn described(json_type: &str) -> Option<&'static str> {
    match json_type {
        "string" => Some("a string"),
        "integer" => Some("an integer"),
        "number" => Some("a number"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a table"),
        _ => None,
    }
}

fn fits(schema: &Value, value: &DeValue<'_>) -> bool {
    types(schema).into_iter().any(|json_type| match value {
        DeValue::String(_) => json_type == "string",
        DeValue::Integer(_) => matches!(json_type, "integer" | "number"),
        DeValue::Float(_) => json_type == "number",
        DeValue::Boolean(_) => json_type == "boolean",
        DeValue::Datetime(_) => false,
        DeValue::Array(_) => json_type == "array",
        DeValue::Table(_) => json_type == "object",
    })
}

/// The strings that a schema enumerates; empty where it allows any.
fn enumerated(schema: &Value) -> Vec<&str> {
    let many = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    many.chain(schema.get("const")).filter_map(Value::as_str).collect()
}

fn one_of(choices: &[&str]) -> String {
    choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { shown(key) } else { format!("{path}.{}", shown(key)) }
}
