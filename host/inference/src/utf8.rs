//! Bytes to characters, across token borders.
//!
//! A character is passed on when its last byte is there, never before. Bytes that can never become a character are replaced by
//! U+FFFD, exactly as [`String::from_utf8_lossy`] would over the whole text.

/// Bytes of a character that is not whole yet: three at most.
#[derive(Debug, Clone, Default)]
pub(crate) struct Utf8Assembler {
    pending: Vec<u8>,
}

impl Utf8Assembler {
    /// Appends to `text` what `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    // Without a length the bytes are the beginning of a character.
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(invalid..).unwrap_or_default();
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
    }

    /// Whether no character is waiting for its last byte.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The text ends here: what never became a character is replaced.
    pub(crate) fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assembled<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut assembler = Utf8Assembler::default();
        let mut parts = Vec::new();
        for chunk in chunks {
            let mut text = String::new();
            assembler.push(chunk, &mut text);
            parts.push(text);
        }
        let mut text = String::new();
        assembler.finish(&mut text);
        parts.push(text);
        parts
    }

    #[test]
    fn a_character_comes_whole_with_its_last_byte() {
        let parts = assembled("😀".as_bytes().chunks(1));
        assert_eq!(parts, ["", "", "", "😀", ""]);
    }

    proptest! {
        #[test]
        fn text_survives_every_split(text in "\\PC{0,12}") {
            for split in 0..=text.len() {
                let (before, after) = text.as_bytes().split_at(split);
                prop_assert_eq!(assembled([before, after]).concat(), text.as_str());
            }
            prop_assert_eq!(assembled(text.as_bytes().chunks(1)).concat(), text.as_str());
        }

        #[test]
        fn any_bytes_read_like_lossy_at_every_split(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let whole = String::from_utf8_lossy(&bytes);
            for split in 0..=bytes.len() {
                let (before, after) = bytes.split_at(split);
                prop_assert_eq!(assembled([before, after]).concat(), whole.as_ref());
            }
        }
    }
}
