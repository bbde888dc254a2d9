//! Small GGUF files, whole and spoiled.

mod checks;

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::FormatError;
use crate::testing::{Bytes, GgufFile, demo, refusal, spoiled, text, texts};

pub(super) fn open(bytes: &[u8]) -> Result<Gguf, FormatError> {
    read(&mut Cursor::new(bytes))
}

#[test]
fn the_demo_model_is_read_as_it_is() {
    let gguf = open(&demo("demo.gguf")).unwrap();
    check_model(&gguf).unwrap();
    assert_eq!((gguf.version, gguf.architecture()), (3, Some("llama")));
    assert_eq!(gguf.of_architecture("embedding_length"), Some(256));
    assert_eq!(gguf.array("tokenizer.ggml.tokens").unwrap().len, 2_048);
    let words = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!((words.shape.as_slice(), words.kind, words.bytes), ([256, 2_048].as_slice(), TensorType::Q8_0, 557_056));
    let last = gguf.tensors.last().unwrap();
    assert_eq!((gguf.data_offset + last.offset + last.bytes).next_multiple_of(32), gguf.file_bytes);
    assert!(gguf.tensor_bytes() < gguf.file_bytes);
}

#[test]
fn what_is_written_is_read() {
    for version in [2, 3] {
        let file = GgufFile { version, ..GgufFile::model().with("a.b", Value::U64(7)).with("c", texts(&["x", ""])) };
        let bytes = file.bytes();
        let gguf = open(&bytes).unwrap();
        assert_eq!(gguf.metadata, file.keys.iter().cloned().collect());
        assert_eq!(gguf.u64("a.b"), Some(7));
        assert_eq!(gguf.bool("tokenizer.ggml.add_bos_token"), Some(false));
        assert_eq!(gguf.u64("general.type"), None, "a text is no number");
        let places = gguf.tensors.iter().map(|tensor| (tensor.offset, tensor.bytes)).collect::<Vec<_>>();
        assert_eq!(places, [(0, 544), (544, 128), (672, 2_048)]);
        assert_eq!(gguf.file_bytes, bytes.len() as u64);
    }
}

#[test]
fn the_last_padding_may_be_missing_and_a_file_may_be_metadata_only() {
    let mut file = GgufFile::model();
    file.tensors.truncate(1);
    let mut bytes = file.with_tensor("odd", &[1], TensorType::F32).bytes();
    bytes.truncate(bytes.len() - 28);
    assert_eq!(open(&bytes).unwrap().tensors[1].bytes, 4);
    bytes.pop();
    assert!(open(&bytes).is_err());
    let bare = Bytes::gguf(3, 0, 0).0;
    assert_eq!(open(&bare).unwrap().data_offset, 24);
}

/// A tensor's entry behind a head without keys.
fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Bytes {
    let bytes = Bytes::gguf(3, 1, 0).text(name).u32(u32::try_from(dims.len()).unwrap());
    dims.iter().fold(bytes, |bytes, length| bytes.u64(*length)).u32(kind).u64(offset)
}

fn array(kind: u32, len: u64) -> Bytes {
    Bytes::gguf(3, 0, 1).text("a").u32(9).u32(kind).u64(len)
}

#[test]
fn hostile_headers_are_refused_in_words() {
    let head = |bytes: &[u8]| Bytes(bytes.to_vec());
    let cases = [
        (head(b""), "the magic number ends at byte 4, the file has 0"),
        (head(b"GGML\x03\0\0\0"), "it is not GGUF: it begins with \"GGML\""),
        (head(b"GGUF\0\0\0\x03"), "big-endian"),
        (head(b"GGUF\x01\0\0\0"), "version 1"),
        (head(b"GGUF\x04\0\0\0"), "version 4; versions 2 and 3 are read"),
        (Bytes::gguf(3, u64::MAX, 0), "18446744073709551615 tensors, the most is 131072"),
        (Bytes::gguf(3, 0, 65_537), "65537 keys, the most is 65536"),
        (Bytes::gguf(3, 0, 1), "a key ends at byte 32, the file has 24"),
        (Bytes::gguf(3, 0, 1).u64(u64::MAX), "a key has 18446744073709551615 bytes, the most is 65536"),
        (Bytes::gguf(3, 0, 1).text(""), "a key is empty"),
        (Bytes::gguf(3, 0, 1).text("a\0b"), "a key `a\\0b` has a zero byte"),
        (Bytes::gguf(3, 0, 1).u64(1).raw(b"\xff"), "a key is not UTF-8"),
        (Bytes::gguf(3, 0, 1).text("a").u32(13), "the key `a` is of the unknown kind 13"),
        (Bytes::gguf(3, 0, 1).text("a").u32(7).raw(b"\x02"), "`a` has a bool of 2"),
        (Bytes::gguf(3, 0, 1).text("a").u32(8).u64(16 << 20 | 1), "`a` has 16777217 bytes, the most is 16777216"),
        (Bytes::gguf(3, 0, 1).text("a").u32(8).u64(1 << 20), "it is cut short: `a` ends at byte"),
        (array(9, 1), "an array of arrays"),
        (array(13, 1), "items of the unknown kind 13"),
        (array(12, u64::MAX), "the most is 16777216"),
        (array(12, 16 << 20), "it is cut short: `a` ends at byte"),
        (array(8, 4 << 20 | 1), "have 4194305 texts, the most is 4194304"),
        (array(8, 4 << 20), "it is cut short: `a` ends at byte"),
        (array(8, 1).u64(1), "item 0 of `a` ends at byte"),
        (Bytes::gguf(3, 0, 2).text("a").u32(0).raw(b"1").text("a").u32(0).raw(b"2"), "the key `a` is there twice"),
        (Bytes::gguf(3, 0, 1).text("general.alignment").u32(4).u32(24), "is 24; it is a power of two"),
        (Bytes::gguf(3, 0, 1).text("general.alignment").u32(4).u32(4), "is 4; it is a power of two, 8 to 65536"),
        (Bytes::gguf(3, 0, 1).text("general.alignment").u32(10).u64(32), "is not a u32"),
        (tensor(&"a".repeat(64), &[1], 0, 0), "the name of a tensor has 64 bytes, the most is 63"),
        (tensor("", &[1], 0, 0), "the name of a tensor is empty"),
        (tensor("a", &[], 0, 0), "has 0 dimensions; 1 to 4"),
        (tensor("a", &[1; 5], 0, 0), "has 5 dimensions; 1 to 4"),
        (tensor("a", &[1, 0], 0, 0), "has a dimension of 0"),
        (tensor("a", &[1 << 32, 1 << 31], 0, 0), "more elements than can be counted"),
        (tensor("a", &[1 << 62], 28, 0), "more bytes than can be counted"),
        (tensor("a", &[(1 << 61) - 1], 28, 0), "which no file has"),
        (tensor("a", &[32], 43, 0), "the unknown type 43"),
        (tensor("a", &[32], 4, 0), "the type 4, which ggml has removed"),
        (tensor("a", &[33], 8, 0), "rows of 33 elements, which is not a multiple of q8_0's 32"),
        (tensor("a", &[32], 8, 32), "begins at byte 32 of the data, not at 0"),
        (tensor("a", &[1 << 30], 0, 0).raw(&[0; 64]), "it is cut short: tensor `a` ends at byte 4294967"),
    ];
    for (bytes, words) in cases {
        let said = refusal(read, &bytes.0);
        assert!(said.contains(words), "{said:?} lacks {words:?}");
    }
}

#[test]
fn tensors_neither_overlap_nor_repeat() {
    let entry = |bytes: Bytes, name: &str, offset| bytes.text(name).u32(1).u64(8).u32(0).u64(offset);
    let two = |name, offset| entry(entry(Bytes::gguf(3, 2, 0), "a", 0), name, offset).raw(&[0; 256]).0;
    assert_eq!(open(&two("b", 32)).unwrap().tensors.len(), 2);
    assert!(refusal(read, &two("b", 0)).contains("`b` begins at byte 0 of the data, not at 32"));
    assert!(refusal(read, &two("b", 64)).contains("`b` begins at byte 64 of the data, not at 32"));
    assert!(refusal(read, &two("a", 32)).contains("tensor `a` is there twice"));
}

#[test]
fn every_cut_is_refused() {
    let bytes = GgufFile::model().bytes();
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

/// What is accepted has its tensors in order and inside the file; the checks end with an answer.
fn hold(bytes: &[u8]) {
    let Ok(gguf) = open(bytes) else { return };
    let mut at = gguf.data_offset;
    for tensor in &gguf.tensors {
        let begin = gguf.data_offset + tensor.offset;
        assert!(at <= begin && begin + tensor.bytes <= bytes.len() as u64, "{tensor:?}");
        at = begin + tensor.bytes;
    }
    if check_model(&gguf).is_ok() {
        assert!(gguf.tensor("token_embd.weight").is_some());
    }
    if check_adapter(&gguf).is_ok() {
        assert!(gguf.tensors.len() % 2 == 0);
    }
}

proptest! {
    /// P-M4: any bytes end in an answer.
    #[test]
    fn random_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        hold(&bytes);
        let mut headed = Bytes::gguf(3, 1, 1).0;
        headed.extend(&bytes);
        hold(&headed);
    }

    /// P-M4: so does a model that was tampered with.
    #[test]
    fn spoiled_files_end_in_an_answer(bytes in spoiled(GgufFile::model().bytes()), lora in spoiled(GgufFile::adapter().bytes())) {
        hold(&bytes);
        hold(&lora);
    }
}

#[test]
fn an_adapter_is_told_from_a_model() {
    let adapter = open(&GgufFile::adapter().bytes()).unwrap();
    check_adapter(&adapter).unwrap();
    assert!(check_model(&adapter).unwrap_err().to_string().contains("it is an adapter, not a model"));
    let model = open(&GgufFile::model().bytes()).unwrap();
    assert!(check_adapter(&model).unwrap_err().to_string().contains("`general.type` is `model`"));
    let plain = open(&GgufFile::model().with("general.type", text("mmproj")).bytes()).unwrap();
    assert!(check_model(&plain).unwrap_err().to_string().contains("of the type `mmproj`"));
}
