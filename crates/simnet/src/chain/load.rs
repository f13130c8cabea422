//! Chains from the block files that nodes keep.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use bytes::{BufMut, BytesMut};
use tipward_wire::{
    BlockEvent, BlockHash,
    bitcoin::{BlkDecoder, BlkError, BlkEvent, BlockHeader, Network},
};

use super::{SimBlock, SimChain};

/// Why a block file can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is no block file.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: BlkError,
    },
    /// The blocks are no chain of the network.
    #[error("{path}: {problem}")]
    NoChain {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl SimChain {
    /// Reads a block file whose blocks form one chain, in any order. The whole file is kept in memory.
    ///
    /// # Errors
    /// The file can't be read, is of another network, or its blocks do not link up.
    pub fn from_blk(path: &Path, network: &'static Network) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let no_chain = |problem: String| LoadError::NoChain { path: name.clone(), problem };
        let found = read_blocks(path)?;
        if let Some((other, _)) = found.iter().find(|(of, _)| of.magic != network.magic) {
            return Err(no_chain(format!("blocks of {}, not of {}", other.name, network.name)));
        }
        let mut rest: Vec<SimBlock> = found.into_iter().map(|(_, block)| block).collect();
        let is_known = |hash| rest.iter().any(|block| block.hash == hash);
        let first = rest.iter().position(|block| !is_known(block.header.parent));
        let first = first.ok_or_else(|| no_chain("no block is the first one".to_owned()))?;
        let mut chain = Self::empty(network);
        chain.push(rest.swap_remove(first), None);
        let mut by_parent: BTreeMap<BlockHash, SimBlock> =
            rest.into_iter().map(|block| (block.header.parent, block)).collect();
        while let Some(next) = by_parent.remove(&chain.tip().hash) {
            chain.push(next, None);
        }
        if let Some(stray) = by_parent.values().next() {
            return Err(no_chain(format!("block {} is not on the chain of the first", stray.hash)));
        }
        Ok(chain)
    }
}

fn read_blocks(path: &Path) -> Result<Vec<(&'static Network, SimBlock)>, LoadError> {
    let name = || path.display().to_string();
    let io = |source| LoadError::Io { path: name(), source };
    let format = |source| LoadError::Format { path: name(), source };
    let mut file = File::open(path).map_err(io)?;
    let (mut decoder, mut input) = (BlkDecoder::default(), BytesMut::new());
    let mut blocks: Vec<(&'static Network, SimBlock)> = Vec::new();
    let (mut network, mut raw) = (None, BytesMut::new());
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).map_err(io)?;
        input.put_slice(&chunk[..read]);
        while let Some(event) = decoder.decode(&mut input).map_err(format)? {
            match event {
                BlkEvent::Begin { network: of, .. } => network = Some(of),
                BlkEvent::Block(BlockEvent::Part(part)) => raw.put_slice(&part.bytes),
                BlkEvent::Block(BlockEvent::End(_)) => {
                    let raw = std::mem::take(&mut raw).freeze();
                    if let (Some(network), Some(header)) = (network, raw.first_chunk()) {
                        let header = BlockHeader::from_bytes(header);
                        blocks.push((network, SimBlock::whole(header, raw)));
                    }
                }
            }
        }
        if read == 0 {
            decoder.finish(&input).map_err(format)?;
            return Ok(blocks);
        }
    }
}
