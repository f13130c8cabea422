//! A transaction as a view over its bytes: nothing is copied, every field knows where it stands.
//! Serialization with witnesses and wtxid: BIP 144, BIP 141.

use std::{fmt, ops::Range};

use bytes::Bytes;

use super::{
    ScanError, Script,
    layout::{Layout, length},
    scanner::{Scanner, Visitor},
};
use crate::{Txid, Wtxid, sha256d};

/// A transaction over the bytes that it came in.
///
/// The bytes were walked once, so that every length in them is known to lie inside; whether the transaction is valid is not
/// known. A clone shares the bytes. So does whatever they were cut from: a transaction kept for long should be made from a
/// copy of its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Transaction {
    bytes: Bytes,
    layout: Layout,
}

impl Transaction {
    /// A view over `bytes`, which are one transaction, with witnesses or without.
    ///
    /// # Errors
    /// The bytes are no transaction, or more.
    pub fn new(mut bytes: Bytes) -> Result<Self, ScanError> {
        let transaction = Self::split_from(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(transaction);
        }
        let offset = transaction.bytes.len() as u64;
        Err(ScanError { offset, problem: "bytes follow the transaction" })
    }

    /// Takes the transaction at the front of `bytes`, which are left as they were if there is none.
    ///
    /// # Errors
    /// The bytes do not start with a whole transaction.
    pub fn split_from(bytes: &mut Bytes) -> Result<Self, ScanError> {
        Self::split(bytes, true).ok_or_else(|| problem(bytes))
    }

    pub(super) fn split(bytes: &mut Bytes, witnesses: bool) -> Option<Self> {
        let layout = Layout::find(bytes, 0, witnesses, usize::MAX)?;
        Some(Self { bytes: bytes.split_to(layout.end), layout })
    }

    /// The transaction that starts at the byte `start` of a part of a block; `None` if it is not whole in there: the part
    /// then [ends inside it](crate::BlockPart::ends_inside_transaction).
    #[must_use]
    pub fn in_part(part: &crate::BlockPart, start: u32) -> Option<Self> {
        let bytes = part.bytes.get(start as usize..)?;
        Self::split_from(&mut part.bytes.slice_ref(bytes)).ok()
    }

    /// The transaction as it travels.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The version; negative ones are legal.
    #[must_use]
    pub fn version(&self) -> i32 {
        i32::from_le_bytes(four(&self.bytes))
    }

    /// The lock time: below 500,000,000 a height, else a time in seconds since 1970 (UTC).
    #[must_use]
    pub fn lock_time(&self) -> u32 {
        u32::from_le_bytes(four(&self.bytes[self.layout.end - 4..]))
    }

    /// Whether it is serialized with witnesses.
    #[must_use]
    pub fn has_witnesses(&self) -> bool {
        self.layout.has_witnesses()
    }

    /// Whether it is a coinbase: one input that spends nothing.
    #[must_use]
    pub fn is_coinbase(&self) -> bool {
        let mut inputs = self.inputs();
        inputs.next().is_some_and(|input| input.outpoint().is_null()) && inputs.next().is_none()
    }

    /// The height that a coinbase tells at the start of its script (BIP 34), as blocks must from version 2 on. Those before
    /// may tell anything. `None` if there is none, or one of at most 16.
    #[must_use]
    pub fn coinbase_height(&self) -> Option<u64> {
        let input = self.inputs().next()?;
        let (&length, rest) = input.script().as_bytes().split_first()?;
        let number = rest.get(..usize::from(length)).filter(|number| (1..=8).contains(&number.len()))?;
        let mut bytes = [0; 8];
        bytes[..number.len()].copy_from_slice(number);
        Some(u64::from_le_bytes(bytes))
    }

    /// The inputs.
    #[must_use]
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs(Walk::new(&self.bytes, self.layout.inputs))
    }

    /// The outputs.
    #[must_use]
    pub fn outputs(&self) -> Outputs<'_> {
        Outputs(Walk::new(&self.bytes, self.layout.outputs))
    }

    /// The witnesses, one an input; none if the transaction is serialized without.
    pub fn witnesses(&self) -> impl Iterator<Item = Witness<'_>> {
        let mut at = self.layout.outputs_end;
        let stacks = if self.has_witnesses() { self.inputs().0.left } else { 0 };
        (0..stacks).map_while(move |_| {
            let mut walk = Walk::new(&self.bytes, at);
            let witness = Witness(walk);
            while walk.item().is_some() {}
            at = walk.at;
            Some(witness)
        })
    }

    /// The id: SHA-256d of the transaction without witnesses.
    #[must_use]
    pub fn txid(&self) -> Txid {
        self.layout.txid(&self.bytes)
    }

    /// The id with witnesses: SHA-256d of the transaction as it is serialized (BIP 141). A coinbase's counts as zero in the
    /// witness commitment; this is its hash all the same.
    #[must_use]
    pub fn wtxid(&self) -> Wtxid {
        Wtxid::from_bytes(sha256d(&self.bytes))
    }

    /// The size without witnesses, in bytes.
    #[must_use]
    pub fn stripped_size(&self) -> usize {
        4 + (self.layout.outputs_end - self.layout.inputs) + 4
    }

    /// The weight: four for each byte, but one for those of witnesses (BIP 141).
    #[must_use]
    pub fn weight(&self) -> usize {
        3 * self.stripped_size() + self.bytes.len()
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({}, {} bytes)", self.txid(), self.bytes.len())
    }
}

/// Why there is no transaction at the front of `bytes`: the scanner tells the place.
fn problem(bytes: &[u8]) -> ScanError {
    struct Ignore;
    impl Visitor for Ignore {
        fn start(&mut self, _at: usize) {}
    }
    let (offset, problem) = match Scanner::new(true, 1).push(bytes, bytes.len() as u64, &mut Ignore) {
        Err((at, problem)) => (at, problem),
        Ok(_) => (bytes.len(), "the bytes end inside the transaction"),
    };
    ScanError { offset: offset as u64, problem }
}

/// What an input spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// The transaction.
    pub txid: Txid,
    /// Its output, from 0.
    pub index: u32,
}

impl OutPoint {
    /// Whether it is the one of a coinbase, which spends nothing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.txid == Txid::ZERO && self.index == u32::MAX
    }
}

/// An input over the bytes of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// Where the input starts in its transaction, in bytes.
    pub offset: usize,
    /// Where its script starts in the transaction, in bytes.
    pub script_offset: usize,
    outpoint: &'a [u8],
    script: &'a [u8],
    sequence: u32,
}

impl<'a> Input<'a> {
    /// What it spends.
    #[must_use]
    pub fn outpoint(&self) -> OutPoint {
        let mut txid = [0; 32];
        txid.copy_from_slice(&self.outpoint[..32]);
        OutPoint { txid: Txid::from_bytes(txid), index: u32::from_le_bytes(four(&self.outpoint[32..])) }
    }

    /// The 36 bytes of the outpoint as they travel.
    #[must_use]
    pub fn outpoint_bytes(&self) -> &'a [u8] {
        self.outpoint
    }

    /// The script that unlocks it.
    #[must_use]
    pub fn script(&self) -> Script<'a> {
        Script(self.script)
    }

    /// The sequence number (BIP 68).
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }
}

/// An output over the bytes of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output<'a> {
    /// Where the output starts in its transaction, in bytes.
    pub offset: usize,
    /// Where its script starts in the transaction, in bytes.
    pub script_offset: usize,
    value: u64,
    script: &'a [u8],
}

impl<'a> Output<'a> {
    /// The value in satoshi, as it stands there; no node accepts more than 21 million coins.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The script that locks it.
    #[must_use]
    pub fn script(&self) -> Script<'a> {
        Script(self.script)
    }
}

/// The witness of one input.
#[derive(Clone, Copy)]
pub struct Witness<'a>(Walk<'a>);

impl<'a> Witness<'a> {
    /// Its items, lowest of the stack first.
    pub fn items(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut walk = self.0;
        std::iter::from_fn(move || walk.item())
    }
}

impl fmt::Debug for Witness<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.items()).finish()
    }
}

/// A counted list in the bytes of a transaction.
#[derive(Debug, Clone, Copy)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        let (left, at) = length(bytes, at).unwrap_or((0, at));
        Self { bytes, at, left }
    }

    /// The next entry: `before` bytes, then bytes with their length, whose place is returned, then `after` bytes. All of it
    /// lies inside.
    fn entry(&mut self, before: usize, after: usize) -> Option<Range<usize>> {
        self.left = self.left.checked_sub(1)?;
        let (length, start) = length(self.bytes, self.at + before)?;
        let end = start.checked_add(length)?;
        self.at = end.checked_add(after).filter(|&at| at <= self.bytes.len())?;
        Some(start..end)
    }

    fn item(&mut self) -> Option<&'a [u8]> {
        self.entry(0, 0).map(|item| &self.bytes[item])
    }
}

/// The inputs of a transaction.
#[derive(Debug, Clone)]
pub struct Inputs<'a>(Walk<'a>);

impl<'a> Iterator for Inputs<'a> {
    type Item = Input<'a>;

    fn next(&mut self) -> Option<Input<'a>> {
        let offset = self.0.at;
        let script = self.0.entry(36, 4)?;
        let bytes = self.0.bytes;
        Some(Input {
            offset,
            script_offset: script.start,
            outpoint: &bytes[offset..offset + 36],
            sequence: u32::from_le_bytes(four(&bytes[script.end..])),
            script: &bytes[script],
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.left, Some(self.0.left))
    }
}

impl ExactSizeIterator for Inputs<'_> {}

/// The outputs of a transaction.
#[derive(Debug, Clone)]
pub struct Outputs<'a>(Walk<'a>);

impl<'a> Iterator for Outputs<'a> {
    type Item = Output<'a>;

    fn next(&mut self) -> Option<Output<'a>> {
        let offset = self.0.at;
        let script = self.0.entry(8, 0)?;
        let bytes = self.0.bytes;
        let value = bytes[offset..].first_chunk().copied().unwrap_or_default();
        Some(Output {
            offset,
            script_offset: script.start,
            value: u64::from_le_bytes(value),
            script: &bytes[script],
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.left, Some(self.0.left))
    }
}

impl ExactSizeIterator for Outputs<'_> {}

/// The first four bytes; the layout guarantees that they are there.
fn four(bytes: &[u8]) -> [u8; 4] {
    bytes.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
