//! Compact block filters of BTC (BIP 157, BIP 158), and what a block says about its own.

use std::{
    collections::{BTreeSet, HashSet},
    error::Error,
};

use bytes::Bytes;
use tipward_sync::{
    Block, FilterRules,
    peer::wire::{
        BlockHash, FilterHash, FilterHeader, Verdict,
        bitcoin::{self, BlockFilter, Instruction, Script},
    },
};

/// The basic filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct BasicFilters;

impl FilterRules for BasicFilters {
    fn hash(&self, filter: &Bytes) -> FilterHash {
        BlockFilter::new(filter.clone()).hash()
    }

    fn header(&self, hash: FilterHash, previous: FilterHeader) -> FilterHeader {
        hash.header(previous)
    }

    fn matches(
        &self,
        block: BlockHash,
        filter: &Bytes,
        scripts: &[Bytes],
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        Ok(BlockFilter::new(filter.clone()).match_any(&block, scripts)?)
    }

    /// A block has all its output scripts, and tells the script of an output that it spends only where no other could have been
    /// spent in that way: by a witness program wrapped in P2SH. What a witness alone spends may be of a version that has no rules
    /// yet.
    fn refute(&self, filter: &Bytes, block: &Block) -> Option<String> {
        let filter = BlockFilter::new(filter.clone());
        if let Err(error) = filter.check() {
            return Some(error.to_string());
        }
        let count = filter.element_count().ok()?;
        let Contents { scripts, spent } = Contents::of(&bitcoin::Block::new(block.bytes()).ok()?);
        let most = scripts.len() as u64 + spent;
        if count > most {
            return Some(format!("it has {count} elements, the block gives {most} at most"));
        }
        if !filter.match_all(&block.id.hash, &scripts).ok()? {
            // One that is missing, by halves: a look at each of thousands would read the filter as often.
            let scripts: Vec<_> = scripts.iter().collect();
            let mut missing = &scripts[..];
            while missing.len() > 1 {
                let (left, right) = missing.split_at(missing.len() / 2);
                missing = if filter.match_all(&block.id.hash, left).ok()? { right } else { left };
            }
            let script = missing.first().map(|script| Script(script).to_string());
            return Some(format!("script {} of the block is not in it", script.unwrap_or_default()));
        }
        None
    }
}

/// What a block tells of its filter.
#[derive(Debug, Default)]
struct Contents {
    /// Scripts that are in it.
    scripts: BTreeSet<Vec<u8>>,
    /// How many more there may be: inputs of which only another block tells the script.
    spent: u64,
}

impl Contents {
    fn of(block: &bitcoin::Block) -> Self {
        let mut contents = Self::default();
        // Who sends a block can add a witness to it, unless it commits to those it has.
        let has_its_witnesses = block.check_witness_commitment() == Ok(Verdict::Verified);
        let txids: HashSet<_> = block.transactions().map(|transaction| transaction.txid()).collect();
        for transaction in block.transactions() {
            let scripts = transaction.outputs().map(|output| output.script());
            let in_filter = scripts.filter(|script| !script.is_op_return() && !script.as_bytes().is_empty());
            contents.scripts.extend(in_filter.map(|script| script.as_bytes().to_vec()));
            if transaction.is_coinbase() {
                continue;
            }
            let mut witnesses = transaction.witnesses();
            for input in transaction.inputs() {
                let has_witness = witnesses.next().is_some_and(|witness| witness.items().next().is_some());
                if txids.contains(&input.outpoint().txid) {
                    continue;
                }
                match wrapped_program(input.script()).filter(|_| has_witness && has_its_witnesses) {
                    Some(redeem) => _ = contents.scripts.insert(Script(redeem).to_p2sh().to_vec()),
                    None => contents.spent += 1,
                }
            }
        }
        contents
    }
}

/// The witness program that is all that an input's script pushes. With a witness that spends P2SH and nothing else (BIP 141).
fn wrapped_program(script: Script<'_>) -> Option<&[u8]> {
    let mut instructions = script.instructions();
    let Some(Ok(Instruction { data, .. })) = instructions.next() else { return None };
    let is_version = matches!(data.first(), Some(0 | 0x51..=0x60));
    let is_program = is_version && (4..=42).contains(&data.len()) && usize::from(data[1]) + 2 == data.len();
    (is_program && instructions.next().is_none()).then_some(data)
}

#[cfg(test)]
mod tests;
