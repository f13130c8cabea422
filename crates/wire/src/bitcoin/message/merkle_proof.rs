//! Proofs that a transaction is in a block, as BSV's messages carry them. Source: the BSV node's `merkleproof.h`.

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::le_u8;

use super::fields::{Parsed, array, compact_size, fail, field, list, put_bytes, put_list, transaction, txid};
use crate::{
    Txid,
    bitcoin::{Transaction, encode_compact_size, merkle::pair},
};

/// That a transaction is in a block, as BSV's messages carry it. A block's own root must be compared with
/// [`MerkleProof::root`]; the proof alone says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleProof {
    /// What the target is, in bits 1 and 2: 0 for a block hash, 4 for a merkle root. A whole header (2) is sent by no node
    /// and not understood. Bit 0 follows from the subject when written.
    pub flags: u8,
    /// The transaction's position in the block, from 0.
    pub index: u64,
    /// The transaction that is proven.
    pub subject: MerkleProofSubject,
    /// What it is proven to be in.
    pub target: [u8; 32],
    /// The siblings on the way to the root, lowest first.
    pub nodes: Vec<MerkleProofNode>,
}

/// The transaction that a [`MerkleProof`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MerkleProofSubject {
    /// By its id.
    Txid(Txid),
    /// Itself.
    Transaction(Transaction),
}

/// A sibling on the way to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MerkleProofNode {
    /// 0 for a hash; nodes send no other.
    pub kind: u8,
    /// The hash, in the order in which it travels.
    pub hash: [u8; 32],
}

impl MerkleProof {
    /// The id of the transaction that is proven.
    #[must_use]
    pub fn txid(&self) -> Txid {
        match &self.subject {
            MerkleProofSubject::Txid(txid) => *txid,
            MerkleProofSubject::Transaction(transaction) => transaction.txid(),
        }
    }

    /// The merkle root that the proof leads to; `None` if the index is beyond the tree or a node is no hash.
    #[must_use]
    pub fn root(&self) -> Option<[u8; 32]> {
        let (mut hash, mut index) = (*self.txid().as_bytes(), self.index);
        for node in &self.nodes {
            let (left, right) = if index & 1 == 0 { (&hash, &node.hash) } else { (&node.hash, &hash) };
            if node.kind != 0 || (left == right && index & 1 == 1) {
                return None; // a right branch that repeats its left one: CVE-2012-2459
            }
            hash = pair(left, right);
            index >>= 1;
        }
        (index == 0).then_some(hash)
    }
}

/// The least that a proof takes, in bytes: one with a transaction without inputs and outputs.
pub(super) const MIN_PROOF: usize = 1 + 1 + 1 + 10 + 32 + 1;

pub(super) fn merkle_proof<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, MerkleProof> {
    let (input, flags) = field("flags", input, le_u8)?;
    let (input, index) = field("index", input, compact_size)?;
    let (input, subject) = if flags & 1 == 0 {
        let (input, txid) = field("txid", input, txid)?;
        (input, MerkleProofSubject::Txid(txid))
    } else {
        let (start, length) = field("transaction_length", input, compact_size)?;
        let (input, transaction) = transaction(start, payload)?;
        if transaction.as_bytes().len() as u64 != length {
            return fail(start, "transaction", "not of the length announced");
        }
        (input, MerkleProofSubject::Transaction(transaction))
    };
    let (input, target) = field("target", input, array)?;
    let (input, nodes) = list("nodes", input, 64, 33, |input| {
        let (input, kind) = le_u8(input)?;
        let (input, hash) = array(input)?;
        Ok((input, MerkleProofNode { kind, hash }))
    })?;
    Ok((input, MerkleProof { flags, index, subject, target, nodes }))
}

pub(super) fn put_merkle_proof(proof: &MerkleProof, output: &mut BytesMut) {
    match &proof.subject {
        MerkleProofSubject::Txid(txid) => {
            output.put_u8(proof.flags & !1);
            encode_compact_size(proof.index, output);
            output.put_slice(txid.as_bytes());
        }
        MerkleProofSubject::Transaction(transaction) => {
            output.put_u8(proof.flags | 1);
            encode_compact_size(proof.index, output);
            put_bytes(transaction.as_bytes(), output);
        }
    }
    output.put_slice(&proof.target);
    put_list(&proof.nodes, output, |node, output| {
        output.put_u8(node.kind);
        output.put_slice(&node.hash);
    });
}
