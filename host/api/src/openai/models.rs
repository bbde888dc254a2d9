//! `GET /v1/models` and `GET /v1/models/{id}`: what the sender may use. Aliases are listed as ids of their own.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use tollgate_pipeline::{ModelInfo, Session};

use crate::failure::Failure;
use crate::respond;

#[derive(Debug, Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Card<'a>>,
}

#[derive(Debug, Serialize)]
struct Card<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

/// All of them, by all their names.
pub(crate) fn list(session: &Session) -> Result<Response, Failure> {
    Ok(respond::json(StatusCode::OK, text_of(&list_of(&session.models()?))))
}

/// The one that `segment`, percent-encoded as clients send it, names.
pub(crate) fn show(session: &Session, segment: &str) -> Result<Response, Failure> {
    let name = percent_decoded(segment).ok_or_else(Failure::unknown_path)?;
    let model = session.model(&name)?;
    Ok(respond::json(StatusCode::OK, text_of(&card(&model, &name))))
}

fn text_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a list of models can be written")
}

fn list_of(models: &[ModelInfo]) -> List<'_> {
    let mut data = Vec::new();
    for model in models {
        data.push(card(model, &model.id));
        data.extend(model.aliases.iter().map(|alias| card(model, alias)));
    }
    List { object: "list", data }
}

fn card<'a>(model: &'a ModelInfo, name: &'a str) -> Card<'a> {
    Card { id: name, object: "model", created: model.created_s, owned_by: model.owner }
}

/// Undoes percent-encoding (RFC 3986, 2.1), once. `None`: it is malformed or not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { 16 * hex_digit(bytes.next()?)? + hex_digit(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_and_aliases_are_listed() {
        let models = [ModelInfo {
            id: "demo".to_owned(),
            aliases: vec!["default".to_owned()],
            created_s: 7,
            digest: Some("ab".to_owned()),
            owner: "tollgate",
        }];
        let card = |id: &str| json!({"id": id, "object": "model", "created": 7, "owned_by": "tollgate"});
        let expected = json!({"object": "list", "data": [card("demo"), card("default")]});
        assert_eq!(serde_json::to_value(list_of(&models)).unwrap(), expected);
        assert_eq!(serde_json::to_value(list_of(&[])).unwrap(), json!({"object": "list", "data": []}));
    }

    #[test]
    fn a_name_is_decoded_once() {
        let cases = [
            ("demo", Some("demo")),
            ("org%2Fmodel%3aq8", Some("org/model:q8")),
            ("org/model", Some("org/model")),
            ("a%252f", Some("a%2f")),
            ("%c3%a9", Some("é")),
            ("%ff", None),
            ("%", None),
            ("%2", None),
            ("%+1", None),
            ("%zz", None),
        ];
        for (text, expected) in cases {
            assert_eq!(percent_decoded(text).as_deref(), expected, "{text}");
        }
    }
}
