//! Bytes as they come, cut into lines of bounded length. What a line says is not known here.

use crate::ProviderError;

/// The longest line, in bytes: a piece of a reply has some hundred.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// Bytes that are not read yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where there is no end of it.
    searched: usize,
}

impl Lines {
    /// Takes in what came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its end (LF or CRLF).
    ///
    /// # Errors
    /// It is too long, whether its end is there or not.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, ProviderError> {
        let too_long = ProviderError::Malformed("a line has more than 1 MiB");
        let unread = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = unread.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            // One more may be the CR before the end.
            return if self.buffer.len() - self.start > MAX_LINE + 1 { Err(too_long) } else { Ok(None) };
        };
        let end = self.searched + at;
        let line = self.buffer.get(self.start..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.start = end + 1;
        self.searched = self.start;
        if line.len() > MAX_LINE { Err(too_long) } else { Ok(Some(line)) }
    }

    /// What is left at the end of the body: a last line without an end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let rest = self.buffer.split_off(self.start);
        *self = Lines::default();
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lines of the chunks, and what is left.
    fn read(chunks: &[&[u8]]) -> Result<(Vec<Vec<u8>>, Vec<u8>), ProviderError> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk);
            while let Some(line) = lines.next()? {
                found.push(line);
            }
        }
        Ok((found, lines.rest()))
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_its_bound() {
        let chunk = vec![b'x'; 64 << 10];
        let chunks = vec![chunk.as_slice(); 17];
        assert!(read(&chunks[..16]).is_ok());
        assert_eq!(read(&chunks), Err(ProviderError::Malformed("a line has more than 1 MiB")));
        let mut long = vec![b'x'; MAX_LINE];
        long.extend(b"\r\n");
        assert_eq!(read(&[&long]).unwrap().0[0].len(), MAX_LINE);
        assert_eq!(read(&[&long[..=MAX_LINE], b"\n"]).unwrap().0[0].len(), MAX_LINE);
        long.insert(0, b'x');
        assert!(read(&[&long]).is_err());
    }

    proptest! {
        /// However a body is cut into chunks, its lines are the same.
        #[test]
        fn lines_do_not_depend_on_how_they_come(
            body in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(0..200_usize, 0..10),
        ) {
            let whole = read(&[&body]).unwrap();
            let mut cuts = cuts.into_iter().map(|cut| cut.min(body.len())).collect::<Vec<_>>();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([body.len()]) {
                chunks.push(&body[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&read(&chunks).unwrap(), &whole);
            let ends = body.iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(whole.0.len(), ends);
        }
    }
}
