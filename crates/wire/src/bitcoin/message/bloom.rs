//! Connection bloom filtering. Source: BIP 37.

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{le_u8, le_u32};

use super::fields::{Parsed, Payload, array, bytes, fail, field, header, list, put_bytes, put_list};
use super::{Command, Message};
use crate::{
    WireError,
    bitcoin::{BlockHeader, BloomFilter, MAX_BLOOM_FILTER_SIZE, MAX_BLOOM_HASH_FUNCTIONS, PartialMerkleTree},
};

impl Payload for BloomFilter {
    const LIMIT: Option<u64> = Some(9 + MAX_BLOOM_FILTER_SIZE as u64 + 9);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (start, data) = field("filter", input, |i| bytes(i, payload, MAX_BLOOM_FILTER_SIZE))?;
        let (input, hash_functions) = field("hash_functions", start, le_u32)?;
        if hash_functions > MAX_BLOOM_HASH_FUNCTIONS {
            return fail(start, "hash_functions", "more than allowed");
        }
        let (input, tweak) = field("tweak", input, le_u32)?;
        let (input, update) = field("flags", input, le_u8)?;
        Ok((input, Self { data: data.to_vec(), hash_functions, tweak, update: update.into() }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(&self.data, output);
        output.put_u32_le(self.hash_functions);
        output.put_u32_le(self.tweak);
        output.put_u8(self.update.into());
    }
}

/// The `filteradd` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterAdd {
    /// The element, at most 520 bytes.
    pub element: Bytes,
}

impl Payload for FilterAdd {
    const LIMIT: Option<u64> = Some(9 + 520);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        field("element", input, |i| bytes(i, payload, 520)).map(|(input, element)| (input, Self { element }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_bytes(&self.element, output);
    }
}

/// The `merkleblock` message, and what a node's `gettxoutproof` returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleBlock {
    /// The block's header.
    pub header: BlockHeader,
    /// The proof of the transactions that matched.
    pub tree: PartialMerkleTree,
}

impl MerkleBlock {
    /// The proof as a node's `gettxoutproof` returns it and its `verifytxoutproof` takes it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        self.serialize(&mut bytes);
        bytes.freeze()
    }

    /// Reads such a proof. What it proves is for [`PartialMerkleTree::verify`] to say.
    ///
    /// # Errors
    /// [`WireError::Malformed`]: the bytes are no proof, or more.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, WireError> {
        let length = bytes.len();
        let command = Command::new("merkleblock").expect("a short ASCII name");
        let (offset, problem) = match Message::parse(command, bytes)? {
            (Message::MerkleBlock(proof), trailing) if trailing.is_empty() => return Ok(proof),
            (_, trailing) => (length - trailing.len(), "more bytes follow"),
        };
        Err(WireError::Malformed { command: command.to_string(), field: "flags", offset, problem })
    }
}

impl Payload for MerkleBlock {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, header) = field("header", input, header)?;
        let (input, transactions) = field("total_transactions", input, le_u32)?;
        let (input, hashes) = list("hashes", input, usize::MAX, 32, array)?;
        let (input, flags) = field("flags", input, |i| bytes(i, payload, usize::MAX))?;
        let tree = PartialMerkleTree { transactions, hashes, flags: flags.to_vec() };
        Ok((input, Self { header, tree }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_slice(&self.header.to_bytes());
        output.put_u32_le(self.tree.transactions);
        put_list(&self.tree.hashes, output, |hash, output| output.put_slice(hash));
        put_bytes(&self.tree.flags, output);
    }
}
