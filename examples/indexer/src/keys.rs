//! How keys and values are written: fixed fields, one after the other, numbers big-endian, so that keys sort as numbers do.

use std::{fmt, str::FromStr};

use hex_conservative::{DisplayHex, decode_to_array};
use sha2::{Digest, Sha256};
use tipward_chain::sync::{
    BlockId,
    peer::wire::{BlockHash, Txid},
};

/// What the index knows a script by: the first 20 bytes of its SHA-256, as many as are in most addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptKey(pub [u8; Self::LEN]);

impl ScriptKey {
    pub(crate) const LEN: usize = 20;

    /// Of a script.
    #[must_use]
    pub fn of(script: &[u8]) -> Self {
        Self::of_hash(&Sha256::digest(script).into())
    }

    pub(crate) fn of_hash(hash: &[u8; 32]) -> Self {
        let mut key = [0; Self::LEN];
        key.copy_from_slice(&hash[..Self::LEN]);
        Self(key)
    }
}

/// Text that is not a script hash.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a script hash: the 64 hexadecimal digits of the script's SHA-256 are needed")]
pub struct NoScriptHash(String);

impl FromStr for ScriptKey {
    type Err = NoScriptHash;

    fn from_str(text: &str) -> Result<Self, NoScriptHash> {
        let hash: [u8; 32] = decode_to_array(text).map_err(|_| NoScriptHash(text.to_owned()))?;
        Ok(Self::of_hash(&hash))
    }
}

impl fmt::Display for ScriptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hex(), f)
    }
}

/// Five bytes of a number below 2^40: of a transaction, or of a byte in a block.
pub(crate) fn five(number: u64) -> [u8; 5] {
    debug_assert!(number < 1 << 40);
    let [_, _, _, bytes @ ..] = number.to_be_bytes();
    bytes
}

/// An output by the number of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the transaction, on the best chain from genesis on.
    pub transaction: u64,
    /// The number of the output in it, from 0.
    pub index: u32,
}

impl Place {
    pub(crate) fn bytes(self) -> [u8; 9] {
        join([&five(self.transaction)[..], &self.index.to_be_bytes()])
    }
}

/// Puts fields together, which have that length.
pub(crate) fn join<const N: usize, const M: usize>(fields: [&[u8]; M]) -> [u8; N] {
    let (mut bytes, mut at) = ([0; N], 0);
    for field in fields {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    debug_assert_eq!(at, N);
    bytes
}

/// Takes fields from the front of what [the index](crate::index) wrote.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

/// The database holds what the index did not write.
#[derive(Debug, thiserror::Error)]
#[error("the database is damaged: an entry is too short")]
pub struct Damaged;

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn short(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn five(&mut self) -> Result<u64, Damaged> {
        let [a, b, c, d, e] = self.array()?;
        Ok(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]))
    }

    pub(crate) fn place(&mut self) -> Result<Place, Damaged> {
        Ok(Place { transaction: self.five()?, index: self.short()? })
    }

    pub(crate) fn script(&mut self) -> Result<ScriptKey, Damaged> {
        Ok(ScriptKey(self.array()?))
    }
}

/// Up to where the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The last block.
    pub block: BlockId,
    /// How many transactions there are up to and with it: the number of the next one.
    pub transactions: u64,
}

impl Cursor {
    pub(crate) fn write(&self) -> [u8; 48] {
        join([
            &self.block.height.to_be_bytes()[..],
            self.block.hash.as_bytes(),
            &self.transactions.to_be_bytes(),
        ])
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Fields(bytes);
        let (height, hash) = (fields.number()?, BlockHash::from_bytes(fields.array()?));
        Ok(Self { block: BlockId { height, hash }, transactions: fields.number()? })
    }
}

/// A block's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockRow {
    /// Its hash.
    pub hash: BlockHash,
    /// The number of its first transaction.
    pub first: u64,
    /// How many transactions it has.
    pub transactions: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The time in its header, in seconds since 1970.
    pub time: u32,
    /// How many outputs its transactions spend.
    pub inputs: u64,
    /// How many outputs they have.
    pub outputs: u64,
    /// What is spent, in satoshi.
    pub value_in: u64,
    /// What the outputs have, in satoshi, those of the coinbase included.
    pub value_out: u64,
    /// How many inputs spend what no block has: always 0 on a valid chain.
    pub unknown_inputs: u64,
}

impl BlockRow {
    pub(crate) fn write(&self) -> [u8; 100] {
        let Self { first, transactions, size, inputs, outputs, value_in, value_out, unknown_inputs, .. } =
            *self;
        let numbers = [first, transactions, size, inputs, outputs, value_in, value_out, unknown_inputs];
        let numbers = numbers.map(u64::to_be_bytes);
        join([self.hash.as_bytes(), &self.time.to_be_bytes(), numbers.as_flattened()])
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Fields(bytes);
        Ok(Self {
            hash: BlockHash::from_bytes(fields.array()?),
            time: fields.short()?,
            first: fields.number()?,
            transactions: fields.number()?,
            size: fields.number()?,
            inputs: fields.number()?,
            outputs: fields.number()?,
            value_in: fields.number()?,
            value_out: fields.number()?,
            unknown_inputs: fields.number()?,
        })
    }
}

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionRow {
    /// Its id.
    pub txid: Txid,
    /// The height of its block.
    pub height: u32,
    /// Where it starts in its block, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl TransactionRow {
    pub(crate) fn write(&self) -> [u8; 46] {
        let height = self.height.to_be_bytes();
        join([&self.txid.as_bytes()[..], &height, &five(self.offset), &five(self.size)])
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Fields(bytes);
        Ok(Self {
            txid: Txid::from_bytes(fields.array()?),
            height: fields.short()?,
            offset: fields.five()?,
            size: fields.five()?,
        })
    }
}

/// What an undo record takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undo {
    /// This input, by its transaction and number there, has spent this output.
    Spent { input: Place, output: Place, script: ScriptKey, value: u64 },
    /// This output, which nobody can spend, is in the history of its script and nowhere else.
    Unspendable { output: Place, script: ScriptKey },
}

impl Undo {
    const SPENT: u8 = 0;
    const UNSPENDABLE: u8 = 1;

    pub(crate) fn append(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Spent { input, output, script, value } => {
                bytes.push(Self::SPENT);
                bytes.extend_from_slice(&input.bytes());
                bytes.extend_from_slice(&output.bytes());
                bytes.extend_from_slice(&script.0);
                bytes.extend_from_slice(&value.to_be_bytes());
            }
            Self::Unspendable { output, script } => {
                bytes.push(Self::UNSPENDABLE);
                bytes.extend_from_slice(&output.bytes());
                bytes.extend_from_slice(&script.0);
            }
        }
    }

    pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<Self>, Damaged> {
        let (mut fields, mut records) = (Fields(bytes), Vec::new());
        while !fields.0.is_empty() {
            let [kind] = fields.array()?;
            records.push(match kind {
                Self::SPENT => Self::Spent {
                    input: fields.place()?,
                    output: fields.place()?,
                    script: fields.script()?,
                    value: fields.number()?,
                },
                Self::UNSPENDABLE => Self::Unspendable { output: fields.place()?, script: fields.script()? },
                _ => return Err(Damaged),
            });
        }
        Ok(records)
    }
}
