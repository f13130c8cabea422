//! What each peer is asked, and when it is late.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerId,
    wire::{BlockHash, BlockPart, DownloadId, FilterHeader},
};

/// The longest that a peer may bring nothing.
const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// How many times its patience a question may go without an answer of its own while the peer brings other things.
const BUSY: u32 = 6;
/// How many times the shortest patience what everything waits for may take, however it trickles, before somebody else is asked too.
const SLOW: u32 = 15;
/// Of how many blocks a peer's filter headers are kept, so that it is found out when it says something else later.
const MAX_HEADERS: usize = 8192;
/// How many questions of each kind may be open.
const HASHES_AT_ONCE: usize = 4;
const RANGES_AT_ONCE: usize = 2;
const BLOCKS_AT_ONCE: usize = 4;

/// The kinds of questions. Who answers one kind may be silent on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Hashes,
    Filters,
    Blocks,
}

/// A question that is open.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) what: What,
    pub(super) asked: Instant,
    /// When it was asked, or something of its answer came last.
    pub(super) moved: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The hashes of the filters of so many blocks up to this one.
    Hashes { start: u64, count: u32, stop: BlockHash },
    /// The filters of these blocks, which have not come.
    Filters(BTreeMap<BlockHash, u64>),
    /// A block.
    Block { height: u64, hash: BlockHash },
}

impl What {
    /// Whether the filter or the block itself is among what is asked for.
    pub(super) fn has(&self, block: BlockHash, kind: Kind) -> bool {
        match self {
            Self::Filters(blocks) => kind == Kind::Filters && blocks.contains_key(&block),
            Self::Block { hash, .. } => kind == Kind::Blocks && *hash == block,
            Self::Hashes { .. } => false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Hashes { .. } => Kind::Hashes,
            Self::Filters(_) => Kind::Filters,
            Self::Block { .. } => Kind::Blocks,
        }
    }
}

impl Task {
    /// When somebody else may be asked too.
    pub(super) fn slow_at(&self, timeout: Duration) -> Instant {
        self.asked + timeout.saturating_mul(SLOW)
    }
}

/// How well a peer answers one kind of questions.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Time-outs since the last answer.
    strikes: u32,
    /// It is asked nothing before.
    rests_until: Option<Instant>,
}

/// A block that is arriving.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) height: u64,
    pub(super) hash: BlockHash,
    pub(super) download: DownloadId,
    pub(super) parts: Vec<BlockPart>,
    pub(super) bytes: u64,
}

/// A peer as a source of filters.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) serves_filters: bool,
    pub(super) tasks: Vec<Task>,
    standings: [Standing; 3],
    /// When something came last that was asked for.
    moved: Instant,
    /// What it said the filter headers are, by height.
    headers: BTreeMap<u64, (BlockHash, FilterHeader)>,
    pub(super) arriving: Option<Arriving>,
    /// The user's figures.
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            serves_filters: true,
            tasks: Vec::new(),
            standings: [Standing { strikes: 0, rests_until: None }; 3],
            moved: now,
            headers: BTreeMap::new(),
            arriving: None,
            blocks: 0,
            bytes: 0,
        }
    }

    /// Whether it can take one more question of this kind.
    pub(super) fn has_room(&self, kind: Kind, now: Instant) -> bool {
        let most = match kind {
            Kind::Hashes => HASHES_AT_ONCE,
            Kind::Filters => RANGES_AT_ONCE,
            Kind::Blocks => BLOCKS_AT_ONCE,
        };
        let standing = &self.standings[kind as usize];
        let open = self.open(kind);
        let is_resting = standing.rests_until.is_some_and(|until| until > now);
        // Who was silent shows with one answer that it is back.
        (kind == Kind::Blocks || self.serves_filters)
            && !is_resting
            && open < if standing.strikes > 0 { 1 } else { most }
    }

    pub(super) fn open(&self, kind: Kind) -> usize {
        self.tasks.iter().filter(|task| task.what.kind() == kind).count()
    }

    pub(super) fn is_asked(&self, what: &What) -> bool {
        self.tasks.iter().any(|task| task.what == *what)
    }

    /// Whether it is asked for this filter or block.
    pub(super) fn is_to_bring(&self, block: BlockHash, kind: Kind) -> bool {
        self.tasks.iter().any(|task| task.what.has(block, kind))
    }

    pub(super) fn ask(&mut self, what: What, now: Instant) {
        self.tasks.push(Task { what, asked: now, moved: now });
    }

    /// Something has come that was asked for; `is_done`: all that a question of this kind was for.
    pub(super) fn brought(&mut self, kind: Kind, is_done: bool, now: Instant) {
        self.moved = now;
        if is_done {
            self.standings[kind as usize] = Standing { strikes: 0, rests_until: None };
        }
    }

    /// Bytes of a block are coming.
    pub(super) fn sends_block(&mut self, now: Instant) {
        self.moved = now;
        let oldest = self.tasks.iter_mut().find(|task| task.what.kind() == Kind::Blocks);
        if let Some(task) = oldest {
            task.moved = now;
        }
    }

    fn patience(&self, kind: Kind, timeout: Duration) -> Duration {
        timeout.saturating_mul(1 << self.standings[kind as usize].strikes.min(10)).min(MAX_PATIENCE)
    }

    /// When this question is late: nothing came for so long, or nothing for it although other things did.
    fn due(&self, task: &Task, timeout: Duration) -> Instant {
        let patience = self.patience(task.what.kind(), timeout);
        let quiet = task.moved.max(self.moved) + patience;
        quiet.min(task.moved + patience * BUSY)
    }

    /// When time alone has an effect next; what was due when it was `checked` has had its effect.
    pub(super) fn deadline(&self, timeout: Duration, checked: Option<Instant>) -> Option<Instant> {
        let late = self.tasks.iter().map(|task| self.due(task, timeout));
        let rests =
            self.standings.iter().filter_map(|it| it.rests_until).filter(|until| Some(*until) > checked);
        let slow = self.tasks.iter().map(|task| task.slow_at(timeout)).filter(|at| Some(*at) > checked);
        late.chain(rests).chain(slow).min()
    }

    /// Takes back what is late. Returns the most time-outs in a row that the peer has come to, and of what.
    pub(super) fn expire(&mut self, timeout: Duration, now: Instant) -> Option<(u32, Kind)> {
        let mut late: Vec<Kind> = self
            .tasks
            .iter()
            .filter(|task| self.due(task, timeout) <= now)
            .map(|task| task.what.kind())
            .collect();
        late.sort_unstable();
        late.dedup();
        for kind in &late {
            let patience = self.patience(*kind, timeout);
            let standing = &mut self.standings[*kind as usize];
            standing.strikes += 1;
            // Once is no habit.
            standing.rests_until = (standing.strikes > 1).then(|| now + patience);
            self.tasks.retain(|task| task.what.kind() != *kind);
        }
        late.into_iter().map(|kind| (self.standings[kind as usize].strikes, kind)).max()
    }

    /// It does not have, or can't be asked, what it was asked of this kind.
    pub(super) fn rest(&mut self, kind: Kind, timeout: Duration, now: Instant) {
        let patience = self.patience(kind, timeout);
        self.standings[kind as usize].rests_until = Some(now + patience);
    }

    /// Takes note of a filter header; false if the peer has said something else of the same block.
    pub(super) fn says(&mut self, height: u64, block: BlockHash, header: FilterHeader) -> bool {
        if let Some((of, before)) = self.headers.get(&height)
            && *of == block
        {
            return *before == header;
        }
        self.headers.insert(height, (block, header));
        if self.headers.len() > MAX_HEADERS {
            self.headers.pop_first();
        }
        true
    }
}

/// The peers by number.
pub(super) type Peers = BTreeMap<PeerId, Peer>;
