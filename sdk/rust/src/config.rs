//! A plugin's config, as the host hands it over.

use serde::de::DeserializeOwned;

/// Reads it. Errors name no line: the text is the host's, made of the file that the operator wrote.
pub(crate) fn read<C: DeserializeOwned>(json: &str) -> Result<C, String> {
    serde_json::from_str(json).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        format!("config: {}", text.strip_suffix(&place).unwrap_or(&text))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[test]
    fn errors_name_what_is_wrong_and_no_line() {
        let error = super::read::<BTreeMap<String, bool>>(r#"{"terse": 3}"#).unwrap_err();
        assert_eq!(error, "config: invalid type: integer `3`, expected a boolean");
    }
}
