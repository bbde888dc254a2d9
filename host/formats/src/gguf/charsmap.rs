//! The table by which a tokenizer of the kind t5 normalizes text: SentencePiece's `precompiled_charsmap`.
//!
//! Four bytes length, a trie as an array of 32-bit nodes, then replacements that each end in a zero. llama.cpp follows the trie while it
//! tokenizes and throws where a step leaves the array, through the C interface; so every step that a text can take is tried here.

use crate::error::{FormatError, ensure, malformed};

/// The largest in use have some 300 KiB.
const MAX_BYTES: usize = 1 << 20;
/// Bytes that a few characters may become; the longest in Unicode's tables has 33.
const MAX_REPLACEMENT: usize = 64;

/// One node of the trie.
#[derive(Clone, Copy)]
struct Node(u32);

impl Node {
    fn base(self) -> u32 {
        (self.0 >> 10) << ((self.0 & (1 << 9)) >> 6)
    }

    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xff)
    }

    fn is_leaf(self) -> bool {
        (self.0 >> 8) & 1 == 1
    }

    /// Where the replacement begins.
    fn value(self) -> usize {
        (self.0 & ((1 << 31) - 1)) as usize
    }
}

/// Tries every path of the trie.
pub(crate) fn check_charsmap(bytes: &[u8]) -> Result<(), FormatError> {
    ensure!(bytes.len() <= MAX_BYTES, "`precompiled_charsmap` has {} bytes, the most is {MAX_BYTES}", bytes.len());
    let short = || malformed("`precompiled_charsmap` is cut short");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    ensure!(replacements.last() == Some(&0), "the replacements of `precompiled_charsmap` do not end in a zero");
    let words =
        std::str::from_utf8(replacements).map_err(|_| malformed("the replacements of `precompiled_charsmap` are no UTF-8"))?;
    let nodes = trie.as_chunks::<4>().0.iter().map(|node| Node(u32::from_le_bytes(*node))).collect::<Vec<_>>();
    let Some(root) = nodes.first() else { return Ok(()) };
    let outside = || malformed("`precompiled_charsmap` has a step out of its trie");
    let mut seen = vec![false; nodes.len()];
    let mut open = vec![root.base()];
    while let Some(base) = open.pop() {
        let seen = seen.get_mut(base as usize).ok_or_else(outside)?;
        if std::mem::replace(seen, true) {
            continue;
        }
        for byte in 1..=0xff {
            let node = nodes.get((base ^ byte) as usize).ok_or_else(outside)?;
            if node.label() != byte {
                continue;
            }
            let next = base ^ byte ^ node.base();
            let end = nodes.get(next as usize).ok_or_else(outside)?;
            let is_good = !node.is_leaf() || end.value() < replacements.len();
            ensure!(is_good, "`precompiled_charsmap` has a replacement at {}, of {} bytes", end.value(), replacements.len());
            if node.is_leaf() {
                check_replacement(words, end.value())?;
            }
            open.push(next);
        }
    }
    Ok(())
}

/// It begins with a character, and ends soon.
fn check_replacement(words: &str, at: usize) -> Result<(), FormatError> {
    let rest = words
        .get(at..)
        .ok_or_else(|| malformed(format!("`precompiled_charsmap` has a replacement amid a character, at {at}")))?;
    let is_short = rest.bytes().take(MAX_REPLACEMENT + 1).any(|byte| byte == 0);
    ensure!(is_short, "`precompiled_charsmap` has a replacement of more than {MAX_REPLACEMENT} bytes, at {at}");
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `a` becomes the replacement at `value`: the root's children are at 0x100, the child's at 0x200.
    pub(crate) fn map(value: u32, nodes: usize) -> Vec<u8> {
        let mut trie = vec![0_u32; nodes];
        trie[0] = 0x100 << 10;
        let child = 0x100 ^ u32::from(b'a');
        let end = 0x200;
        trie[child as usize] = (child ^ end) << 10 | 1 << 8 | u32::from(b'a');
        trie[end as usize] = 1 << 31 | value;
        let mut bytes = u32::try_from(nodes * 4).unwrap().to_le_bytes().to_vec();
        bytes.extend(trie.iter().flat_map(|node| node.to_le_bytes()));
        bytes.extend(b"b\0");
        bytes
    }

    #[test]
    fn every_path_is_tried() {
        check_charsmap(&map(0, 0x300)).unwrap();
        let refused = |bytes: &[u8]| check_charsmap(bytes).unwrap_err().to_string();
        assert!(refused(&map(2, 0x300)).contains("a replacement at 2, of 2 bytes"));
        assert!(refused(&map(0, 0x2ff)).contains("a step out of its trie"), "a text of `a\\xff` leaves it");
        assert!(refused(&map(0, 0x300)[..0x800]).contains("cut short"));
        let mut endless = map(0, 0x300);
        endless.pop();
        assert!(refused(&endless).contains("do not end in a zero"));
        let with = |value, words: &[u8]| {
            let mut bytes = map(value, 0x300);
            bytes.truncate(4 + 4 * 0x300);
            bytes.extend(words);
            bytes
        };
        check_charsmap(&with(3, "\u{e9}\0\u{e9}\0".as_bytes())).unwrap();
        assert!(refused(&with(1, "\u{e9}\0".as_bytes())).contains("amid a character, at 1"));
        assert!(refused(&with(0, b"\xff\0")).contains("no UTF-8"));
        check_charsmap(&with(1, &[[b'x'; 65].as_slice(), b"\0"].concat())).unwrap();
        assert!(refused(&with(0, &[[b'x'; 65].as_slice(), b"\0"].concat())).contains("more than 64 bytes, at 0"));
    }
}
