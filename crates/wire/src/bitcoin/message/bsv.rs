//! What only BSV's nodes speak. Sources: the BSV node's `protocol.h`, `net_processing.cpp`, `dsdetected_message.h`,
//! `revokemid.h` and `datareftx.h`.

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::{
    MAX_HEADERS, MerkleProof, SMALL, VarStr,
    fields::{
        Parsed, Payload, array, bytes, compact_size, fail, field, flag, header, list, put_bytes, put_flag,
        put_list, text, transaction,
    },
    handshake::MAX_ASSOCIATION_ID,
    merkle_proof::{MIN_PROOF, merkle_proof, put_merkle_proof},
};
use crate::bitcoin::{BlockHeader, Transaction, encode_compact_size};

/// The `protoconf` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protoconf {
    /// The longest payload that the sender accepts, in bytes; at least 1,048,576. Blocks and transactions are not bound by
    /// it. From 1,800,045 on nodes may send inventories of more than [`MAX_INVENTORY`](super::MAX_INVENTORY) entries, which
    /// are refused here.
    pub max_receive_payload: u32,
    /// The stream policies that the sender knows, comma separated, at most 650 bytes; `None` if it doesn't say.
    pub stream_policies: Option<VarStr>,
}

impl Payload for Protoconf {
    // Nodes accept up to 1 MiB, for fields to come.
    const LIMIT: Option<u64> = Some(1 << 20);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let start = input;
        let (input, fields) = field("fields", input, compact_size)?;
        if fields == 0 {
            return fail(start, "fields", "at least one is needed");
        }
        let (input, max_receive_payload) = field("max_receive_payload", input, le_u32)?;
        if fields == 1 {
            return Ok((input, Self { max_receive_payload, stream_policies: None }));
        }
        let (input, policies) = field("stream_policies", input, |i| text(i, payload, 650))?;
        Ok((input, Self { max_receive_payload, stream_policies: Some(policies) }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        encode_compact_size(1 + u64::from(self.stream_policies.is_some()), output);
        output.put_u32_le(self.max_receive_payload);
        if let Some(policies) = &self.stream_policies {
            put_bytes(policies.as_bytes(), output);
        }
    }
}

/// The `createstrm` message, the first of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateStream {
    /// The association to join, as in [`Version::association_id`](super::Version::association_id).
    pub association_id: Bytes,
    /// What the stream is for: 1 for general, 2 to 5 for data.
    pub stream_type: u8,
    /// The stream policy asked for, at most 64 bytes; may be empty.
    pub policy: VarStr,
}

impl Payload for CreateStream {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, association_id) =
            field("association_id", input, |i| bytes(i, payload, MAX_ASSOCIATION_ID))?;
        let (input, stream_type) = field("stream_type", input, le_u8)?;
        let (input, policy) = field("stream_policy", input, |i| text(i, payload, 64))?;
        Ok((input, Self { association_id, stream_type, policy }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(&self.association_id, output);
        output.put_u8(self.stream_type);
        put_bytes(self.policy.as_bytes(), output);
    }
}

/// The `streamack` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAck {
    /// The association joined.
    pub association_id: Bytes,
    /// What the stream is for.
    pub stream_type: u8,
}

impl Payload for StreamAck {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, association_id) =
            field("association_id", input, |i| bytes(i, payload, MAX_ASSOCIATION_ID))?;
        let (input, stream_type) = field("stream_type", input, le_u8)?;
        Ok((input, Self { association_id, stream_type }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(&self.association_id, output);
        output.put_u8(self.stream_type);
    }
}

/// The `authch` message. Who is no miner may ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthChallenge {
    /// The version of the protocol: 1. Any other is kept as [`Message::Other`](super::Message::Other).
    pub version: u32,
    /// What is to be signed.
    pub challenge: [u8; 32],
}

impl Payload for AuthChallenge {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (start, version) = field("version", input, le_u32)?;
        let (input, length) = field("length", start, le_u32)?;
        if length != 32 {
            return fail(start, "length", "a challenge has 32 bytes");
        }
        let (input, challenge) = field("challenge", input, array)?;
        Ok((input, Self { version, challenge }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u32_le(self.version);
        output.put_u32_le(32);
        output.put_slice(&self.challenge);
    }
}

/// The `authresp` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthResponse {
    /// The miner id: a compressed public key.
    pub public_key: [u8; 33],
    /// A random number of the signer's.
    pub nonce: u64,
    /// A DER signature of SHA-256d of the challenge and the nonce, at most 72 bytes.
    pub signature: Bytes,
}

impl Payload for AuthResponse {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let start = input;
        let (input, key) = field("public_key", input, |i| bytes(i, payload, 33))?;
        let Ok(public_key) = key[..].try_into() else {
            return fail(start, "public_key", "a compressed key has 33 bytes");
        };
        let (input, nonce) = field("nonce", input, le_u64)?;
        let (input, signature) = field("signature", input, |i| bytes(i, payload, 72))?;
        Ok((input, Self { public_key, nonce, signature }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(&self.public_key, output);
        output.put_u64_le(self.nonce);
        put_bytes(&self.signature, output);
    }
}

/// An entry of `hdrsen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrichedHeader {
    /// The header.
    pub header: BlockHeader,
    /// How many transactions the block has; 0 if the sender does not know.
    pub transactions: u64,
    /// Whether the header is of the sender's tip.
    pub no_more_headers: bool,
    /// The coinbase.
    pub coinbase: Option<HeaderProof>,
    /// The transaction with the miner info document.
    pub miner_info: Option<HeaderProof>,
}

/// A transaction with proof that it is in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderProof {
    /// The transaction.
    pub transaction: Transaction,
    /// The proof.
    pub proof: MerkleProof,
}

fn header_proof<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, HeaderProof> {
    let (input, transaction) = transaction(input, payload)?;
    let (input, proof) = merkle_proof(input, payload)?;
    Ok((input, HeaderProof { transaction, proof }))
}

fn optional_proof<'a>(
    name: &'static str,
    input: &'a [u8],
    payload: &Bytes,
) -> Parsed<'a, Option<HeaderProof>> {
    let (input, is_there) = field(name, input, flag)?;
    if !is_there {
        return Ok((input, None));
    }
    header_proof(input, payload).map(|(input, proof)| (input, Some(proof)))
}

fn put_header_proof(proof: &HeaderProof, output: &mut BytesMut) {
    output.put_slice(proof.transaction.as_bytes());
    put_merkle_proof(&proof.proof, output);
}

impl Payload for Vec<EnrichedHeader> {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        list("headers", input, MAX_HEADERS, 80 + 4, |input| {
            let (input, header) = header(input)?;
            let (input, transactions) = compact_size(input)?;
            let (input, no_more_headers) = flag(input)?;
            let (input, coinbase) = optional_proof("has_coinbase_data", input, payload)?;
            let (input, miner_info) = optional_proof("has_miner_info", input, payload)?;
            Ok((input, EnrichedHeader { header, transactions, no_more_headers, coinbase, miner_info }))
        })
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_list(self, output, |entry, output| {
            output.put_slice(&entry.header.to_bytes());
            encode_compact_size(entry.transactions, output);
            put_flag(entry.no_more_headers, output);
            for proof in [&entry.coinbase, &entry.miner_info] {
                put_flag(proof.is_some(), output);
                proof.iter().for_each(|proof| put_header_proof(proof, output));
            }
        });
    }
}

/// The `dsdetected` message: transactions in blocks of different branches that spend the same output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubleSpend {
    /// The version of the message: 1. Any other is kept as [`Message::Other`](super::Message::Other).
    pub version: u16,
    /// The branches, two at least.
    pub branches: Vec<DoubleSpendBranch>,
}

/// A branch with one of the conflicting transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubleSpendBranch {
    /// The headers from the transaction's block down to the first after the branches parted, one at least.
    pub headers: Vec<BlockHeader>,
    /// The transaction, proven to be in the first of them.
    pub proof: MerkleProof,
}

impl Payload for DoubleSpend {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (start, version) = field("version", input, le_u16)?;
        let (input, branches) = list("branches", start, usize::MAX, 1 + 80 + MIN_PROOF, |input| {
            let (rest, headers) = list("headers", input, usize::MAX, 80, header)?;
            if headers.is_empty() {
                return fail(input, "headers", "a branch has one at least");
            }
            let (input, proof) = merkle_proof(rest, payload)?;
            Ok((input, DoubleSpendBranch { headers, proof }))
        })?;
        if branches.len() < 2 {
            return fail(start, "branches", "a double spend has two at least");
        }
        Ok((input, Self { version, branches }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u16_le(self.version);
        put_list(&self.branches, output, |branch, output| {
            put_list(&branch.headers, output, |header, output| output.put_slice(&header.to_bytes()));
            put_merkle_proof(&branch.proof, output);
        });
    }
}

/// The `revokemid` message. Its keys and signatures are carried, not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerIdRevocation {
    /// The version of the message: 0.
    pub version: u32,
    /// The public key that may revoke.
    pub revocation_key: [u8; 33],
    /// The miner's current id, a public key.
    pub miner_id: [u8; 33],
    /// The id that is revoked, a public key.
    pub revoked: [u8; 33],
    /// A DER signature of `revoked` by the revocation key, at most 255 bytes.
    pub revocation_signature: Bytes,
    /// A DER signature of `revoked` by the miner id, at most 255 bytes.
    pub miner_signature: Bytes,
}

impl Payload for MinerIdRevocation {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, version) = field("version", input, le_u32)?;
        let (input, revocation_key) = field("revocation_key", input, array)?;
        let (input, miner_id) = field("miner_id", input, array)?;
        let (start, revoked) = field("revoked", input, array)?;
        let (input, length) = field("signatures", start, compact_size)?;
        // Their lengths are single bytes, not CompactSizes.
        let signature = |input: &'a [u8]| -> Parsed<'a, Bytes> {
            let (input, length) = le_u8(input)?;
            let (input, taken) = nom::bytes::complete::take(length)(input)?;
            Ok((input, Bytes::copy_from_slice(taken)))
        };
        let (input, revocation_signature) = field("revocation_signature", input, signature)?;
        let (input, miner_signature) = field("miner_signature", input, signature)?;
        if length != (2 + revocation_signature.len() + miner_signature.len()) as u64 {
            return fail(start, "signatures", "not of the length announced");
        }
        Ok((
            input,
            Self { version, revocation_key, miner_id, revoked, revocation_signature, miner_signature },
        ))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u32_le(self.version);
        for key in [&self.revocation_key, &self.miner_id, &self.revoked] {
            output.put_slice(key);
        }
        // What does not fit its length's byte is no signature anyway.
        let signatures = [&self.revocation_signature, &self.miner_signature]
            .map(|signature| &signature[..signature.len().min(usize::from(u8::MAX))]);
        encode_compact_size(
            2 + signatures.iter().map(|signature| signature.len() as u64).sum::<u64>(),
            output,
        );
        for signature in signatures {
            output.put_u8(signature.len() as u8);
            output.put_slice(signature);
        }
    }
}

/// The `datareftx` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRefTransaction(pub HeaderProof);

impl Payload for DataRefTransaction {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        header_proof(input, payload).map(|(input, proof)| (input, Self(proof)))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_header_proof(&self.0, output);
    }
}
