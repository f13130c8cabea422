//! What is promised, checked at every output.

use std::{collections::BTreeSet, sync::Arc};

use tipward_sync::{
    Block, BlockId, Chain, Order, Strategy, SyncOptions,
    peer::{
        PeerId, Want,
        wire::{BlockHash, BlockPart, DownloadId},
    },
};

use crate::chain::{Tree, Universe, View, content};

/// Which blocks were given to a sink, or are in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    at: Vec<Option<u32>>,
    count: usize,
    /// The lowest height that is missing.
    gap: usize,
}

impl Applied {
    fn get(&self, height: usize) -> Option<u32> {
        self.at.get(height).copied().flatten()
    }

    /// One more block, and its place in the order.
    fn apply(&mut self, number: u32, order: Order, universe: &Universe) {
        let block = universe.block(number);
        let height = block.height as usize;
        assert_eq!(self.get(height), None, "height {height} is applied twice");
        if order == Order::Chain {
            assert_eq!(height, self.at.len(), "applied out of order");
        }
        if height >= self.at.len() {
            self.at.resize(height + 1, None);
        }
        if let Some(below) = height.checked_sub(1).and_then(|below| self.get(below)) {
            assert_eq!(block.parent, below, "height {height} is not on what is applied below it");
        }
        if let Some(above) = self.get(height + 1) {
            assert_eq!(universe.block(above).parent, number, "height {height} is not below what is applied");
        }
        self.at[height] = Some(number);
        self.count += 1;
        while self.get(self.gap).is_some() {
            self.gap += 1;
        }
    }

    fn cut(&mut self, keep: usize) {
        self.at.truncate(keep);
        self.count = self.at.iter().flatten().count();
        self.gap = self.gap.min(self.at.len());
    }

    /// The last block below which none is missing.
    fn cursor(&self) -> Option<u32> {
        self.get(self.gap.checked_sub(1)?)
    }

    fn is(&self, view: View, universe: &Universe) -> bool {
        let heights = view.height as usize + 1;
        self.at.len() == heights
            && self.count == heights
            && (0..heights).all(|height| self.get(height) == universe.at(view, height as u64))
    }
}

/// The parts of a block that the sink was given.
#[derive(Debug)]
struct Stream {
    id: BlockId,
    download: DownloadId,
    next: u32,
    offset: u64,
}

/// The judge.
#[derive(Debug)]
pub(crate) struct Oracle {
    universe: Arc<Universe>,
    options: SyncOptions,
    /// What the scheduler gave away, and what of it is in the sink for good.
    given: Applied,
    stored: Applied,
    stream: Option<Stream>,
    pub(crate) is_paused: bool,
    gone: BTreeSet<PeerId>,
    /// When everything that there is was told to be applied, and nothing has come since.
    pub(crate) synced: Option<BlockId>,
    /// New headers that were told.
    pub(crate) headers: u64,
    pub(crate) rollbacks: u64,
    pub(crate) streamed: u64,
    pub(crate) aborted: u64,
}

impl Oracle {
    pub(crate) fn new(universe: Arc<Universe>, options: SyncOptions) -> Self {
        Self {
            universe,
            options,
            given: Applied::default(),
            stored: Applied::default(),
            stream: None,
            is_paused: false,
            gone: BTreeSet::new(),
            synced: None,
            headers: 0,
            rollbacks: 0,
            streamed: 0,
            aborted: 0,
        }
    }

    fn number(&self, id: BlockId) -> u32 {
        let number = self.universe.number(&id.hash).expect("a block that exists");
        assert_eq!(u64::from(self.universe.block(number).height), id.height, "the height of {id}");
        number
    }

    fn id(&self, number: u32) -> BlockId {
        let block = self.universe.block(number);
        BlockId { height: u64::from(block.height), hash: block.hash }
    }

    /// The bytes of a part are those of the block, at its place.
    fn part(&self, part: &BlockPart) {
        let number = self.universe.number(&part.block).expect("a block that exists");
        let expected = content(number, part.offset, part.bytes.len());
        let is_same = std::ptr::eq(expected.as_ptr(), part.bytes.as_ptr()) || *expected == part.bytes[..];
        assert!(is_same && !part.bytes.is_empty(), "the bytes of {} at {}", part.block, part.offset);
    }

    /// The sink is given a block.
    pub(crate) fn apply(&mut self, block: &Block, tree: &Tree) {
        let number = self.number(block.id);
        let (id, size) = (block.id, self.universe.block(number).size);
        assert_eq!(tree.best_at(id.height), Some(id.hash), "{id} is not on the best chain");
        let top = tree.tip().height;
        let behind = self.options.stay_behind;
        assert!(id.height == 0 || id.height + behind <= top, "{id} is too close to the tip at {top}");
        assert!(self.options.stop_at.is_none_or(|stop| id.height <= stop), "{id} is above the stop");
        assert_eq!(block.size, size, "the size of {id}");
        let streamed = self.stream.take();
        if block.is_streamed {
            let stream = streamed.expect("a streamed block's parts come first");
            assert_eq!((stream.id, stream.offset), (id, size), "the parts of {id} are not all there");
            assert!(block.parts.is_empty(), "{id} comes twice: in parts and whole");
            self.streamed += 1;
        } else {
            assert!(streamed.is_none(), "{id} comes between the parts of another block");
            let mut offset = 0;
            for part in &block.parts {
                assert_eq!((part.block, part.offset), (id.hash, offset), "a part of {id}");
                self.part(part);
                offset += part.bytes.len() as u64;
            }
            assert_eq!(offset, size, "the parts of {id} are not all there");
        }
        self.given.apply(number, self.options.order, &self.universe);
        self.synced = None;
    }

    /// The sink is given a part.
    pub(crate) fn apply_part(&mut self, id: BlockId, part: &BlockPart, tree: &Tree) {
        assert_eq!(tree.best_at(id.height), Some(id.hash), "{id} is not on the best chain");
        assert_eq!(self.given.get(id.height as usize), None, "{id} was applied before");
        if self.options.order == Order::Chain {
            assert_eq!(self.given.at.len() as u64, id.height, "parts of {id} out of order");
        }
        self.part(part);
        let (next, offset, download) = self
            .stream
            .as_ref()
            .map_or((0, 0, part.download), |stream| (stream.next, stream.offset, stream.download));
        assert!(self.stream.as_ref().is_none_or(|stream| stream.id == id), "parts of two blocks are mixed");
        let expected = (id.hash, next, offset, download);
        assert_eq!((part.block, part.index, part.offset, part.download), expected, "the next part of {id}");
        self.stream = Some(Stream { id, download, next: next + 1, offset: offset + part.bytes.len() as u64 });
    }

    pub(crate) fn abort(&mut self, id: BlockId) {
        assert_eq!(self.stream.take().map(|stream| stream.id), Some(id), "nothing of {id} to abort");
        self.aborted += 1;
    }

    pub(crate) fn rollback(&mut self, to: BlockId, tree: &Tree) {
        assert!(self.stream.is_none(), "a rollback to {to} between the parts of a block");
        let number = self.number(to);
        assert_eq!(tree.best_at(to.height), Some(to.hash), "rolled back to {to}, not on the best chain");
        if self.options.order == Order::Chain {
            let last = self.given.cursor().map(|last| self.id(last)).expect("something to roll back");
            assert_eq!(tree.fork_point(last.hash), Some(to), "rolled back from {last} too far or not enough");
            assert_eq!(self.given.get(to.height as usize), Some(number), "{to} was not applied");
        }
        assert!(to.height + 1 < self.given.at.len() as u64, "nothing above {to} to undo");
        self.given.cut(to.height as usize + 1);
        self.rollbacks += 1;
        self.synced = None;
    }

    /// The sink has done it.
    pub(crate) fn stored(&mut self, id: BlockId) {
        let number = self.number(id);
        self.stored.apply(number, self.options.order, &self.universe);
    }

    pub(crate) fn undone(&mut self, to: BlockId) {
        self.stored.cut(to.height as usize + 1);
    }

    /// The program ends and starts again: what the sink has stored is all that is left, and what lies above its cursor it
    /// takes again.
    pub(crate) fn restart(&mut self) -> Option<BlockId> {
        self.stored.cut(self.stored.gap);
        self.given = self.stored.clone();
        (self.stream, self.synced, self.is_paused) = (None, None, false);
        self.stored.cursor().map(|number| self.id(number))
    }

    pub(crate) fn gone(&mut self, peer: PeerId) {
        self.gone.insert(peer);
    }

    pub(crate) fn ask(&self, peer: PeerId, want: &Want) {
        assert!(!self.gone.contains(&peer), "{peer} is asked after its end");
        let asks_blocks = match want {
            Want::Blocks(blocks) => {
                // Who has no headers learns how deep a block lies by getting those above it.
                let depth = match self.options.strategy {
                    Strategy::HeadersFirst => 0,
                    _ => self.options.stay_behind,
                };
                let above = |hash: &BlockHash| {
                    let number = self.universe.number(hash).expect("a block that exists");
                    let height = u64::from(self.universe.block(number).height);
                    self.options.stop_at.is_some_and(|stop| height > stop + depth)
                };
                assert!(!blocks.iter().any(above), "{peer} is asked for a block above the stop");
                assert!(!blocks.is_empty(), "{peer} is asked for nothing");
                true
            }
            Want::Range { .. } | Want::SlotRange { .. } | Want::Ancestors { .. } => true,
            _ => false,
        };
        assert!(!(asks_blocks && self.is_paused), "{peer} is asked for blocks in a pause");
    }

    /// The block that everything waits for.
    pub(crate) fn next_height(&self) -> u64 {
        self.given.gap as u64
    }

    pub(crate) fn stored_count(&self) -> usize {
        self.stored.count
    }

    /// Whether everything up to there is in the sink, and nothing else.
    pub(crate) fn is_at(&self, view: View) -> bool {
        let heights = view.height as usize + 1;
        self.stored.count == heights && self.given.count == heights && self.stored.is(view, &self.universe)
    }
}
