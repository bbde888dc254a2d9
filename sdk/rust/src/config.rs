//! A plugin's config, as the host hands it over.

use serde::de::DeserializeOwned;

/// Reads it. Errors name no line: the text is the host's, made of the file that the operator wrote.
pub(crate) fn read<C: DeserializeOwned>(json: &str) -> Result<C, String> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = text.strip_suffix(&place).unwrap_or(&text);
        // A path of one dot is the whole config.
        if path == "." { format!("config: {text}") } else { format!("config.{path}: {text}") }
    })?;
    deserializer.end().map_err(|error| format!("config: {error}"))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[test]
    fn errors_name_what_is_wrong_and_no_line() {
        let error = super::read::<BTreeMap<String, bool>>(r#"{"terse": 3}"#).unwrap_err();
        assert_eq!(error, "config.terse: invalid type: integer `3`, expected a boolean");
        let error = super::read::<BTreeMap<String, Vec<u8>>>(r#"{"kinds": [1, "two"]}"#).unwrap_err();
        assert_eq!(error, "config.kinds[1]: invalid type: string \"two\", expected u8");
        assert_eq!(super::read::<bool>("{}").unwrap_err(), "config: invalid type: map, expected a boolean");
    }
}
