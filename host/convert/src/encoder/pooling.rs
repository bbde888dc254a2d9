//! How the rows of an encoder become one vector, as sentence-transformers writes it beside the model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{ConvertError, quoted};
use crate::files;

const FILE: &str = "1_Pooling/config.json";
const MODULES: &str = "modules.json";
const LIMITS: &str = "sentence_bert_config.json";
const FILE_BYTES: u64 = 1 << 20;
/// Modules after which a vector is what llama.cpp makes; every vector is brought to length 1.
const KNOWN: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// Which rows make the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean of all.
    Mean,
    /// The first one, of the token that stands for the whole text.
    Cls,
    /// The first one goes through the head, which gives a score.
    Rank,
}

#[derive(Debug, Deserialize)]
struct Module {
    #[serde(rename = "type")]
    class: String,
}

#[derive(Debug, Deserialize)]
struct Limits {
    max_seq_length: Option<u64>,
}

/// A word on texts that the original cuts and llama.cpp reads.
pub(super) fn longer_texts(folder: &Path, positions: u32) -> Result<Option<String>, ConvertError> {
    let limits = files::json::<Limits>(folder, LIMITS, FILE_BYTES)?;
    let shorter = limits.and_then(|limits| limits.max_seq_length).filter(|most| *most < u64::from(positions));
    Ok(shorter.map(|most| {
        format!(
            "texts of up to {positions} tokens are read, as its positions allow; sentence-transformers cuts them after {most}"
        )
    }))
}

impl Pooling {
    /// llama.cpp's number of it.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::Mean => 1,
            Self::Cls => 2,
            Self::Rank => 4,
        }
    }

    /// What the folder says; the mean where it says nothing.
    pub(super) fn read(folder: &Path) -> Result<Self, ConvertError> {
        let modules: Vec<Module> = files::json(folder, MODULES, FILE_BYTES)?.unwrap_or_default();
        let name = |module: &Module| module.class.rsplit('.').next().unwrap_or_default().to_owned();
        if let Some(other) = modules.iter().map(name).find(|name| !KNOWN.contains(&name.as_str())) {
            let other = quoted(&other);
            return Err(ConvertError::unsupported(format!(
                "it has a module `{other}`, which a GGUF file of this family has not"
            )));
        }
        let Some(flags) = files::json::<BTreeMap<String, Value>>(folder, FILE, FILE_BYTES)? else { return Ok(Self::Mean) };
        let mut modes = flags.iter().filter(|(name, value)| name.starts_with("pooling_mode_") && value.as_bool() == Some(true));
        // The vectors of several stand one after the other in the original.
        match (modes.next().map(|(name, _)| name.as_str()), modes.next()) {
            (Some("pooling_mode_cls_token"), None) => Ok(Self::Cls),
            (Some("pooling_mode_mean_tokens"), None) => Ok(Self::Mean),
            _ => Err(ConvertError::unsupported("it asks for a pooling other than the mean or the first token")),
        }
    }
}
