//! Inputs that the benches share. `TIPWARD_BENCH_MIB` sets the size of the large blocks, 1024 unless set.

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use tipward_chain::sync::{
    Block, BlockId,
    peer::wire::{
        BlockEnd, BlockEvent, DownloadId,
        bitcoin::{
            BlkFile, BlockHeader, BlockOptions, BlockReader, CompactTarget, Network, encode_compact_size,
        },
    },
};
use tipward_simnet::{ChainSpec, SimChain};

/// A serialized block.
pub struct Input {
    /// What it is made of.
    pub name: &'static str,
    /// The block. Only a real or generated one has its merkle root.
    pub bytes: Bytes,
    /// How many transactions it has.
    pub transactions: u64,
}

impl Input {
    /// Where the first transaction starts.
    #[must_use]
    pub fn first_transaction(&self) -> usize {
        let mut count = BytesMut::new();
        encode_compact_size(self.transactions, &mut count);
        BlockHeader::SIZE + count.len()
    }
}

/// The headers of a generated chain of so many blocks on [`Network::BTC_REGTEST`], without genesis.
#[must_use]
pub fn headers(count: u32) -> Vec<[u8; BlockHeader::SIZE]> {
    let mut spec = ChainSpec::new(count, 1);
    spec.max_transactions = 0;
    let chain = SimChain::generate(Network::BTC_REGTEST, spec);
    chain.blocks()[1..].iter().map(|block| block.header.to_bytes()).collect()
}

/// A real block of about 1 MB where the test data is (see `TIPWARD_TESTDATA`), else a generated one.
#[must_use]
pub fn block() -> Input {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from);
    match std::fs::read(dir.join("btc-mainnet-block-413567.blk")) {
        Ok(file) => Input { name: "block 413567", bytes: Bytes::from(file).slice(8..), transactions: 1557 },
        Err(_) => {
            let mut spec = ChainSpec::new(120, 1);
            (spec.max_transactions, spec.max_data) = (1500, 1200);
            let chain = SimChain::generate(Network::BTC_REGTEST, spec);
            let block = chain.blocks().iter().max_by_key(|block| block.raw.len());
            let block = block.expect("a chain has blocks");
            let (transactions, _) =
                tipward_chain::sync::peer::wire::bitcoin::decode_compact_size(&block.raw[80..])
                    .expect("a block has a count");
            Input { name: "generated block", bytes: block.raw.clone(), transactions }
        }
    }
}

/// Real blocks of 1 to 2 MB where the test data is, else [`block`], as they come from peers.
#[must_use]
pub fn real_blocks() -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from);
    let file = std::fs::read(dir.join("btc-mainnet-blocks-831328-831335.blk"));
    let blocks: Vec<Bytes> = match file {
        Ok(file) => BlkFile::new(file).map(|block| block.expect("a block").as_bytes().clone()).collect(),
        Err(_) => vec![block().bytes],
    };
    blocks.iter().map(whole).collect()
}

fn whole(bytes: &Bytes) -> Block {
    let size = bytes.len() as u64;
    let mut reader = BlockReader::new(DownloadId(0), size, BlockOptions::new(Network::BTC));
    let (mut input, mut parts) = (BytesMut::from(&bytes[..]), Vec::new());
    loop {
        match reader.decode(&mut input).expect("a block") {
            Some(BlockEvent::Part(part)) => parts.push(part),
            Some(BlockEvent::End(BlockEnd { block: hash, transactions, .. })) => {
                let id = BlockId { height: 0, hash };
                return Block { id, parts, transactions, size, served_by: None, is_streamed: false };
            }
            None => panic!("the block is cut"),
        }
    }
}

/// The size of the large blocks in bytes.
#[must_use]
pub fn large() -> usize {
    let mib = std::env::var("TIPWARD_BENCH_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(1024);
    mib << 20
}

/// The transactions of [`block`] over and over.
#[must_use]
pub fn mixed() -> Input {
    let block = block();
    let transactions = block.bytes.slice(block.first_transaction()..);
    let copies = large() / transactions.len();
    assemble("the block's transactions", block.transactions * copies as u64, |output| {
        (0..copies).for_each(|_| output.put_slice(&transactions));
    })
}

/// Transactions of one input and one output: 190 to 192 bytes, as the length of a signature varies.
#[must_use]
pub fn tiny() -> Input {
    let count = large() / 192;
    let mut random = fastrand::Rng::with_seed(1);
    assemble("1-in-1-out transactions", count as u64, |output| {
        (0..count).for_each(|_| transaction(&[random.usize(106..=107)], &[25], output));
    })
}

/// Sixteen transactions of one huge output each.
#[must_use]
pub fn huge() -> Input {
    assemble("16 huge transactions", 16, |output| {
        (0..16).for_each(|_| transaction(&[107], &[large() / 16], output));
    })
}

/// One transaction of nothing but outputs: 31 million of 34 bytes in 1 GiB.
#[must_use]
pub fn outputs() -> Input {
    assemble("one transaction of outputs", 1, |output| transaction(&[107], &vec![25; large() / 34], output))
}

fn assemble(name: &'static str, transactions: u64, fill: impl FnOnce(&mut BytesMut)) -> Input {
    let header = BlockHeader { bits: CompactTarget(0x207f_ffff), ..Network::BTC_REGTEST.genesis() };
    let mut bytes = BytesMut::with_capacity(large() + (1 << 20));
    bytes.put_slice(&header.to_bytes());
    encode_compact_size(transactions, &mut bytes);
    fill(&mut bytes);
    Input { name, bytes: bytes.freeze(), transactions }
}

/// A transaction with scripts of the given lengths.
pub fn transaction(inputs: &[usize], outputs: &[usize], output: &mut BytesMut) {
    output.put_i32_le(1);
    encode_compact_size(inputs.len() as u64, output);
    for &script in inputs {
        output.put_bytes(0x11, 36);
        encode_compact_size(script as u64, output);
        output.put_bytes(0x22, script);
        output.put_u32_le(u32::MAX);
    }
    encode_compact_size(outputs.len() as u64, output);
    for &script in outputs {
        output.put_u64_le(1000);
        encode_compact_size(script as u64, output);
        output.put_bytes(0x33, script);
    }
    output.put_u32_le(0);
}

/// How often each row of a bench is measured: `TIPWARD_BENCH_ROUNDS`, 5 unless set.
#[must_use]
pub fn rounds() -> usize {
    number("TIPWARD_BENCH_ROUNDS", 5) as usize
}

/// A number from the environment.
#[must_use]
pub fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The middle one of the samples.
///
/// # Panics
/// There are none.
pub fn median(samples: impl IntoIterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.into_iter().collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
