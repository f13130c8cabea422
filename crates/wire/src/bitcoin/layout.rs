//! Where the fields of a transaction lie that is whole in memory. Serialization with witnesses: BIP 144.

use bitcoin_hashes::{HashEngine as _, sha256d as engine};

use super::decode_compact_size;
use crate::{Txid, sha256d};

/// Where a whole transaction lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) start: usize,
    /// Where the count of inputs is: after the version, and after the marker and flag of a transaction with witnesses.
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Where the outputs end: at the witnesses or the lock time.
    pub(super) outputs_end: usize,
    pub(super) end: usize,
}

impl Layout {
    /// Whether the transaction is serialized with witnesses.
    pub(super) fn has_witnesses(&self) -> bool {
        self.inputs > self.start + 4
    }

    /// The transaction's id; `bytes` are those that it was found in.
    pub(super) fn txid(&self, bytes: &[u8]) -> Txid {
        if !self.has_witnesses() {
            return Txid::from_bytes(sha256d(&bytes[self.start..self.end]));
        }
        let mut engine = engine::HashEngine::new();
        engine.input(&bytes[self.start..self.start + 4]);
        engine.input(&bytes[self.inputs..self.outputs_end]);
        engine.input(&bytes[self.end - 4..self.end]);
        Txid::from_bytes(engine::Hash::from_engine(engine).to_byte_array())
    }

    /// Finds the end of the transaction at `start`; `None` if it is not all there or does not parse.
    #[inline]
    pub(super) fn find(bytes: &[u8], start: usize, witnesses: bool, most: usize) -> Option<Self> {
        let mut inputs_at = start + 4;
        let (mut inputs, mut at) = length(bytes, inputs_at)?;
        if inputs == 0 && witnesses {
            match *bytes.get(at)? {
                1 => {
                    inputs_at = at + 1;
                    (inputs, at) = length(bytes, inputs_at)?;
                }
                // No flag but the count of outputs, of which there are none either: nodes take that.
                0 => {}
                _ => return None,
            }
        }
        if inputs > most {
            return None;
        }
        for _ in 0..inputs {
            let (script, after) = length(bytes, at + 36)?;
            at = after.checked_add(script)? + 4;
        }
        let outputs_at = at;
        let (outputs, mut at) = length(bytes, at)?;
        if outputs > most {
            return None;
        }
        for _ in 0..outputs {
            let (script, after) = length(bytes, at + 8)?;
            at = after.checked_add(script)?;
        }
        let outputs_end = at;
        if inputs_at > start + 4 {
            let mut any = 0;
            for _ in 0..inputs {
                let (items, after) = length(bytes, at)?;
                (at, any) = (after, any | items);
                for _ in 0..items {
                    let (item, after) = length(bytes, at)?;
                    at = after.checked_add(item)?;
                }
            }
            if any == 0 {
                return None; // superfluous
            }
        }
        // A sum near the end of the address space is past the end of the bytes too.
        let end = at.checked_add(4).filter(|&end| end <= bytes.len())?;
        Some(Self { start, inputs: inputs_at, outputs: outputs_at, outputs_end, end })
    }
}

/// The CompactSize at `at`, and where it ends.
#[inline(always)]
pub(super) fn length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *bytes.get(at)?;
    if first < 0xfd { Some((usize::from(first), at + 1)) } else { long_length(bytes, at) }
}

#[cold]
fn long_length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (value, len) = decode_compact_size(bytes.get(at..)?)?;
    // Beyond half the address space nothing can lie; below it, the small sums above cannot overflow.
    usize::try_from(value).ok().filter(|&value| value <= usize::MAX / 2).map(|value| (value, at + len))
}
