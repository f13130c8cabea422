//! The bloom filter by which a client tells a node which transactions it wants to hear of (BIP 37). Sizes and
//! matching are those of Bitcoin Core's `CBloomFilter`.

use std::f64::consts::LN_2;

use self::script::is_pubkey_or_multisig;
use super::{Script, Transaction};
use crate::Txid;

mod script;
#[cfg(test)]
mod tests;

/// The longest filter that nodes accept, in bytes.
pub const MAX_BLOOM_FILTER_SIZE: usize = 36_000;

/// The most hash functions that nodes accept.
pub const MAX_BLOOM_HASH_FUNCTIONS: u32 = 50;

/// As Bitcoin Core has it: the square of `LN_2` is rounded to an other number.
const LN_2_SQUARED: f64 = 0.480_453_013_918_201_44;

/// A bloom filter, with the fields of `filterload`.
///
/// ```
/// use tipward_wire::bitcoin::{BloomFilter, BloomUpdate};
///
/// let mut filter = BloomFilter::new(10, 0.000_001, 0, BloomUpdate::All);
/// filter.insert(b"a public key or its hash");
/// assert!(filter.contains(b"a public key or its hash"));
/// assert!(!filter.contains(b"an other"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BloomFilter {
    /// The bits, from the least significant one of each byte on; at most [`MAX_BLOOM_FILTER_SIZE`] bytes.
    /// Without any byte the filter contains everything, and nothing can be inserted.
    pub data: Vec<u8>,
    /// How many bits an element sets, at most [`MAX_BLOOM_HASH_FUNCTIONS`]. With 0 the filter contains
    /// everything.
    pub hash_functions: u32,
    /// Added to the hash functions' seeds, so that filters of the same elements differ.
    pub tweak: u32,
    /// Which outpoints matching transactions add.
    pub update: BloomUpdate,
}

/// Which outpoints a node adds to the filter when an output matches, so that spending it matches too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BloomUpdate {
    /// None.
    None,
    /// Those of all outputs that match.
    All,
    /// Those of outputs that match and pay to public keys: one, or several by a bare multisig script.
    P2PubkeyOnly,
    /// Kept as it came. Only the two lowest bits have a meaning: 0, 1 and 2 as above, 3 updates nothing.
    Other(u8),
}

impl From<u8> for BloomUpdate {
    fn from(flags: u8) -> Self {
        match flags {
            0 => Self::None,
            1 => Self::All,
            2 => Self::P2PubkeyOnly,
            _ => Self::Other(flags),
        }
    }
}

impl From<BloomUpdate> for u8 {
    fn from(update: BloomUpdate) -> Self {
        match update {
            BloomUpdate::None => 0,
            BloomUpdate::All => 1,
            BloomUpdate::P2PubkeyOnly => 2,
            BloomUpdate::Other(flags) => flags,
        }
    }
}

impl BloomUpdate {
    /// Whether a matching output with this script is added.
    fn adds(self, output_script: Script<'_>) -> bool {
        match u8::from(self) & 3 {
            1 => true,
            2 => is_pubkey_or_multisig(output_script.as_bytes()),
            _ => false,
        }
    }
}

impl BloomFilter {
    /// An empty filter for so many `elements` (0 counts as 1): with all of them inserted, any other matches
    /// with a chance of `false_positive_rate`, between 0 and 1 exclusive.
    ///
    /// The rate comes out higher where the limits don't allow it, and for a rate near or above 1 or a million
    /// elements there are no bytes or no hash functions at all, as in Bitcoin Core: such a filter contains
    /// everything. A rate of 0, below or not a number gives the longest filter.
    #[must_use]
    pub fn new(elements: u32, false_positive_rate: f64, tweak: u32, update: BloomUpdate) -> Self {
        let elements = elements.max(1);
        // `max` prefers the number to a NaN.
        let rate = false_positive_rate.max(f64::MIN_POSITIVE);
        let bits = -1.0 / LN_2_SQUARED * f64::from(elements) * rate.ln();
        // `as` saturates, at 0 for a rate above 1.
        let size = (bits as usize).min(8 * MAX_BLOOM_FILTER_SIZE) / 8;
        let bits_per_element = (8 * size) as u32 / elements;
        let functions = f64::from(bits_per_element) * LN_2;
        let hash_functions = (functions as u32).min(MAX_BLOOM_HASH_FUNCTIONS);
        Self { data: vec![0; size], hash_functions, tweak, update }
    }

    /// Whether nodes accept the filter: neither its bytes nor its hash functions are too many.
    #[must_use]
    pub const fn is_within_limits(&self) -> bool {
        self.data.len() <= MAX_BLOOM_FILTER_SIZE && self.hash_functions <= MAX_BLOOM_HASH_FUNCTIONS
    }

    /// Inserts `element`.
    pub fn insert(&mut self, element: &[u8]) {
        // Not even a remainder can be taken without bytes (CVE-2013-5700).
        if self.data.is_empty() {
            return;
        }
        for function in self.functions() {
            let (byte, mask) = self.bit(function, element);
            self.data[byte] |= mask;
        }
    }

    /// Whether `element` was inserted, or seems so.
    #[must_use]
    pub fn contains(&self, element: &[u8]) -> bool {
        self.data.is_empty()
            || self.functions().all(|function| {
                let (byte, mask) = self.bit(function, element);
                self.data[byte] & mask != 0
            })
    }

    /// Whether a transaction is to be relayed to the filter's owner: the filter contains its txid, data that one of its
    /// output scripts pushes, an outpoint it spends, or data that one of its input scripts pushes. The outpoints of matching
    /// outputs are inserted as [`Self::update`] says. Scripts are read up to the first push that reaches past their end.
    pub fn matches_transaction(&mut self, transaction: &Transaction) -> bool {
        if self.data.is_empty() {
            return true;
        }
        let txid = transaction.txid();
        let mut found = self.contains(txid.as_bytes());
        // All outputs are looked at even after a match, for the sake of the updates.
        for (index, output) in (0..=u32::MAX).zip(transaction.outputs()) {
            if output.script().pushes().any(|data| self.contains(data)) {
                found = true;
                if self.update.adds(output.script()) {
                    self.insert(&outpoint(txid, index));
                }
            }
        }
        found
            || transaction.inputs().any(|input| {
                self.contains(input.outpoint_bytes())
                    || input.script().pushes().any(|data| self.contains(data))
            })
    }

    /// The hash functions, no more than the limit whatever the field says, which may come from a peer.
    fn functions(&self) -> std::ops::Range<u32> {
        0..self.hash_functions.min(MAX_BLOOM_HASH_FUNCTIONS)
    }

    /// The bit that `element` sets by the hash function of this number: its byte's index and its mask. There
    /// must be data.
    fn bit(&self, function: u32, element: &[u8]) -> (usize, u8) {
        let seed = function.wrapping_mul(0xfba4_c795).wrapping_add(self.tweak);
        let bit = u64::from(murmur3(seed, element)) % (8 * self.data.len() as u64);
        ((bit / 8) as usize, 1 << (bit % 8))
    }
}

fn outpoint(txid: Txid, index: u32) -> [u8; 36] {
    let mut outpoint = [0; 36];
    outpoint[..32].copy_from_slice(txid.as_bytes());
    outpoint[32..].copy_from_slice(&index.to_le_bytes());
    outpoint
}

/// MurmurHash3, the variant `x86_32`.
fn murmur3(seed: u32, bytes: &[u8]) -> u32 {
    let scramble = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, tail) = bytes.as_chunks::<4>();
    let mut hash = words.iter().fold(seed, |hash, word| {
        let mixed = (hash ^ scramble(u32::from_le_bytes(*word))).rotate_left(13);
        mixed.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    // Without a tail this is the identity, as zero is scrambled to zero.
    hash ^= scramble(u32::from_le_bytes(last));
    // The algorithm takes the length modulo 2^32.
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
