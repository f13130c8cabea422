//! Compact block filters: BIP 158's basic filter, a Golomb-coded set of the scripts a block touches, and the
//! headers by which BIP 157 chains them.

use bitcoin_hashes::siphash24;
use bytes::{Bytes, BytesMut};

use self::bit_stream::{BitReader, BitWriter, REMAINDER_BITS};
use super::{Block, decode_compact_size, encode_compact_size};
pub use crate::hash::{FilterHash, FilterHeader};
use crate::{BlockHash, sha256d};

mod bit_stream;
#[cfg(test)]
mod tests;

/// One of so many scripts that are not in the set matches nevertheless (BIP 158's M).
const INVERSE_FALSE_POSITIVE_RATE: u64 = 784_931;

/// The basic filter of a block as it travels in `cfilter`: CompactSize of the number of elements, then their
/// differences as a stream of bits.
///
/// A filter has all the block's output scripts but empty ones and those that start with `OP_RETURN`, and the
/// scripts of all outputs that it spends. A script that is in the set always matches, any other with a chance
/// of 1 in 784,931.
///
/// ```
/// use tipward_wire::{BlockHash, bitcoin::BlockFilter};
///
/// let block = BlockHash::from_bytes([7; 32]);
/// let filter = BlockFilter::build(&block, [b"one script", b"an other  "]);
/// assert!(filter.match_any(&block, [b"one script"])?);
/// assert!(!filter.match_any(&block, [b"unrelated"])?);
/// # Ok::<(), tipward_wire::bitcoin::FilterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFilter {
    bytes: Bytes,
}

impl BlockFilter {
    /// Takes a serialized filter as it is. [`Self::check`] tells whether it is well-formed; matching finds
    /// out only as far as it reads.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// The filter of `elements`, which are whole scripts in any order, for the block named `block`. Empty and
    /// repeated elements are left out. Without elements it is the one byte `00`.
    #[must_use]
    pub fn build(block: &BlockHash, elements: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut elements: Vec<_> =
            elements.into_iter().filter(|element| !element.as_ref().is_empty()).collect();
        // By content and not by hash: different elements with equal hashes count and are coded twice.
        elements.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        elements.dedup_by(|a, b| a.as_ref() == b.as_ref());

        let count = elements.len() as u64;
        let mut bytes = BytesMut::new();
        encode_compact_size(count, &mut bytes);
        let mut writer = BitWriter::new(bytes);
        let mut last = 0;
        for value in sorted_values(block, range(count), elements) {
            writer.write_difference(value - last);
            last = value;
        }
        Self { bytes: writer.finish() }
    }

    /// The basic filter of a block. `spent` are the scripts of all outputs that the block spends, in any order, which are in
    /// other blocks.
    #[must_use]
    pub fn of_block(block: &Block, spent: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut scripts: Vec<Vec<u8>> = spent.into_iter().map(|script| script.as_ref().to_vec()).collect();
        for transaction in block.transactions() {
            let outputs = transaction.outputs().map(|output| output.script());
            scripts.extend(
                outputs.filter(|script| !script.is_op_return()).map(|script| script.as_bytes().to_vec()),
            );
        }
        Self::build(&block.hash(), scripts)
    }

    /// The serialized filter.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of elements that the filter claims, which its length permits.
    ///
    /// # Errors
    ///
    /// [`FilterError::Count`] and [`FilterError::TooManyElements`].
    pub fn element_count(&self) -> Result<u64, FilterError> {
        self.values().map(|values| values.count)
    }

    /// Reads the whole filter to see that it is well-formed. As in Bitcoin Core, padding bits may have any
    /// value.
    ///
    /// # Errors
    ///
    /// Any [`FilterError`].
    pub fn check(&self) -> Result<(), FilterError> {
        let mut values = self.values()?;
        while values.read_value()?.is_some() {}
        match values.bits.unread_bytes() {
            0 => Ok(()),
            bytes => Err(FilterError::Excess { bytes }),
        }
    }

    /// Whether at least one of `queries`, which are whole scripts, is in the filter of the block named
    /// `block`. False without queries. The filter is read until the answer is known; memory is needed for 8
    /// bytes per query.
    ///
    /// # Errors
    ///
    /// Any [`FilterError`] but [`FilterError::Excess`], if the filter is malformed in the part that is read.
    pub fn match_any(
        &self,
        block: &BlockHash,
        queries: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<bool, FilterError> {
        let mut values = self.values()?;
        let mut queries = sorted_values(block, values.range, queries).into_iter().peekable();
        while let Some(value) = values.read_value()? {
            while queries.next_if(|query| *query < value).is_some() {}
            match queries.peek() {
                None => return Ok(false),
                Some(query) if *query == value => return Ok(true),
                Some(_) => {}
            }
        }
        Ok(false)
    }

    /// Whether all of `queries`, which are whole scripts, are in the filter of the block named `block`. True
    /// without queries. The filter is read until the answer is known; memory is needed for 8 bytes per query.
    ///
    /// # Errors
    ///
    /// Any [`FilterError`] but [`FilterError::Excess`], if the filter is malformed in the part that is read.
    pub fn match_all(
        &self,
        block: &BlockHash,
        queries: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<bool, FilterError> {
        let mut values = self.values()?;
        let mut queries = sorted_values(block, values.range, queries);
        queries.dedup();
        let mut queries = queries.into_iter().peekable();
        while let Some(query) = queries.peek() {
            match values.read_value()? {
                Some(value) if value == *query => drop(queries.next()),
                Some(value) if value < *query => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The filter's hash, by which `cfheaders` names it.
    #[must_use]
    pub fn hash(&self) -> FilterHash {
        FilterHash::from_bytes(sha256d(&self.bytes))
    }

    /// The filter's header, given the header of the previous block's filter.
    #[must_use]
    pub fn header(&self, previous: FilterHeader) -> FilterHeader {
        self.hash().header(previous)
    }

    fn values(&self) -> Result<Values<'_>, FilterError> {
        let (count, len) = decode_compact_size(&self.bytes).ok_or(FilterError::Count)?;
        let stream = &self.bytes[len..];
        let limit = (8 * stream.len() as u64 / u64::from(REMAINDER_BITS + 1)).min(u64::from(u32::MAX));
        if count > limit {
            return Err(FilterError::TooManyElements { count, limit });
        }
        Ok(Values { bits: BitReader::new(stream), count, read: 0, last: 0, range: range(count) })
    }
}

impl FilterHash {
    /// The header of the filter with this hash, given the header of the previous block's filter: what a
    /// client computes of `cfheaders`, without the filters.
    #[must_use]
    pub fn header(self, previous: FilterHeader) -> FilterHeader {
        FilterHeader::from_bytes(sha256d([*self.as_bytes(), *previous.as_bytes()].as_flattened()))
    }
}

/// What can be wrong with a block filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The filter does not start with a CompactSize in its shortest form.
    #[error("the filter has no element count")]
    Count,
    /// There are not enough bits for so many elements, or they are more than 2^32 - 1.
    #[error("the filter claims {count} elements, it has room for {limit}")]
    TooManyElements {
        /// The number claimed.
        count: u64,
        /// The most that the filter's length permits.
        limit: u64,
    },
    /// The stream of bits ends inside an element.
    #[error("the filter ends after {read} of {count} elements")]
    Cut {
        /// How many elements were read.
        read: u64,
        /// The number claimed.
        count: u64,
    },
    /// An element's value is not below 784,931 times the number of elements.
    #[error("element {index} of the filter is not below {range}")]
    OutOfRange {
        /// The element's index.
        index: u64,
        /// What it has to be below.
        range: u64,
    },
    /// Bytes follow the last element.
    #[error("{bytes} bytes follow the filter's last element")]
    Excess {
        /// How many.
        bytes: usize,
    },
}

/// Elements are mapped to values below this.
fn range(count: u64) -> u64 {
    count.saturating_mul(INVERSE_FALSE_POSITIVE_RATE)
}

fn sorted_values(
    block: &BlockHash,
    range: u64,
    elements: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Vec<u64> {
    let (keys, _) = block.as_bytes().as_chunks::<8>();
    let (k0, k1) = (u64::from_le_bytes(keys[0]), u64::from_le_bytes(keys[1]));
    let value = |element: &[u8]| {
        let hash = siphash24::Hash::hash_to_u64_with_keys(k0, k1, element);
        ((u128::from(hash) * u128::from(range)) >> 64) as u64
    };
    let mut values: Vec<u64> = elements.into_iter().map(|element| value(element.as_ref())).collect();
    values.sort_unstable();
    values
}

/// The values of a filter's elements, in ascending order.
struct Values<'a> {
    bits: BitReader<'a>,
    count: u64,
    read: u64,
    last: u64,
    range: u64,
}

impl Values<'_> {
    /// The next value; `None` after the last one.
    fn read_value(&mut self) -> Result<Option<u64>, FilterError> {
        if self.read == self.count {
            return Ok(None);
        }
        let (index, count, range) = (self.read, self.count, self.range);
        let cut = || FilterError::Cut { read: index, count };
        let quotient = self.bits.read_ones().ok_or_else(cut)?;
        // Before the shift and the sum: below 2^52 neither can overflow.
        if quotient > range >> REMAINDER_BITS {
            return Err(FilterError::OutOfRange { index, range });
        }
        let remainder = self.bits.read_remainder().ok_or_else(cut)?;
        let value = self.last + (quotient << REMAINDER_BITS | remainder);
        if value >= range {
            return Err(FilterError::OutOfRange { index, range });
        }
        self.read += 1;
        self.last = value;
        Ok(Some(value))
    }
}
