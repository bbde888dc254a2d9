//! The ways to cut a reply into pieces. What a filter makes of them is `run`'s.

use crate::words::Piece;

/// With this many boundaries or fewer, every pair of them is tried as well.
const MAX_BOUNDARIES_OF_PAIRS: usize = 40;
/// More boundaries than these are not tried one by one.
pub(crate) const MAX_BOUNDARIES: usize = 4_096;

/// The character boundaries inside pieces, counted over all pieces. A tool's name comes in one piece.
pub(crate) fn inner(pieces: &[Piece]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut before = 0;
    for piece in pieces {
        let length = piece.as_str().chars().count();
        if !matches!(piece, Piece::ToolName(_)) {
            found.extend((1..length).map(|at| before + at));
        }
        before += length;
    }
    found
}

/// How many ways `every` tries.
pub(crate) fn count(pieces: &[Piece]) -> usize {
    let boundaries = inner(pieces).len();
    let pairs = if boundaries <= MAX_BOUNDARIES_OF_PAIRS { boundaries * boundaries.saturating_sub(1) / 2 } else { 0 };
    // Whole, and all at once where that is yet another way.
    1 + boundaries + pairs + usize::from(boundaries > 2)
}

/// The ways that `every` tries, the plainest first.
pub(crate) fn every(pieces: &[Piece]) -> impl Iterator<Item = Vec<usize>> {
    let inner = inner(pieces);
    let singles = inner.clone().into_iter().map(|at| vec![at]);
    let all = (inner.len() > 2).then(|| inner.clone());
    let paired = if inner.len() <= MAX_BOUNDARIES_OF_PAIRS { inner } else { Vec::new() };
    let pairs = paired.clone().into_iter().enumerate().flat_map(move |(at, first)| {
        let later = paired.get(at + 1..).unwrap_or_default().to_vec();
        later.into_iter().map(move |second| vec![first, second])
    });
    std::iter::once(Vec::new()).chain(all).chain(singles).chain(pairs)
}

/// The pieces cut after these characters.
pub(crate) fn cut(pieces: &[Piece], cuts: &[usize]) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut cuts = cuts.iter().copied().peekable();
    for piece in pieces {
        let mut part = String::new();
        for c in piece.as_str().chars() {
            if cuts.peek() == Some(&at) {
                cuts.next();
                out.push(piece.with(&part));
                part.clear();
            }
            part.push(c);
            at += 1;
        }
        out.push(piece.with(&part));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn pieces_are_cut_at_characters_and_names_are_not() {
        let pieces = [text("äbc"), Piece::ToolName("mail".to_owned()), Piece::ToolArguments("{}".to_owned())];
        assert_eq!(inner(&pieces), [1, 2, 8]);
        assert_eq!(
            cut(&pieces, &[1, 8]),
            [
                text("ä"),
                text("bc"),
                Piece::ToolName("mail".to_owned()),
                Piece::ToolArguments("{".to_owned()),
                Piece::ToolArguments("}".to_owned())
            ]
        );
        assert_eq!(cut(&pieces, &[]), pieces);
        assert_eq!(cut(&[text("")], &[]), [text("")]);
    }

    #[test]
    fn every_way_is_tried_once_and_counted() {
        for length in [0, 1, 2, 3, 4, 17, 41, 42, 60] {
            let pieces = [text(&"ü".repeat(length))];
            let ways = every(&pieces).collect::<Vec<_>>();
            assert_eq!(ways.len(), count(&pieces), "{length}");
            assert_eq!(ways.iter().collect::<BTreeSet<_>>().len(), ways.len(), "{length}");
            for way in ways {
                let whole = cut(&pieces, &way).iter().map(Piece::as_str).collect::<String>();
                assert_eq!(whole.chars().count(), length);
            }
        }
        assert_eq!(count(&[text("abcd")]), 1 + 3 + 3 + 1);
    }
}
