//! Sequences over a model whose logits say exactly which tokens it has seen.

use proptest::prelude::*;

use super::*;

const WORDS: usize = 8;
/// The model fails on this token.
const BAD: Token = 7;

struct Echo;

/// The logits after some tokens: a hash of them all, and how many there are.
fn logits_after(tokens: &[Token]) -> Vec<f32> {
    let hash = tokens.iter().fold(1_u32, |hash, token| hash.wrapping_mul(31).wrapping_add(*token + 1) % 65_521);
    let length = u16::try_from(tokens.len()).expect("short");
    let mut logits = vec![0.0; WORDS];
    logits[0] = f32::from(u16::try_from(hash).expect("small"));
    logits[1] = f32::from(length);
    logits
}

impl Serial for Echo {
    type State = Vec<Token>;

    fn empty(&self) -> Result<Vec<Token>, String> {
        Ok(Vec::new())
    }

    fn forward(&mut self, state: &mut Vec<Token>, part: &Part<'_>, logits: &mut Vec<f32>) -> Result<(), String> {
        assert_eq!(usize::try_from(part.position).expect("small"), state.len());
        for (at, token) in part.tokens.iter().enumerate() {
            if *token == BAD {
                return Err("a bad token".to_owned());
            }
            state.push(*token);
            if part.wanted.contains(&at) {
                logits.extend(logits_after(state));
            }
        }
        Ok(())
    }

    fn fork(&self, state: &Vec<Token>, length: u32) -> Result<Vec<Token>, String> {
        Ok(state[..usize::try_from(length).expect("small")].to_vec())
    }

    fn truncate(&self, state: &mut Vec<Token>, length: u32) -> Result<(), String> {
        state.truncate(usize::try_from(length).expect("small"));
        Ok(())
    }

    fn load_adapter(&mut self, _: AdapterId, _: Lora) -> Result<(), String> {
        Err("it takes none".to_owned())
    }

    fn drop_adapter(&mut self, _: AdapterId) {}
}

fn stepper(can_cut: bool) -> Stepper<Echo> {
    let limits = Limits { sequences: 3, context_tokens: 24, sequence_tokens: 12, step_rows: 8, words: WORDS, can_cut };
    Stepper::new(Echo, limits)
}

fn row(sequence: u16, position: u32, token: Token) -> Row {
    Row { token, position, sequence: SequenceId(sequence), wants_logits: true }
}

fn feed(stepper: &mut Stepper<Echo>, sequence: u16, from: u32, tokens: &[Token]) -> Result<(), DecodeError> {
    (from..).zip(tokens).try_for_each(|(position, token)| stepper.decode(&[row(sequence, position, *token)]))
}

#[test]
fn rows_of_several_sequences_have_their_own_logits() {
    let mut stepper = stepper(true);
    let quiet = Row { wants_logits: false, ..row(0, 0, 1) };
    stepper.decode(&[quiet, row(1, 0, 4), row(0, 1, 2), row(1, 1, 5)]).expect("decoded");
    assert_eq!(stepper.logits(0), None);
    assert_eq!(stepper.logits(1), Some(logits_after(&[4]).as_slice()));
    assert_eq!(stepper.logits(2), Some(logits_after(&[1, 2]).as_slice()));
    assert_eq!(stepper.logits(3), Some(logits_after(&[4, 5]).as_slice()));
    assert_eq!(stepper.logits(4), None);
}

#[test]
fn a_full_cache_decodes_nothing() {
    let mut stepper = stepper(true);
    feed(&mut stepper, 0, 0, &[1; 12]).expect("room");
    feed(&mut stepper, 1, 0, &[2; 11]).expect("room");
    assert_eq!(stepper.decode(&[row(1, 11, 3), row(2, 0, 3)]), Err(DecodeError::Full { rows: 2 }));
    assert_eq!(stepper.logits(0), None);
    feed(&mut stepper, 1, 11, &[3]).expect("the last cell");
    stepper.truncate(SequenceId(0), 0).expect("emptied");
    stepper.copy_prefix(SequenceId(1), SequenceId(0), 12).expect("copied");
    assert_eq!(feed(&mut stepper, 2, 0, &[1]), Err(DecodeError::Full { rows: 1 }), "a copy counts in full");
    stepper.truncate(SequenceId(0), 11).expect("cut");
    assert!(stepper.copy_prefix(SequenceId(1), SequenceId(2), 2).is_err(), "nor is one made without room");
    stepper.copy_prefix(SequenceId(1), SequenceId(2), 1).expect("the last cell");
}

#[test]
fn mistakes_are_failed_steps_that_change_nothing() {
    let mut stepper = stepper(true);
    feed(&mut stepper, 0, 0, &[1, 2]).expect("decoded");
    for rows in [vec![], vec![row(0, 3, 1)], vec![row(0, 1, 1)], vec![row(3, 0, 1)], vec![row(0, 2, 8)], vec![row(1, 0, 1); 9]] {
        assert!(matches!(stepper.decode(&rows), Err(DecodeError::Failed(_))), "{rows:?}");
    }
    feed(&mut stepper, 0, 2, &[3; 10]).expect("up to what the model reads");
    assert!(matches!(feed(&mut stepper, 0, 12, &[3]), Err(DecodeError::Failed(_))));
    assert!(stepper.copy_prefix(SequenceId(0), SequenceId(0), 1).is_err());
    assert!(stepper.copy_prefix(SequenceId(0), SequenceId(1), 13).is_err());
    assert!(stepper.copy_prefix(SequenceId(0), SequenceId(9), 1).is_err() && stepper.truncate(SequenceId(9), 0).is_err());
}

#[test]
fn what_failed_has_to_be_emptied() {
    let mut stepper = stepper(true);
    feed(&mut stepper, 0, 0, &[1]).expect("decoded");
    feed(&mut stepper, 2, 0, &[1]).expect("decoded");
    assert_eq!(stepper.decode(&[row(1, 0, 1), row(0, 1, BAD)]), Err(DecodeError::Failed("a bad token".to_owned())));
    assert_eq!(stepper.logits(0), None);
    assert!(feed(&mut stepper, 0, 1, &[1]).is_err() && feed(&mut stepper, 1, 1, &[1]).is_err());
    assert!(stepper.truncate(SequenceId(0), 1).is_err());
    assert!(stepper.copy_prefix(SequenceId(0), SequenceId(1), 1).is_err());
    feed(&mut stepper, 2, 1, &[2]).expect("others go on");
    for sequence in [0, 1] {
        stepper.truncate(SequenceId(sequence), 0).expect("emptied");
        feed(&mut stepper, sequence, 0, &[5]).expect("anew");
        assert_eq!(stepper.logits(0), Some(logits_after(&[5]).as_slice()));
    }
}

#[test]
fn a_model_that_cannot_cut_says_so() {
    let mut stepper = stepper(false);
    assert!(!stepper.capabilities().prefix_copy && !stepper.capabilities().partial_remove);
    feed(&mut stepper, 0, 0, &[1, 2]).expect("decoded");
    assert!(stepper.copy_prefix(SequenceId(0), SequenceId(1), 1).is_err());
    assert!(stepper.truncate(SequenceId(0), 1).is_err());
    assert!(stepper.truncate(SequenceId(0), 2).is_ok() && stepper.truncate(SequenceId(0), 0).is_ok());
}

#[derive(Debug, Clone)]
enum Action {
    Decode(Vec<(u16, Token)>),
    Copy(u16, u16, u32),
    Truncate(u16, u32),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        proptest::collection::vec((0..3_u16, 0..BAD), 1..8).prop_map(Action::Decode),
        (0..3_u16, 0..3_u16, 0..8_u32).prop_map(|(from, to, length)| Action::Copy(from, to, length)),
        (0..3_u16, 0..8_u32).prop_map(|(sequence, length)| Action::Truncate(sequence, length)),
    ]
}

proptest! {
    /// Whatever is done in whatever order, the logits of a row are those of exactly the tokens that its sequence holds.
    #[test]
    fn sequences_never_mix(actions in proptest::collection::vec(action(), 1..40)) {
        let mut stepper = stepper(true);
        let mut model: Vec<Vec<Token>> = vec![Vec::new(); 3];
        for action in actions {
            match action {
                Action::Decode(tokens) => {
                    let mut after = model.clone();
                    let rows: Vec<Row> = tokens.iter().map(|(sequence, token)| {
                        let held = &mut after[usize::from(*sequence)];
                        held.push(*token);
                        row(*sequence, u32::try_from(held.len() - 1).expect("small"), *token)
                    }).collect();
                    let total: usize = after.iter().map(Vec::len).sum();
                    let result = stepper.decode(&rows);
                    if after.iter().any(|held| held.len() > 12) {
                        prop_assert!(matches!(result, Err(DecodeError::Failed(_))));
                    } else if total > 24 {
                        prop_assert_eq!(result, Err(DecodeError::Full { rows: rows.len() }));
                    } else {
                        prop_assert_eq!(result, Ok(()));
                        for (at, row) in rows.iter().enumerate() {
                            let held = &after[usize::from(row.sequence.0)];
                            let length = usize::try_from(row.position).expect("small") + 1;
                            let logits = logits_after(&held[..length]);
                            prop_assert_eq!(stepper.logits(at), Some(logits.as_slice()));
                        }
                        model = after;
                    }
                }
                Action::Copy(from, to, length) => {
                    let wanted = usize::try_from(length).expect("small");
                    let (source, target) = (&model[usize::from(from)], &model[usize::from(to)]);
                    let total: usize = model.iter().map(Vec::len).sum();
                    let fits = source.len() >= wanted && target.is_empty() && total + wanted <= 24;
                    prop_assert_eq!(stepper.copy_prefix(SequenceId(from), SequenceId(to), length).is_ok(), fits);
                    if fits {
                        model[usize::from(to)] = source[..wanted].to_vec();
                    }
                }
                Action::Truncate(sequence, length) => {
                    prop_assert_eq!(stepper.truncate(SequenceId(sequence), length), Ok(()));
                    model[usize::from(sequence)].truncate(usize::try_from(length).expect("small"));
                }
            }
        }
    }
}
