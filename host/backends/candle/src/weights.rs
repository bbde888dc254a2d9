//! The tensors of a folder, as f32.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::safetensors::BufferedSafetensors;
use candle_core::{DType, Device, Tensor};
use tollgate_backend::BackendError;
use tollgate_backend_hf::Folder;

/// Parts that a model may be split into.
const MAX_SHARDS: usize = 512;

/// Tensors by name.
pub(crate) struct Weights {
    tensors: HashMap<String, Tensor>,
}

impl Weights {
    /// Reads every floating-point tensor. Files are read rather than mapped: a mapped file that somebody writes to ends the
    /// process.
    pub(crate) fn load(folder: &Folder) -> Result<Self, BackendError> {
        let mut tensors = HashMap::new();
        for path in files(folder)? {
            read(&path, &mut tensors)?;
        }
        Ok(Weights { tensors })
    }

    /// The tensor of this name, which must have this shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, BackendError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| BackendError::Load(format!("the folder has no tensor `{name}` in f16, bf16 or f32")))?;
        if tensor.dims() != shape {
            let what = format!("the tensor `{name}` has the shape {:?}, and config.json asks for {shape:?}", tensor.dims());
            return Err(BackendError::Load(what));
        }
        Ok(tensor.clone())
    }

    /// Whether the name of any tensor begins so.
    pub(crate) fn has_prefix(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| u64::try_from(tensor.elem_count()).unwrap_or(u64::MAX).saturating_mul(4)).sum()
    }

    /// All of them.
    pub(crate) fn into_tensors(self) -> HashMap<String, Tensor> {
        self.tensors
    }
}

/// `model.safetensors`, or the parts that `model.safetensors.index.json` names.
fn files(folder: &Folder) -> Result<Vec<PathBuf>, BackendError> {
    let whole = folder.path().join("model.safetensors");
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    let Some(index) = folder.read("model.safetensors.index.json")? else {
        return Err(BackendError::Load(format!(
            "{} has no model.safetensors and no index of its parts",
            folder.path().display()
        )));
    };
    let wrong = || BackendError::Load("model.safetensors.index.json has no usable `weight_map`".to_owned());
    let map = index.get("weight_map").and_then(|map| map.as_object()).ok_or_else(wrong)?;
    let mut names = BTreeSet::new();
    for name in map.values() {
        let name = name.as_str().filter(|name| is_plain(name)).ok_or_else(wrong)?;
        names.insert(name);
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(wrong());
    }
    Ok(names.into_iter().map(|name| folder.path().join(name)).collect())
}

/// Whether a name stays within its folder.
fn is_plain(name: &str) -> bool {
    name.ends_with(".safetensors") && Path::new(name).file_name().is_some_and(|file| file == name)
}

fn read(path: &Path, tensors: &mut HashMap<String, Tensor>) -> Result<(), BackendError> {
    let load = |what: String| BackendError::Load(format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| load(format!("cannot be read: {error}")))?;
    let file = BufferedSafetensors::new(bytes).map_err(|error| load(format!("is no safetensors file: {error}")))?;
    let names: Vec<String> = file.tensors().into_iter().map(|(name, _)| name).collect();
    for name in names {
        // Masks and positions are integers, and quantized weights no kind that is computed here: what is missing is named later.
        let Ok(tensor) = file.load(&name, &Device::Cpu) else { continue };
        if matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32) {
            let tensor = tensor.to_dtype(DType::F32).map_err(|error| load(format!("`{name}`: {error}")))?;
            tensors.insert(name, tensor);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(directory: &Path) -> Folder {
        std::fs::write(directory.join("config.json"), "{}").expect("written");
        Folder::open(directory).expect("a folder")
    }

    fn save(path: &Path, name: &str, tensor: &Tensor) {
        let tensors = HashMap::from([(name.to_owned(), tensor.clone())]);
        candle_core::safetensors::save(&tensors, path).expect("saved");
    }

    #[test]
    fn parts_are_found_by_the_index_and_widened() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = folder(directory.path());
        assert!(Weights::load(&folder).err().expect("nothing there").to_string().contains("no model.safetensors"));
        let half = Tensor::new(&[[1.0_f32, 2.0]], &Device::Cpu).and_then(|tensor| tensor.to_dtype(DType::F16)).expect("a tensor");
        save(&directory.path().join("a.safetensors"), "x", &half);
        save(&directory.path().join("b.safetensors"), "mask", &Tensor::new(&[1_i64], &Device::Cpu).expect("a tensor"));
        let index = r#"{"weight_map": {"x": "a.safetensors", "mask": "b.safetensors"}}"#;
        std::fs::write(directory.path().join("model.safetensors.index.json"), index).expect("written");
        let weights = Weights::load(&folder).expect("read");
        let x = weights.get("x", &[1, 2]).expect("there");
        assert_eq!(x.to_vec2::<f32>().expect("f32"), [[1.0, 2.0]]);
        assert_eq!(weights.bytes(), 8);
        assert!(weights.get("mask", &[1]).is_err(), "integers are no weights");
        assert!(weights.get("x", &[2]).expect_err("another shape").to_string().contains("[1, 2]"));
        assert!(weights.get("y", &[2]).expect_err("missing").to_string().contains("`y`"));
    }

    #[test]
    fn an_index_names_files_of_the_folder_only() {
        assert!(is_plain("model-00001-of-00002.safetensors"));
        for name in ["../a.safetensors", "a/b.safetensors", "/a.safetensors", "a.bin", "..", ""] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_safetensors_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = folder(directory.path());
        std::fs::write(directory.path().join("model.safetensors"), [0xff; 64]).expect("written");
        assert!(Weights::load(&folder).err().expect("refused").to_string().contains("no safetensors file"));
    }
}
