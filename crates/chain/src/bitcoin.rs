//! BTC and BSV as coins.

use std::sync::Arc;

use bytes::BytesMut;
use tipward_sync::{
    Block, BlockHead, BlockId,
    peer::{
        Protocol,
        bitcoin::Bitcoin,
        wire::{
            BlockEvent, BlockHash, DownloadId, Header,
            bitcoin::{BlockHeader, BlockOptions, BlockReader, CompactTarget, Network, Work},
        },
    },
};

use crate::{Coin, HeaderError, HeaderRules};

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
        Box::new(ProofOfWork { limit: self.pow_limit, chain_block: self.chain_block })
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

/// A header's hash must meet the target that it claims, and the target the network's limit. Where a sister chain has parted,
/// it must be on the right side.
#[derive(Debug)]
struct ProofOfWork {
    limit: CompactTarget,
    chain_block: Option<(u64, BlockHash)>,
}

impl ProofOfWork {
    /// The work of a header wherever it is.
    fn work(&self, header: &Header) -> Result<Work, HeaderError> {
        let bits = BlockHeader::from_bytes(eighty(&header.raw)?).bits;
        let hash = header.hash;
        let target = bits.to_target_within(self.limit);
        let target = target.ok_or_else(|| HeaderError::Target { hash, bits: bits.to_string() })?;
        if !target.is_met_by(hash) {
            return Err(HeaderError::ProofOfWork { hash, bits: bits.to_string() });
        }
        Ok(target.work())
    }
}

impl HeaderRules for ProofOfWork {
    fn check(&self, header: &Header, height: u64) -> Result<Work, HeaderError> {
        let work = self.work(header)?;
        match self.chain_block {
            Some((at, expected)) if at == height && expected != header.hash => {
                Err(HeaderError::OtherChain { hash: header.hash, height, expected })
            }
            _ => Ok(work),
        }
    }

    fn read_head(&self, start: &[u8]) -> Result<BlockHead, HeaderError> {
        let raw = start.first_chunk().ok_or(HeaderError::Length { len: start.len() })?;
        let header = Header::from(BlockHeader::from_bytes(raw));
        self.work(&header)?;
        let parents = Some(header.parent).filter(|parent| *parent != BlockHash::ZERO).into_iter().collect();
        Ok(BlockHead { header, parents, index: None })
    }
}

fn eighty(raw: &[u8]) -> Result<&[u8; 80], HeaderError> {
    raw.try_into().map_err(|_| HeaderError::Length { len: raw.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_knows_its_genesis_block() {
        for network in Network::ALL {
            let block = Coin::genesis_block(&network);
            assert_eq!(block.transactions, 1, "{}", network.name);
            assert_eq!(block.bytes(), Network::genesis_block(network));
            assert!(network.rules().check(&network.genesis_header(), 0).is_ok());
        }
    }

    #[test]
    fn a_block_tells_its_header_if_that_has_its_work() {
        for network in Network::ALL {
            let rules = network.rules();
            let genesis = Network::genesis_block(network);
            let head = rules.read_head(&genesis).unwrap();
            assert_eq!((&head.header, head.parents, head.index), (&network.genesis_header(), vec![], None));
            assert_eq!(rules.read_head(&genesis[..80]).unwrap().header, head.header, "that much is enough");
            assert_eq!(rules.read_head(&genesis[..79]), Err(HeaderError::Length { len: 79 }));
        }
        let rules = Network::BTC_REGTEST.rules();
        let parent = BlockHash::from_bytes([7; 32]);
        let mut header = BlockHeader { parent, ..Network::BTC_REGTEST.genesis() };
        while !header.meets_target(header.bits) {
            header.nonce += 1;
        }
        let head = rules.read_head(&header.to_bytes()).unwrap();
        assert_eq!((head.header.hash, head.parents), (header.hash(), vec![parent]));
        while header.meets_target(header.bits) {
            header.nonce += 1;
        }
        let refused = rules.read_head(&header.to_bytes());
        assert!(matches!(refused, Err(HeaderError::ProofOfWork { .. })), "{refused:?}");
        // Where the chain has a block of its own, that is not known without the height.
        let mut easy = BlockHeader { bits: CompactTarget(0x2100_ffff), ..header };
        easy.nonce = 0;
        assert!(matches!(rules.read_head(&easy.to_bytes()), Err(HeaderError::Target { .. })));
        assert!(matches!(
            Network::BTC.rules().read_head(&Network::genesis_block(Network::BTC_REGTEST)),
            Err(HeaderError::Target { .. })
        ));
    }

    #[test]
    fn work_is_checked() {
        let rules = Network::BTC.rules();
        let mut header = Network::BTC.genesis();
        header.nonce += 1;
        assert!(matches!(rules.check(&header.into(), 1), Err(HeaderError::ProofOfWork { .. })));
        // Enough work for a target that is too easy.
        let easy = Network::BTC_REGTEST.genesis_header();
        assert!(matches!(rules.check(&easy, 1), Err(HeaderError::Target { .. })));
        let short = Header { raw: easy.raw.slice(..79), ..easy };
        assert_eq!(rules.check(&short, 1), Err(HeaderError::Length { len: 79 }));
    }
}
