//! The transactions of blocks that are in parts.

use bytes::{Bytes, BytesMut};

use super::Transaction;
use crate::BlockPart;

/// The transactions that start in these parts, which follow each other, each with its offset in the block, in bytes: of a whole
/// block all of them. One that is larger than a part is copied together; others share the parts' bytes. One that goes on after
/// the last of these parts is left out, as is whatever does not parse, which parts that came from a reader never have.
///
/// ```
/// # use tipward_wire::{BlockEvent, DownloadId, bitcoin::{BlockOptions, BlockReader, Network, transactions}, bytes::BytesMut};
/// # let network = Network::BTC;
/// # let mut input = BytesMut::from(&network.genesis_block()[..]);
/// let mut reader = BlockReader::new(DownloadId(0), input.len() as u64, BlockOptions::new(network));
/// let mut parts = Vec::new();
/// while let Some(BlockEvent::Part(part)) = reader.decode(&mut input)? {
///     parts.push(part);
/// }
/// for (offset, transaction) in transactions(&parts) {
///     println!("{} at byte {offset}", transaction.txid());
/// }
/// # assert_eq!(transactions(&parts).count(), 1);
/// # Ok::<(), tipward_wire::BlockAborted>(())
/// ```
pub fn transactions(parts: &[BlockPart]) -> impl Iterator<Item = (u64, Transaction)> {
    parts.iter().enumerate().flat_map(move |(index, part)| {
        part.transactions.iter().filter_map(move |&start| {
            let transaction =
                Transaction::in_part(part, start).or_else(|| join(&parts[index..], start as usize))?;
            Some((part.offset + u64::from(start), transaction))
        })
    })
}

/// The transaction that starts in the first of these parts and goes on into the next ones, up to where another begins.
fn join(parts: &[BlockPart], start: usize) -> Option<Transaction> {
    let (first, rest) = parts.split_first()?;
    let mut bytes = BytesMut::from(first.bytes.get(start..)?);
    for part in rest {
        let end = part.transactions.first().map_or(part.bytes.len(), |&next| next as usize);
        bytes.extend_from_slice(&part.bytes[..end]);
        if !part.transactions.is_empty() {
            break;
        }
    }
    Transaction::split_from(&mut Bytes::from(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BlockEvent, DownloadId,
        bitcoin::{Block, BlockOptions, BlockReader, Network, reader::MIN_PART_SIZE},
        testdata,
    };

    fn parts(block: &Block, part_size: usize) -> Vec<BlockPart> {
        let options = BlockOptions { part_size, ..BlockOptions::new(Network::BTC) };
        let mut reader = BlockReader::new(DownloadId(0), block.as_bytes().len() as u64, options);
        let (mut input, mut parts) = (BytesMut::from(&block.as_bytes()[..]), Vec::new());
        while let Some(event) = reader.decode(&mut input).unwrap() {
            if let BlockEvent::Part(part) = event {
                parts.push(part);
            }
        }
        parts
    }

    #[test]
    fn a_real_block_has_the_same_transactions_whatever_its_parts() {
        let Some(blocks) = testdata::blocks("btc-mainnet-block-413567.blk") else { return };
        let block = &blocks[0];
        let expected: Vec<_> = block.offsets().iter().copied().zip(block.transactions()).collect();
        for size in [MIN_PART_SIZE, 10_000, 1 << 20] {
            let parts = parts(block, size);
            assert!(transactions(&parts).eq(expected.iter().cloned()), "in parts of {size} bytes");
        }
    }

    #[test]
    fn a_transaction_without_its_end_or_its_start_is_left_out() {
        let Some(blocks) = testdata::blocks("btc-mainnet-block-413567.blk") else { return };
        let parts = parts(&blocks[0], MIN_PART_SIZE);
        let cut = parts.iter().position(|part| part.ends_inside_transaction).unwrap();
        let starting = |parts: &[BlockPart]| parts.iter().map(|part| part.transactions.len()).sum::<usize>();
        let (before, after) = parts.split_at(cut + 1);
        assert_eq!(transactions(before).count(), starting(before) - 1);
        assert_eq!(transactions(after).count(), starting(after));
    }
}
