//! How an archive is kept, and what is pruned of it.

use redb::ReadableTable;

use super::index::{Entry, Place};

/// A new segment is begun when this one would grow larger, in bytes: the nodes' own limit.
const SEGMENT_SIZE: u64 = 128 << 20;
/// What pruned nodes keep at least, in blocks: two days of BTC. No reorg of any real chain was nearly as deep, so whoever
/// follows one, and serves or undoes its blocks, finds them here.
const MIN_DEPTH: u64 = 288;

/// How an archive is kept. Nothing is pruned by default.
///
/// Blocks are pruned by whole segments, the oldest first, and never one of the last 288 of the best chain. So an archive is
/// larger than the options say by up to a segment, or by what those 288 take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveOptions {
    /// Segments are deleted while they take more than so many bytes on disk together.
    pub max_bytes: Option<u64>,
    /// Segments are deleted of which every block is at least so deep below the tip: the tip's own depth is 0.
    pub max_depth: Option<u64>,
    /// A new segment is begun when this one would grow larger, in bytes; one with a larger block has that alone. 128 MiB.
    pub segment_size: u64,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self { max_bytes: None, max_depth: None, segment_size: SEGMENT_SIZE }
    }
}

/// The options with what no option can undercut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: Option<u64>,
    pub(super) max_depth: Option<u64>,
    pub(super) min_depth: u64,
    pub(super) segment_size: u64,
}

impl From<ArchiveOptions> for Limits {
    fn from(options: ArchiveOptions) -> Self {
        let ArchiveOptions { max_bytes, max_depth, segment_size } = options;
        Self { max_bytes, max_depth, min_depth: MIN_DEPTH, segment_size }
    }
}

impl Limits {
    /// The first segment to keep, when `first` is the first that is there. The last one is always kept.
    pub(super) fn prune(
        &self,
        places: &impl ReadableTable<Place, Entry<'static>>,
        first: u32,
        tip: u64,
    ) -> Result<u32, redb::Error> {
        let last = places.last()?.map_or(first, |(place, _)| place.value().0);
        let mut bytes = 0;
        if self.max_bytes.is_some() {
            for segment in first..=last {
                bytes += segment_len(places, segment)?;
            }
        }
        let mut kept = first;
        while kept < last {
            let is_too_much = self.max_bytes.is_some_and(|most| bytes > most);
            let depth = if is_too_much { Some(self.min_depth) } else { self.max_depth };
            // Blocks up to this height may go.
            let Some(height) = depth.and_then(|depth| tip.checked_sub(depth.max(self.min_depth))) else {
                break;
            };
            if !is_up_to(places, kept, height)? {
                break;
            }
            if is_too_much {
                bytes -= segment_len(places, kept)?;
            }
            kept += 1;
        }
        Ok(kept)
    }
}

/// Where the last record of a segment ends.
fn segment_len(places: &impl ReadableTable<Place, Entry<'static>>, segment: u32) -> Result<u64, redb::Error> {
    let last = places.range((segment, 0)..=(segment, u64::MAX))?.next_back().transpose()?;
    Ok(last.map_or(0, |(place, entry)| place.value().1 + entry.value().1))
}

/// Whether no block of a segment is higher. The last ones are looked at first, since they are the highest but after reorgs.
fn is_up_to(
    places: &impl ReadableTable<Place, Entry<'static>>,
    segment: u32,
    height: u64,
) -> Result<bool, redb::Error> {
    for entry in places.range((segment, 0)..=(segment, u64::MAX))?.rev() {
        if entry?.1.value().3 > height {
            return Ok(false);
        }
    }
    Ok(true)
}
