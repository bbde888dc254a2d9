//! Small safetensors files, whole and spoiled.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::testing::{demo, refusal, spoiled};

/// A file of this header with `data` bytes behind it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn tensor(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn good() -> Vec<u8> {
    let (a, b, none) = (tensor("F32", "[2,3]", 8, 32), tensor("F16", "[4]", 0, 8), tensor("F4", "[0,7]", 8, 8));
    file(&format!(r#"{{"__metadata__":{{"format":"pt"}},"a":{a},"b":{b},"none":{none}}}  "#), 32)
}

fn open(bytes: &[u8]) -> Result<Safetensors, FormatError> {
    read(&mut Cursor::new(bytes))
}

#[test]
fn the_demo_model_is_read_as_it_is() {
    let read = open(&demo("hf/model.safetensors")).unwrap();
    assert_eq!(read.metadata["format"], "pt");
    let words = &read.tensors["model.embed_tokens.weight"];
    assert_eq!(words, &TensorInfo { dtype: Dtype::F16, shape: vec![2_048, 256], begin: 0, end: 1_048_576 });
    assert_eq!(read.data_offset, 3_096);
}

#[test]
fn what_is_written_is_read() {
    let read = open(&good()).unwrap();
    assert_eq!(read.tensors.len(), 3);
    assert_eq!(read.tensors["a"].shape, [2, 3]);
    assert_eq!((read.tensors["b"].dtype.name(), read.tensors["b"].dtype.bits()), ("F16", 16));
    assert_eq!(read.data_offset + 32, read.file_bytes);
    let scalar = file(&format!(r#"{{"a":{}}}"#, tensor("BOOL", "[]", 0, 1)), 1);
    assert_eq!(open(&scalar).unwrap().tensors["a"].shape, [0; 0]);
    assert!(open(&file("{}", 0)).unwrap().tensors.is_empty());
}

#[test]
fn hostile_headers_are_refused_in_words() {
    let one = |entry: &str| file(&format!(r#"{{"a":{entry}}}"#), 8);
    let two = |b: &str| file(&format!(r#"{{"a":{},"b":{b}}}"#, tensor("F32", "[2]", 0, 8)), 16);
    let long = format!(r#"{{"{}":{}}}"#, "a".repeat(4_097), tensor("U8", "[8]", 0, 8));
    let cases = [
        (Vec::new(), "the length of the header ends at byte 8, the file has 0"),
        (u64::MAX.to_le_bytes().to_vec(), "the header has 18446744073709551615 bytes, the most is 100000000"),
        (100_u64.to_le_bytes().to_vec(), "the header ends at byte 108, the file has 8"),
        (file("[]", 0), "its header does not begin with an object"),
        (file("{", 0), "EOF"),
        (file("{}x", 0), "trailing characters"),
        (file("{}", 1), "its tensors end at byte 0 of the data, the file has 1"),
        (one(&tensor("F32", "[2]", 0, 9)), "tensor `a` ends at byte 9 of the data, the file has 8"),
        (one(&tensor("F32", "[2]", 4, 8)), "`a` begins at byte 4 of the data, the one before ends at 0"),
        (one(&tensor("F32", "[3]", 0, 8)), "`a` has 8 bytes; F32 of the shape [3] have 96 bits"),
        (one(&tensor("F4", "[15]", 0, 8)), "F4 of the shape [15] have 60 bits"),
        (one(&tensor("U8", "[9223372036854775808,2]", 0, 8)), "more elements than can be counted"),
        (one(&tensor("U8", "[1,1,1,1,1,1,1,1,8]", 0, 8)), "more than 8 dimensions"),
        (one(&tensor("U8", "[-8]", 0, 8)), "invalid value: integer `-8`"),
        (one(&tensor("U8", "[8.0]", 0, 8)), "floating point"),
        (one(&tensor("Q8", "[8]", 0, 8)), "the dtype `Q8` is unknown"),
        (one(r#"["U8",[8],[0,8]]"#), "expected a tensor's object"),
        (one(r#"{"dtype":"U8","shape":[8]}"#), "tensor `a` lacks one of"),
        (one(r#"{"dtype":"U8","shape":[8],"data_offsets":[0]}"#), "invalid length 1"),
        (one(r#"{"dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8]}"#), "`shape` is there twice"),
        (one(r#"{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}"#), "keys"),
        (one(r#"{"x":1}"#), "the unknown key `x`"),
        (two(&tensor("F32", "[2]", 0, 8)), "`b` begins at byte 0 of the data, the one before ends at 8"),
        (two(&tensor("F32", "[3]", 4, 16)), "`b` begins at byte 4 of the data, the one before ends at 8"),
        (two(&tensor("F32", "[1]", 12, 16)), "`b` begins at byte 12 of the data, the one before ends at 8"),
        (two(&tensor("F32", "[2]", 8, 4)), "`b` ends before it begins"),
        (file(&format!(r#"{{"a":{0},"a":{0}}}"#, tensor("U8", "[8]", 0, 8)), 8), "the key `a` is there twice"),
        (file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), "the key `a` is there twice"),
        (file(r#"{"__metadata__":{"a":1}}"#, 0), "expected a string"),
        (file(&long, 8), "a tensor's name has 4097 bytes"),
    ];
    for (bytes, words) in cases {
        let said = refusal(read, &bytes);
        assert!(said.contains(words), "{said:?} lacks {words:?}");
    }
}

#[test]
fn a_long_word_of_the_file_is_cut_out_of_the_message() {
    let said = refusal(read, &file(&format!(r#"{{"a":{{"shape":"{}\n"}}}}"#, "x".repeat(1_000)), 0));
    assert!(said.len() < 400 && !said.contains('\n'), "{said}");
}

fn hold(bytes: &[u8]) {
    let Ok(read) = open(bytes) else { return };
    let mut places = read.tensors.values().map(|tensor| (tensor.begin, tensor.end)).collect::<Vec<_>>();
    places.sort_unstable();
    let end = places.iter().fold(0, |at, (begin, end)| {
        assert!(*begin == at && end >= begin);
        *end
    });
    assert_eq!(read.data_offset + end, bytes.len() as u64);
}

proptest! {
    /// P-M4: any bytes end in an answer.
    #[test]
    fn random_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..256), header in r#"[{}\[\]":,a0-9]{0,64}"#) {
        hold(&bytes);
        hold(&file(&format!("{{{header}"), 8));
    }

    /// P-M4: so does a model that was tampered with.
    #[test]
    fn spoiled_files_end_in_an_answer(bytes in spoiled(good())) {
        hold(&bytes);
    }
}
