//! Where a chunked body ends (RFC 9112, 7.1).
//!
//! It follows the coding and decodes nothing: hyper does that from the same bytes. It is stricter than
//! hyper where implementations differ: every line ends in CRLF, a size is hexadecimal digits and nothing
//! else, and sizes, extensions and trailers are bounded.

use crate::error::EdgeError;

/// Hexadecimal digits of one chunk size; 15 cannot overflow 64 bits, and no honest chunk is that long.
const MAX_SIZE_DIGITS: u8 = 15;

/// Follows one chunked body.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes left for all extensions and trailers of this body together.
    overhead: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLineFeed { value: u64 },
    Data { left: u64 },
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl Chunked {
    /// Starts at the first chunk; extensions and trailers together may have `overhead` bytes.
    pub(crate) fn new(overhead: usize) -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, overhead }
    }

    /// Whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows `bytes` and says how many of them belong to the body; fewer than all only at its end.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, EdgeError> {
        let mut used = 0;
        while let Some(byte) = bytes.get(used).copied() {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    // Data is stepped over whole, not byte by byte.
                    let there = bytes.len() - used;
                    let step = usize::try_from(left).map_or(there, |left| left.min(there));
                    used += step;
                    let left = left.saturating_sub(step as u64);
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                }
                state => {
                    self.state = self.step(state, byte)?;
                    used += 1;
                }
            }
        }
        Ok(used)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, EdgeError> {
        const BAD_SIZE: EdgeError = EdgeError::Malformed("a chunk size is malformed");
        const BAD_END: EdgeError = EdgeError::Malformed("a chunk does not end in CRLF");
        match (state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BAD_SIZE);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Ok(State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BAD_SIZE),
            (State::Size { value, .. } | State::Extension { value }, b'\r') => Ok(State::SizeLineFeed { value }),
            (State::Size { value, .. }, b';') => self.spend(State::Extension { value }),
            (State::Extension { value }, _) if is_text(byte) => self.spend(State::Extension { value }),
            (State::SizeLineFeed { value: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLineFeed { value }, b'\n') => Ok(State::Data { left: value }),
            (State::Size { .. } | State::Extension { .. } | State::SizeLineFeed { .. }, _) => Err(BAD_SIZE),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size { value: 0, digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            // A trailer line may not begin with a blank: that would be a fold.
            (State::TrailerStart, _) if byte.is_ascii_graphic() => self.spend(State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerLineFeed),
            (State::Trailer, _) if is_text(byte) => self.spend(State::Trailer),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(BAD_END),
        }
    }

    fn spend(&mut self, next: State) -> Result<State, EdgeError> {
        let left = self.overhead.checked_sub(1);
        self.overhead = left.ok_or(EdgeError::Malformed("chunk extensions and trailers are too long"))?;
        Ok(next)
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
