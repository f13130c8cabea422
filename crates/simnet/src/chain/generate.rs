//! Blocks made up from a seed, valid by the rules of a regression test network.

use bytes::{BufMut, Bytes, BytesMut};
use tipward_wire::{
    Txid,
    bitcoin::{BlockHeader, Chain, MerkleBuilder, Transaction, encode_compact_size},
};

use super::{ChainSpec, SimBlock, SimChain};
use crate::transaction::{Draft, anyone, data, witness_commitment};

/// After so many blocks a coinbase may be spent.
const MATURITY: usize = 100;
/// Regression test networks halve the subsidy this often.
pub(super) const HALVING: u32 = 150;
pub(super) const FIRST_SUBSIDY: u64 = 50 * 100_000_000;
/// What a payment pays, and leaves as its fee, in satoshi.
const PAYMENT: u64 = 10_000;
const FEE: u64 = 1_000;

impl SimChain {
    /// Adds generated blocks on top.
    pub fn extend(&mut self, spec: ChainSpec) {
        (self.version, self.witnesses_from, self.not_before) =
            (spec.version, spec.witnesses_from, spec.not_before);
        let mut random = fastrand::Rng::with_seed(spec.seed ^ self.height());
        for _ in 0..spec.blocks {
            let seed = random.u64(..);
            let spends = self.spends(spec, &mut random);
            self.mine(seed, &spends);
        }
    }

    /// Adds one block with these transactions beside its coinbase. Whether they may be in it is not checked.
    pub fn extend_with(&mut self, transactions: &[Transaction], seed: u64) {
        self.mine(seed, transactions);
    }

    /// Transactions for the next block or for its mempool, one for each output script, to which it pays 10,000 satoshi. The
    /// first spends the coinbase that matures with that block, each other the one before: those of two calls conflict. None
    /// if no coinbase of a generated block matures.
    #[must_use]
    pub fn payments(&self, scripts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Transaction> {
        let Some((mut txid, mut value)) = self.maturing() else { return Vec::new() };
        let segwit = self.has_witnesses(self.blocks.len());
        let mut payments = Vec::new();
        for script in scripts {
            let Some(rest) = value.checked_sub(PAYMENT + FEE) else { break };
            let mut draft = Draft::spend((txid, 0), segwit);
            draft.outputs.push((rest, anyone(self.network.chain == Chain::Btc)));
            draft.outputs.push((PAYMENT, script.as_ref().to_vec()));
            (txid, value) = (draft.txid(), rest);
            payments.push(draft.finish());
        }
        payments
    }

    /// Whether the transactions of that height have witnesses.
    fn has_witnesses(&self, height: usize) -> bool {
        self.network.chain == Chain::Btc && height as u64 >= self.witnesses_from
    }

    /// The coinbase that the next block may spend, and its value.
    fn maturing(&self) -> Option<(Txid, u64)> {
        self.blocks.len().checked_sub(MATURITY).and_then(|height| self.coinbases[height])
    }

    fn mine(&mut self, seed: u64, spends: &[Transaction]) {
        let height = self.blocks.len() as u32;
        let segwit = self.has_witnesses(self.blocks.len());
        let subsidy = FIRST_SUBSIDY.checked_shr(height / HALVING).unwrap_or(0);
        let mut coinbase = Draft::coinbase(height, seed, segwit);
        coinbase.outputs.push((subsidy, anyone(self.network.chain == Chain::Btc)));
        if segwit {
            let wtxids = spends.iter().map(|spend| Txid::from_bytes(*spend.wtxid().as_bytes()));
            let root = merkle_root(std::iter::once(Txid::ZERO).chain(wtxids));
            coinbase.outputs.push((0, witness_commitment(root)));
        }
        let txid = coinbase.txid();
        let header = self.header(
            self.version,
            merkle_root(std::iter::once(txid).chain(spends.iter().map(Transaction::txid))),
        );
        let raw = serialize(&header, &coinbase.serialize(segwit), spends);
        self.push(SimBlock::whole(header, raw), Some((txid, subsidy)));
    }

    /// A header with its work done.
    pub(super) fn header(&self, version: i32, merkle_root: [u8; 32]) -> BlockHeader {
        let mut header = BlockHeader {
            version,
            parent: self.tip().hash,
            merkle_root,
            time: self.tip().header.time.saturating_add(600).max(self.not_before),
            bits: self.tip().header.bits,
            nonce: 0,
        };
        while !header.meets_target(header.bits) {
            header.nonce += 1;
        }
        header
    }

    /// A chain of transactions: the first spends the coinbase that has just matured, each other the one before.
    fn spends(&self, spec: ChainSpec, random: &mut fastrand::Rng) -> Vec<Transaction> {
        let Some((mut txid, value)) = self.maturing() else { return Vec::new() };
        let count = random.u32(0..=spec.max_transactions);
        let segwit = self.has_witnesses(self.blocks.len());
        let mut spends = Vec::new();
        for _ in 0..count {
            let mut spend = Draft::spend((txid, 0), segwit);
            spend.outputs.push((value, anyone(self.network.chain == Chain::Btc)));
            let mut content = vec![0; random.usize(0..=spec.max_data)];
            random.fill(&mut content);
            spend.outputs.push((0, data(&content)));
            txid = spend.txid();
            spends.push(spend.finish());
        }
        spends
    }
}

fn serialize(header: &BlockHeader, coinbase: &[u8], spends: &[Transaction]) -> Bytes {
    let mut raw = BytesMut::new();
    raw.put_slice(&header.to_bytes());
    encode_compact_size(1 + spends.len() as u64, &mut raw);
    raw.put_slice(coinbase);
    for spend in spends {
        raw.put_slice(spend.as_bytes());
    }
    raw.freeze()
}

fn merkle_root(leaves: impl Iterator<Item = Txid>) -> [u8; 32] {
    let mut merkle = MerkleBuilder::new();
    leaves.for_each(|leaf| merkle.push(leaf));
    merkle.finish().0
}
