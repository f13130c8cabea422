//! Inputs that the benches share.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use tipward_chain::sync::peer::wire::{
    BlockEvent, DownloadId,
    bitcoin::{BlockReader, Network},
};
use tipward_simnet::{ChainSpec, SimChain};

/// A real block of about 1 MB where the test data is (see `TIPWARD_TESTDATA`), else a generated one.
#[must_use]
pub fn block() -> (&'static str, Bytes) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from);
    match std::fs::read(dir.join("btc-mainnet-block-413567.blk")) {
        Ok(file) => ("block 413567", Bytes::from(file).slice(8..)),
        Err(_) => {
            let mut spec = ChainSpec::new(120, 1);
            (spec.max_transactions, spec.max_data) = (1500, 1200);
            let chain = SimChain::generate(Network::BTC_REGTEST, spec);
            let largest = chain.blocks().iter().max_by_key(|block| block.raw.len());
            ("generated block", largest.map(|block| block.raw.clone()).unwrap_or_default())
        }
    }
}

/// Streams a block in reads of `read` bytes and returns how many transactions it has; 0 if it fails its checks.
#[must_use]
pub fn stream(block: &Bytes, read: usize) -> u64 {
    let mut reader = BlockReader::new(DownloadId(0), block.len() as u64, true, 32 << 20);
    let mut input = BytesMut::with_capacity(block.len());
    for bytes in block.chunks(read) {
        input.extend_from_slice(bytes);
        while let Ok(Some(event)) = reader.decode(&mut input) {
            if let BlockEvent::End(end) = event {
                return end.transactions;
            }
        }
    }
    0
}
