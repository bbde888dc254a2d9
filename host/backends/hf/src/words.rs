//! How the words of a tokenizer's vocabulary spell bytes.

/// The way in which words are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Every character stands for one byte, by GPT-2's table.
    ByteLevel,
    /// `▁` is a space, and `<0x0A>` a byte.
    SentencePiece,
    /// As they are; `##` only says that a word goes on.
    WordPiece,
}

impl Spelling {
    /// How a tokenizer spells, by its parts (normalizer, pre-tokenizer, decoder) as JSON.
    pub(crate) fn find(parts: &str) -> Self {
        if parts.contains("\"ByteLevel\"") {
            Spelling::ByteLevel
        } else if parts.contains('▁') {
            Spelling::SentencePiece
        } else {
            Spelling::WordPiece
        }
    }

    /// A word's bytes.
    pub(crate) fn bytes(self, word: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => {
                word.chars().map(byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| word.as_bytes().to_vec())
            }
            Spelling::SentencePiece => match byte_token(word) {
                Some(byte) => vec![byte],
                None => word.replace('▁', " ").into_bytes(),
            },
            Spelling::WordPiece => word.strip_prefix("##").unwrap_or(word).as_bytes().to_vec(),
        }
    }
}

/// GPT-2's table backwards: bytes that can be printed stand for themselves, the others in their order for the characters from
/// U+0100 on.
fn byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// `<0x0A>`
fn byte_token(word: &str) -> Option<u8> {
    let digits = word.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character_of_the_table() {
        let mut bytes: Vec<u8> = (0..0x150).filter_map(char::from_u32).filter_map(byte).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<u8>>());
        assert_eq!((byte('Ġ'), byte('Ċ'), byte('€')), (Some(b' '), Some(b'\n'), None));
    }

    #[test]
    fn words_are_spelt_out() {
        assert_eq!(Spelling::ByteLevel.bytes("ĠhÃ©"), " hé".as_bytes());
        assert_eq!(Spelling::ByteLevel.bytes("名"), "名".as_bytes(), "not in the table");
        assert_eq!(Spelling::SentencePiece.bytes("▁the"), b" the");
        assert_eq!(Spelling::SentencePiece.bytes("<0x0A>"), b"\n");
        assert_eq!(Spelling::SentencePiece.bytes("<0xZZ>"), b"<0xZZ>");
        assert_eq!(Spelling::WordPiece.bytes("##ing"), b"ing");
        assert_eq!(Spelling::find(r#"{"type":"ByteLevel"}"#), Spelling::ByteLevel);
        assert_eq!(Spelling::find(r#"{"type":"Metaspace","replacement":"▁"}"#), Spelling::SentencePiece);
        assert_eq!(Spelling::find("null"), Spelling::WordPiece);
    }
}
