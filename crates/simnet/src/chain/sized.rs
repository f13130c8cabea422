//! Blocks of given sizes: many small ones fast, and large ones in little memory.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use tipward_wire::{
    Txid,
    bitcoin::{BlockHeader, Chain, encode_compact_size},
    sha256d,
};

use super::{
    SimBlock, SimChain,
    block::Filler,
    generate::{FIRST_SUBSIDY, HALVING},
};
use crate::transaction::{Draft, anyone, data};

/// Blocks up to this size have a coinbase and nothing else, in bytes.
const COINBASE_ONLY: u64 = 4096;
/// The size of a transaction in a filler, in bytes.
const FILLER_TRANSACTION: usize = 512;
/// How many transactions a filler has before it begins anew. The number is odd, or two neighbours in the merkle tree could be
/// equal, which is taken for a forgery (CVE-2012-2459).
const FILLER_TRANSACTIONS: usize = 2047;
/// How many bytes a byte of an output costs beside itself, and how many more may go to the coinbase's input.
const OUTPUT: u64 = 9;

impl SimChain {
    /// Adds so many blocks, each of a size in bytes drawn from `sizes`. Below 4 KiB a block is its coinbase; a larger one has a
    /// filler beside it: 1 MiB of transactions, the same for all these blocks and repeated as often as needed, so that
    /// blocks of any size take no memory. Merkle roots are right; that the filler spends the same again and again, only who
    /// validates transactions would see. Sizes too small for a coinbase, 200 bytes at most, are raised to what it needs.
    pub fn extend_sized(&mut self, blocks: u32, sizes: RangeInclusive<u64>, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed ^ self.height());
        let mut filler = None;
        for _ in 0..blocks {
            let (size, seed) = (random.u64(sizes.clone()), random.u64(..));
            if size <= COINBASE_ONLY {
                self.mine_small(size, seed);
            } else {
                let filler = filler.get_or_insert_with(|| Transactions::generate(seed));
                self.mine_large(size, seed, filler);
            }
        }
    }

    fn mine_small(&mut self, size: u64, seed: u64) {
        let (draft, value) = self.draft(seed);
        let coinbase = pad(draft, size.saturating_sub(BlockHeader::SIZE as u64 + 1)).serialize(false);
        let txid = sha256d(&coinbase);
        let header = self.header(self.version, txid);
        let raw = start(&header, 1, &coinbase);
        self.push(SimBlock::whole(header, raw), Some((Txid::from_bytes(txid), value)));
    }

    fn mine_large(&mut self, size: u64, seed: u64, filler: &mut Transactions) {
        let (draft, value) = self.draft(seed);
        // The longest count there can be, and the coinbase as it is.
        let least = BlockHeader::SIZE as u64 + 9 + draft.serialize(false).len() as u64 + OUTPUT;
        let count = (size - least) / FILLER_TRANSACTION as u64;
        let length = count * FILLER_TRANSACTION as u64;
        let mut declared = BytesMut::new();
        encode_compact_size(count + 1, &mut declared);
        let rest = size - BlockHeader::SIZE as u64 - declared.len() as u64 - length;
        let coinbase = pad(draft, rest).serialize(false);
        let txid = sha256d(&coinbase);
        let header = self.header(self.version, filler.merkle_root(txid, count));
        let raw = start(&header, count + 1, &coinbase);
        let filler = Filler { unit: filler.bytes.clone(), length };
        self.push(SimBlock::filled(header, raw, filler), Some((Txid::from_bytes(txid), value)));
    }

    /// The coinbase of the next block, and what it pays.
    fn draft(&self, seed: u64) -> (Draft, u64) {
        let height = self.blocks.len() as u32;
        let subsidy = FIRST_SUBSIDY.checked_shr(height / HALVING).unwrap_or(0);
        let mut coinbase = Draft::coinbase(height, seed, false);
        coinbase.outputs.push((subsidy, anyone(self.network.chain == Chain::Btc)));
        (coinbase, subsidy)
    }
}

/// Brings a coinbase to a size, if it is not larger: by an output that carries nothing, and bytes in its input.
fn pad(mut coinbase: Draft, size: u64) -> Draft {
    let missing = size.saturating_sub(coinbase.serialize(false).len() as u64);
    let script = |length: u64| match length {
        0..0xfd => length + OUTPUT,
        0xfd..=0xffff => length + OUTPUT + 2,
        _ => length + OUTPUT + 4,
    };
    if missing >= OUTPUT {
        let mut length = missing - OUTPUT;
        while script(length) > missing {
            length -= 1;
        }
        let mut unspendable = vec![0; usize::try_from(length).unwrap_or(0)];
        unspendable.iter_mut().take(1).for_each(|op| *op = 0x6a);
        coinbase.outputs.push((0, unspendable));
    }
    let rest = size.saturating_sub(coinbase.serialize(false).len() as u64);
    coinbase.script_sig.resize(coinbase.script_sig.len() + usize::try_from(rest).unwrap_or(0), 0);
    coinbase
}

fn start(header: &BlockHeader, transactions: u64, coinbase: &[u8]) -> Bytes {
    let mut raw = BytesMut::with_capacity(BlockHeader::SIZE + 9 + coinbase.len());
    raw.put_slice(&header.to_bytes());
    encode_compact_size(transactions, &mut raw);
    raw.put_slice(coinbase);
    raw.freeze()
}

/// The transactions of a filler.
struct Transactions {
    bytes: Bytes,
    txids: Vec<[u8; 32]>,
    /// What the coinbase is hashed with on its way to the merkle root, if so many transactions follow it.
    branch: (u64, Vec<[u8; 32]>),
}

impl Transactions {
    fn generate(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut bytes, mut txids) = (BytesMut::new(), Vec::new());
        for _ in 0..FILLER_TRANSACTIONS {
            let (mut spent, mut content) = ([0; 32], vec![0; FILLER_TRANSACTION]);
            random.fill(&mut spent);
            random.fill(&mut content);
            let mut draft = Draft::spend((Txid::from_bytes(spent), 0), false);
            draft.outputs.push((0, data(&content)));
            let excess = draft.serialize(false).len() - FILLER_TRANSACTION;
            draft.outputs[0].1 = data(&content[excess..]);
            let transaction = draft.serialize(false);
            txids.push(sha256d(&transaction));
            bytes.put_slice(&transaction);
        }
        Self { bytes: bytes.freeze(), txids, branch: (0, Vec::new()) }
    }

    /// The root over a coinbase and so many of these transactions.
    fn merkle_root(&mut self, coinbase: [u8; 32], count: u64) -> [u8; 32] {
        if self.branch.0 != count {
            self.branch = (count, self.branch(count));
        }
        self.branch.1.iter().fold(coinbase, |hash, sibling| pair(&hash, sibling))
    }

    fn branch(&self, count: u64) -> Vec<[u8; 32]> {
        let cycle = self.txids.iter().cycle().take(usize::try_from(count).unwrap_or(usize::MAX));
        // What the coinbase's side comes to is of no interest here.
        let mut level: Vec<[u8; 32]> = std::iter::once(&[0; 32]).chain(cycle).copied().collect();
        let mut branch = Vec::new();
        while let Some(sibling) = level.get(1) {
            branch.push(*sibling);
            let last = level.last().copied();
            if level.len() % 2 == 1 {
                level.extend(last);
            }
            level = level.as_chunks::<2>().0.iter().map(|[left, right]| pair(left, right)).collect();
        }
        branch
    }
}

fn pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    sha256d(&both)
}

#[cfg(test)]
mod tests {
    use tipward_wire::{
        BlockEvent, DownloadId,
        bitcoin::{Block, BlockOptions, BlockReader, Network},
    };

    use super::*;

    /// Reads a block as a client does, with all checks; how many transactions it has.
    fn read(block: &SimBlock) -> u64 {
        let mut options = BlockOptions::new(Network::BSV_REGTEST);
        options.part_size = 1 << 20;
        let mut reader = BlockReader::new(DownloadId(1), block.size(), options);
        let (mut input, mut size) = (BytesMut::new(), 0);
        for piece in block.pieces() {
            input.put_slice(&piece);
            while let Some(event) = reader.decode(&mut input).unwrap() {
                match event {
                    BlockEvent::Part(part) => size += part.bytes.len() as u64,
                    BlockEvent::End(end) => {
                        assert_eq!((end.block, end.size, size), (block.hash, block.size(), block.size()));
                        return end.transactions;
                    }
                }
            }
        }
        panic!("no end");
    }

    #[test]
    fn blocks_have_the_size_asked_for_and_pass_every_check() {
        for network in [Network::BTC_REGTEST, Network::BSV_REGTEST] {
            let mut chain = SimChain::genesis(network);
            let sizes = (210..700).chain(4000..4200).chain([65_536, 100_000, 1 << 20, 3_999_999]);
            for size in sizes {
                chain.extend_sized(1, size..=size, size);
                assert_eq!((chain.tip().size(), read(chain.tip()) > 1), (size, size > 4096), "{size}");
                assert_eq!(chain.tip().size(), chain.tip().bytes().len() as u64);
            }
            Block::new(chain.tip().bytes()).unwrap().check_merkle_root().unwrap();
            assert!(chain.blocks().windows(2).all(|pair| pair[1].header.parent == pair[0].hash));
            let least = chain.height();
            chain.extend_sized(1, 0..=0, 1);
            assert!(read(chain.tip()) == 1 && chain.tip().size() <= 200 && chain.height() == least + 1);
        }
    }

    #[test]
    fn a_large_block_needs_no_memory_and_has_its_root() {
        let mut chain = SimChain::genesis(Network::BSV_REGTEST);
        chain.extend_sized(64, 32 << 20..=32 << 20, 1);
        chain.extend_sized(1, 310 << 20..=310 << 20, 2);
        let kept: usize = chain.blocks().iter().map(|block| block.raw.len()).sum();
        assert!(kept < 65 * 2048, "{kept} bytes beside the fillers");
        assert_eq!(chain.tip().size(), 310 << 20);
        assert_eq!(read(chain.tip()), 634_880);
        assert_eq!(read(&chain.blocks()[64]), 65_536);
    }

    #[test]
    fn sized_blocks_follow_from_their_seed_and_their_place() {
        let chain = |seed| {
            let mut chain = SimChain::genesis(Network::BSV_REGTEST);
            chain.extend_sized(50, 250..=1000, seed);
            chain.extend_sized(2, 5000..=50_000, seed);
            chain
        };
        assert_eq!(chain(1).blocks(), chain(1).blocks());
        assert_ne!(chain(1).tip().hash, chain(2).tip().hash);
        let sizes: Vec<u64> = chain(1).blocks()[1..51].iter().map(SimBlock::size).collect();
        assert!(sizes.iter().all(|size| (250..=1000).contains(size)));
        assert!(sizes.iter().max() > sizes.iter().min());
    }
}
