//! BTC and BSV nodes.
//!
//! The chains shake hands in the same order and differ in what may be said in between: BSV scores every other command
//! before `verack` and expects `protoconf` right after its own; BTC negotiates `addrv2` there.

use bytes::Bytes;
use tipward_wire::{
    Txid,
    bitcoin::{Chain, Codec, CodecOptions, Message, Network, Transaction},
};

use crate::{
    Checksum, Connection, Cover, Direction, Encrypt, Encryption, EncryptionOptions, Entropy, Link,
    LinkOptions, Local, MalformedTransaction, Needs, Protocol, Start, Typed,
};

pub use session::BitcoinSession;

mod addresses;
mod answers;
mod asked;
mod filters;
mod handshake;
mod offers;
mod session;

/// A network of BTC or BSV, to be connected to.
#[derive(Debug, Clone, Copy)]
pub struct Bitcoin {
    network: &'static Network,
}

impl Bitcoin {
    /// The network.
    #[must_use]
    pub fn new(network: &'static Network) -> Self {
        Self { network }
    }

    fn cover(&self, options: &LinkOptions, direction: Direction) -> Cover {
        let magic = self.network.magic;
        let required = options.encrypt == Encrypt::Require;
        match Entropy::from_system() {
            Ok(entropy) => match direction {
                Direction::Outbound => {
                    Cover::Initiate(Encryption::initiator(magic, EncryptionOptions::default(), entropy))
                }
                Direction::Inbound => Cover::Detect { magic, entropy, required },
            },
            // Where encryption is required, what follows in clear text is refused by the peer's garbage or by the driver.
            Err(error) => {
                tracing::warn!(%error, "no randomness for encryption");
                Cover::Clear
            }
        }
    }
}

impl Protocol for Bitcoin {
    fn name(&self) -> &str {
        self.network.name
    }

    fn default_port(&self) -> u16 {
        self.network.default_port
    }

    fn dns_seeds(&self, needs: Needs) -> Vec<String> {
        // BTC's seeds filter by service bits: x9 is NETWORK and WITNESS, x49 COMPACT_FILTERS too.
        let prefix = match (self.network.chain, needs) {
            (Chain::Btc, Needs::Filters) => "x49.",
            (Chain::Btc, Needs::Blocks | Needs::Nothing) => "x9.",
            (Chain::Bsv, _) => "",
        };
        self.network.dns_seeds.iter().map(|seed| format!("{prefix}{seed}")).collect()
    }

    fn can_encrypt(&self) -> bool {
        self.network.chain == Chain::Btc
    }

    fn connect(&self, local: &Local, options: &LinkOptions, start: Start) -> Box<dyn Connection> {
        let mut codec = CodecOptions::new(self.network);
        codec.block.part_size = options.part_size;
        codec.block.merkle_root = options.merkle_root;
        codec.checksum = options.checksum != Checksum::Off;
        codec.defer_checksum = options.checksum == Checksum::Thread;
        if let Some(max) = options.max_block_size {
            codec.max_block_size = max;
            codec.block.max_weight = codec.block.max_weight.map(|_| max.saturating_mul(4));
        }
        let session = BitcoinSession::new(self.network, local, options, start);
        let codec = Codec::with_options(self.network, codec);
        let cover = if start.encrypted { self.cover(options, start.direction) } else { Cover::Clear };
        Box::new(Link::new(session, codec, cover, options.clone(), start.seed, start.now))
    }

    fn transaction_id(&self, bytes: &Bytes) -> Result<Txid, MalformedTransaction> {
        let malformed = |offset, problem| MalformedTransaction { offset, problem };
        let transaction =
            Transaction::new(bytes.clone()).map_err(|error| malformed(error.offset, error.problem))?;
        if self.network.chain == Chain::Bsv && transaction.has_witnesses() {
            return Err(malformed(4, "witnesses are not of this chain"));
        }
        if transaction.is_coinbase() {
            return Err(malformed(4, "a coinbase is not relayed"));
        }
        Ok(transaction.txid())
    }
}

impl Typed for Bitcoin {
    type Message = Message;
}

#[cfg(test)]
mod tests;
