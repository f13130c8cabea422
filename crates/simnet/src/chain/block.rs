//! One block of a chain, which may be larger than what is kept of it.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use tipward_wire::{
    BlockHash, Sha256d,
    bitcoin::{Block, BlockHeader, Transaction},
};

/// How many bytes follow the witnesses of a transaction: its lock time.
const LOCK_TIME: usize = 4;

/// A block of a chain.
#[derive(Debug, Clone)]
pub struct SimBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Its header.
    pub header: BlockHeader,
    /// The block as it travels: all of it, unless it has a [filler](crate::SimChain::extend_sized), which
    /// follows.
    pub raw: Bytes,
    filler: Filler,
    /// Computed when first asked for.
    checksum: OnceLock<[u8; 4]>,
}

/// Bytes that are repeated to a length; a block of any size takes no more memory than these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filler {
    pub(super) unit: Bytes,
    pub(super) length: u64,
}

impl SimBlock {
    /// A block that is all there.
    pub(crate) fn whole(header: BlockHeader, raw: Bytes) -> Self {
        Self::filled(header, raw, Filler::default())
    }

    pub(super) fn filled(header: BlockHeader, raw: Bytes, filler: Filler) -> Self {
        Self { hash: header.hash(), header, raw, filler, checksum: OnceLock::new() }
    }

    /// How large the block is, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.raw.len() as u64 + self.filler.length
    }

    /// Whether `raw` is all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.filler.length == 0
    }

    /// The block as it travels, in pieces that need no memory of their own.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let Filler { unit, length } = self.filler.clone();
        let mut left = length;
        let repeated = std::iter::from_fn(move || {
            let next = usize::try_from(left).map_or(unit.len(), |left| left.min(unit.len()));
            left -= next as u64;
            (next > 0).then(|| unit.slice(..next))
        });
        std::iter::once(self.raw.clone()).chain(repeated)
    }

    /// The whole block in one piece; assembled if it has a filler.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        if self.is_whole() {
            return self.raw.clone();
        }
        let mut whole = BytesMut::new();
        self.pieces().for_each(|piece| whole.extend_from_slice(&piece));
        whole.freeze()
    }

    /// The same block, in which a transaction is another.
    pub(crate) fn spoiled(&self) -> Self {
        let mut raw = BytesMut::from(&self.raw[..]);
        if let Some(last) = raw.last_mut() {
            // Of the lock time of a transaction.
            *last ^= 1;
        }
        Self { raw: raw.freeze(), checksum: OnceLock::new(), ..self.clone() }
    }

    /// The same block with other witnesses, which its hash does not show: of its coinbase, the value that the commitment is made
    /// with (BIP 141). Of a block without witnesses, or of one that is not whole here, a transaction is another.
    pub(crate) fn with_other_witnesses(&self) -> Self {
        let Ok(block) = Block::new(self.raw.clone()) else { return self.spoiled() };
        let coinbase = block.transaction(0).filter(Transaction::has_witnesses);
        let end = block.offsets().get(1).map_or(self.raw.len(), |second| *second as usize);
        let (Some(_), Some(last)) = (coinbase, end.checked_sub(LOCK_TIME + 1)) else { return self.spoiled() };
        let mut raw = BytesMut::from(&self.raw[..]);
        raw[last] ^= 1;
        Self { raw: raw.freeze(), checksum: OnceLock::new(), ..self.clone() }
    }

    /// The checksum in the block's frame: what SHA-256d of the block starts with. Computed once.
    #[must_use]
    pub fn checksum(&self) -> [u8; 4] {
        *self.checksum.get_or_init(|| {
            let mut hash = Sha256d::new();
            self.pieces().for_each(|piece| hash.update(&piece));
            let [a, b, c, d, ..] = hash.finish();
            [a, b, c, d]
        })
    }
}

impl PartialEq for SimBlock {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, &self.raw, &self.filler) == (other.hash, &other.raw, &other.filler)
    }
}

impl Eq for SimBlock {}
