//! Small tokenizers, whole and spoiled.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::gguf::charsmap::tests::map;
use crate::testing::{demo, spoiled};

const BPE: &str = r#""type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]"#;
const ADDED: &str = r#"{"id":3,"content":"<s>","special":true,"lstrip":false}"#;

fn document(added: &str, model: &str) -> String {
    format!(r#"{{"version":"1.0","truncation":null,"added_tokens":[{added}],"normalizer":{{"type":"NFC"}},"model":{{{model}}}}}"#)
}

fn model(model: &str) -> Result<Tokenizer, FormatError> {
    read(document("", model).as_bytes())
}

#[test]
fn the_demo_model_is_read_as_it_is() {
    let read = read(&demo("hf/tokenizer.json")).unwrap();
    assert_eq!((read.kind, read.vocabulary), (Kind::Bpe, 2_047));
    assert_eq!(read.added[0], Added { id: 2_044, content: "<|endoftext|>".to_owned(), special: true });
}

#[test]
fn what_is_written_is_read() {
    let read = read(document(ADDED, BPE).as_bytes()).unwrap();
    assert_eq!((read.kind, read.vocabulary, read.added.len()), (Kind::Bpe, 4, 1));
    let kinds = [
        (r#""type":"Unigram","unk_id":1,"vocab":[["a",-1.5],["b",0]]"#, Kind::Unigram, 2),
        (r###""vocab":{"a":7,"##b":0},"type":"WordPiece","continuing_subword_prefix":"##""###, Kind::WordPiece, 8),
        (r#""type":"WordLevel","vocab":{"a":0},"unk_token":"a""#, Kind::WordLevel, 1),
        (r#""type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["\#version: 0.2","a b"]"#, Kind::Bpe, 3),
        (r###""type":"BPE","vocab":{"a":0,"##b":1,"ab":2},"merges":["a ##b"],"continuing_subword_prefix":"##""###, Kind::Bpe, 3),
    ];
    for (words, kind, vocabulary) in kinds {
        let read = model(&words.replace("\\#", "#")).unwrap();
        assert_eq!((read.kind, read.vocabulary), (kind, vocabulary), "{words}");
    }
}

#[test]
fn hostile_models_are_refused_in_words() {
    let cases = [
        (r#""vocab":{"a":0},"merges":[]"#, "its model has no `type`"),
        (r#""type":"CharBPE","vocab":{"a":0}"#, "of the type `CharBPE`"),
        (r#""type":"BPE","merges":[]"#, "no `vocab`"),
        (r#""type":"BPE","vocab":{"a":0}"#, "no `merges`"),
        (r#""type":"BPE","vocab":{},"merges":[]"#, "its model has no words"),
        (r#""type":"BPE","vocab":[["a",0]],"merges":[]"#, "they are an object"),
        (r#""type":"Unigram","vocab":{"a":0}"#, "they are a list"),
        (r#""type":"Unigram","vocab":[]"#, "its model has no words"),
        (r#""type":"Unigram","vocab":[["a",0]],"unk_id":1"#, "`unk_id` is 1 of 1 words"),
        (r#""type":"Unigram","vocab":[["a",1e999]]"#, "out of range"),
        (r#""type":"WordLevel","vocab":{"a":0,"a":1}"#, "the key `a` is there twice"),
        (r#""type":"WordLevel","vocab":{"a":0,"b":0}"#, "the word `b` has the id 0 of another"),
        (r#""type":"WordLevel","vocab":{"a":4194304}"#, "the word `a` has the id 4194304; ids are below 4194304"),
        (r#""type":"WordLevel","vocab":{"a":-1}"#, "invalid value"),
        (r#""type":"WordLevel","vocab":"a""#, "expected a vocabulary"),
        (r#""type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]"#, "the merge of `a` and `b`"),
        (r#""type":"BPE","vocab":{"a":0,"ab":1},"merges":["a b"]"#, "the merge of `a` and `b`"),
        (r#""type":"BPE","vocab":{"a":0},"merges":["a"]"#, "the merge `a` is not of two words"),
        (r#""type":"BPE","vocab":{"a":0},"merges":["a a a"]"#, "is not of two words"),
        (r#""type":"BPE","vocab":{"a":0},"merges":[["a"]]"#, "is not of two words"),
        (r#""type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]"#, "is not of two words"),
    ];
    for (words, expected) in cases {
        let said = model(words).unwrap_err().to_string();
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
    }
    // The library cuts as many bytes off the second half as the prefix has, whatever they are.
    let cut = r#""type":"BPE","vocab":{"a":0,"é":1,"aé":2},"merges":["a é"],"continuing_subword_prefix":"x""#;
    assert!(model(cut).unwrap_err().to_string().contains("the merge of `a` and `é`"));
}

#[test]
fn hostile_documents_are_refused_in_words() {
    let deep = format!(r#""x":{}{},{BPE}"#, "[".repeat(63), "]".repeat(63));
    let (over, at_most) = (document("", &deep), document("", &deep.replacen('[', "", 1).replacen(']', "", 1)));
    read(at_most.as_bytes()).unwrap();
    let padded = document("", BPE).replace(r#""truncation":null"#, r#""padding":{"strategy":{"Fixed":1048577}}"#);
    let added = |tokens: &str| document(tokens, BPE);
    let long = format!(r#"{{"id":1,"content":"{}"}}"#, "a".repeat(4_097));
    let cases = [
        (String::new(), "EOF"),
        ("[]".to_owned(), "expected a tokenizer"),
        ("{}".to_owned(), "it has no `model`"),
        (format!("{} ", document("", BPE)) + "{}", "trailing characters"),
        (over, "it is nested too deep"),
        (padded, "a number is 1048577; here the most is 1048576"),
        (document("", &format!("{BPE},{BPE}")), "the key `type` is there twice"),
        (document("", &format!(r#"{BPE},"x":{{"y":[{{"z":1,"z":2}}]}}"#)), "the key `z` is there twice"),
        (added(r#"{"id":1}"#), "lacks `id` or `content`"),
        (added(r#"{"id":1,"id":2,"content":"a"}"#), "the key `id` is there twice"),
        (added(r#"{"id":4194304,"content":"a"}"#), "ids are below 4194304"),
        (added(r#"{"id":1,"content":""}"#), "contents have 1 to 4096 bytes"),
        (added(&long), "contents have 1 to 4096 bytes"),
        (added(&format!("{ADDED},{ADDED}")), "the id 3 is that of two added tokens"),
        (added(&format!("{ADDED},{}", ADDED.replace('3', "4"))), "the added token `<s>` is there twice"),
    ];
    for (document, expected) in cases {
        let said = read(document.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
    }
    let huge = vec![b' '; MAX_BYTES + 1];
    assert!(read(&huge).unwrap_err().to_string().contains("the most is 64 MiB"));
}

#[test]
fn normalizers_are_bounded_in_words() {
    let with = |normalizer: &str| read(document("", BPE).replace(r#"{"type":"NFC"}"#, normalizer).as_bytes()).map(|_| ());
    let table = |bytes: &[u8]| format!(r#"{{"type":"Precompiled","precompiled_charsmap":"{}"}}"#, STANDARD.encode(bytes));
    let list = |steps: &[&str]| format!(r#"{{"type":"Sequence","normalizers":[{}]}}"#, steps.join(","));
    let (spaces, mark) =
        (r#"{"type":"Replace","pattern":{"String":" "},"content":"\u2581"}"#, r#"{"type":"Prepend","prepend":"\u2581"}"#);
    let (nfc, good) = (r#"{"type":"NFC"}"#, table(&map(0, 0x300)));
    for taken in ["null", nfc, &list(&[]), &list(&[mark, spaces]), &list(&[&good, spaces]), &list(&[nfc; 63])] {
        with(taken).unwrap();
    }
    let deep = (0..5).fold(nfc.to_owned(), |inner, _| list(&[&inner]));
    let long = format!(r#"{{"type":"Replace","pattern":{{"Regex":""}},"content":"{}"}}"#, "x".repeat(64));
    let cases = [
        (list(&[nfc; 64]), "more than 64 steps"),
        (deep, "nested too deep"),
        (list(&[spaces; 4]), "up to 81 times as long; the most is 64"),
        (list(&[r#"{"type":"ByteLevel"}"#; 7]), "up to 128 times"),
        (list(&[&good, &good]), "two steps of the type Precompiled"),
        (list(&["null"]), "is null"),
        (long, "up to 65 times"),
        (r#"{"type":"Replace","pattern":{"String":""},"content":"a"}"#.to_owned(), "replaces an empty text"),
        (r#"{"type":"Replace","pattern":{"Other":""},"content":"a"}"#.to_owned(), "a `String` or a `Regex`"),
        (r#"{"prepend":"a"}"#.to_owned(), "has no `type`"),
        (r#"{"type":"Other"}"#.to_owned(), "`Other`, which is not known"),
        (good.replace("Precompiled", "BertNormalizer"), "of the type BertNormalizer has a `precompiled_charsmap`"),
        (table(&map(0, 0x2ff)), "a step out of its trie"),
        (table(b"\0\0\0\0\0"), "a trie of 0 bytes"),
        (r#"{"type":"Precompiled","precompiled_charsmap":"*"}"#.to_owned(), "is not base64"),
    ];
    for (normalizer, expected) in cases {
        let said = with(&normalizer).unwrap_err().to_string();
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
    }
}

proptest! {
    /// P-M4: any bytes end in an answer.
    #[test]
    fn random_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..256), words in r#"[{}\[\]":,a0-9]{0,64}"#) {
        prop_assert!(read(&bytes).is_err());
        let _ = model(&format!("{BPE},{words}"));
    }

    /// P-M4: so does a tokenizer that was tampered with; ids stay below the vocabulary.
    #[test]
    fn spoiled_files_end_in_an_answer(bytes in spoiled(document(ADDED, BPE).into_bytes())) {
        if let Ok(read) = read(&bytes) {
            prop_assert!(read.vocabulary <= MAX_ID && read.added.iter().all(|token| token.id < read.vocabulary));
        }
    }
}
