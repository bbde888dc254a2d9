//! The key-value cache: which cells each sequence holds, and which of them others hold as well.

use tollgate_backend::{SequenceId, Token};

/// Cells of all sequences.
pub(crate) struct Cells {
    sequences: Vec<Held>,
    /// How many sequences hold each cell; 0 is free.
    holders: Vec<u16>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Held {
    tokens: Vec<Token>,
    cells: Vec<usize>,
    /// A hash of the tokens up to each.
    states: Vec<u64>,
}

impl Cells {
    pub(crate) fn new(sequences: u16) -> Self {
        Cells { sequences: (0..sequences).map(|_| Held::default()).collect(), holders: Vec::new(), free: Vec::new() }
    }

    /// Cells that anybody holds.
    pub(crate) fn used(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    pub(crate) fn length(&self, sequence: SequenceId) -> usize {
        self.sequences.get(usize::from(sequence.0)).map_or(0, |held| held.tokens.len())
    }

    /// A sequence's tokens, and a hash of them all.
    pub(crate) fn read(&self, sequence: SequenceId) -> (&[Token], u64) {
        let held = self.sequences.get(usize::from(sequence.0));
        held.map_or((&[], 0), |held| (held.tokens.as_slice(), held.states.last().copied().unwrap_or(0)))
    }

    pub(crate) fn push(&mut self, sequence: SequenceId, token: Token) {
        let Some(held) = self.sequences.get_mut(usize::from(sequence.0)) else { return };
        let cell = self.free.pop().unwrap_or_else(|| {
            self.holders.push(0);
            self.holders.len() - 1
        });
        if let Some(holders) = self.holders.get_mut(cell) {
            *holders += 1;
        }
        let before = held.states.last().copied().unwrap_or(0);
        held.tokens.push(token);
        held.cells.push(cell);
        held.states.push(mix(before ^ u64::from(token).wrapping_add(1)));
    }

    /// Gives `to`, which is empty, the first `length` cells of `from`.
    pub(crate) fn share(&mut self, from: SequenceId, to: SequenceId, length: usize) {
        let Some(source) = self.sequences.get(usize::from(from.0)) else { return };
        let copy = Held {
            tokens: source.tokens.iter().take(length).copied().collect(),
            cells: source.cells.iter().take(length).copied().collect(),
            states: source.states.iter().take(length).copied().collect(),
        };
        for cell in &copy.cells {
            if let Some(holders) = self.holders.get_mut(*cell) {
                *holders += 1;
            }
        }
        if let Some(target) = self.sequences.get_mut(usize::from(to.0)) {
            *target = copy;
        }
    }

    /// Gives `to`, which is empty, cells of its own with the first `length` tokens of `from`.
    pub(crate) fn copy(&mut self, from: SequenceId, to: SequenceId, length: usize) {
        for token in self.read(from).0.iter().take(length).copied().collect::<Vec<_>>() {
            self.push(to, token);
        }
    }

    pub(crate) fn truncate(&mut self, sequence: SequenceId, length: usize) {
        let Some(held) = self.sequences.get_mut(usize::from(sequence.0)) else { return };
        held.tokens.truncate(length);
        held.states.truncate(length);
        for cell in held.cells.drain(length.min(held.cells.len())..) {
            if let Some(holders) = self.holders.get_mut(cell) {
                *holders -= 1;
                if *holders == 0 {
                    self.free.push(cell);
                }
            }
        }
    }
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the output.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
