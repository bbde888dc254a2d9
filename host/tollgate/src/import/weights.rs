//! What an older system's `path` of a model means: a GGUF file, a folder, or a name on a hub. Nothing is read here.

use std::path::Path;

use tollgate_config::Source;

use super::toml_text::shown;

/// Where a path in an input leads on this machine, as an absolute path.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file.
    File(String),
    /// A folder.
    Folder(String),
}

/// The weights of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Weights {
    /// A GGUF file.
    Gguf {
        /// Its path, as it is written.
        path: String,
        /// Whether it is there.
        is_found: bool,
    },
    /// A folder, or a file of another kind that can be imported.
    Importable(String),
    /// `OWNER/NAME` on the hub.
    Hub(String),
    /// `NAME:TAG` of Ollama's registry.
    Ollama(String),
    /// PyTorch pickles, which are never loaded.
    Pickle,
}

/// What `text` means as the path of a model that ran as `kind`; `None` where nothing here can make sense of it.
pub(super) fn of(text: &str, kind: Option<&str>, place: Option<Place>) -> Option<Weights> {
    if text.parse::<Source>().is_err() || text.contains("://") {
        return None;
    }
    let weights = match place {
        Some(Place::Folder(path)) => Weights::Importable(path),
        Some(Place::File(path)) if has_extension(&path, &["gguf"]) => Weights::Gguf { path, is_found: true },
        Some(Place::File(path)) if has_extension(&path, PICKLES) => Weights::Pickle,
        Some(Place::File(path)) => Weights::Importable(path),
        None => unseen(text, kind),
    };
    match weights {
        // The path of a file must not read as a name of the gateway's own.
        Weights::Gguf { path, is_found } => {
            let is_own = ["builtin:", "installed:"].iter().any(|own| path.starts_with(own));
            let path = if is_own { format!("./{path}") } else { path };
            path.parse::<Source>().ok().map(|_| Weights::Gguf { path, is_found })
        }
        weights => Some(weights),
    }
}

const PICKLES: &[&str] = &["bin", "pt", "pth", "ckpt", "pkl"];

fn unseen(text: &str, kind: Option<&str>) -> Weights {
    let tag = text.strip_prefix("ollama:").unwrap_or(text);
    let is_tag = !tag.contains('/') && tag.contains(':') && tag.split(':').count() == 2 && tag.split(':').all(is_component);
    if has_extension(text, &["gguf"]) {
        // Without its `./`, so that two inputs that name one file are seen to.
        Weights::Gguf { path: text.trim_start_matches("./").to_owned(), is_found: false }
    } else if is_tag || (kind.is_some_and(|kind| kind.eq_ignore_ascii_case("ollama")) && is_component(tag)) {
        Weights::Ollama(tag.to_owned())
    } else if is_hub_name(text) {
        Weights::Hub(text.to_owned())
    } else if has_extension(text, PICKLES) {
        Weights::Pickle
    } else {
        Weights::Importable(text.to_owned())
    }
}

impl Weights {
    /// The `artifact` of a model with these weights.
    pub(super) fn artifact(&self, id: &str) -> String {
        match self {
            Self::Gguf { path, .. } => path.clone(),
            _ => format!("installed:{id}"),
        }
    }

    /// What has to be done before a model with these weights can be loaded.
    pub(super) fn to_do(&self, id: &str) -> Option<String> {
        Some(match self {
            Self::Gguf { is_found: true, .. } => return None,
            Self::Gguf { is_found: false, .. } => {
                "the file was not found: a relative path begins at the config directory".to_owned()
            }
            Self::Importable(path) => format!("install it first: tollgate model import {} --name {id}", shown(path, 256)),
            Self::Hub(name) => format!("install it first: tollgate model pull {name} --name {id}"),
            Self::Ollama(tag) => format!("install it first: tollgate model pull ollama:{tag} --name {id}"),
            Self::Pickle => format!("{PICKLE}: tollgate model import PATH --name {id}"),
        })
    }
}

/// What to do about pickles.
const PICKLE: &str =
    "PyTorch pickles run code when they are loaded and never are here; get it as safetensors or GGUF and install that";

/// The quantization to ask for at install, for what an older system called `text`.
pub(super) fn quantization(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "4bit" | "4-bit" | "4" | "int4" | "nf4" | "fp4" | "q4" | "q4_k_m" => "q4_k_m",
        "5bit" | "5-bit" | "5" | "q5" | "q5_k_m" => "q5_k_m",
        "6bit" | "6-bit" | "6" | "q6" | "q6_k" => "q6_k",
        "8bit" | "8-bit" | "8" | "int8" | "q8" | "q8_0" => "q8_0",
        "16bit" | "16-bit" | "16" | "fp16" | "f16" | "float16" | "half" => "f16",
        _ => return None,
    })
}

fn has_extension(path: &str, extensions: &[&str]) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.iter().any(|wanted| extension.eq_ignore_ascii_case(wanted)))
}

/// `OWNER/NAME`. Folders are called what no owner is.
fn is_hub_name(text: &str) -> bool {
    let Some((owner, name)) = text.split_once('/') else { return false };
    let is_folder = ["model", "models", "data", "weights", "cache"].contains(&owner);
    let is_file = has_extension(name, PICKLES) || has_extension(name, &["safetensors", "onnx", "zip"]);
    !is_folder && !is_file && is_component(owner) && is_component(name)
}

fn is_component(text: &str) -> bool {
    let is_first = text.chars().next().is_some_and(|char| char.is_ascii_alphanumeric());
    is_first && text.len() <= 96 && text.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names() {
        let unfound = |path: &str| Some(Weights::Gguf { path: path.to_owned(), is_found: false });
        assert_eq!(of("./models/a-q4_k_m.gguf", None, None), unfound("models/a-q4_k_m.gguf"));
        assert_eq!(of("builtin:x.gguf", None, None), unfound("./builtin:x.gguf"));
        let hub = "mistralai/Mistral-7B-Instruct-v0.2";
        assert_eq!(of(hub, Some("transformers"), None), Some(Weights::Hub(hub.to_owned())));
        assert_eq!(of("gemma3:4b", None, None), Some(Weights::Ollama("gemma3:4b".to_owned())));
        assert_eq!(of("gemma3", Some("ollama"), None), Some(Weights::Ollama("gemma3".to_owned())));
        assert_eq!(of("models/llama", None, None), Some(Weights::Importable("models/llama".to_owned())));
        assert_eq!(of("/srv/pytorch_model.bin", None, None), Some(Weights::Pickle));
        assert_eq!(of("owner/model.pt", None, None), Some(Weights::Pickle));
        for text in ["", "https://u:p@example.org/a.gguf", "a\nb.gguf"] {
            assert_eq!(of(text, None, None), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_there_counts_more_than_what_it_looks_like() {
        let folder = Some(Place::Folder("/srv/mistralai/x".to_owned()));
        assert_eq!(of("mistralai/x", None, folder), Some(Weights::Importable("/srv/mistralai/x".to_owned())));
        let file = Some(Place::File("/srv/a.GGUF".to_owned()));
        assert_eq!(of("a.GGUF", None, file), Some(Weights::Gguf { path: "/srv/a.GGUF".to_owned(), is_found: true }));
    }
}
