//! What a codec lets in.

use crate::bitcoin::{BlockOptions, Chain, Command, Message, Network};

/// Before both sides have shaken hands nothing larger is legitimate.
const HANDSHAKE_LIMIT: u64 = 1024;

/// The messages that can be as long as blocks.
const LONG: [&str; 5] = ["tx", "datareftx", "cmpctblock", "blocktxn", "hdrsen"];

/// Choices of a [`Codec`](super::Codec).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CodecOptions {
    /// How blocks are read and checked.
    pub block: BlockOptions,
    /// Whether a block's bytes are compared with the checksum of its frame. On unless unset: it is what tells a block that
    /// was damaged on its way from one that was made up, if nothing else was found wrong before its end. Other messages are
    /// always compared; extended frames have no checksum.
    pub checksum: bool,
    /// Whether that comparison is left to who receives the block, as [`Verdict::Deferred`](crate::Verdict::Deferred): so that
    /// another thread can make it. Off unless set; without `checksum` it means nothing.
    pub defer_checksum: bool,
    /// The largest block accepted, in bytes. BTC's protocol limit is 4,000,000; BSV has none, the default is 8 GiB.
    pub max_block_size: u64,
    /// The longest other message accepted, in bytes, where its command allows no less. The default is the chain's limit:
    /// 4,000,000 for BTC, 2 MiB for BSV, whose nodes send more only to those who said so in `protoconf`, with the exceptions
    /// below. A message is buffered whole.
    pub max_message_size: u64,
    /// The longest `tx` or `datareftx` accepted, in bytes. 4,000,000 for BTC; for BSV 10,000,000, which its nodes relay unless
    /// told otherwise.
    pub max_transaction_size: u64,
    /// Whether `tx`, `datareftx`, `cmpctblock`, `blocktxn` and `hdrsen` that are longer than that pass as
    /// [`Incoming::Piece`](crate::Incoming::Piece)s of `block.part_size` bytes, up to `max_block_size`: on BSV they can be as long as blocks. Off
    /// unless set, and they are refused: nodes send them only when asked.
    pub long_messages: bool,
}

impl CodecOptions {
    /// The defaults for a network.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        let (max_block_size, max_message_size, max_transaction_size) = match network.chain {
            Chain::Btc => (4_000_000, 4_000_000, 4_000_000),
            Chain::Bsv => (8 << 30, 2 << 20, 10_000_000),
        };
        Self {
            block: BlockOptions::new(network),
            checksum: true,
            defer_checksum: false,
            max_block_size,
            max_message_size,
            max_transaction_size,
            long_messages: false,
        }
    }

    /// The longest payload accepted, in bytes.
    pub(super) fn limit(&self, command: Command, handshake_done: bool) -> u64 {
        if !handshake_done {
            return HANDSHAKE_LIMIT;
        }
        match command.as_str() {
            "block" => self.max_block_size,
            _ if self.long_messages && long_name(command).is_some() => self.max_block_size,
            _ => self.whole_limit(command),
        }
    }

    /// The longest payload that is parsed whole, in bytes: what the message can need, or the limit for any message.
    pub(super) fn whole_limit(&self, command: Command) -> u64 {
        let most = match command.as_str() {
            "tx" | "datareftx" => self.max_transaction_size,
            _ => self.max_message_size,
        };
        Message::limit(command.as_str()).map_or(most, |limit| limit.min(most))
    }
}

/// The command's name, if its message can be as long as a block.
pub(super) fn long_name(command: Command) -> Option<&'static str> {
    LONG.into_iter().find(|name| *name == command.as_str())
}
