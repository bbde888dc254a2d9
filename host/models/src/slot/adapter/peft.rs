//! Adapters as PEFT writes them, held to the safetensors that they are for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tollgate_backend_candle::{LoraHeader, LoraShape};
use tollgate_formats::safetensors;

use super::shown;
use crate::{ArtifactError, LoadError};

/// The tensors of a base by their names, with their shapes.
type Shapes = BTreeMap<String, Vec<u64>>;

/// Whether the adapter in `folder` fits a base of these safetensors; of a base that has none, its backend knows. The bytes that it
/// takes.
pub(super) fn check(folder: &Path, base: &[PathBuf]) -> Result<u64, LoadError> {
    let header = LoraHeader::read(folder)?;
    if !base.is_empty() {
        let shapes = shapes(base)?;
        let misfit = header.modules().find_map(|(module, shape)| fits(&shapes, module, shape).err());
        if let Some(why) = misfit {
            return Err(LoadError::Start(format!("{}: {why}", folder.display())));
        }
    }
    Ok(header.bytes())
}

fn shapes(files: &[PathBuf]) -> Result<Shapes, ArtifactError> {
    let mut shapes = Shapes::new();
    for path in files {
        let file = File::open(path).map_err(|error| ArtifactError::Io { path: path.clone(), error })?;
        let header = safetensors::read(&mut BufReader::new(file));
        let header = header.map_err(|error| ArtifactError::Format { path: path.clone(), error })?;
        shapes.extend(header.tensors.into_iter().map(|(name, tensor)| (name, tensor.shape)));
    }
    Ok(shapes)
}

fn fits(base: &Shapes, module: &str, shape: LoraShape) -> Result<(), String> {
    let why = "it is an adapter of another model";
    let Some(target) = base.get(&format!("{module}.weight")) else {
        // A head may be the table of words, as its backend knows.
        return if module == "lm_head" { Ok(()) } else { Err(format!("it changes {module:?}, which is not in the base: {why}")) };
    };
    let wanted = [shape.outputs, shape.inputs].map(|size| u64::try_from(size).unwrap_or(u64::MAX));
    if *target != wanted {
        let [wanted, found] = [wanted.as_slice(), target.as_slice()].map(shown);
        return Err(format!("its pair for {module:?} is for one of {wanted}, and that of the base is {found}: {why}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model").join(name)
    }

    #[test]
    fn the_demo_adapter_is_the_demo_models() {
        let base = [demo("hf/model.safetensors")];
        let bytes = check(&demo("lora"), &base).unwrap();
        assert!(bytes > 400_000 && bytes < 500_000, "{bytes}");
        assert!(check(&demo("hf"), &base).is_err());
    }

    #[test]
    fn what_does_not_fit_is_named_with_both_shapes() {
        let base = shapes(&[demo("hf/model.safetensors")]).unwrap();
        let shape = LoraShape { inputs: 256, outputs: 256, rank: 8 };
        assert_eq!(fits(&base, "model.layers.0.self_attn.q_proj", shape), Ok(()));
        let why = fits(&base, "model.layers.0.self_attn.k_proj", shape).unwrap_err();
        assert!(why.contains("256 x 256") && why.contains("128 x 256") && why.contains("k_proj"), "{why}");
        let why = fits(&base, "model.layers.90.self_attn.q_proj", shape).unwrap_err();
        assert!(why.contains("layers.90") && why.contains("not in the base"), "{why}");
    }
}
