//! The table against the reader and the docs.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::*;
use crate::routes;

const BEGIN: &str = "<!-- fields: begin -->\n";
const END: &str = "<!-- fields: end -->";

fn docs() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openai-chat.md");
    std::fs::read_to_string(path).expect("docs/openai-chat.md is there")
}

fn code(values: &[&str]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" ")
}

/// The table as the docs have it.
fn table() -> String {
    let mut text =
        "| field | what becomes of it | taken, such as | refused, such as | note |\n|---|---|---|---|---|\n".to_owned();
    for Field { name, treatment, taken, refused, note, .. } in FIELDS {
        let (taken, refused) = (code(taken), code(refused));
        writeln!(text, "| `{name}` | {} | {taken} | {refused} | {note} |", treatment.as_str()).unwrap();
    }
    text
}

#[test]
fn the_docs_have_this_table() {
    let docs = docs();
    let (_, rest) = docs.split_once(BEGIN).expect("the table begins");
    let (written, _) = rest.split_once(END).expect("the table ends");
    assert!(written == table(), "docs/openai-chat.md is not up to date. Its table is now:\n{}", table());
}

#[test]
fn the_docs_have_every_route() {
    let docs = docs();
    for route in routes() {
        let path = route.path.replace("{*id}", "{id}");
        assert!(docs.contains(&format!("`{} {path}`", route.method)), "{} {path}", route.method);
    }
}

#[test]
fn names_are_unique_and_examples_fit_a_table() {
    let names = FIELDS.iter().map(|field| field.name).collect::<BTreeSet<_>>();
    assert_eq!(names.len(), FIELDS.len());
    for field in FIELDS {
        for text in field.taken.iter().chain(field.refused).chain([&field.note]) {
            assert!(!text.contains('|') && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn every_field_of_openais_reference_has_a_row() {
    let reference = "messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens \
        max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key \
        prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop \
        store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options";
    let rows = FIELDS.iter().filter(|field| field.treatment != Extension).map(|field| field.name).collect::<BTreeSet<_>>();
    assert_eq!(rows, reference.split_whitespace().collect::<BTreeSet<_>>());
}
