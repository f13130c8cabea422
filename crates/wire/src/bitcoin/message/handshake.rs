//! `version`, what is agreed on around it, and what keeps a connection going. Sources: BIPs 31 (ping), 35 (mempool),
//! 37 (relay flag), 61 (reject), 133 (feefilter), 330 (sendtxrcncl), 434 (feature), and 111, 144, 157, 159 and 324 for service
//! bits; the BSV node's `net_processing.cpp`, `mempool_msg.h` and `validation.h` for association ids, the age and its codes.

use std::{fmt, ops::BitOr};

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{le_i32, le_i64, le_u8, le_u32, le_u64};

use super::{
    NetworkAddress, SMALL, VarStr,
    addresses::{network_address, put_network_address},
    fields::{Parsed, Payload, array, bytes, fail, field, flag, put_bytes, put_flag, text},
};

/// What a node offers, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Services(pub u64);

impl Services {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All blocks.
    pub const NETWORK: Self = Self(1);
    /// Bloom filters (BIP 111).
    pub const BLOOM: Self = Self(1 << 2);
    /// Blocks with witnesses (BIP 144).
    pub const WITNESS: Self = Self(1 << 3);
    /// Block filters (BIP 157).
    pub const COMPACT_FILTERS: Self = Self(1 << 6);
    /// The last 288 blocks (BIP 159).
    pub const NETWORK_LIMITED: Self = Self(1 << 10);
    /// Encrypted transport (BIP 324).
    pub const P2P_V2: Self = Self(1 << 11);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Services {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Services({:#x})", self.0)
    }
}

/// The `version` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The highest protocol version the sender speaks.
    pub protocol: i32,
    /// What the sender offers.
    pub services: Services,
    /// The sender's clock, in seconds since 1970 (UTC). Any number may come.
    pub time: i64,
    /// The receiver as the sender sees it.
    pub receiver: NetworkAddress,
    /// The sender as it sees itself; not to be relied on.
    pub sender: NetworkAddress,
    /// A random number; a node that receives its own has dialled itself.
    pub nonce: u64,
    /// The sender's software, at most 256 bytes.
    pub user_agent: VarStr,
    /// The height that the sender claims for its best block: a hint, never a fact.
    pub start_height: i32,
    /// Whether the sender wants transactions announced (BIP 37); a message without the flag says yes.
    pub relay: bool,
    /// The association that the connection belongs to (BSV), at most 129 bytes: the type of the id, 0 for a UUID, and the
    /// id. Empty where the sender knows associations and has none; `None` where it says nothing.
    pub association_id: Option<Bytes>,
}

/// The longest association id in bytes.
pub(super) const MAX_ASSOCIATION_ID: usize = 129;

impl Payload for Version {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, protocol) = field("version", input, le_i32)?;
        let (input, services) = field("services", input, le_u64)?;
        let (input, time) = field("timestamp", input, le_i64)?;
        let (input, receiver) = field("addr_recv", input, network_address)?;
        let (input, sender) = field("addr_from", input, network_address)?;
        let (input, nonce) = field("nonce", input, le_u64)?;
        let (input, user_agent) = field("user_agent", input, |i| text(i, payload, 256))?;
        let (mut input, start_height) = field("start_height", input, le_i32)?;
        let (mut relay, mut association_id) = (true, None);
        // Absent from old nodes, which want everything relayed.
        if !input.is_empty() {
            (input, relay) = field("relay", input, flag)?;
        }
        // On BTC other fields may come here one day, so what is no association id is not an error.
        if let (false, Ok((rest, id))) = (input.is_empty(), bytes(input, payload, MAX_ASSOCIATION_ID)) {
            (input, association_id) = (rest, Some(id));
        }
        let services = Services(services);
        Ok((
            input,
            Self {
                protocol,
                services,
                time,
                receiver,
                sender,
                nonce,
                user_agent,
                start_height,
                relay,
                association_id,
            },
        ))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_i32_le(self.protocol);
        output.put_u64_le(self.services.0);
        output.put_i64_le(self.time);
        put_network_address(&self.receiver, output);
        put_network_address(&self.sender, output);
        output.put_u64_le(self.nonce);
        put_bytes(self.user_agent.as_bytes(), output);
        output.put_i32_le(self.start_height);
        put_flag(self.relay, output);
        if let Some(id) = &self.association_id {
            put_bytes(id, output);
        }
    }
}

/// The nonce of `ping` and `pong`.
impl Payload for u64 {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        field("nonce", input, le_u64)
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u64_le(*self);
    }
}

/// The `reject` message. BTC nodes no longer send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The command that is refused, at most 12 bytes; empty if not even that was understood.
    pub message: VarStr,
    /// The kind of reason.
    pub code: RejectCode,
    /// The reason as text, at most 111 bytes.
    pub reason: VarStr,
    /// The object's hash, for a transaction or a block that is well formed.
    pub hash: Option<[u8; 32]>,
}

impl Payload for Reject {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, message) = field("message", input, |i| text(i, payload, 12))?;
        let (input, code) = field("code", input, le_u8)?;
        let (input, reason) = field("reason", input, |i| text(i, payload, 111))?;
        // A malformed transaction is refused without a hash.
        let (input, hash) = match array::<32>(input) {
            Ok((rest, hash)) => (rest, Some(hash)),
            Err(_) => (input, None),
        };
        Ok((input, Self { message, code: RejectCode(code), reason, hash }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(self.message.as_bytes(), output);
        output.put_u8(self.code.0);
        put_bytes(self.reason.as_bytes(), output);
        if let Some(hash) = &self.hash {
            output.put_slice(hash);
        }
    }
}

/// Why something was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RejectCode(pub u8);

macro_rules! reject_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal,)*) => {
        impl RejectCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

reject_codes! {
    /// It does not parse.
    MALFORMED = 0x01 "malformed",
    /// It breaks a rule of consensus.
    INVALID = 0x10 "invalid",
    /// It is of a version that is no longer spoken.
    OBSOLETE = 0x11 "obsolete",
    /// It is known.
    DUPLICATE = 0x12 "duplicate",
    /// It spends a frozen output; it may be accepted later (BSV).
    SOFT_FREEZE = 0x13 "soft consensus freeze",
    /// It breaks the node's own policy.
    NONSTANDARD = 0x40 "nonstandard",
    /// An output is worth too little.
    DUST = 0x41 "dust",
    /// It pays too small a fee.
    INSUFFICIENT_FEE = 0x42 "insufficient fee",
    /// It conflicts with a checkpoint.
    CHECKPOINT = 0x43 "checkpoint",
    /// The node has no time for it (BSV).
    TOO_BUSY = 0x44 "too busy",
    /// It came too soon after others (BSV).
    RATE = 0x45 "rate exceeded",
    /// The stream could not be set up (BSV).
    STREAM = 0x60 "stream set-up",
    /// The sender did not prove who it is (BSV).
    AUTHENTICATION = 0x70 "authentication",
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fee rate in satoshi per 1000 bytes, on BTC per 1000 virtual bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeeRate(pub u64);

impl Payload for FeeRate {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        field("feerate", input, le_u64).map(|(input, rate)| (input, Self(rate)))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u64_le(self.0);
    }
}

/// The `sendtxrcncl` message (BIP 330).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciliation {
    /// The highest version of the protocol that the sender speaks; 1 is the first.
    pub version: u32,
    /// The sender's part of the salt of short ids.
    pub salt: u64,
}

impl Payload for Reconciliation {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, version) = field("version", input, le_u32)?;
        let (input, salt) = field("salt", input, le_u64)?;
        Ok((input, Self { version, salt }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u32_le(self.version);
        output.put_u64_le(self.salt);
    }
}

/// The `feature` message of BTC (BIP 434): something that the sender can do, sent between `version` and `verack`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// The feature's name, 4 to 80 bytes.
    pub id: VarStr,
    /// What the feature needs to be told, at most 512 bytes.
    pub data: Bytes,
}

impl Payload for Feature {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let start = input;
        let (input, id) = field("featureid", input, |i| text(i, payload, 80))?;
        if id.as_bytes().len() < 4 {
            return fail(start, "featureid", "shorter than allowed");
        }
        let (input, data) = field("featuredata", input, |i| bytes(i, payload, 512))?;
        Ok((input, Self { id, data }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(self.id.as_bytes(), output);
        put_bytes(&self.data, output);
    }
}

/// The `mempool` message (BIP 35).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MempoolRequest {
    /// Only transactions that entered the pool no longer ago than so many seconds (BSV). On BTC to be left out.
    pub age: Option<i64>,
}

impl Payload for MempoolRequest {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        // One byte that says that the age follows: 0 for no. What can't be read means the same to nodes.
        match input.split_first().map(|(flag, rest)| (flag, rest.split_first_chunk())) {
            Some((1, Some((age, rest)))) => Ok((rest, Self { age: Some(i64::from_le_bytes(*age)) })),
            _ => Ok((input, Self { age: None })),
        }
    }

    fn serialize(&self, output: &mut BytesMut) {
        if let Some(age) = self.age {
            output.put_u8(1);
            output.put_i64_le(age);
        }
    }
}
