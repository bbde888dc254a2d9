//! Which files of a repository make one model. Pure.

#[cfg(test)]
mod tests;

use super::super::error::PullError;
use crate::digest::Digest;
use crate::name::RelativePath;

/// Files that are listed in an error, at most.
const MAX_SHOWN: usize = 40;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubFile {
    /// Its path in the repository.
    pub(crate) path: RelativePath,
    /// Its size.
    pub(crate) bytes: u64,
    /// Its digest, for what the hub keeps in its large file storage.
    pub(crate) sha256: Option<Digest>,
}

/// The files of `wanted`, or of the only GGUF model, or of a safetensors model or adapter, or of an ONNX model, in this order.
pub(crate) fn choose<'a>(repo: &str, files: &'a [HubFile], wanted: Option<&RelativePath>) -> Result<Vec<&'a HubFile>, PullError> {
    if let Some(wanted) = wanted {
        let found = files.iter().find(|file| file.path == *wanted);
        let found = found.ok_or_else(|| nothing(repo, &format!("file {wanted}; names are case-sensitive")))?;
        return Ok(if is_onnx(found) { with_onnx(files, found) } else { vec![found] });
    }
    let ggufs: Vec<_> = files.iter().filter(|file| file.path.as_str().ends_with(".gguf")).collect();
    match ggufs.as_slice() {
        [] => {}
        [only] => return Ok(vec![only]),
        several => return Err(several_models(repo, several)),
    }
    if let Some(set) = adapter(files).or_else(|| safetensors(files)) {
        return Ok(set);
    }
    let graphs: Vec<_> = files.iter().filter(|file| is_onnx(file) && file.path.file_name().starts_with("model")).collect();
    let plain: Vec<_> = graphs.iter().filter(|file| file.path.file_name() == "model.onnx").collect();
    match (plain.as_slice(), graphs.as_slice()) {
        ([only], _) => Ok(with_onnx(files, only)),
        (_, [only]) => Ok(with_onnx(files, only)),
        (_, []) => Err(nothing(repo, "model that can be served: no .gguf, no .safetensors and no model*.onnx")),
        (_, several) => Err(several_models(repo, several)),
    }
}

/// A LoRA adapter as PEFT saves it.
fn adapter(files: &[HubFile]) -> Option<Vec<&HubFile>> {
    let named = |name: &str| files.iter().find(|file| file.path.as_str() == name);
    Some(vec![named("adapter_config.json")?, named("adapter_model.safetensors")?])
}

/// The weights in the repository's root with what is read beside them. Where some are called `model...`, the others are copies in
/// the layout of another library.
fn safetensors(files: &[HubFile]) -> Option<Vec<&HubFile>> {
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
    let root = |file: &&HubFile| !file.path.as_str().contains('/');
    let all: Vec<_> = files.iter().filter(root).filter(|file| is_weights(file.path.as_str())).collect();
    let model: Vec<_> = all.iter().copied().filter(|file| file.path.as_str().starts_with("model")).collect();
    let has_weights = |set: &[&HubFile]| set.iter().any(|file| file.path.as_str().ends_with(".safetensors"));
    let mut set = if has_weights(&model) { model } else { all };
    if !has_weights(&set) {
        return None;
    }
    set.extend(files.iter().filter(|file| is_companion(file)));
    Some(set)
}

/// A graph, the tensors that lie in files beside it, and what is read beside a model.
fn with_onnx<'a>(files: &'a [HubFile], graph: &'a HubFile) -> Vec<&'a HubFile> {
    let is_data = |file: &&HubFile| {
        let rest = file.path.as_str().strip_prefix(graph.path.as_str());
        rest.is_some_and(|rest| rest.starts_with("_data") || rest.starts_with(".data"))
    };
    let beside = files.iter().filter(|file| is_companion(file));
    std::iter::once(graph).chain(files.iter().filter(is_data)).chain(beside).collect()
}

fn is_onnx(file: &HubFile) -> bool {
    file.path.as_str().ends_with(".onnx")
}

/// What a model is read with: in the repository's root, and what says how an encoder's rows become a vector.
fn is_companion(file: &HubFile) -> bool {
    let name = file.path.as_str();
    let known = [
        "config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ];
    known.contains(&name) || (name.starts_with("tokenizer") && name.ends_with(".json") && !name.contains('/'))
}

fn nothing(repo: &str, wanted: &str) -> PullError {
    PullError::Nothing { origin: repo.to_owned(), wanted: wanted.to_owned() }
}

fn several_models(repo: &str, files: &[&HubFile]) -> PullError {
    let mut lines: Vec<_> = files
        .iter()
        .take(MAX_SHOWN)
        .map(|file| format!("  {repo}:{} ({} MiB)", file.path, file.bytes.div_ceil(1 << 20)))
        .collect();
    if files.len() > MAX_SHOWN {
        lines.push(format!("  and {} more", files.len() - MAX_SHOWN));
    }
    PullError::Several { repo: repo.to_owned(), list: lines.join("\n") }
}
