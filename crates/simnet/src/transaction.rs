//! Transactions as a generator needs them: anyone can spend their outputs, so no keys are involved. And what a server needs:
//! transactions and blocks without their witnesses (BIP 144).

use bytes::{BufMut, Bytes, BytesMut};
use tipward_wire::{
    Txid,
    bitcoin::{Block, BlockHeader, Transaction, encode_compact_size},
    sha256d,
};

/// `OP_TRUE`: the script that anyone satisfies.
const OP_TRUE: u8 = 0x51;
const OP_RETURN: u8 = 0x6a;
/// SHA-256 of `OP_TRUE`, for the witness program that anyone satisfies.
const SHA256_OP_TRUE: [u8; 32] = [
    0x4a, 0xe8, 0x15, 0x72, 0xf0, 0x6e, 0x1b, 0x88, 0xfd, 0x5c, 0xed, 0x7a, 0x1a, 0x00, 0x09, 0x45, 0x43,
    0x2e, 0x83, 0xe1, 0x55, 0x1e, 0x6f, 0x72, 0x1e, 0xe9, 0xc0, 0x0b, 0x8c, 0xc3, 0x32, 0x60,
];

/// A transaction of one input in the making.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) spends: (Txid, u32),
    pub(crate) script_sig: Vec<u8>,
    pub(crate) witness: Option<Vec<u8>>,
    pub(crate) outputs: Vec<(u64, Vec<u8>)>,
}

impl Draft {
    /// Spends an output that [`anyone`] locked.
    pub(crate) fn spend(spends: (Txid, u32), segwit: bool) -> Self {
        Self { spends, script_sig: Vec::new(), witness: segwit.then(|| vec![OP_TRUE]), outputs: Vec::new() }
    }

    pub(crate) fn coinbase(height: u32, seed: u64, segwit: bool) -> Self {
        let mut script_sig = push_height(height);
        script_sig.push(8);
        script_sig.extend_from_slice(&seed.to_le_bytes());
        Self {
            spends: (Txid::ZERO, u32::MAX),
            script_sig,
            // The reserved value that BIP 141 wants in the coinbase's witness.
            witness: segwit.then(|| vec![0; 32]),
            outputs: Vec::new(),
        }
    }

    pub(crate) fn txid(&self) -> Txid {
        Txid::from_bytes(sha256d(&self.serialize(false)))
    }

    pub(crate) fn finish(&self) -> Transaction {
        Transaction::new(self.serialize(true)).expect("a draft serializes to a transaction")
    }

    pub(crate) fn serialize(&self, with_witness: bool) -> Bytes {
        let witness = self.witness.as_ref().filter(|_| with_witness);
        let mut bytes = BytesMut::new();
        bytes.put_i32_le(2);
        if witness.is_some() {
            bytes.put_slice(&[0, 1]);
        }
        bytes.put_u8(1);
        bytes.put_slice(self.spends.0.as_bytes());
        bytes.put_u32_le(self.spends.1);
        put_bytes(&self.script_sig, &mut bytes);
        bytes.put_u32_le(u32::MAX);
        encode_compact_size(self.outputs.len() as u64, &mut bytes);
        for (value, script) in &self.outputs {
            bytes.put_u64_le(*value);
            put_bytes(script, &mut bytes);
        }
        if let Some(item) = witness {
            bytes.put_u8(1);
            put_bytes(item, &mut bytes);
        }
        bytes.put_u32_le(0);
        bytes.freeze()
    }
}

/// The transaction as it travels to those who did not ask for witnesses.
pub(crate) fn without_witnesses(transaction: &Transaction) -> Bytes {
    let bytes = transaction.as_bytes();
    if !transaction.has_witnesses() {
        return bytes.clone();
    }
    // Between the version with the marker and flag, and the lock time.
    let body = transaction.stripped_size() - 8;
    let mut stripped = BytesMut::with_capacity(transaction.stripped_size());
    stripped.put_slice(&bytes[..4]);
    stripped.put_slice(&bytes[6..6 + body]);
    stripped.put_slice(&bytes[bytes.len() - 4..]);
    stripped.freeze()
}

/// The block as it travels to those who did not ask for witnesses.
pub(crate) fn block_without_witnesses(block: &Block) -> Bytes {
    let mut stripped = BytesMut::with_capacity(block.as_bytes().len());
    stripped.put_slice(&block.as_bytes()[..BlockHeader::SIZE]);
    encode_compact_size(block.offsets().len() as u64, &mut stripped);
    for transaction in block.transactions() {
        stripped.put_slice(&without_witnesses(&transaction));
    }
    stripped.freeze()
}

/// An output script that anyone can spend, by a witness program or bare.
pub(crate) fn anyone(segwit: bool) -> Vec<u8> {
    if !segwit {
        return vec![OP_TRUE];
    }
    let mut script = vec![0, 32];
    script.extend_from_slice(&SHA256_OP_TRUE);
    script
}

/// An output script that carries data and can't be spent.
pub(crate) fn data(bytes: &[u8]) -> Vec<u8> {
    let mut script = vec![OP_RETURN, 0x4e];
    script.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    script.extend_from_slice(bytes);
    script
}

/// The commitment to the witnesses (BIP 141).
pub(crate) fn witness_commitment(witness_root: [u8; 32]) -> Vec<u8> {
    let mut preimage = [0; 64];
    preimage[..32].copy_from_slice(&witness_root);
    let mut script = vec![OP_RETURN, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend_from_slice(&sha256d(&preimage));
    script
}

/// The height as BIP 34 wants it at the start of the coinbase.
fn push_height(height: u32) -> Vec<u8> {
    if (1..=16).contains(&height) {
        return vec![OP_TRUE - 1 + height as u8];
    }
    let mut number = height.to_le_bytes().to_vec();
    while number.last() == Some(&0) {
        number.pop();
    }
    // The top bit is the sign.
    if number.last().is_some_and(|byte| byte & 0x80 != 0) {
        number.push(0);
    }
    let mut script = vec![number.len() as u8];
    script.extend_from_slice(&number);
    script
}

fn put_bytes(content: &[u8], bytes: &mut BytesMut) {
    encode_compact_size(content.len() as u64, bytes);
    bytes.put_slice(content);
}
