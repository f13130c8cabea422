//! The messages of both chains, as values. Each family has a file of its own, which names its sources.

use bytes::{Bytes, BytesMut};

use super::{BlockHeader, Command, Transaction};
use crate::WireError;

mod addresses;
mod bloom;
mod bsv;
mod compact_blocks;
mod fields;
mod filters;
mod handshake;
mod inventory;
mod merkle_proof;
#[cfg(test)]
pub(super) mod tests;

pub use addresses::{AddressV2, HostAddress, MAX_ADDRESSES, NetworkAddress, TimedAddress};
pub use bloom::{FilterAdd, MerkleBlock};
pub use bsv::{
    AuthChallenge, AuthResponse, CreateStream, DataRefTransaction, DoubleSpend, DoubleSpendBranch,
    EnrichedHeader, HeaderProof, MinerIdRevocation, Protoconf, StreamAck,
};
pub use compact_blocks::{
    BlockTransactions, CompactBlock, CompactBlockRequest, PrefilledTransaction, SendCompact, ShortId,
    ShortIds,
};
pub use fields::VarStr;
use fields::{FieldError, Payload};
pub use filters::{
    FILTER_CHECKPOINT_INTERVAL, FilterCheckpoints, FilterHeaders, FilterMessage, FilterRange,
    GetFilterCheckpoints, MAX_FILTER_HEADERS, MAX_FILTERS,
};
pub use handshake::{
    Feature, FeeRate, MempoolRequest, Reconciliation, Reject, RejectCode, Services, Version,
};
pub use inventory::{Inventory, InventoryKind, Locator, MAX_HEADERS, MAX_INVENTORY, MAX_LOCATOR};
pub use merkle_proof::{MerkleProof, MerkleProofNode, MerkleProofSubject};

macro_rules! messages {
    (
        empty { $($(#[$empty_doc:meta])* $empty:ident = $empty_command:literal,)* }
        with payload { $($(#[$doc:meta])* $name:ident($type:ty) = $command:literal,)* }
    ) => {
        /// A message of the Bitcoin dialect.
        ///
        /// Blocks arrive as [`Incoming::Block`](crate::Incoming::Block) and never as a message; [`Message::Block`] is for
        /// those who serve them.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $($(#[$empty_doc])* $empty,)*
            $($(#[$doc])* $name($type),)*
            /// A block to be sent, serialized.
            Block(Bytes),
            /// Any other command, kept as it came.
            Other {
                /// The command.
                command: Command,
                /// The payload.
                payload: Bytes,
            },
        }

        impl Message {
            /// The commands that are parsed; any other becomes [`Message::Other`].
            pub const COMMANDS: &'static [&'static str] = &[$($empty_command,)* $($command,)*];

            /// The command under which the message travels.
            #[must_use]
            pub fn command(&self) -> Command {
                let name = match self {
                    $(Self::$empty => $empty_command,)*
                    $(Self::$name(_) => $command,)*
                    Self::Block(_) => "block",
                    Self::Other { command, .. } => return *command,
                };
                Command::new(name).expect("command names are short ASCII")
            }

            /// Parses a payload. Also returns the bytes that follow the last field known here, which nodes ignore and which
            /// [`Message::serialize`] does not write.
            ///
            /// # Errors
            /// [`WireError::Malformed`] names the innermost field that does not parse, and the place: where the field starts,
            /// of a transaction where in it.
            pub fn parse(command: Command, payload: Bytes) -> Result<(Self, Bytes), WireError> {
                if is_of_another_version(command.as_str(), &payload) {
                    return Ok((Self::Other { command, payload }, Bytes::new()));
                }
                let input = &payload[..];
                let parsed = match command.as_str() {
                    $($empty_command => Ok((input, Self::$empty)),)*
                    $($command => <$type>::parse(input, &payload).map(|(rest, value)| (rest, Self::$name(value))),)*
                    "block" => return Ok((Self::Block(payload), Bytes::new())),
                    _ => return Ok((Self::Other { command, payload }, Bytes::new())),
                };
                match parsed {
                    Ok((rest, message)) => {
                        let trailing = fields::slice(rest, &payload);
                        Ok((message, trailing))
                    }
                    Err(error) => Err(malformed(command, payload.len(), error)),
                }
            }

            /// Appends the payload.
            pub fn serialize(&self, output: &mut BytesMut) {
                match self {
                    $(Self::$empty => {})*
                    $(Self::$name(value) => value.serialize(output),)*
                    Self::Block(payload) | Self::Other { payload, .. } => output.extend_from_slice(payload),
                }
            }

            /// The longest payload that a command can need, in bytes; `None` if it has no limit of its own.
            pub(in crate::bitcoin) fn limit(command: &str) -> Option<u64> {
                match command {
                    $($empty_command => Some(SMALL),)*
                    $($command => <$type>::LIMIT,)*
                    _ => None,
                }
            }
        }
    };
}

impl Message {
    /// Whether a transaction in it is serialized with witnesses.
    pub(super) fn has_witnesses(&self) -> bool {
        match self {
            Self::Tx(transaction) => transaction.has_witnesses(),
            Self::CmpctBlock(block) => {
                block.prefilled.iter().any(|prefilled| prefilled.transaction.has_witnesses())
            }
            Self::BlockTxn(block) => block.transactions.iter().any(Transaction::has_witnesses),
            _ => false,
        }
    }
}

/// Messages that begin with a version say what follows; another than those known here is nobody's mistake.
fn is_of_another_version(command: &str, payload: &[u8]) -> bool {
    match command {
        "dsdetected" => payload.first_chunk().is_some_and(|version| u16::from_le_bytes(*version) != 1),
        "authch" => payload.first_chunk().is_some_and(|version| u32::from_le_bytes(*version) != 1),
        _ => false,
    }
}

/// The limit of what is some bytes long, so that fields may be added.
const SMALL: u64 = 1024;

messages! {
    empty {
        /// Answers `version`.
        Verack = "verack",
        /// Asks for addresses of other nodes.
        GetAddr = "getaddr",
        /// Asks for announcements by `headers` instead of `inv` (BIP 130).
        SendHeaders = "sendheaders",
        /// Says that the sender understands `addrv2` (BIP 155).
        SendAddrV2 = "sendaddrv2",
        /// Says that the sender announces transactions by wtxid (BIP 339).
        WtxidRelay = "wtxidrelay",
        /// Removes the filter set by `filterload` (BIP 37).
        FilterClear = "filterclear",
        /// Asks for announcements by `hdrsen` (BSV).
        SendHdrsEn = "sendhdrsen",
    }
    with payload {
        /// Opens the handshake.
        Version(Version) = "version",
        /// Asks for a `pong` with the same nonce (BIP 31).
        Ping(u64) = "ping",
        /// Answers `ping`.
        Pong(u64) = "pong",
        /// Refuses a message.
        Reject(Reject) = "reject",
        /// The lowest fee rate of transactions that the sender wants announced (BIP 133).
        FeeFilter(FeeRate) = "feefilter",
        /// Offers to announce transactions by set reconciliation (BIP 330).
        SendTxRcncl(Reconciliation) = "sendtxrcncl",
        /// Offers a feature by its name.
        Feature(Feature) = "feature",
        /// Asks for an `inv` of the transactions that wait for a block (BIP 35).
        Mempool(MempoolRequest) = "mempool",
        /// Addresses of nodes.
        Addr(Vec<TimedAddress>) = "addr",
        /// Addresses of nodes on any net (BIP 155).
        AddrV2(Vec<AddressV2>) = "addrv2",
        /// Asks for the headers after the first hash of the locator that the node has on its best chain.
        GetHeaders(Locator) = "getheaders",
        /// Asks for an `inv` of the blocks after the locator.
        GetBlocks(Locator) = "getblocks",
        /// Headers, each the child of the one before; at most [`MAX_HEADERS`].
        Headers(Vec<BlockHeader>) = "headers",
        /// Announces objects; at most [`MAX_INVENTORY`].
        Inv(Vec<Inventory>) = "inv",
        /// Asks for objects; at most [`MAX_INVENTORY`].
        GetData(Vec<Inventory>) = "getdata",
        /// Objects that were asked for and are not there. Nodes send it for transactions, few for blocks.
        NotFound(Vec<Inventory>) = "notfound",
        /// A transaction.
        Tx(Transaction) = "tx",
        /// Sets a filter: only transactions that match are announced (BIP 37).
        FilterLoad(super::BloomFilter) = "filterload",
        /// Adds an element to the filter (BIP 37).
        FilterAdd(FilterAdd) = "filteradd",
        /// A header with proof of the transactions that match the filter (BIP 37).
        MerkleBlock(MerkleBlock) = "merkleblock",
        /// Whether and how blocks are to be announced as compact blocks (BIP 152).
        SendCmpct(SendCompact) = "sendcmpct",
        /// A block as short ids (BIP 152).
        CmpctBlock(CompactBlock) = "cmpctblock",
        /// Asks for transactions of a compact block (BIP 152).
        GetBlockTxn(CompactBlockRequest) = "getblocktxn",
        /// Answers `getblocktxn` (BIP 152).
        BlockTxn(BlockTransactions) = "blocktxn",
        /// Asks for filters of blocks (BIP 157).
        GetCFilters(FilterRange) = "getcfilters",
        /// The filter of one block (BIP 157).
        CFilter(FilterMessage) = "cfilter",
        /// Asks for filter headers (BIP 157).
        GetCFHeaders(FilterRange) = "getcfheaders",
        /// Filter hashes, from which filter headers follow (BIP 157).
        CFHeaders(FilterHeaders) = "cfheaders",
        /// Asks for every thousandth filter header (BIP 157).
        GetCFCheckpt(GetFilterCheckpoints) = "getcfcheckpt",
        /// Every thousandth filter header (BIP 157).
        CFCheckpt(FilterCheckpoints) = "cfcheckpt",
        /// What the sender of this message accepts (BSV).
        Protoconf(Protoconf) = "protoconf",
        /// Makes a connection one of the streams of an association (BSV).
        CreateStrm(CreateStream) = "createstrm",
        /// Answers `createstrm` (BSV).
        StreamAck(StreamAck) = "streamack",
        /// Asks the receiver to prove its miner id (BSV).
        AuthCh(AuthChallenge) = "authch",
        /// Answers `authch` (BSV).
        AuthResp(AuthResponse) = "authresp",
        /// Asks for enriched headers (BSV).
        GetHdrsEn(Locator) = "gethdrsen",
        /// Headers with proof of their coinbases (BSV); at most [`MAX_HEADERS`].
        HdrsEn(Vec<EnrichedHeader>) = "hdrsen",
        /// Tells of a double spend by blocks that conflict (BSV).
        DsDetected(DoubleSpend) = "dsdetected",
        /// Revokes a miner id (BSV).
        RevokeMid(MinerIdRevocation) = "revokemid",
        /// A transaction that a miner info document refers to (BSV).
        DataRefTx(DataRefTransaction) = "datareftx",
    }
}

fn malformed(command: Command, length: usize, error: nom::Err<FieldError>) -> WireError {
    let FieldError { remaining, field, problem } = match error {
        nom::Err::Error(error) | nom::Err::Failure(error) => error,
        nom::Err::Incomplete(_) => FieldError { remaining: 0, field: "payload", problem: "incomplete" },
    };
    WireError::Malformed {
        command: command.as_str().to_owned(),
        field,
        offset: length.saturating_sub(remaining),
        problem,
    }
}
