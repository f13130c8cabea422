//! The dialect of Bitcoin: BTC and BSV, their main and test networks.
//!
//! The chains differ in values ([`Network`]), not in types. Sources: the BTC and BSV node sources and BIPs 31, 35, 130,
//! 141, 144; each module names its own.

mod blk;
mod block;
mod bloom;
mod codec;
mod command;
mod compact_size;
#[cfg(feature = "bitcoin-0_32")]
mod conversions;
mod gcs;
mod header;
mod layout;
mod merkle;
mod message;
mod network;
mod partial_merkle;
mod parts;
mod pow;
mod reader;
mod scanner;
mod script;
mod transaction;

pub use blk::{BlkDecoder, BlkError, BlkEvent, BlkFile, blk_frame_header};
pub use block::{Block, witness_commitment};
pub use bloom::{BloomFilter, BloomUpdate, MAX_BLOOM_FILTER_SIZE, MAX_BLOOM_HASH_FUNCTIONS};
pub use codec::{Codec, CodecOptions};
pub use command::Command;
pub use compact_size::{decode_compact_size, encode_compact_size};
#[cfg(feature = "bitcoin-0_32")]
pub use conversions::UnknownNetwork;
pub use gcs::{BlockFilter, FilterError, FilterHash, FilterHeader};
pub use header::{BlockHeader, HeaderRunError, check_headers, to_headers};
pub use merkle::MerkleBuilder;
pub use message::*;
pub use network::{Chain, Difficulty, Network};
pub use partial_merkle::{MerkleMatches, PartialMerkleError, PartialMerkleTree};
pub use parts::transactions;
pub use pow::{CompactTarget, Target, Work};
pub use reader::{BlockOptions, BlockReader, DEFAULT_PART_SIZE};
pub use scanner::{ScanError, TransactionScanner};
pub use script::{Instruction, Instructions, Script, ScriptError};
pub use transaction::{Input, Inputs, OutPoint, Output, Outputs, Transaction, Witness};
