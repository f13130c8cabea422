//! What header rules may ask about the headers before the one that they check.

use tipward_sync::{
    BlockId,
    peer::wire::{BlockHash, bitcoin::Work},
};

/// A header's time must be later than the median of so many before it (Bitcoin Core, `nMedianTimeSpan`).
pub(crate) const MEDIAN_SPAN: u64 = 11;

/// What a header says that matters to the headers after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFacts {
    /// Its own work.
    pub work: Work,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// How hard it claims to be, in its chain's own form; the tree only keeps it.
    pub bits: u32,
}

/// A header in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderNode {
    /// The block.
    pub id: BlockId,
    /// The work of the chain up to here, this header included.
    pub work: Work,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// How hard it claims to be, in its chain's own form.
    pub bits: u32,
}

/// A chain of headers, of which the last is the parent of the one to be checked.
pub trait Branch {
    /// The last header.
    fn tip(&self) -> HeaderNode;

    /// The header at a height; `None` above the last one, and below where the tree begins.
    fn at(&self, height: u64) -> Option<HeaderNode>;

    /// Whether a block is in the tree, on this branch or another.
    fn knows(&self, block: BlockHash) -> bool;

    /// From the last header back to where the tree begins.
    fn back(&self) -> Box<dyn Iterator<Item = HeaderNode> + '_> {
        Box::new((0..=self.tip().id.height).rev().map_while(|height| self.at(height)))
    }

    /// The median time of the header at that height and the ten before it, in seconds since 1970; of fewer where the chain
    /// has no more. `None` if one of them is not there.
    fn median_time(&self, height: u64) -> Option<u32> {
        let mut times = [0; MEDIAN_SPAN as usize];
        let count = MEDIAN_SPAN.min(height + 1);
        let times = &mut times[..count as usize];
        for (time, height) in times.iter_mut().zip((0..=height).rev()) {
            *time = self.at(height)?.time;
        }
        Some(median(times))
    }
}

/// The middle one, the later of two.
pub(crate) fn median(times: &mut [u32]) -> u32 {
    times.sort_unstable();
    times[times.len() / 2]
}
