//! The dialect of Bitcoin: BTC and BSV, their main and test networks.
//!
//! The chains differ in values ([`Network`]), not in types. Sources: the BTC and BSV node sources and BIPs 31, 35, 130,
//! 141, 144; each module names its own.

mod blk;
mod codec;
mod command;
mod compact_size;
mod header;
mod merkle;
mod message;
mod network;
mod parse;
mod pow;
mod reader;
mod scanner;
mod serialize;

pub use blk::{BlkDecoder, BlkError, BlkEvent, blk_frame_header};
pub use codec::{Codec, CodecOptions};
pub use command::Command;
pub use compact_size::{decode_compact_size, encode_compact_size};
pub use header::BlockHeader;
pub use merkle::MerkleBuilder;
pub use message::{
    Inventory, InventoryKind, Locator, MAX_HEADERS, MAX_INVENTORY, MAX_LOCATOR, Message, NetworkAddress,
    Protoconf, Reject, Services, Version,
};
pub use network::{Chain, Network};
pub use pow::{CompactTarget, Target, Work};
pub use reader::{BlockReader, DEFAULT_PART_SIZE};
