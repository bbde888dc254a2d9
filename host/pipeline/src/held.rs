//! What a reply filter has taken and not let go, as long as that can be told: needed to go on without it.

use std::collections::VecDeque;
use std::mem::discriminant;

use tollgate_domain::Piece;

/// The text that a filter holds back. What one that changes text holds, nobody else can know.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pieces: VecDeque<Piece>,
    is_changed: bool,
}

impl Held {
    /// The filter gets a piece.
    pub(crate) fn takes(&mut self, piece: &Piece) {
        if !self.is_changed && !piece.as_str().is_empty() {
            self.pieces.push_back(piece.clone());
        }
    }

    /// The filter lets go of something.
    pub(crate) fn releases(&mut self, released: &[Piece]) {
        if !self.is_changed && !released.iter().all(|piece| self.remove(piece)) {
            self.is_changed = true;
            self.pieces.clear();
        }
    }

    /// What it holds, in order; `None` if it has changed the text.
    pub(crate) fn into_pieces(self) -> Option<VecDeque<Piece>> {
        (!self.is_changed).then_some(self.pieces)
    }

    /// Takes what was released off the front, however it was cut; returns whether it is what came in.
    fn remove(&mut self, released: &Piece) -> bool {
        let mut left = released.as_str();
        while !left.is_empty() {
            let Some(front) = self.pieces.pop_front().filter(|front| discriminant(front) == discriminant(released)) else {
                return false;
            };
            if let Some(rest) = left.strip_prefix(front.as_str()) {
                left = rest;
            } else if let Some(rest) = front.as_str().strip_prefix(left) {
                self.pieces.push_front(with_text(&front, rest));
                return true;
            } else {
                return false;
            }
        }
        true
    }
}

/// A piece of the same kind.
fn with_text(piece: &Piece, text: &str) -> Piece {
    let text = text.to_owned();
    match piece {
        Piece::Text(_) => Piece::Text(text),
        Piece::Reasoning(_) => Piece::Reasoning(text),
        Piece::ToolName(_) => Piece::ToolName(text),
        Piece::ToolArguments(_) => Piece::ToolArguments(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn held(taken: &[&str], released: &[&str]) -> Option<String> {
        let mut held = Held::default();
        for piece in taken {
            held.takes(&text(piece));
        }
        for piece in released {
            held.releases(&[text(piece)]);
        }
        held.into_pieces().map(|pieces| pieces.iter().map(Piece::as_str).collect())
    }

    #[test]
    fn what_was_not_released_is_held_however_it_was_cut() {
        assert_eq!(held(&["ab", "", "cd", "ef"], &["a", "bcd", ""]).as_deref(), Some("ef"));
        assert_eq!(held(&["ab"], &["ab"]).as_deref(), Some(""));
        assert_eq!(held(&["ab"], &[]).as_deref(), Some("ab"));
        assert_eq!(held(&["h\u{e9}"], &["h"]).as_deref(), Some("\u{e9}"));
    }

    #[test]
    fn a_filter_that_changes_text_holds_what_nobody_knows() {
        assert_eq!(held(&["call 555"], &["call ", "***"]), None);
        assert_eq!(held(&["ab"], &["ab", "c"]), None);
        let mut other = Held::default();
        other.takes(&text("a"));
        other.releases(&[Piece::Reasoning("a".to_owned())]);
        assert!(other.into_pieces().is_none());
    }
}
