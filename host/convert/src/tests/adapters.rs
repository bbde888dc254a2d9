//! LoRA adapters of PEFT's files, against a base's folder and against its GGUF file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_formats::Gguf;
use tollgate_formats::gguf::check_adapter;

use super::{Folder, header, safetensors, values, weights, write_json};
use crate::adapter::{self, Base};
use crate::{ConvertError, Converted, Target};

struct Adapter {
    dir: TempDir,
    config: Value,
    tensors: BTreeMap<String, Vec<u64>>,
}

const QUERIES: &str = "base_model.model.model.layers.1.self_attn.q_proj";
const DOWN: &str = "base_model.model.model.layers.0.mlp.down_proj";

impl Adapter {
    fn new() -> Self {
        let mut tensors = BTreeMap::new();
        tensors.insert(format!("{QUERIES}.lora_A.weight"), vec![8, 64]);
        tensors.insert(format!("{QUERIES}.lora_B.weight"), vec![64, 8]);
        tensors.insert(format!("{DOWN}.lora_A.weight"), vec![8, 96]);
        tensors.insert(format!("{DOWN}.lora_B.weight"), vec![64, 8]);
        let config = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "use_rslora": false, "modules_to_save": null,
            "rank_pattern": {}, "alpha_pattern": {}});
        Self { dir: TempDir::new().unwrap(), config, tensors }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("adapter.gguf")
    }

    fn convert(&self, base: &Base<'_>) -> Result<Converted, ConvertError> {
        write_json(&self.dir.path().join("adapter_config.json"), &self.config);
        let tensors = self.tensors.iter().map(|(name, shape)| (name.clone(), shape.clone(), weights(name, shape))).collect();
        safetensors(&self.dir.path().join("adapter_model.safetensors"), tensors);
        adapter::convert(self.dir.path(), base, &self.out(), "tone")
    }

    fn converted(&self, base: &Base<'_>) -> Gguf {
        self.convert(base).unwrap();
        let header = header(&self.out());
        check_adapter(&header).unwrap();
        header
    }

    fn refusal(&self, base: &Base<'_>) -> String {
        let refusal = self.convert(base).unwrap_err().to_string();
        assert!(!self.out().exists());
        refusal
    }
}

#[test]
fn rows_are_reordered_as_the_base_has_them() {
    let folder = Folder::of("llama", 16);
    let base = folder.converted(Target::Q8_0);
    for base in [Base::Folder(folder.path()), Base::Gguf(&base)] {
        let adapter = Adapter::new();
        let header = adapter.converted(&base);
        assert_eq!(header.architecture(), Some("llama"));
        assert_eq!(header.f64("adapter.lora.alpha"), Some(16.0));
        assert_eq!(header.tensor("blk.1.attn_q.weight.lora_a").unwrap().shape, [64, 8]);
        assert_eq!(header.tensor("blk.1.attn_q.weight.lora_b").unwrap().shape, [8, 64]);
        let a = format!("{QUERIES}.lora_A.weight");
        assert_eq!(values(&adapter.out(), &header, "blk.1.attn_q.weight.lora_a"), weights(&a, &[8, 64]));
        let b = weights(&format!("{QUERIES}.lora_B.weight"), &[64, 8]);
        let found = values(&adapter.out(), &header, "blk.1.attn_q.weight.lora_b");
        // Rows 0 and 8 of the first head rotate together, and so do 1 and 9.
        assert_eq!(found[..8], b[..8]);
        assert_eq!(found[8..16], b[64..72]);
        assert_eq!(found[16..24], b[8..16]);
        let down = weights(&format!("{DOWN}.lora_B.weight"), &[64, 8]);
        assert_eq!(values(&adapter.out(), &header, "blk.0.ffn_down.weight.lora_b"), down);
    }
}

#[test]
fn a_root_scaled_adapter_keeps_its_scale() {
    let folder = Folder::of("llama", 16);
    folder.write();
    let mut adapter = Adapter::new();
    adapter.config["use_rslora"] = json!(true);
    let header = adapter.converted(&Base::Folder(folder.path()));
    // 16 over the root of 8 there; alpha over 8 in llama.cpp.
    let alpha = header.f64("adapter.lora.alpha").unwrap();
    assert!((alpha / 8.0 - 16.0 / 8.0_f64.sqrt()).abs() < 1e-5, "{alpha}");
}

#[test]
fn an_adapter_of_another_base_is_refused_with_both_shapes() {
    let folder = Folder::of("llama", 32);
    let header = folder.converted(Target::F16);
    for base in [Base::Folder(folder.path()), Base::Gguf(&header)] {
        let refusal = Adapter::new().refusal(&base);
        assert!(refusal.contains("layers.1.self_attn.q_proj.lora_B.weight` has the shape [64, 8]"), "{refusal}");
        assert!(refusal.contains("has [128, 64]: the adapter was made for another model"), "{refusal}");
    }
    let phi = Folder::of("phi3", 16);
    let header = phi.converted(Target::F16);
    let refusal = Adapter::new().refusal(&Base::Gguf(&header));
    assert!(
        refusal.contains("q_proj.weight` is changed by the adapter, and the base, a `phi3`, has no such tensor"),
        "{refusal}"
    );
}

#[test]
fn what_llama_cpp_does_not_apply_is_refused() {
    let folder = Folder::of("llama", 16);
    folder.write();
    let base = Base::Folder(folder.path());
    for (name, value, words) in [
        ("peft_type", json!("IA3"), "`IA3`"),
        ("use_dora", json!(true), "use_dora"),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save"),
        ("alpha_pattern", json!({"q_proj": 4}), "alpha_pattern"),
        ("bias", json!("all"), "bias"),
        ("init_lora_weights", json!("pissa_niter_4"), "init_lora_weights"),
        ("alora_invocation_tokens", json!([7]), "alora_invocation_tokens"),
        ("r", json!(0), "has r 0 and lora_alpha 16"),
        ("r", json!(4), "has rank 8 in lora_A and 8 in lora_B; adapter_config.json says 4"),
        ("lora_alpha", json!(-1), "lora_alpha"),
        ("lora_alpha", json!("x"), "is not understood"),
    ] {
        let mut adapter = Adapter::new();
        adapter.config[name] = value;
        let refusal = adapter.refusal(&base);
        assert!(refusal.contains(words), "{name}: {refusal}");
    }
    for (change, words) in [
        (("remove", format!("{DOWN}.lora_B.weight"), vec![]), "has one matrix of its LoRA pair"),
        (("insert", format!("{DOWN}.lora_magnitude_vector"), vec![64]), "is no lora_A or lora_B"),
        (("insert", format!("{DOWN}.lora_B.weight"), vec![64, 4]), "has rank 8 in lora_A and 4 in lora_B"),
        (("insert", "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight".to_owned(), vec![8, 64]), "one matrix"),
    ] {
        let mut adapter = Adapter::new();
        let (kind, name, shape) = change;
        drop(if kind == "remove" { adapter.tensors.remove(&name) } else { adapter.tensors.insert(name, shape) });
        let refusal = adapter.refusal(&base);
        assert!(refusal.contains(words), "{refusal}");
    }
}
