//! Real blocks, repeated to a size: the eight consecutive ones of the test data, each time with other transaction ids.
//!
//! Each repetition has lock times of its own, so every id is new. What an input spends inside the run it spends in its own
//! repetition; what it spends outside becomes an output of one of the earlier repetitions that nobody has spent, mostly one of the
//! last hundred thousand. Of four scripts with room for it three are changed, so that most are new and some are used again. The
//! first block is made up: it pays out what the first repetition spends. Sizes and offsets are those of the real blocks;
//! merkle roots are not right any more.

use std::collections::{HashMap, HashSet};

use tipward_chain::sync::{
    Block, BlockId,
    peer::wire::{
        BlockHash, BlockPart, DownloadId, Txid,
        bitcoin::{BlkFile, Transaction, encode_compact_size},
        bytes::{BufMut, Bytes, BytesMut},
        sha256d,
    },
};

/// An output nobody has spent is taken from so many of the last ones, three times out of four.
const RECENT: usize = 100_000;
/// How many outputs a transaction of the first block has.
const FUNDED: usize = 2000;

/// The blocks, made as they are asked for.
pub(crate) struct Repeated {
    originals: Vec<Vec<Transaction>>,
    headers: Vec<Bytes>,
    random: fastrand::Rng,
    /// New ids of this repetition's transactions.
    ids: HashMap<Txid, Txid>,
    unspent: Vec<(Txid, u32)>,
    /// What the originals spend.
    spent: HashSet<(Txid, u32)>,
    height: u64,
}

impl Repeated {
    /// `None` where there is no test data.
    pub(crate) fn load() -> Option<Self> {
        let file = std::fs::read(tipward_tests::testdata("btc-mainnet-blocks-831328-831335.blk")?);
        let blocks = BlkFile::new(file.expect("the file can be read")).map(|block| block.expect("a block"));
        let (mut originals, mut headers) = (Vec::new(), Vec::new());
        for block in blocks {
            headers.push(block.as_bytes().slice(..80));
            let count = block.offsets().len();
            originals.push((0..count).map(|n| block.transaction(n).expect("it is there")).collect());
        }
        let inputs = originals.iter().flatten().flat_map(Transaction::inputs);
        let spent = inputs.map(|input| (input.outpoint().txid, input.outpoint().index)).collect();
        let random = fastrand::Rng::with_seed(1);
        Some(Self { originals, headers, random, ids: HashMap::new(), unspent: Vec::new(), spent, height: 0 })
    }

    /// The block that pays out what is spent later.
    fn funding(&mut self) -> Vec<Bytes> {
        let inputs = self.originals.iter().flatten().map(|transaction| transaction.inputs().len());
        let count = inputs.sum::<usize>().div_ceil(FUNDED);
        (0..count).map(|number| self.fund(number as u64)).collect()
    }

    fn fund(&mut self, number: u64) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(2);
        bytes.put_u8(1);
        bytes.put_bytes(0, 32);
        bytes.put_u32_le(u32::MAX);
        bytes.put_u8(8);
        bytes.put_u64_le(number);
        bytes.put_u32_le(u32::MAX);
        encode_compact_size(FUNDED as u64, &mut bytes);
        for _ in 0..FUNDED {
            bytes.put_u64_le(100_000);
            bytes.put_slice(&[22, 0, 20]);
            let mut program = [0; 20];
            self.random.fill(&mut program);
            bytes.put_slice(&program);
        }
        bytes.put_u32_le(0);
        let txid = Txid::from_bytes(sha256d(&bytes));
        self.unspent.extend((0..FUNDED as u32).map(|index| (txid, index)));
        bytes.freeze()
    }

    /// The transaction in this repetition.
    fn again(&mut self, original: &Transaction) -> Bytes {
        let mut bytes = BytesMut::from(&original.as_bytes()[..]);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&(self.height as u32).to_le_bytes());
        for input in original.inputs().filter(|input| !input.outpoint().is_null()) {
            let spent = input.outpoint();
            let (txid, index) = match self.ids.get(&spent.txid) {
                Some(txid) => (*txid, spent.index),
                None => self.take_unspent(),
            };
            bytes[input.offset..][..32].copy_from_slice(txid.as_bytes());
            bytes[input.offset + 32..][..4].copy_from_slice(&index.to_le_bytes());
        }
        for (index, output) in original.outputs().enumerate() {
            let length = output.script().as_bytes().len();
            if length >= 22 && index % 4 != 3 {
                let room = &mut bytes[output.script_offset + 4..][..8];
                room.iter_mut().zip(self.height.to_be_bytes()).for_each(|(byte, new)| *byte ^= new);
            }
        }
        bytes.freeze()
    }

    fn take_unspent(&mut self) -> (Txid, u32) {
        let oldest = if self.random.u8(..4) == 0 { 0 } else { self.unspent.len().saturating_sub(RECENT) };
        let at = self.random.usize(oldest..self.unspent.len());
        self.unspent.swap_remove(at)
    }

    fn assemble(&mut self, header: &[u8], transactions: &[Bytes]) -> Block {
        let mut bytes = BytesMut::from(header);
        // The nonce, so that every hash is new.
        bytes[76..80].copy_from_slice(&(self.height as u32).to_le_bytes());
        let hash = BlockHash::from_bytes(sha256d(&bytes));
        encode_compact_size(transactions.len() as u64, &mut bytes);
        let mut offsets = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            offsets.push(bytes.len() as u32);
            bytes.put_slice(transaction);
        }
        let (size, id) = (bytes.len() as u64, BlockId { height: self.height, hash });
        self.height += 1;
        let part = BlockPart {
            block: hash,
            download: DownloadId(0),
            block_size: size,
            index: 0,
            offset: 0,
            first_transaction: 0,
            transactions: offsets,
            bytes: bytes.freeze(),
            ends_inside_transaction: false,
        };
        let transactions = transactions.len() as u64;
        Block { id, parts: vec![part], transactions, size, served_by: None, is_streamed: false }
    }
}

impl Iterator for Repeated {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.height == 0 {
            let transactions = self.funding();
            return Some(self.assemble(&[0; 80], &transactions));
        }
        let at = (self.height - 1) as usize % self.originals.len();
        if at == 0 {
            self.ids.clear();
        }
        let originals = std::mem::take(&mut self.originals[at]);
        let mut transactions = Vec::with_capacity(originals.len());
        for original in &originals {
            let bytes = self.again(original);
            let txid = Transaction::new(bytes.clone()).expect("it was one").txid();
            let old = original.txid();
            self.ids.insert(old, txid);
            let outputs = (0..).zip(original.outputs());
            let kept = outputs.filter(|(index, output)| {
                !output.script().is_op_return() && !self.spent.contains(&(old, *index))
            });
            self.unspent.extend(kept.map(|(index, _)| (txid, index)));
            transactions.push(bytes);
        }
        self.originals[at] = originals;
        let header = self.headers[at].clone();
        Some(self.assemble(&header, &transactions))
    }
}
