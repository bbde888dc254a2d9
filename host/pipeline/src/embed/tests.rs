//! Texts as policies see them, and what is refused before a model has them.

use super::*;

fn asked(input: EmbedInput) -> Asked {
    Asked::new(EmbedRequest { model: String::new(), input, dimensions: None }, "vectors".to_owned())
}

fn screened(texts: &[&str]) -> Screened {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    Screened::Request(Box::new(chat_of(&mut asked(EmbedInput::Texts(texts)))))
}

#[test]
fn a_policy_sees_every_text_as_a_message_and_the_query_first() {
    let (query, documents) = ("q".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
    let mut asked = asked(EmbedInput::Rank { query, documents });
    assert_eq!(asked.task, Task::Rerank);
    let request = chat_of(&mut asked);
    let texts = request.messages.iter().map(Message::joined_text).collect::<Vec<_>>();
    assert_eq!((request.model.as_str(), texts), ("vectors", vec!["q".to_owned(), "a".to_owned(), "b".to_owned()]));
    assert!(request.messages.iter().all(|message| message.role == Role::User));
}

#[test]
fn a_policy_may_rewrite_texts_and_nothing_else() {
    assert_eq!(texts_of(screened(&["a", "b"]), 2).unwrap(), ["a", "b"]);
    for (left, count) in [(&["a"][..], 2), (&["a", "b", "c"], 2), (&["a", ""], 2), (&[], 1)] {
        assert_eq!(texts_of(screened(left), count).unwrap_err().code, "plugin_failed", "{left:?}");
    }
    let refusal = texts_of(Screened::Answer("No.".to_owned()), 1).unwrap_err();
    assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Blocked, "blocked_by_policy"));
}

#[test]
fn a_text_that_is_too_long_is_named_with_both_figures() {
    let refusal = too_long(3, 900, 512, Task::Embed);
    assert_eq!(refusal.message, "`input[3]` has 900 tokens, 388 more than the 512 that this model takes.");
    assert_eq!((refusal.code.as_str(), refusal.field.as_deref()), ("context_length_exceeded", Some("input[3]")));
    assert_eq!(too_long(0, 9, 8, Task::Rerank).field.as_deref(), Some("documents[0]"));
}

#[test]
fn an_answer_has_its_memory_among_that_of_requests() {
    let bodies = Shares::new(64 * BYTES_OF_NUMBER);
    let held = room(&bodies, "a", 2, 16).unwrap();
    assert_eq!(held.units(), 32 * BYTES_OF_NUMBER);
    let refusal = room(&bodies, "b", 3, 16).unwrap_err();
    assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Unavailable, "overloaded"));
    drop(held);
    room(&bodies, "b", 3, 16).unwrap();
    assert!(room(&bodies, "a", usize::MAX, u32::MAX).is_err());
}

#[test]
fn a_vector_is_not_shortened() {
    assert!(has_dimensions(None, 384).is_ok() && has_dimensions(Some(384), 384).is_ok());
    let refusal = has_dimensions(Some(256), 384).unwrap_err();
    assert!(refusal.message.contains("384") && refusal.field.as_deref() == Some("dimensions"), "{refusal}");
}
