//! Conversions to and from the types of the `bitcoin` crate, version 0.32 (feature `bitcoin-0_32`).
//!
//! What is a value of the same bytes on both sides converts with `From`. What `bitcoin` may refuse, such as a transaction
//! with witnesses that are all empty, converts with `TryFrom` and its error.

use ::bitcoin::{
    self as other,
    consensus::encode::{self, deserialize, serialize},
    hashes::Hash as _,
};

use super::{
    Block, BlockFilter, BlockHeader, CompactTarget, FilterHash, FilterHeader, MerkleBlock, Network, OutPoint,
    Script, Target, Transaction, Work,
};
use crate::{BlockError, BlockHash, Txid, Wtxid};

macro_rules! hashes {
    ($($ours:ty = $theirs:ty,)*) => {
        $(
            impl From<$ours> for $theirs {
                fn from(hash: $ours) -> Self {
                    Self::from_byte_array(*hash.as_bytes())
                }
            }

            impl From<$theirs> for $ours {
                fn from(hash: $theirs) -> Self {
                    Self::from_bytes(hash.to_byte_array())
                }
            }
        )*
    };
}

hashes! {
    BlockHash = other::BlockHash,
    Txid = other::Txid,
    Wtxid = other::Wtxid,
    FilterHash = other::FilterHash,
    FilterHeader = other::FilterHeader,
}

impl From<BlockHeader> for other::block::Header {
    fn from(header: BlockHeader) -> Self {
        Self {
            version: other::block::Version::from_consensus(header.version),
            prev_blockhash: header.parent.into(),
            merkle_root: other::TxMerkleNode::from_byte_array(header.merkle_root),
            time: header.time,
            bits: header.bits.into(),
            nonce: header.nonce,
        }
    }
}

impl From<other::block::Header> for BlockHeader {
    fn from(header: other::block::Header) -> Self {
        Self {
            version: header.version.to_consensus(),
            parent: header.prev_blockhash.into(),
            merkle_root: header.merkle_root.to_byte_array(),
            time: header.time,
            bits: header.bits.into(),
            nonce: header.nonce,
        }
    }
}

impl From<CompactTarget> for other::CompactTarget {
    fn from(target: CompactTarget) -> Self {
        Self::from_consensus(target.0)
    }
}

impl From<other::CompactTarget> for CompactTarget {
    fn from(target: other::CompactTarget) -> Self {
        Self(target.to_consensus())
    }
}

impl From<Target> for other::Target {
    fn from(target: Target) -> Self {
        Self::from_be_bytes(target.to_be_bytes())
    }
}

impl From<Work> for other::Work {
    fn from(work: Work) -> Self {
        Self::from_be_bytes(work.to_be_bytes())
    }
}

impl From<OutPoint> for other::OutPoint {
    fn from(outpoint: OutPoint) -> Self {
        Self { txid: outpoint.txid.into(), vout: outpoint.index }
    }
}

impl From<other::OutPoint> for OutPoint {
    fn from(outpoint: other::OutPoint) -> Self {
        Self { txid: outpoint.txid.into(), index: outpoint.vout }
    }
}

impl<'a> From<Script<'a>> for &'a other::Script {
    fn from(script: Script<'a>) -> Self {
        other::Script::from_bytes(script.as_bytes())
    }
}

impl<'a> From<&'a other::Script> for Script<'a> {
    fn from(script: &'a other::Script) -> Self {
        Self(script.as_bytes())
    }
}

impl TryFrom<&Transaction> for other::Transaction {
    type Error = encode::Error;

    fn try_from(transaction: &Transaction) -> Result<Self, encode::Error> {
        deserialize(transaction.as_bytes())
    }
}

impl TryFrom<&other::Transaction> for Transaction {
    type Error = super::ScanError;

    /// Fails only for a transaction without inputs, of which two serializations exist.
    fn try_from(transaction: &other::Transaction) -> Result<Self, super::ScanError> {
        Self::new(serialize(transaction).into())
    }
}

impl TryFrom<&Block> for other::Block {
    type Error = encode::Error;

    fn try_from(block: &Block) -> Result<Self, encode::Error> {
        deserialize(block.as_bytes())
    }
}

impl TryFrom<&other::Block> for Block {
    type Error = BlockError;

    fn try_from(block: &other::Block) -> Result<Self, BlockError> {
        Self::new(serialize(block).into())
    }
}

impl TryFrom<&MerkleBlock> for other::MerkleBlock {
    type Error = encode::Error;

    fn try_from(block: &MerkleBlock) -> Result<Self, encode::Error> {
        let mut payload = bytes::BytesMut::new();
        super::Message::MerkleBlock(block.clone()).serialize(&mut payload);
        deserialize(&payload)
    }
}

impl From<&BlockFilter> for other::bip158::BlockFilter {
    fn from(filter: &BlockFilter) -> Self {
        Self::new(filter.as_bytes())
    }
}

impl From<other::bip158::BlockFilter> for BlockFilter {
    fn from(filter: other::bip158::BlockFilter) -> Self {
        Self::new(filter.content.into())
    }
}

/// A network that the other side does not know, such as BSV's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no network of the bitcoin crate")]
pub struct UnknownNetwork(pub &'static str);

impl TryFrom<&Network> for other::Network {
    type Error = UnknownNetwork;

    fn try_from(network: &Network) -> Result<Self, UnknownNetwork> {
        Self::from_magic(other::p2p::Magic::from_bytes(network.magic)).ok_or(UnknownNetwork(network.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata;

    #[test]
    fn real_blocks_pass_over_and_back() {
        for name in ["btc-mainnet-block-413567.blk", "btc-mainnet-blocks-831328-831335.blk"] {
            let Some(blocks) = testdata::blocks(name) else { return };
            let ours = &blocks[0];
            let theirs = other::Block::try_from(ours).unwrap();
            assert_eq!(theirs.block_hash(), ours.hash().into());
            assert_eq!(BlockHeader::from(theirs.header), *ours.header());
            assert_eq!(theirs.header.work(), ours.header().work().into());
            assert_eq!(theirs.header.target(), ours.header().bits.to_target().unwrap().into());
            assert_eq!(&Block::try_from(&theirs).unwrap(), ours);
            for (transaction, expected) in ours.transactions().zip(&theirs.txdata) {
                assert_eq!(&other::Transaction::try_from(&transaction).unwrap(), expected);
                assert_eq!(transaction.txid(), expected.compute_txid().into());
                assert_eq!(transaction.wtxid(), expected.compute_wtxid().into());
                assert_eq!(transaction.weight() as u64, expected.weight().to_wu());
                assert_eq!(Transaction::try_from(expected).unwrap(), transaction);
                for (input, expected) in transaction.inputs().zip(&expected.input) {
                    assert_eq!(other::OutPoint::from(input.outpoint()), expected.previous_output);
                    assert_eq!(input.outpoint(), expected.previous_output.into());
                    assert_eq!(<&other::Script>::from(input.script()), &*expected.script_sig);
                }
                for (output, expected) in transaction.outputs().zip(&expected.output) {
                    assert_eq!(output.value(), expected.value.to_sat());
                    assert_eq!(output.script(), (&*expected.script_pubkey).into());
                }
                for (witness, expected) in transaction.witnesses().zip(&expected.input) {
                    assert!(witness.items().eq(expected.witness.iter()));
                }
            }
        }
    }

    #[test]
    fn real_proofs_pass_over() {
        let Some(bytes) = testdata::read("btc-mainnet-txoutproof-0831332-15.bin") else { return };
        let command = super::super::Command::new("merkleblock").unwrap();
        let Ok((super::super::Message::MerkleBlock(ours), _)) = super::super::Message::parse(command, bytes)
        else {
            panic!("no proof")
        };
        let theirs = other::MerkleBlock::try_from(&ours).unwrap();
        let (mut txids, mut indexes) = (Vec::new(), Vec::new());
        theirs.extract_matches(&mut txids, &mut indexes).unwrap();
        let matches: Vec<_> = indexes.into_iter().zip(txids.into_iter().map(Txid::from)).collect();
        assert_eq!(ours.tree.verify().unwrap().matches, matches);
    }

    #[test]
    fn filters_and_networks_pass_over() {
        let block = BlockHash::from_bytes([7; 32]);
        let ours = BlockFilter::build(&block, [&b"one"[..], b"two"]);
        let theirs = other::bip158::BlockFilter::from(&ours);
        assert!(theirs.match_any(&block.into(), &mut [&b"two"[..]].into_iter()).unwrap());
        let header = theirs.filter_header(&FilterHeader::ZERO.into());
        assert_eq!(FilterHeader::from(header), ours.header(FilterHeader::ZERO));
        assert_eq!(BlockFilter::from(theirs), ours);
        assert_eq!(other::Network::try_from(Network::BTC), Ok(other::Network::Bitcoin));
        assert_eq!(other::Network::try_from(Network::BSV), Err(UnknownNetwork("bsv")));
    }
}
