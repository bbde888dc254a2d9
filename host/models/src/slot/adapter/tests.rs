//! Whether an adapter is this model's, by the demo model and its adapter.

use super::*;

fn header(name: &str) -> Gguf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model").join(name);
    gguf::read(&mut BufReader::new(File::open(path).unwrap())).unwrap()
}

fn tensor<'a>(gguf: &'a mut Gguf, ending: &str) -> &'a mut Tensor {
    gguf.tensors.iter_mut().find(|tensor| tensor.name.ends_with(ending)).unwrap()
}

#[test]
fn the_demo_adapter_is_the_demo_models() {
    let adapter = header("lora/demo-lora.gguf");
    gguf::check_adapter(&adapter).unwrap();
    // Other numbers are no other shapes.
    for base in ["demo-f16.gguf", "demo.gguf"] {
        assert_eq!(fits(&header(base), &adapter), Ok(()), "{base}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_both_shapes() {
    let base = header("demo-f16.gguf");
    let mut wide = header("lora/demo-lora.gguf");
    let a = tensor(&mut wide, ".lora_a");
    a.shape[0] += 64;
    let (name, columns) = (a.name.strip_suffix(".lora_a").unwrap().to_owned(), a.shape[0]);
    let shape = base.tensor(&name).unwrap().shape.clone();
    let why = fits(&base, &wide).unwrap_err();
    for part in [format!("{name:?}"), format!("for one of {columns} x {}", shape[1]), format!("is {} x {}", shape[0], shape[1])] {
        assert!(why.contains(&part), "{why} should say {part}");
    }

    let mut strange = header("lora/demo-lora.gguf");
    for tensor in &mut strange.tensors {
        tensor.name = tensor.name.replacen("blk.0.", "blk.90.", 1);
    }
    let why = fits(&base, &strange).unwrap_err();
    assert!(why.contains("blk.90.") && why.contains("not in the base"), "{why}");
}

#[test]
fn adapters_of_other_architectures_and_kinds_are_refused() {
    let base = header("demo-f16.gguf");
    let mut other = header("lora/demo-lora.gguf");
    other.metadata.insert("general.architecture".to_owned(), gguf::Value::String("qwen2".to_owned()));
    assert!(fits(&base, &other).unwrap_err().contains("\"qwen2\""));
    let mut late = header("lora/demo-lora.gguf");
    late.metadata.insert("adapter.alora.invocation_tokens".to_owned(), gguf::Value::U32(7));
    assert!(fits(&base, &late).unwrap_err().contains("aLoRA"));
}
