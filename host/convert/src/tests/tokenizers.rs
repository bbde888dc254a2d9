//! What becomes of `tokenizer.json` and what stands beside it.

use serde_json::json;

use super::Folder;
use crate::Target;

#[test]
fn pieces_get_scores_kinds_and_their_settings() {
    let header = Folder::of("gemma", 32).converted(Target::F16);
    assert_eq!(header.string("tokenizer.ggml.model"), Some("llama"));
    assert_eq!(header.bool("tokenizer.ggml.add_space_prefix"), Some(false));
    assert_eq!(header.bool("tokenizer.ggml.add_bos_token"), Some(true));
    assert_eq!(header.u64("tokenizer.ggml.bos_token_id"), Some(256));
    assert_eq!(header.u64("tokenizer.ggml.eos_token_id"), Some(257));
    assert_eq!(header.u64("tokenizer.ggml.eot_token_id"), Some(258));
    assert_eq!(header.u64("tokenizer.ggml.unknown_token_id"), Some(264));
    assert_eq!(header.string("tokenizer.chat_template"), Some("{{ messages }}"));
    assert!(header.array("tokenizer.ggml.merges").is_none());
    let kinds = header.array("tokenizer.ggml.token_type").unwrap().i32s().unwrap();
    assert_eq!(kinds.len(), 300);
    // A byte, a control token, a piece, the unknown one, and a row without a token.
    assert_eq!([kinds[10], kinds[256], kinds[262], kinds[264], kinds[299]], [6, 3, 1, 2, 5]);
    let tollgate_formats::gguf::Values::F32(scores) = &header.array("tokenizer.ggml.scores").unwrap().values else {
        panic!("scores are f32");
    };
    // "ab" is made first, then a space and "ab"; single letters are made by no merge.
    assert_eq!([scores[262], scores[263], scores[260], scores[10]], [-1.0, -2.0, -3.0, -3.0]);
}

#[test]
fn a_template_of_its_own_goes_first_and_a_named_one_is_found() {
    let mut folder = Folder::of("qwen2", 16);
    std::fs::write(folder.path().join("chat_template.jinja"), "own").unwrap();
    assert_eq!(folder.converted(Target::F16).string("tokenizer.chat_template"), Some("own"));
    std::fs::remove_file(folder.out()).unwrap();
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    folder.settings["chat_template"] = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
    assert_eq!(folder.converted(Target::F16).string("tokenizer.chat_template"), Some("d"));
}

#[test]
fn the_setting_goes_before_what_the_file_does() {
    let mut folder = Folder::of("gemma", 32);
    folder.settings["add_bos_token"] = json!(false);
    assert_eq!(folder.converted(Target::F16).bool("tokenizer.ggml.add_bos_token"), Some(false));
    let mut folder = Folder::of("llama", 16);
    folder.settings["tokenizer_class"] = json!("LlamaTokenizerFast");
    assert_eq!(folder.converted(Target::F16).bool("tokenizer.ggml.add_bos_token"), Some(true));
    let mut folder = Folder::of("llama", 16);
    assert_eq!(folder.converted(Target::F16).bool("tokenizer.ggml.add_bos_token"), Some(false));
    folder.settings = json!({"add_bos_token": true});
    folder.config["bos_token_id"] = json!(null);
    std::fs::remove_file(folder.out()).unwrap();
    assert!(folder.refusal().contains("asks for a bos_token"));
}

#[test]
fn added_words_are_matched_whole_but_for_spaces() {
    let mut folder = Folder::of("gemma", 32);
    let more = [("\n\n", 270), ("\u{2581}\u{2581}", 271)].map(|(text, id)| json!({"id": id, "content": text, "special": false}));
    folder.tokenizer["added_tokens"].as_array_mut().unwrap().extend(more);
    let header = folder.converted(Target::F16);
    let kinds = header.array("tokenizer.ggml.token_type").unwrap().i32s().unwrap();
    assert_eq!([kinds[270], kinds[271]], [4, 1]);
}

#[test]
fn what_would_end_llama_cpp_or_mislead_it_is_refused() {
    let mut folder = Folder::of("gemma", 32);
    folder.tokenizer["model"]["vocab"].as_object_mut().unwrap().remove("<0x41>");
    assert!(folder.refusal().contains("has 255 of the 256 byte tokens"));

    let mut folder = Folder::of("gemma", 32);
    folder.tokenizer["model"]["merges"] = json!(["a b", "ab b"]);
    assert!(folder.refusal().contains("the merge of `ab` and `b` is not of words, or does not make one"));

    let mut folder = Folder::of("qwen2", 16);
    folder.tokenizer["model"]["vocab"]["far"] = json!(300);
    assert!(folder.refusal().contains("with id 300, and the embedding has 300 rows"));

    let mut folder = Folder::of("qwen2", 16);
    folder.settings = json!({"eos_token": "<|nowhere|>"});
    folder.config["eos_token_id"] = json!(999);
    assert!(folder.refusal().contains("names no eos_token"));

    let mut folder = Folder::of("qwen2", 16);
    folder.tokenizer["normalizer"] = json!({"type": "Lowercase"});
    assert!(folder.refusal().contains("rewrites a text by"));

    let mut folder = Folder::of("qwen2", 16);
    folder.tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[0-9]+x"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]});
    assert!(folder.refusal().contains("cuts a text by `[0-9]+x`"));

    let mut folder = Folder::of("gemma", 32);
    folder.tokenizer["model"]["byte_fallback"] = json!(false);
    assert!(folder.refusal().contains("neither byte-level words nor bytes"));
}

#[test]
fn rows_without_a_token_get_a_text_that_no_token_has() {
    let mut folder = Folder::of("qwen2", 16);
    folder.tokenizer["model"]["vocab"]["<|unused_299|>"] = json!(298);
    let header = folder.converted(Target::F16);
    let tokens = header.array("tokenizer.ggml.tokens").unwrap().strings().unwrap();
    assert_eq!((tokens[298].as_str(), tokens[299].as_str()), ("<|unused_299|>", "<|unused_299|>_"));
}
