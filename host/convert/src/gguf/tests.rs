//! What is written, byte by byte, and what is refused.

use std::io::Cursor;

use proptest::prelude::*;
use tollgate_formats::gguf;

use super::*;

fn tensor(name: &str, shape: &[u64], kind: Kind) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), kind }
}

#[test]
fn what_is_written_is_read_back() {
    let metadata = [
        ("a.count".to_owned(), Value::U32(7)),
        ("a.real".to_owned(), Value::F32(0.5)),
        ("a.yes".to_owned(), Value::Bool(true)),
        ("a.text".to_owned(), Value::String("Grüße".to_owned())),
        ("a.texts".to_owned(), Value::Strings(vec!["x".to_owned(), String::new()])),
        ("a.numbers".to_owned(), Value::I32s(vec![-1, 6])),
        ("a.reals".to_owned(), Value::F32s(vec![1.5])),
    ];
    let tensors = [tensor("one", &[3], Kind::F32), tensor("two", &[32, 2], Kind::Q8_0), tensor("three", &[5], Kind::Bf16)];
    let mut writer = Writer::new(Vec::new(), &metadata, &tensors).unwrap();
    assert_eq!(writer.total(), 12 + 68 + 10);
    writer.write(&[1; 12]).unwrap();
    writer.write(&[2; 60]).unwrap();
    writer.write(&[3; 8]).unwrap();
    writer.write(&[4; 10]).unwrap();
    assert_eq!(writer.written(), 90);
    let file = writer.finish().unwrap();
    let header = gguf::read(&mut Cursor::new(&file)).unwrap();
    assert_eq!((header.version, header.alignment), (3, 32));
    assert_eq!(header.u64("a.count"), Some(7));
    assert_eq!(header.f64("a.real"), Some(0.5));
    assert_eq!(header.bool("a.yes"), Some(true));
    assert_eq!(header.string("a.text"), Some("Grüße"));
    assert_eq!(header.array("a.texts").and_then(|array| array.strings().map(<[_]>::len)), Some(2));
    assert_eq!(header.array("a.numbers").and_then(|array| array.i32s().map(<[_]>::to_vec)), Some(vec![-1, 6]));
    let offsets: Vec<u64> = header.tensors.iter().map(|tensor| tensor.offset).collect();
    assert_eq!(offsets, [0, 32, 128]);
    let at = usize::try_from(header.data_offset).unwrap();
    assert_eq!(file[at..at + 13], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(file[at + 32 + 59..at + 32 + 62], [2, 3, 3]);
    assert_eq!(file.len(), at + 160);
}

#[test]
fn too_many_bytes_and_too_few_are_refused() {
    let tensors = [tensor("one", &[3], Kind::F32)];
    let mut writer = Writer::new(Vec::new(), &[], &tensors).unwrap();
    assert!(writer.write(&[0; 13]).is_err());
    let mut writer = Writer::new(Vec::new(), &[], &tensors).unwrap();
    writer.write(&[0; 8]).unwrap();
    assert!(writer.finish().is_err());
    let mut writer = Writer::new(Vec::new(), &[], &tensors).unwrap();
    writer.write(&[0; 12]).unwrap();
    assert!(writer.write(&[0]).is_err());
}

#[test]
fn shapes_that_cannot_be_stored_are_refused() {
    for (name, shape, kind) in [
        ("a", vec![], Kind::F32),
        ("a", vec![1, 1, 1, 1, 1], Kind::F32),
        ("a", vec![0, 4], Kind::F32),
        ("a", vec![33, 2], Kind::Q8_0),
        ("a", vec![u64::MAX, 2], Kind::F32),
        ("", vec![1], Kind::F32),
    ] {
        assert!(Writer::new(Vec::new(), &[], &[tensor(name, &shape, kind)]).is_err(), "{shape:?}");
    }
    let long = "x".repeat(64);
    assert!(Writer::new(Vec::new(), &[], &[tensor(&long, &[1], Kind::F32)]).is_err());
}

proptest! {
    #[test]
    fn any_sizes_are_read_back(sizes in proptest::collection::vec(1_u64..200, 1..8)) {
        let tensors: Vec<Tensor> = sizes.iter().enumerate().map(|(at, size)| tensor(&format!("t{at}"), &[*size], Kind::F16)).collect();
        let mut writer = Writer::new(Vec::new(), &[], &tensors).unwrap();
        for size in &sizes {
            writer.write(&vec![7; usize::try_from(*size * 2).unwrap()]).unwrap();
        }
        let header = gguf::read(&mut Cursor::new(writer.finish().unwrap())).unwrap();
        let found: Vec<u64> = header.tensors.iter().map(|tensor| tensor.bytes / 2).collect();
        prop_assert_eq!(found, sizes);
    }
}
