//! What the network as a whole has: a chain of blocks of one transaction each, and transactions that wait for one.

use std::{collections::BTreeMap, sync::OnceLock};

use bytes::Bytes;
use tipward_peer::wire::{
    BlockHash, Txid,
    bitcoin::{BlockHeader, Locator, Network, Transaction},
};

/// The height of the block that tells this chain from others.
pub(crate) const CHAIN_BLOCK: usize = 12;
/// The height at which a simulation begins.
const START_HEIGHT: usize = 20;

/// The network of all simulations.
pub(crate) fn network() -> &'static Network {
    static NETWORK: OnceLock<&'static Network> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let ledger = Ledger::grown(Network::BTC_REGTEST, 0, CHAIN_BLOCK);
        let chain_block = Some((CHAIN_BLOCK as u64, ledger.tip_hash()));
        Box::leak(Box::new(Network { chain_block, ..*Network::BTC_REGTEST }))
    })
}

/// A transaction that spends nothing known; no two numbers give the same.
pub(crate) fn transaction(number: u64) -> Transaction {
    assemble(&[7; 36], &[], number)
}

fn coinbase(number: u64) -> Transaction {
    assemble(&[[0; 32].as_slice(), &[255; 4]].concat(), &number.to_le_bytes(), 0)
}

/// One input, one output.
fn assemble(spent: &[u8], script: &[u8], value: u64) -> Transaction {
    let input = [&[1, 0, 0, 0, 1], spent, &[script.len() as u8], script, &[255; 4]].concat();
    let output = [&[1], &value.to_le_bytes()[..], &[0, 0, 0, 0, 0]].concat();
    Transaction::new(Bytes::from([input, output].concat())).expect("one input and one output")
}

/// The chain, highest last, and the transactions.
#[derive(Debug)]
pub(crate) struct Ledger {
    genesis: Bytes,
    headers: Vec<BlockHeader>,
    heights: BTreeMap<BlockHash, usize>,
    pub(crate) transactions: BTreeMap<Txid, Transaction>,
}

impl Ledger {
    /// As it is when a simulation begins: the same for all.
    pub(crate) fn new() -> Self {
        Self::grown(network(), 0, START_HEIGHT)
    }

    /// Another chain from the same first block.
    pub(crate) fn foreign() -> Self {
        Self::grown(network(), 1 << 32, START_HEIGHT)
    }

    fn grown(network: &'static Network, salt: u64, height: usize) -> Self {
        let mut ledger = Self {
            genesis: network.genesis_block(),
            headers: vec![network.genesis()],
            heights: BTreeMap::from([(network.genesis_hash(), 0)]),
            transactions: BTreeMap::new(),
        };
        (0..height).for_each(|_| ledger.mine(salt));
        ledger
    }

    /// Adds a block.
    pub(crate) fn mine(&mut self, salt: u64) {
        let coinbase = coinbase(salt + self.headers.len() as u64);
        let before = self.headers[self.height()];
        let header = BlockHeader {
            parent: before.hash(),
            merkle_root: *coinbase.txid().as_bytes(),
            time: before.time + 600,
            ..before
        };
        self.heights.insert(header.hash(), self.headers.len());
        self.transactions.insert(coinbase.txid(), coinbase);
        self.headers.push(header);
    }

    pub(crate) fn height(&self) -> usize {
        self.headers.len() - 1
    }

    pub(crate) fn header(&self, height: usize) -> BlockHeader {
        self.headers[height]
    }

    pub(crate) fn hash(&self, height: usize) -> BlockHash {
        self.headers[height].hash()
    }

    pub(crate) fn tip_hash(&self) -> BlockHash {
        self.hash(self.height())
    }

    /// The block as it travels, if it is not above `tip`.
    pub(crate) fn block(&self, hash: BlockHash, tip: usize) -> Option<Bytes> {
        let height = *self.heights.get(&hash).filter(|height| **height <= tip)?;
        let header = &self.headers[height];
        if height == 0 {
            return Some(self.genesis.clone());
        }
        let coinbase = self.transactions.get(&Txid::from_bytes(header.merkle_root))?;
        Some(Bytes::from([&header.to_bytes()[..], &[1], coinbase.as_bytes()].concat()))
    }

    /// What a node whose tip is at that height says to `getheaders`; nothing if it does not know the block asked for alone.
    pub(crate) fn headers_after(&self, locator: &Locator, tip: usize) -> Option<Vec<BlockHeader>> {
        let known = |hash: &BlockHash| self.heights.get(hash).copied().filter(|height| *height <= tip);
        if locator.hashes.is_empty() {
            return known(&locator.stop).map(|height| vec![self.headers[height]]);
        }
        let fork = locator.hashes.iter().find_map(known).unwrap_or(0);
        Some(self.headers[fork + 1..=tip].to_vec())
    }
}
