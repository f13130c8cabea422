//! BTC and BSV as coins.

use std::sync::Arc;

use bytes::BytesMut;
use tipward_sync::{
    Block, BlockId,
    peer::{
        Protocol,
        bitcoin::Bitcoin,
        wire::{
            BlockEvent, DownloadId, Header,
            bitcoin::{BlockHeader, BlockOptions, BlockReader, Network},
        },
    },
};

use crate::{Coin, HeaderError, HeaderRules};
use rules::Rules;

mod difficulty;
mod rules;

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

    fn parse_header(&self, raw: &[u8]) -> Result<Header, HeaderError> {
        Ok(BlockHeader::from_bytes(eighty(raw)?).into())
    }

    fn genesis_header(&self) -> Header {
        self.genesis().into()
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
