//! The contract in the crate's documentation, command by command, and the cells.

use tollgate_backend::{Token, TokenKind};

use super::*;
use crate::words::END;

fn backend() -> Scripted {
    Scripted::new(Settings { context_tokens: 400, max_sequences: 4, ..Settings::default() })
}

fn prompt(backend: &Scripted, command: &str) -> Vec<Token> {
    let text = format!("<|im_start|>user\n{command}<|im_end|>\n<|im_start|>assistant\n");
    backend.tokenizer().tokenize(&text, true).expect("tokens")
}

fn row(sequence: u16, position: usize, token: Token) -> Row {
    Row { token, position: u32::try_from(position).expect("small"), sequence: SequenceId(sequence), wants_logits: true }
}

fn feed(backend: &mut Scripted, sequence: u16, tokens: &[Token]) -> Result<(), DecodeError> {
    let start = backend.cells.length(SequenceId(sequence));
    tokens.iter().enumerate().try_for_each(|(at, token)| backend.decode(&[row(sequence, start + at, *token)]))
}

fn likeliest(logits: &[f32]) -> Token {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("logits");
    Token::try_from(best.0).expect("a token")
}

/// The greedy reply to a command, at most `most` tokens of it.
fn reply(command: &str, most: usize) -> Vec<Token> {
    let mut backend = backend();
    let tokens = prompt(&backend, command);
    feed(&mut backend, 0, &tokens).expect("there is room");
    let mut said = Vec::new();
    while said.len() < most {
        let next = likeliest(backend.logits(0).expect("logits"));
        if backend.words.vocabulary().ends_generation(next) {
            break;
        }
        said.push(next);
        feed(&mut backend, 0, &[next]).expect("there is room");
    }
    said
}

fn text(command: &str) -> String {
    let said: Vec<Token> = reply(command, 200);
    String::from_utf8(Words::new().bytes(&said)).expect("text")
}

#[test]
fn commands_say_what_they_promise() {
    assert_eq!(text("say Hello,  the world"), "Hello,  the world");
    assert_eq!(text("say "), "");
    assert_eq!(text("count 5"), "1 2 3 4 5");
    assert_eq!(text("repeat 3 ab "), "ab ab ab ");
    assert_eq!(text("utf8 6"), "ßé你한😀ß");
    assert_eq!(text("think hm"), "<think>hm</think>done");
    assert_eq!(text("hang 1"), "done");
    assert_eq!(text("What is Tollgate?"), "You said: What is Tollgate?");
    assert_eq!(reply("forever", 150).len(), 150, "without end");
    assert!(text("forever").starts_with("and on and on and on "));
}

#[test]
fn random_is_printable_and_depends_on_the_prompt() {
    let (one, other) = (text("random 30"), text("random  30"));
    assert_eq!(one.len(), 30);
    assert!(one.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert_eq!(one, text("random 30"));
    assert_ne!(one, other);
}

#[test]
fn faults_come_when_they_were_ordered() {
    let mut failing = backend();
    let tokens = prompt(&failing, "fail 2");
    feed(&mut failing, 0, &tokens).expect("the first token is good");
    let first = likeliest(failing.logits(0).expect("logits"));
    assert!(matches!(feed(&mut failing, 0, &[first]), Err(DecodeError::Failed(_))));

    let mut nan = backend();
    let tokens = prompt(&nan, "nan");
    feed(&mut nan, 0, &tokens).expect("decoded");
    assert!(nan.logits(0).expect("logits").iter().all(|logit| logit.is_nan()));
}

#[test]
fn json_closes_what_is_open() {
    let mut backend = backend();
    let tokens = prompt(&backend, "json");
    feed(&mut backend, 0, &tokens).expect("decoded");
    let logits = backend.logits(0).expect("logits");
    let logit = |byte: u8| logits[usize::from(byte)];
    assert!(logits[END as usize] > logit(b'"') && logit(b'"') > logit(b'}') && logit(b'}') > logit(b'x'));
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    let mut alone = backend();
    let tokens = prompt(&alone, "random 9");
    feed(&mut alone, 0, &tokens).expect("decoded");
    let expected = alone.logits(0).expect("logits").to_vec();

    let mut batch = backend();
    let other = prompt(&batch, "say something else");
    let (last, head) = tokens.split_last().expect("tokens");
    feed(&mut batch, 2, head).expect("decoded");
    feed(&mut batch, 1, &other[..5]).expect("decoded");
    batch.decode(&[row(1, 5, other[5]), row(2, head.len(), *last), row(3, 0, 7)]).expect("decoded");
    assert_eq!(batch.logits(1).expect("logits"), expected);
    let record = *batch.probe().steps().last().expect("a step");
    assert_eq!((record.rows, record.sampled, record.sequences), (3, 3, 3));
}

#[test]
fn cells_are_shared_and_run_out() {
    let mut backend = Scripted::new(Settings { context_tokens: 10, max_sequences: 3, ..Settings::default() });
    feed(&mut backend, 0, &[1, 2, 3, 4, 5, 6]).expect("six of ten");
    backend.copy_prefix(SequenceId(0), SequenceId(1), 4).expect("shared");
    assert_eq!(backend.cells.used(), 6);
    feed(&mut backend, 1, &[9, 9, 9, 9]).expect("ten of ten");
    assert_eq!(feed(&mut backend, 2, &[1]), Err(DecodeError::Full { rows: 1 }));
    assert_eq!(backend.cells.length(SequenceId(2)), 0, "nothing was decoded");
    backend.truncate(SequenceId(0), 0).expect("freed");
    assert_eq!(backend.probe().cells(), 8, "four are still the other's");
    backend.truncate(SequenceId(1), 1).expect("freed");
    assert_eq!(backend.probe().cells(), 1);
    assert!(backend.copy_prefix(SequenceId(1), SequenceId(2), 2).is_err(), "more than there is");
}

#[test]
fn mistakes_and_missing_abilities_are_errors() {
    let mut backend = Scripted::new(Settings { prefix_copy: false, partial_remove: false, ..Settings::default() });
    assert!(matches!(backend.decode(&[row(0, 1, 1)]), Err(DecodeError::Failed(_))), "not at the end");
    assert!(matches!(backend.decode(&[row(99, 0, 1)]), Err(DecodeError::Failed(_))), "no such sequence");
    feed(&mut backend, 0, &[1, 2]).expect("decoded");
    assert!(backend.copy_prefix(SequenceId(0), SequenceId(1), 1).is_err());
    assert!(backend.truncate(SequenceId(0), 1).is_err());
    assert!(backend.truncate(SequenceId(0), 2).is_ok() && backend.truncate(SequenceId(0), 0).is_ok());
}

#[test]
fn words_come_back_as_they_were_and_control_tokens_only_on_request() {
    let words = Words::new();
    let text = "The and the Tollgate <|im_start|>é你";
    for parse_special in [true, false] {
        let tokens = words.tokenize(text, parse_special).expect("tokens");
        assert_eq!(words.bytes(&tokens), text.as_bytes());
        let controls = tokens.iter().filter(|token| words.vocabulary().kind(**token) == TokenKind::Control).count();
        assert_eq!(controls, usize::from(parse_special));
    }
}

#[test]
fn an_adapter_changes_every_word_and_no_sequence_has_two() {
    let path = std::env::temp_dir().join(format!("tollgate-scripted-{}", std::process::id()));
    std::fs::write(&path, "re-\n").expect("written");
    let mut backend = backend();
    let adapter = backend.load_adapter(&path, 1.0).expect("loaded");
    let silent = backend.load_adapter(&path, 0.0).expect("loaded");
    std::fs::remove_file(&path).expect("there");
    assert!(backend.load_adapter(&path, 1.0).is_err(), "no file, no adapter");
    assert_eq!(backend.probe().adapters(), 2);
    let tokens = prompt(&backend, "say one two");
    for (sequence, selected, first) in [(0, Some(adapter), b'r'), (1, None, b'o'), (2, Some(silent), b'o')] {
        backend.select_adapter(selected).expect("there");
        feed(&mut backend, sequence, &tokens).expect("decoded");
        assert_eq!(likeliest(backend.logits(0).expect("logits")), Token::from(first));
    }
    assert!(matches!(feed(&mut backend, 0, &[7]), Err(DecodeError::Failed(_))), "begun with another");
    backend.select_adapter(Some(adapter)).expect("there");
    backend.copy_prefix(SequenceId(0), SequenceId(3), 4).expect("copied");
    feed(&mut backend, 3, &[7]).expect("what was copied is the adapter's as well");
    backend.drop_adapter(adapter);
    assert!(matches!(feed(&mut backend, 0, &[7]), Err(DecodeError::Failed(_))), "it is gone");
    assert!(backend.select_adapter(Some(adapter)).is_err());
    assert_eq!(text("say one two"), "one two");
}

#[test]
fn what_is_saved_comes_back_in_another_place_to_the_same_model_alone() {
    let mut backend = backend();
    let tokens = prompt(&backend, "say one two");
    feed(&mut backend, 0, &tokens).expect("decoded");
    let before = backend.logits(0).expect("logits").to_vec();
    let (first, second) = (SequenceId(0), SequenceId(2));
    let (most, all_but_one) = (4 * (tokens.len() + 1), u32::try_from(tokens.len() - 1).expect("short"));
    assert!(backend.save(first, most - 1).expect("it can").is_none(), "a byte too little");
    let state = backend.save(first, most).expect("it can").expect("saved");
    assert_eq!((state.tokens(), state.size()), (all_but_one + 1, most));
    assert!(backend.restore(first, &state).is_err(), "it is not empty");
    assert!(backend.save(second, most).is_err(), "there is nothing to save");

    backend.truncate(first, all_but_one).expect("cut");
    backend.restore(second, &state).expect("restored");
    assert_eq!(backend.cells.used(), 2 * tokens.len() - 1, "in cells of its own");
    backend.truncate(second, all_but_one).expect("cut");
    feed(&mut backend, 2, &tokens[tokens.len() - 1..]).expect("decoded");
    assert_eq!(backend.logits(0).expect("logits"), before);

    let mut other = self::backend();
    assert!(other.restore(first, &state).is_err() && other.cells.used() == 0, "another model's");
    let mut small = Scripted::new(Settings { context_tokens: 4, ..Settings::default() });
    feed(&mut small, 0, &[1, 2, 3]).expect("three of four");
    let state = small.save(first, usize::MAX).expect("it can").expect("saved");
    assert!(small.restore(second, &state).is_err() && small.cells.used() == 3, "no room");
    let mut without = Scripted::new(Settings { state: false, ..Settings::default() });
    feed(&mut without, 0, &[1]).expect("decoded");
    assert!(without.save(first, usize::MAX).is_err());
}
