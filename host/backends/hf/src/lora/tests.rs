//! Adapters' folders, and what is refused of them.

use serde_json::{Value, json};

use super::*;

const UP: &str = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight";
const MODULE: &str = "model.layers.0.mlp.up_proj";

/// A tensor of a file: its name, its kind, its shape and its bytes.
type Tensor<'a> = (&'a str, &'a str, [usize; 2], Vec<u8>);

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A pair of the rank 2 for a matrix (1, 3).
fn pair() -> Vec<Tensor<'static>> {
    let other = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight";
    vec![(UP, "F32", [2, 3], floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), (other, "F32", [1, 2], floats(&[10.0, 20.0]))]
}

fn folder(config: &Value, tensors: &[Tensor<'_>]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, kind, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({ "dtype": kind, "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = u64::try_from(header.len()).expect("short").to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    std::fs::write(directory.path().join(WEIGHTS), file).expect("written");
    std::fs::write(directory.path().join("adapter_config.json"), config.to_string()).expect("written");
    directory
}

fn config(more: &Value) -> Value {
    let mut config = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none" });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn refused(config: &Value, tensors: &[Tensor<'_>]) -> String {
    let folder = folder(config, tensors);
    Lora::read(folder.path(), 1.0).expect_err("refused").to_string()
}

#[test]
fn pairs_are_read_with_what_scales_them() {
    let plain = config(&json!({}));
    for (more, scale, factor) in
        [(json!({}), 1.0, 2.0), (json!({ "use_rslora": true, "r": 2 }), 1.0, 8.0_f32.sqrt()), (json!({}), 0.5, 1.0)]
    {
        let folder = folder(&config(&more), &pair());
        let header = LoraHeader::read(folder.path()).expect("a header");
        let shape = LoraShape { inputs: 3, outputs: 1, rank: 2 };
        assert_eq!(header.modules().collect::<Vec<_>>(), [(MODULE, shape)]);
        assert_eq!(header.bytes(), 32);
        let pairs = Lora::read(folder.path(), scale).expect("an adapter").into_pairs();
        assert_eq!(pairs[MODULE].down, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        for (found, wanted) in pairs[MODULE].up.iter().zip([10.0 * factor, 20.0 * factor]) {
            assert!((found - wanted).abs() < 1e-4, "{found} {wanted}");
        }
    }
    let halves = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(f16::from_f32).into_iter().flat_map(f16::to_le_bytes).collect();
    let shorts = [10.0, 20.0].map(bf16::from_f32).into_iter().flat_map(bf16::to_le_bytes).collect();
    let [(down, ..), (up, ..)] = <[Tensor<'_>; 2]>::try_from(pair()).expect("two");
    let folder = folder(&plain, &[(down, "F16", [2, 3], halves), (up, "BF16", [1, 2], shorts)]);
    let pairs = Lora::read(folder.path(), 1.0).expect("an adapter").into_pairs();
    assert_eq!((pairs[MODULE].down[5], pairs[MODULE].up[1]), (6.0, 40.0));
}

#[test]
fn settings_that_are_not_computed_are_refused_by_name() {
    for (more, word) in [
        (json!({ "use_dora": true }), "`use_dora`"),
        (json!({ "bias": "all" }), "`bias`"),
        (json!({ "modules_to_save": ["lm_head"] }), "`modules_to_save`"),
        (json!({ "alpha_pattern": { "q_proj": 3 } }), "`alpha_pattern`"),
        (json!({ "fan_in_fan_out": true }), "`fan_in_fan_out`"),
        (json!({ "init_lora_weights": "pissa_niter_4" }), "`init_lora_weights`"),
        (json!({ "init_lora_weights": "lora_ga" }), "`init_lora_weights`"),
        (json!({ "peft_type": "IA3" }), "`IA3`"),
        (json!({ "r": 0 }), "from 1 to 1024"),
        (json!({ "r": 1025 }), "from 1 to 1024"),
        (json!({ "r": 4 }), "adapter_config.json says 4"),
        (json!({ "lora_alpha": 0 }), "`lora_alpha`"),
        (json!({ "lora_alpha": "NaN" }), "`lora_alpha`"),
    ] {
        let why = refused(&config(&more), &pair());
        assert!(why.contains(word), "{more}: {why}");
    }
    let ranks = config(&json!({ "r": 8, "rank_pattern": { "up_proj": 2 } }));
    let pairs = Lora::read(folder(&ranks, &pair()).path(), 1.0).expect("each has its own").into_pairs();
    assert_eq!(pairs[MODULE].up, [20.0, 40.0]);
}

#[test]
fn tensors_that_are_no_pairs_are_refused() {
    let plain = config(&json!({}));
    let with = |at: usize, change: &dyn Fn(&mut Tensor<'static>)| {
        let mut tensors = pair();
        change(&mut tensors[at]);
        refused(&plain, &tensors)
    };
    let missing = refused(&plain, &pair()[..1]);
    assert!(missing.contains("has a lora_A and no lora_B") && missing.contains(MODULE), "{missing}");
    assert!(refused(&plain, &[]).contains("no tensors"));
    let table = with(0, &|tensor| tensor.0 = "base_model.model.model.embed_tokens.lora_A.weight");
    assert!(table.contains("no lora_A or lora_B of a linear layer"), "{table}");
    let vector = with(0, &|tensor| tensor.0 = "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight");
    assert!(vector.contains("magnitude"), "{vector}");
    let other = with(1, &|tensor| *tensor = (tensor.0, "F32", [2, 1], floats(&[1.0, 2.0])));
    assert!(other.contains("[2, 3]") && other.contains("[2, 1]"), "{other}");
    let whole = with(1, &|tensor| tensor.1 = "I32");
    assert!(whole.contains("is in I32"), "{whole}");
    let number = with(0, &|tensor| tensor.3 = floats(&[f32::NAN; 6]));
    assert!(number.contains("no finite number"), "{number}");
    let large = with(1, &|tensor| tensor.3 = floats(&[f32::MAX; 2]));
    assert!(large.contains("too large"), "{large}");
    let folder = folder(&plain, &pair());
    assert!(Lora::read(folder.path(), f32::NAN).expect_err("no number").to_string().contains("scale"));
    std::fs::write(folder.path().join(WEIGHTS), [0xff; 16]).expect("written");
    assert!(LoraHeader::read(folder.path()).expect_err("no file of the kind").to_string().contains(WEIGHTS));
    std::fs::remove_file(folder.path().join("adapter_config.json")).expect("removed");
    assert!(LoraHeader::read(folder.path()).expect_err("no settings").to_string().contains("no PEFT adapter"));
}
