//! Where in a JSON text we are: in a string or not, in an escape or not. It checks nothing; a text that is no JSON gives some answer.

/// The place, character by character.
#[derive(Debug, Default)]
pub(crate) struct Place {
    is_in_string: bool,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// A backslash went by.
    Begun,
    /// This many hex digits of a `\u` are to come, 1 to 4.
    Hex(u8),
}

impl Place {
    /// `c` goes by. Returns what it stands for as far as boundaries go: the letter of an escape like `\n` is no letter.
    pub(crate) fn pass(&mut self, c: char) -> char {
        match self.escape {
            Escape::None if c == '"' => self.is_in_string = !self.is_in_string,
            Escape::None if c == '\\' && self.is_in_string => self.escape = Escape::Begun,
            Escape::None => {}
            Escape::Begun => {
                self.escape = if c == 'u' { Escape::Hex(4) } else { Escape::None };
                return if matches!(c, '"' | '\\' | '/') { c } else { ' ' };
            }
            Escape::Hex(left) => {
                self.escape = if left > 1 { Escape::Hex(left - 1) } else { Escape::None };
                return ' ';
            }
        }
        c
    }

    /// Whether the next character belongs to an escape, so that no value begins with it.
    pub(crate) fn is_in_escape(&self) -> bool {
        self.escape != Escape::None
    }

    /// Whether a string is open.
    pub(crate) fn is_in_string(&self) -> bool {
        self.is_in_string
    }
}
