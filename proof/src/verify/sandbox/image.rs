//! Answers of a plugin as they lie in its memory, right and wrong by chance. Offsets are those of the contract's records.

use super::super::chance::Chance;
use super::lift::BASE;

/// Whose answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    FilterPrompt,
    Authenticate,
}

/// Texts that somebody would like to see in a header, a log or a page.
const TEXTS: [&[u8]; 12] = [
    b"ok_code",
    b"a",
    b"",
    b"one\r\ntwo: three",
    b"x\r\n\r\n<script>alert(1)</script>",
    b"\x1b[31mred\x07",
    b"nul\0nul",
    b"caf\xc3\xa9 \xe2\x80\xa8 line",
    b"\xc2\x85next line",
    b"Set-Cookie: a=b",
    b"{\"json\": [1, 2]}",
    b"../../etc/passwd",
];

/// Bytes that are no UTF-8: none at all, half of a surrogate's pair.
const NO_TEXTS: [&[u8]; 2] = [b"\xff\xfe\xfd", b"\xed\xa0\x80"];

/// Bytes from `BASE` on.
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if self.bytes.len() < at + bytes.len() {
            self.bytes.resize(at + bytes.len(), 0);
        }
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&mut self, at: usize, word: u32) {
        self.put(at, &word.to_le_bytes());
    }

    /// Room behind everything else, at a multiple of 8.
    fn room(&mut self, length: usize) -> usize {
        let at = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(at + length, 0);
        at
    }

    fn address(at: usize) -> u32 {
        BASE + u32::try_from(at).unwrap_or(0)
    }

    /// A text's address and length at `at`; one in forty is wrong.
    fn text(&mut self, at: usize, chance: &mut Chance) {
        let mut text = if chance.below(100) == 0 { chance.pick(&NO_TEXTS).to_vec() } else { chance.pick(&TEXTS).to_vec() };
        if chance.below(30) == 0 {
            text = text.repeat(chance.below(600));
        }
        let begin = self.room(text.len());
        self.put(begin, &text);
        let length = u32::try_from(text.len()).unwrap_or(0);
        let (address, length) = match chance.below(300) {
            0 => (Self::address(begin), 0x7fff_ffff),
            1 => (0xffff_fff0, length),
            2 => (u32::try_from(chance.next() >> 32).unwrap_or(0), length),
            _ => (Self::address(begin), length),
        };
        self.word(at, address);
        self.word(at + 4, length);
    }

    /// A list of up to `most` entries of `size` bytes, each filled by `fill`.
    fn list(&mut self, at: usize, chance: &mut Chance, most: usize, size: usize, fill: fn(&mut Self, usize, &mut Chance)) {
        let count = chance.below(most + 1);
        let begin = self.room(count * size);
        for number in 0..count {
            fill(self, begin + number * size, chance);
        }
        let skewed = if chance.below(200) == 0 { 1 } else { 0 };
        self.word(at, Self::address(begin) + skewed);
        self.word(at + 4, u32::try_from(count).unwrap_or(0));
    }

    /// Whether there is something; one in a hundred is neither.
    fn option(&mut self, at: usize, chance: &mut Chance) {
        let byte = if chance.below(100) == 0 { 2 } else { u8::from(chance.below(2) == 0) };
        self.put(at, &[byte]);
    }

    /// One of the first `count` cases; one in fifty is none of them.
    fn case(&mut self, at: usize, chance: &mut Chance, count: usize) -> usize {
        let case = if chance.below(50) == 0 { 200 } else { chance.below(count) };
        self.put(at, &[u8::try_from(case).unwrap_or(0)]);
        case
    }

    fn refusal(&mut self, at: usize, chance: &mut Chance) {
        self.case(at, chance, 7);
        for field in [4, 12, 20] {
            self.text(at + field, chance);
        }
        self.option(at + 28, chance);
        self.word(at + 32, u32::try_from(chance.next() >> 32).unwrap_or(0));
    }

    fn attribute(&mut self, at: usize, chance: &mut Chance) {
        self.text(at, chance);
        self.text(at + 8, chance);
    }

    fn part(&mut self, at: usize, chance: &mut Chance) {
        self.case(at, chance, 4);
        let is_blob = self.case(at + 8, chance, 2) == 1;
        self.text(at + 16, chance);
        if is_blob {
            self.text(at + 32, chance);
        }
    }

    fn message(&mut self, at: usize, chance: &mut Chance) {
        self.case(at, chance, 4);
        self.option(at + 4, chance);
        self.text(at + 8, chance);
        self.list(at + 16, chance, 2, 40, Self::part);
        self.option(at + 32, chance);
        self.text(at + 36, chance);
    }

    fn request(&mut self, at: usize, chance: &mut Chance) {
        self.list(at, chance, 3, 44, Self::message);
        for number in 0..8 {
            self.option(at + 16 + number * 8, chance);
            let bits = *chance.pick(&[0, 1, 0x3f80_0000, 0x7fc0_0000, 0x7f80_0000, 0xff80_0000, 0x8000_0000, u32::MAX]);
            self.word(at + 20 + number * 8, bits);
        }
        self.option(at + 80, chance);
        let seed = chance.next();
        self.put(at + 88, &seed.to_le_bytes());
        self.list(at + 96, chance, 6, 8, Self::text);
        self.option(at + 104, chance);
        self.text(at + 108, chance);
        self.text(at + 116, chance);
        self.list(at + 124, chance, 3, 16, Self::attribute);
    }

    fn flag(&mut self, at: usize, chance: &mut Chance) {
        self.text(at, chance);
        self.word(at + 8, u32::try_from(chance.next() >> 32).unwrap_or(0));
    }

    fn outcome(&mut self, chance: &mut Chance) {
        self.put(0, &[0; 152]);
        let case = *chance.pick(&[0_u8, 1, 1, 2, 2, 2, 2, 3, 99]);
        self.put(0, &[case]);
        match case {
            1 => self.request(8, chance),
            2 => self.refusal(8, chance),
            _ => self.text(8, chance),
        }
        let most = if chance.below(20) == 0 { 80 } else { 2 };
        self.list(144, chance, most, 12, Self::flag);
    }

    fn decision(&mut self, chance: &mut Chance) {
        self.put(0, &[0; 64]);
        let case = *chance.pick(&[0_u8, 0, 0, 1, 1, 1, 2, 99]);
        self.put(0, &[case]);
        if case == 0 {
            // Names that are well formed now and then, or nobody would ever be taken.
            let careful = chance.below(2) == 0;
            for field in [4, 12] {
                self.text(field, chance);
                if careful {
                    let begin = self.room(3);
                    self.put(begin, b"ann");
                    self.word(field, Self::address(begin));
                    self.word(field + 4, 3);
                }
            }
            for field in [20, 28, 36] {
                self.list(field, chance, if careful { 0 } else { 3 }, 8, Self::text);
            }
            self.option(44, chance);
            self.text(48, chance);
            self.list(56, chance, 3, 16, Self::attribute);
        } else {
            self.refusal(4, chance);
        }
    }
}

/// An answer of a hook; one in ten is bytes at random.
pub(crate) fn image(chance: &mut Chance, hook: Hook) -> Vec<u8> {
    let mut image = Image { bytes: Vec::new() };
    if chance.below(10) == 0 {
        image.bytes = (0..20).flat_map(|_| chance.next().to_le_bytes()).collect();
        let first = image.bytes.first_mut();
        if let Some(first) = first {
            *first %= 4;
        }
        return image.bytes;
    }
    match hook {
        Hook::FilterPrompt => image.outcome(chance),
        Hook::Authenticate => image.decision(chance),
    }
    image.bytes
}
