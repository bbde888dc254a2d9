//! JSON Schemas of the config files, derived from the types. Editors complete by them, and `parse::check` finds unknown keys,
//! wrong types and numbers out of range by them: one source for what a file may say.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::key::Key;
use crate::listener::Listener;
use crate::model::Model;
use crate::plugin::Plugin;
use crate::route::Route;
use crate::settings::Settings;

/// The JSON Schemas (draft 7, which editors' TOML support reads) of all kinds of files, by name: `tollgate` for
/// `tollgate.toml`, then `listener`, `model`, `plugin`, `route`, `key`.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("tollgate", of::<Settings>()),
        ("listener", of::<Listener>()),
        ("model", of::<Model>()),
        ("plugin", of::<Plugin>()),
        ("route", of::<Route>()),
        ("key", of::<Key>()),
    ]
}

/// The schema of one type, without references into a list of definitions.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with every schema in `schema` and where it is.
    fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        for part in ["properties", "anyOf", "oneOf"] {
            match schema.get(part) {
                Some(Value::Object(children)) => {
                    for (name, child) in children {
                        walk(child, &format!("{path}.{name}"), visit);
                    }
                }
                Some(Value::Array(children)) => {
                    for child in children {
                        walk(child, path, visit);
                    }
                }
                _ => {}
            }
        }
        for part in ["items", "additionalProperties"] {
            if let Some(child) = schema.get(part) {
                walk(child, &format!("{path}[]"), visit);
            }
        }
    }

    fn has_type(schema: &Value, wanted: &str) -> bool {
        match schema.get("type") {
            Some(Value::String(one)) => one == wanted,
            Some(Value::Array(many)) => many.iter().any(|one| one == wanted),
            _ => false,
        }
    }

    #[test]
    fn every_number_has_a_closed_range_and_every_list_a_bound() {
        for (name, schema) in schemas() {
            walk(&schema, name, &mut |path, schema| {
                if has_type(schema, "integer") || has_type(schema, "number") {
                    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
                    let (min, max) = (bound("minimum"), bound("maximum"));
                    assert!(min.is_some() && max.is_some() && min <= max, "{path}: {schema}");
                    if let Some(default) = bound("default") {
                        assert!(min <= Some(default) && Some(default) <= max, "{path}: the default is out of range");
                    }
                }
                if has_type(schema, "array") {
                    assert!(schema.get("maxItems").is_some_and(Value::is_u64), "{path}: {schema}");
                }
            });
        }
    }

    #[test]
    fn every_object_refuses_unknown_keys_and_every_field_is_described() {
        for (name, schema) in schemas() {
            walk(&schema, name, &mut |path, schema| {
                let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
                assert_eq!(schema.get("additionalProperties"), Some(&Value::Bool(false)), "{path}");
                for (field, property) in properties {
                    assert!(property.get("description").is_some_and(Value::is_string), "{path}.{field}: {property}");
                }
            });
            assert!(!schema.to_string().contains("$ref"), "{name} refers to a definition that the check does not follow");
        }
    }
}
