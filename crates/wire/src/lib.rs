//! Bytes to messages and back: the peer-to-peer wire protocol without sockets, clocks or tasks.
//!
//! The top of this crate is what all chains share: hashes ([`BlockHash`], [`Txid`]), headers as every layer above passes
//! them on ([`Header`]), blocks as streams of parts ([`BlockPart`], [`BlockEnd`]) and the trait that one family of chains
//! implements to frame and spell its messages ([`Dialect`]). [`bitcoin`] is the dialect of BTC and BSV.
//!
//! ```
//! use bytes::BytesMut;
//! use tipward_wire::{bitcoin::{Codec, Message, Network}, Dialect, Incoming};
//!
//! let mut codec = Codec::new(Network::BTC_REGTEST);
//! let mut frame = BytesMut::new();
//! codec.encode(&Message::Ping(7), &mut frame);
//! // magic | command | length | checksum | payload
//! assert_eq!(frame.len(), 24 + 8);
//!
//! match codec.decode(&mut frame)? {
//!     Some(Incoming::Message(Message::Ping(nonce))) => assert_eq!(nonce, 7),
//!     other => panic!("unexpected: {other:?}"),
//! }
//! # Ok::<(), tipward_wire::WireError>(())
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod bitcoin;
mod block;
mod dialect;
mod error;
mod hash;
mod header;
#[cfg(test)]
mod testdata;

pub use bytes;

pub use block::{BlockEnd, BlockEvent, BlockPart, DownloadId, Verdict};
pub use dialect::{Dialect, Incoming, Piece};
pub use error::{BlockAborted, BlockError, WireError};
pub use hash::{BlockHash, FilterHash, FilterHeader, ParseHashError, Sha256d, Txid, Wtxid, sha256d};
pub use header::Header;
