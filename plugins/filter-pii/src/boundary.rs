//! Where a value may begin and end: what stands to its left and right. What the value itself looks like is not known here.

/// How many characters after the word NPWP a bare number of its length is taken for one.
const NPWP_REACH: u8 = 32;

/// A Latin letter, accented or not, or a digit. Letters of other scripts do not continue a value: they stand beside it without a space.
pub(crate) fn is_latin(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '\u{c0}'..='\u{24f}' if c != '×' && c != '÷')
}

/// Part of a word, so that no value begins or ends beside it.
pub(crate) fn is_word(c: char) -> bool {
    c == '_' || is_latin(c)
}

/// Whether a number or IBAN may end before `text[end]`: no word goes on there, nor a number behind a dash or a dot.
///
/// What is beyond `text` is taken for the end of everything; the caller knows that it is, or that it does not matter.
pub(crate) fn is_free_after(text: &[char], end: usize) -> bool {
    let is_digit_behind = || text.get(end.saturating_add(1)).is_some_and(char::is_ascii_digit);
    match text.get(end) {
        None => true,
        Some('.' | '-' | '\u{2010}' | '\u{2011}') => !is_digit_behind(),
        Some(c) => !is_word(*c),
    }
}

/// What stands to the left of where we are.
#[derive(Debug)]
pub(crate) struct Left {
    /// The last four characters, the nearest last.
    tail: [char; 4],
    /// How far the word NPWP still reaches.
    npwp: u8,
}

impl Left {
    /// The beginning of a text.
    pub(crate) fn new() -> Self {
        Left { tail: [' '; 4], npwp: 0 }
    }

    /// `c` went by.
    pub(crate) fn pass(&mut self, c: char) {
        let [_, rest @ ..] = self.tail;
        let [third, second, last] = rest;
        self.tail = [third, second, last, c];
        let is_npwp = c.eq_ignore_ascii_case(&'p') && self.tail.map(|c| c.to_ascii_lowercase()) == ['n', 'p', 'w', 'p'];
        self.npwp = if is_npwp { NPWP_REACH } else { self.npwp.saturating_sub(1) };
    }

    /// A value went by: the word NPWP was about that one.
    pub(crate) fn forget_npwp(&mut self) {
        self.npwp = 0;
    }

    /// Whether the word NPWP is near.
    pub(crate) fn is_near_npwp(&self) -> bool {
        self.npwp > 0
    }

    /// Whether no word goes on here.
    pub(crate) fn ends_word(&self) -> bool {
        let [.., last] = self.tail;
        !is_word(last)
    }

    /// Whether a number or IBAN may begin here: it is no part of a word, of a sum, of what a dash ties to a word or a dot to a number.
    pub(crate) fn is_free(&self) -> bool {
        let [.., before, last] = self.tail;
        match last {
            '+' => false,
            '-' => !is_word(before),
            '.' => !before.is_ascii_digit(),
            _ => !is_word(last),
        }
    }
}
