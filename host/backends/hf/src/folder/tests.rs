//! The demo model's folder, and small ones of the other kinds.

use tollgate_backend::{Token, TokenKind, Tokenizer};

use super::*;

fn demo() -> Folder {
    Folder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/hf")).expect("the demo model's folder")
}

fn bytes(tokenizer: &HfTokenizer, tokens: &[Token]) -> Vec<u8> {
    tokens.iter().flat_map(|token| tokenizer.vocabulary().bytes(*token)).copied().collect()
}

fn controls(tokenizer: &HfTokenizer, tokens: &[Token]) -> usize {
    tokens.iter().filter(|token| tokenizer.vocabulary().kind(**token) == TokenKind::Control).count()
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    let folder = Folder::open(directory.path()).expect("a folder");
    (directory, folder)
}

/// `<s>` is an ordinary word of this vocabulary as well as a special token, and merges lead to it.
const SENTENCES: &str = r#"{"version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": null,
    "added_tokens": [
      {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
      {"id": 10, "content": "<think>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
    "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
      "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
      "vocab": {"<s>": 0, "<": 1, "s": 2, ">": 3, "<s": 4, "a": 5, "▁": 6, "▁a": 7, "<0xC3>": 8, "<0xA9>": 9},
      "merges": ["< s", "<s >", "▁ a"]}}"#;

#[test]
fn the_demo_model_is_read() {
    let folder = demo();
    let tokenizer = folder.tokenizer(Some(2_048)).expect("a tokenizer");
    let vocabulary = tokenizer.vocabulary();
    assert_eq!(vocabulary.len(), 2_048);
    assert_eq!((vocabulary.bos(), vocabulary.eos()), (None, Some(2_046)), "add_bos_token is false");
    assert_eq!(vocabulary.end_of_generation(), [2_046]);
    assert_eq!(vocabulary.kind(2_047), TokenKind::Unused);
    assert_eq!((vocabulary.bytes(2_045), vocabulary.kind(2_045)), (b"<|im_start|>".as_slice(), TokenKind::Control));
    assert!(folder.chat_template().expect("a template").contains("<|im_start|>"));
    assert_eq!(folder.config().text("model_type"), Ok(Some("llama")));
}

#[test]
fn a_prompt_has_the_tokens_that_it_was_trained_with() {
    let tokenizer = demo().tokenizer(Some(2_048)).expect("a tokenizer");
    let prompt = "<|im_start|>user\nWhat is Tollgate?<|im_end|>\n<|im_start|>assistant\n";
    let tokens = tokenizer.tokenize(prompt, true).expect("tokens");
    assert_eq!(tokens, [2045, 701, 198, 1501, 371, 383, 30, 2046, 198, 2045, 903, 198]);
    assert_eq!(bytes(&tokenizer, &tokens), prompt.as_bytes());
}

#[test]
fn control_tokens_in_a_text_are_text() {
    let tokenizer = demo().tokenizer(Some(2_048)).expect("a tokenizer");
    let text = "a<|im_end|>é 你好 😀 <|im_start|>system\n";
    let tokens = tokenizer.tokenize(text, false).expect("tokens");
    assert_eq!(bytes(&tokenizer, &tokens), text.as_bytes());
    assert_eq!(controls(&tokenizer, &tokens), 0);
    let tokens = tokenizer.tokenize(text, true).expect("tokens");
    assert_eq!(bytes(&tokenizer, &tokens), text.as_bytes());
    assert_eq!(controls(&tokenizer, &tokens), 2);
}

#[test]
fn words_of_sentence_pieces_are_bytes_and_nothing_is_cut() {
    let (_directory, folder) =
        folder(&[("config.json", r#"{"bos_token_id": 0, "eos_token_id": [3, 0]}"#), ("tokenizer.json", SENTENCES)]);
    let tokenizer = folder.tokenizer(None).expect("a tokenizer");
    let vocabulary = tokenizer.vocabulary();
    assert_eq!(vocabulary.len(), 11);
    assert_eq!((vocabulary.bytes(7), vocabulary.bytes(8)), (b" a".as_slice(), [0xc3].as_slice()));
    assert_eq!((vocabulary.bos(), vocabulary.eos()), (Some(0), Some(3)), "the template begins with it");
    assert_eq!(vocabulary.end_of_generation(), [0, 3]);
    assert_eq!((tokenizer.frame_tokens(), tokenizer.framed(&[5, 6], 2)), (1, Ok(vec![0, 5, 6])));
    assert!(tokenizer.framed(&[5, 6], 1).is_err() && tokenizer.framed(&[11], 1).is_err());
    assert_eq!(vocabulary.kind(10), TokenKind::Text, "added, but not special");
    let tokens = tokenizer.tokenize("a a aé", false).expect("tokens");
    assert_eq!(bytes(&tokenizer, &tokens), "a a aé".as_bytes(), "truncation and templates are not ours to apply");
}

#[test]
fn a_control_token_among_the_words_cannot_be_written() {
    let (_directory, folder) = folder(&[("config.json", "{}"), ("tokenizer.json", SENTENCES)]);
    let tokenizer = folder.tokenizer(None).expect("a tokenizer");
    let tokens = tokenizer.tokenize("a<s>a", false).expect("tokens");
    assert_eq!(controls(&tokenizer, &tokens), 0, "{tokens:?}");
    assert_eq!(bytes(&tokenizer, &tokens), b"a<s>a");
    assert_eq!(controls(&tokenizer, &tokenizer.tokenize("a<s>a", true).expect("tokens")), 1);
}

#[test]
fn a_model_may_know_fewer_words() {
    let (_directory, folder) = folder(&[("config.json", "{}"), ("tokenizer.json", SENTENCES)]);
    let tokenizer = folder.tokenizer(Some(6)).expect("a tokenizer");
    assert_eq!(tokenizer.vocabulary().len(), 6);
    assert!(tokenizer.tokenize("s", false).is_ok());
    assert!(tokenizer.tokenize(" a", false).expect_err("token 7").to_string().contains("token 7"));
}

#[test]
fn a_template_comes_from_its_file_or_by_its_name() {
    let config = ("config.json", "{}");
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    let (_directory, by_name) = folder(&[config, ("tokenizer_config.json", named)]);
    assert_eq!(by_name.chat_template(), Some("d"));
    let (_directory, by_file) = folder(&[config, ("tokenizer_config.json", named), ("chat_template.jinja", "f")]);
    assert_eq!(by_file.chat_template(), Some("f"));
    let (_directory, none) = folder(&[config]);
    assert_eq!(none.chat_template(), None);
}

#[test]
fn the_longest_text_leaves_room_for_the_template() {
    let (directory, folder) = folder(&[("config.json", "{}"), ("tokenizer.json", SENTENCES)]);
    let tokenizer = folder.tokenizer(None).expect("a tokenizer");
    assert_eq!(folder.longest_text(&tokenizer, 16), Ok(15));
    assert!(folder.longest_text(&tokenizer, 1).is_err());
    std::fs::write(directory.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 8}"#).expect("written");
    assert_eq!(folder.longest_text(&tokenizer, 16), Ok(7));
}

#[test]
fn what_is_missing_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(Folder::open(directory.path()).expect_err("empty").to_string().contains("no config.json"));
    let (_directory, folder) = folder(&[("config.json", "{}")]);
    assert!(folder.tokenizer(None).err().expect("no tokenizer").to_string().contains("no tokenizer.json"));
}
