//! BTC and BSV as coins.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tipward_sync::{
    Block, BlockId, FilterRules,
    peer::{
        Protocol,
        bitcoin::Bitcoin,
        wire::{
            BlockError, BlockEvent, BlockHash, DownloadId, Header,
            bitcoin::{BlockHeader, BlockOptions, BlockReader, Chain, Network},
            sha256d,
        },
    },
};

use crate::{Coin, HeaderError, HeaderRules};
use rules::Rules;

mod difficulty;
mod filters;
mod rules;

/// How much of a block is held when it is read again, in bytes.
const PART_SIZE: usize = 1 << 20;

impl Coin for &'static Network {
    fn name(&self) -> &'static str {
        self.name
    }

    fn magic(&self) -> [u8; 4] {
        self.magic
    }

    fn protocol(&self) -> Arc<dyn Protocol> {
        Arc::new(Bitcoin::new(self))
    }

    fn rules(&self) -> Box<dyn HeaderRules> {
        Box::new(Rules::new(self))
    }

    fn parse_header(&self, raw: Bytes) -> Result<Header, HeaderError> {
        let eighty = eighty(&raw)?;
        let parent = BlockHeader::from_bytes(eighty).parent;
        Ok(Header { hash: BlockHash::from_bytes(sha256d(eighty)), parent, raw })
    }

    fn genesis_header(&self) -> Header {
        self.genesis().into()
    }

    fn check_block(
        &self,
        size: u64,
        pieces: &mut dyn Iterator<Item = Bytes>,
    ) -> Result<(Header, u64), BlockError> {
        let mut options = BlockOptions::new(self);
        options.part_size = PART_SIZE;
        let mut reader = BlockReader::new(DownloadId(0), size, options);
        let (mut input, mut header) = (BytesMut::new(), None);
        for piece in pieces {
            input.extend_from_slice(&piece);
            while let Some(event) = reader.decode(&mut input).map_err(|aborted| aborted.reason)? {
                match (event, header.take()) {
                    (BlockEvent::Part(part), found) => {
                        header = found.or_else(|| part.bytes.first_chunk().map(BlockHeader::from_bytes));
                    }
                    (BlockEvent::End(end), Some(header)) => return Ok((header.into(), end.transactions)),
                    (BlockEvent::End(_), None) => {}
                }
            }
        }
        Err(BlockError::Cut { received: reader.seen(), size })
    }

    fn filter_rules(&self) -> Option<Arc<dyn FilterRules>> {
        (self.chain == Chain::Btc).then(|| Arc::new(filters::BasicFilters) as Arc<dyn FilterRules>)
    }

    fn genesis_block(&self) -> Block {
        let raw = Network::genesis_block(self);
        let size = raw.len() as u64;
        let mut reader = BlockReader::new(DownloadId(0), size, BlockOptions::new(self));
        let mut input = BytesMut::from(raw);
        let mut block = Block {
            id: BlockId { height: 0, hash: self.genesis_hash() },
            parts: Vec::new(),
            transactions: 0,
            size,
            served_by: None,
            is_streamed: false,
        };
        while let Some(event) = reader.decode(&mut input).expect("a network's genesis block is a block") {
            match event {
                BlockEvent::Part(part) => block.parts.push(part),
                BlockEvent::End(end) => block.transactions = end.transactions,
            }
        }
        block
    }
}

fn eighty(raw: &[u8]) -> Result<&[u8; 80], HeaderError> {
    raw.try_into().map_err(|_| HeaderError::Length { len: raw.len() })
}

#[cfg(test)]
mod tests;
