//! From the bytes of transactions to what the index takes of them. Pure work on bytes, so worker threads do it.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use tipward_chain::wire::{
    Sha256d, Txid,
    bitcoin::{Chain, OutPoint, Script, Transaction},
    bytes::Bytes,
};

use crate::keys::ScriptKey;

/// What a large transaction's inputs and outputs are handed on in.
const CHUNK: usize = 10_000;
/// How much of a large transaction is read at once, in bytes.
const READ: usize = 64 << 10;
/// Nodes of BTC take a longer script for one that nobody can satisfy (`MAX_SCRIPT_SIZE`), in bytes.
const MAX_SCRIPT: u64 = 10_000;

/// What the index takes of some transactions that follow each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The transactions.
    pub transactions: Vec<ParsedTransaction>,
    /// Their inputs, in order.
    pub inputs: Vec<OutPoint>,
    /// Their outputs, in order.
    pub outputs: Vec<ParsedOutput>,
}

/// A transaction, or some of it.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedTransaction {
    /// Its id, where it starts in its block and its size; `None` if more of the transaction follows.
    pub whole: Option<(Txid, u64, u64)>,
    /// How many of the inputs are its own.
    pub inputs: usize,
    /// How many of the outputs are its own.
    pub outputs: usize,
}

/// An output.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedOutput {
    /// Its script.
    pub script: ScriptKey,
    /// Its value in satoshi.
    pub value: u64,
    /// Nodes would not keep it: its script fails whatever it is given.
    pub is_unspendable: bool,
}

/// By how it begins, and its length.
fn is_unspendable(chain: Chain, start: &[u8], length: u64) -> bool {
    match chain {
        Chain::Btc => Script(start).is_op_return() || length > MAX_SCRIPT,
        // A bare OP_RETURN could be spent there, once; scripts may be of any length.
        Chain::Bsv => Script(start).is_false_return(),
    }
}

/// Takes whole transactions apart: those that lie back to back in `bytes`, which start at `offset` in their block.
///
/// # Errors
/// The bytes are no transactions.
pub fn parse(chain: Chain, mut bytes: Bytes, mut offset: u64) -> io::Result<Parsed> {
    let mut parsed = Parsed::default();
    while !bytes.is_empty() {
        let transaction = Transaction::split_from(&mut bytes).map_err(io::Error::other)?;
        let size = transaction.as_bytes().len() as u64;
        parsed.transactions.push(ParsedTransaction {
            whole: Some((transaction.txid(), offset, size)),
            inputs: transaction.inputs().len(),
            outputs: transaction.outputs().len(),
        });
        parsed.inputs.extend(transaction.inputs().map(|input| input.outpoint()));
        parsed.outputs.extend(transaction.outputs().map(|output| {
            let script = output.script().as_bytes();
            ParsedOutput {
                script: ScriptKey::of(script),
                value: output.value(),
                is_unspendable: is_unspendable(chain, script, script.len() as u64),
            }
        }));
        offset += size;
    }
    Ok(parsed)
}

/// Takes one transaction apart that is too large to be held, as its bytes come; it starts at `offset` in its block.
///
/// # Errors
/// The bytes are no transaction, can't be read, or `give` has no taker any more.
pub fn parse_large(
    chain: Chain,
    source: impl Read,
    offset: u64,
    mut give: impl FnMut(Parsed) -> io::Result<()>,
) -> io::Result<()> {
    let mut large = Large { source, hash: Sha256d::new(), size: 0, buffer: vec![0; READ] };
    let mut parsed = Parsed::default();
    large.copy(4)?;
    let mut count = large.hold()?;
    let has_witnesses = count == 0;
    if has_witnesses {
        // The marker was that count; the flag follows. Neither is part of the id.
        large.array::<1>()?;
        count = large.hold()?;
    }
    large.hash_count(count);
    let inputs = count;
    for _ in 0..inputs {
        let outpoint: [u8; 36] = large.hashed()?;
        let (txid, index) = outpoint.split_first_chunk().expect("36 bytes are more than 32");
        let index = index.first_chunk().copied().expect("4 bytes are left");
        parsed.inputs.push(OutPoint { txid: Txid::from_bytes(*txid), index: u32::from_le_bytes(index) });
        let script = large.count()?;
        large.copy(script + 4)?;
        give_full(&mut parsed, &mut give)?;
    }
    for _ in 0..large.count()? {
        let value = u64::from_le_bytes(large.hashed()?);
        let length = large.count()?;
        let (script, start) = large.script(length)?;
        let is_unspendable = is_unspendable(chain, &start, length);
        parsed.outputs.push(ParsedOutput { script, value, is_unspendable });
        give_full(&mut parsed, &mut give)?;
    }
    for _ in 0..if has_witnesses { inputs } else { 0 } {
        for _ in 0..large.hold()? {
            let length = large.hold()?;
            large.pass(length, |_, _| {})?;
        }
    }
    large.copy(4)?;
    let txid = Txid::from_bytes(large.hash.finish());
    hand_over(&mut parsed, Some((txid, offset, large.size)), &mut give)
}

fn give_full(parsed: &mut Parsed, give: &mut impl FnMut(Parsed) -> io::Result<()>) -> io::Result<()> {
    if parsed.inputs.len() + parsed.outputs.len() < CHUNK {
        return Ok(());
    }
    hand_over(parsed, None, give)
}

fn hand_over(
    parsed: &mut Parsed,
    whole: Option<(Txid, u64, u64)>,
    give: &mut impl FnMut(Parsed) -> io::Result<()>,
) -> io::Result<()> {
    let mut parsed = std::mem::take(parsed);
    let (inputs, outputs) = (parsed.inputs.len(), parsed.outputs.len());
    parsed.transactions.push(ParsedTransaction { whole, inputs, outputs });
    give(parsed)
}

/// A transaction that passes.
struct Large<R> {
    source: R,
    /// Over what its id is made of.
    hash: Sha256d,
    size: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Large<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.size += N as u64;
        Ok(bytes)
    }

    fn hashed<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.array()?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    /// Reads a CompactSize that is no part of the id.
    fn hold(&mut self) -> io::Result<u64> {
        Ok(match self.array()? {
            [0xfd] => u64::from(u16::from_le_bytes(self.array()?)),
            [0xfe] => u64::from(u32::from_le_bytes(self.array()?)),
            [0xff] => u64::from_le_bytes(self.array()?),
            [short] => u64::from(short),
        })
    }

    /// Reads one that is.
    fn count(&mut self) -> io::Result<u64> {
        let count = self.hold()?;
        self.hash_count(count);
        Ok(count)
    }

    fn hash_count(&mut self, count: u64) {
        let mut bytes = tipward_chain::wire::bytes::BytesMut::new();
        tipward_chain::wire::bitcoin::encode_compact_size(count, &mut bytes);
        self.hash.update(&bytes);
    }

    fn copy(&mut self, length: u64) -> io::Result<()> {
        self.pass(length, Sha256d::update)
    }

    fn script(&mut self, length: u64) -> io::Result<(ScriptKey, Vec<u8>)> {
        let (mut script, mut start) = (Sha256::new(), Vec::new());
        self.pass(length, |hash, bytes| {
            hash.update(bytes);
            script.update(bytes);
            if start.is_empty() {
                start.extend(bytes.iter().take(2));
            }
        })?;
        Ok((ScriptKey::of_hash(&script.finalize().into()), start))
    }

    /// Shows so many bytes, in pieces of which only the last is shorter than the buffer.
    fn pass(&mut self, mut length: u64, mut show: impl FnMut(&mut Sha256d, &[u8])) -> io::Result<()> {
        while length > 0 {
            let most = usize::try_from(length).map_or(READ, |length| length.min(READ));
            self.source.read_exact(&mut self.buffer[..most])?;
            show(&mut self.hash, &self.buffer[..most]);
            (length, self.size) = (length - most as u64, self.size + most as u64);
        }
        Ok(())
    }
}
