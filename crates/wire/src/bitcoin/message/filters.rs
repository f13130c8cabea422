//! Block filters for light clients. Source: BIP 157.

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{le_u8, le_u32};

use super::{
    SMALL,
    fields::{Parsed, Payload, array, block_hash, bytes, field, list, put_bytes, put_list},
};
use crate::{
    BlockHash,
    bitcoin::{BlockFilter, FilterHash, FilterHeader},
};

/// The most filters that one `getcfilters` message may ask for.
pub const MAX_FILTERS: usize = 1000;
/// The distance in blocks of the filter headers in `cfcheckpt`.
pub const FILTER_CHECKPOINT_INTERVAL: u32 = 1000;
/// The most filter hashes in one `cfheaders` message.
pub const MAX_FILTER_HEADERS: usize = 2000;

/// The `getcfilters` and `getcfheaders` messages: filters, at most [`MAX_FILTERS`], or filter
/// headers, at most [`MAX_FILTER_HEADERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterRange {
    /// The type of filter; 0 is the basic one (BIP 158).
    pub filter_type: u8,
    /// The height of the first block.
    pub start_height: u32,
    /// The last block.
    pub stop: BlockHash,
}

impl Payload for FilterRange {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, filter_type) = field("filter_type", input, le_u8)?;
        let (input, start_height) = field("start_height", input, le_u32)?;
        let (input, stop) = field("stop_hash", input, block_hash)?;
        Ok((input, Self { filter_type, start_height, stop }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u8(self.filter_type);
        output.put_u32_le(self.start_height);
        output.put_slice(self.stop.as_bytes());
    }
}

/// The `cfilter` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterMessage {
    /// The type of filter.
    pub filter_type: u8,
    /// The block.
    pub block: BlockHash,
    /// Its filter.
    pub filter: BlockFilter,
}

impl Payload for FilterMessage {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        let (input, filter_type) = field("filter_type", input, le_u8)?;
        let (input, block) = field("block_hash", input, block_hash)?;
        let (input, filter) = field("filter", input, |i| bytes(i, payload, usize::MAX))?;
        // Filters are kept, and not the buffers that they came in.
        let filter = BlockFilter::new(Bytes::copy_from_slice(&filter));
        Ok((input, Self { filter_type, block, filter }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u8(self.filter_type);
        output.put_slice(self.block.as_bytes());
        put_bytes(self.filter.as_bytes(), output);
    }
}

/// The `cfheaders` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterHeaders {
    /// The type of filter.
    pub filter_type: u8,
    /// The last block.
    pub stop: BlockHash,
    /// The filter header of the block before the first.
    pub previous: FilterHeader,
    /// The hashes of the filters, at most [`MAX_FILTER_HEADERS`].
    pub hashes: Vec<FilterHash>,
}

impl FilterHeaders {
    /// The filter headers, one for each hash.
    pub fn headers(&self) -> impl Iterator<Item = FilterHeader> {
        self.hashes.iter().scan(self.previous, |previous, hash| {
            *previous = hash.header(*previous);
            Some(*previous)
        })
    }
}

impl Payload for FilterHeaders {
    const LIMIT: Option<u64> = Some(SMALL + 32 * MAX_FILTER_HEADERS as u64);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, filter_type) = field("filter_type", input, le_u8)?;
        let (input, stop) = field("stop_hash", input, block_hash)?;
        let (input, previous) = field("previous_filter_header", input, array)?;
        let (input, hashes) = list("filter_hashes", input, MAX_FILTER_HEADERS, 32, |input| {
            array(input).map(|(input, hash)| (input, FilterHash::from_bytes(hash)))
        })?;
        Ok((input, Self { filter_type, stop, previous: FilterHeader::from_bytes(previous), hashes }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u8(self.filter_type);
        output.put_slice(self.stop.as_bytes());
        output.put_slice(self.previous.as_bytes());
        put_list(&self.hashes, output, |hash, output| output.put_slice(hash.as_bytes()));
    }
}

/// The `getcfcheckpt` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetFilterCheckpoints {
    /// The type of filter.
    pub filter_type: u8,
    /// The last block.
    pub stop: BlockHash,
}

impl Payload for GetFilterCheckpoints {
    const LIMIT: Option<u64> = Some(SMALL);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, filter_type) = field("filter_type", input, le_u8)?;
        let (input, stop) = field("stop_hash", input, block_hash)?;
        Ok((input, Self { filter_type, stop }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u8(self.filter_type);
        output.put_slice(self.stop.as_bytes());
    }
}

/// The `cfcheckpt` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterCheckpoints {
    /// The type of filter.
    pub filter_type: u8,
    /// The last block.
    pub stop: BlockHash,
    /// The filter headers at the heights 1000, 2000 and so on, up to the last block.
    pub headers: Vec<FilterHeader>,
}

impl Payload for FilterCheckpoints {
    const LIMIT: Option<u64> = None;

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        let (input, filter_type) = field("filter_type", input, le_u8)?;
        let (input, stop) = field("stop_hash", input, block_hash)?;
        let (input, headers) = list("filter_headers", input, usize::MAX, 32, |input| {
            array(input).map(|(input, header)| (input, FilterHeader::from_bytes(header)))
        })?;
        Ok((input, Self { filter_type, stop, headers }))
    }

    fn serialize(&self, output: &mut BytesMut) {
        output.put_u8(self.filter_type);
        output.put_slice(self.stop.as_bytes());
        put_list(&self.headers, output, |header, output| output.put_slice(header.as_bytes()));
    }
}
