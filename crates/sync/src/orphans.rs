//! A pool of blocks whose parents are not known yet.
//!
//! A block of a chain has one parent, a block of a DAG several; an orphan waits for all of them that are not in the tree.
//! Whoever knows the tree says when a block has become known ([`OrphanPool::resolve`]), or that it never will
//! ([`OrphanPool::remove_subtree`]), and asks for what is missing ([`OrphanPool::missing_ancestors`]).
//!
//! The pool is bounded by count and by bytes, and no peer can flush what others brought: while there is room a peer may fill
//! it all, and when there is none, whoever has most above its share loses its oldest. Orphans of a peer that is gone stay.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, wire::BlockHash};

/// An orphan with more missing parents is refused: nothing that a chain allows today, and what an index entry costs adds up.
const MAX_PARENTS: usize = 64;

/// The bounds of an [`OrphanPool`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanOptions {
    /// How many orphans are kept; 700.
    pub max_count: usize,
    /// How many bytes of them; 64 MiB.
    pub max_bytes: u64,
    /// One of how many equal shares of the pool, by count and by bytes, a peer has for sure; 4, a quarter. 0 counts as 1.
    pub shares: u32,
    /// After how long an orphan is given up; one hour.
    pub expiry: Duration,
}

impl Default for OrphanOptions {
    fn default() -> Self {
        Self { max_count: 700, max_bytes: 64 << 20, shares: 4, expiry: Duration::from_secs(3600) }
    }
}

/// A block that waits for its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan<T> {
    /// The block.
    pub hash: BlockHash,
    /// Its parents that are not in the tree; some of them may be orphans themselves. Empty once it is released.
    pub parents: Vec<BlockHash>,
    /// Who brought it.
    pub peer: PeerId,
    /// What it counts, in bytes.
    pub bytes: u64,
    /// Whatever is to be kept with it.
    pub payload: T,
}

/// Why a block is not taken into the pool. The pool is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrphanRefused {
    /// It is there already.
    #[error("the orphan is in the pool already")]
    Duplicate,
    /// It waits for nothing.
    #[error("no parent is missing")]
    NoParents,
    /// It waits for too many.
    #[error("{count} parents are missing, more than {MAX_PARENTS}")]
    TooManyParents {
        /// How many.
        count: usize,
    },
    /// The pool is full of orphans of peers that are within their share, or it is larger than the pool.
    #[error("no room for an orphan of {bytes} bytes")]
    NoRoom {
        /// Its size.
        bytes: u64,
    },
}

/// Blocks whose parents are not known. Times must not go back.
#[derive(Debug)]
pub struct OrphanPool<T> {
    options: OrphanOptions,
    orphans: BTreeMap<BlockHash, Kept<T>>,
    /// A missing parent, the number of an orphan that waits for it, and that orphan.
    waiting: BTreeSet<(BlockHash, u64, BlockHash)>,
    /// The oldest first.
    by_age: BTreeMap<u64, BlockHash>,
    held: BTreeMap<PeerId, Held>,
    bytes: u64,
    /// The number of the next orphan.
    next: u64,
}

#[derive(Debug)]
struct Kept<T> {
    orphan: Orphan<T>,
    number: u64,
    since: Instant,
}

/// What the pool has of one peer.
#[derive(Debug, Clone, Default)]
struct Held {
    bytes: u64,
    /// The oldest first.
    numbers: BTreeSet<u64>,
}

impl<T> OrphanPool<T> {
    /// An empty pool.
    #[must_use]
    pub fn new(options: OrphanOptions) -> Self {
        Self {
            options,
            orphans: BTreeMap::new(),
            waiting: BTreeSet::new(),
            by_age: BTreeMap::new(),
            held: BTreeMap::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// Takes an orphan; returns those that had to go for it. What is returned is still missing to those who wait for it.
    ///
    /// # Errors
    /// It can't be kept; nothing has changed then.
    pub fn insert(&mut self, now: Instant, mut orphan: Orphan<T>) -> Result<Vec<Orphan<T>>, OrphanRefused> {
        if self.orphans.contains_key(&orphan.hash) {
            return Err(OrphanRefused::Duplicate);
        }
        orphan.parents.sort_unstable();
        orphan.parents.dedup();
        match orphan.parents.len() {
            0 => return Err(OrphanRefused::NoParents),
            count if count > MAX_PARENTS => return Err(OrphanRefused::TooManyParents { count }),
            _ => {}
        }
        let bytes = orphan.bytes;
        let victims = self.make_room(orphan.peer, bytes).ok_or(OrphanRefused::NoRoom { bytes })?;
        let evicted = victims.into_iter().filter_map(|hash| self.remove(hash)).collect();
        let (number, hash) = (self.next, orphan.hash);
        self.next += 1;
        self.waiting.extend(orphan.parents.iter().map(|parent| (*parent, number, hash)));
        self.by_age.insert(number, hash);
        let held = self.held.entry(orphan.peer).or_default();
        held.numbers.insert(number);
        held.bytes += bytes;
        self.bytes += bytes;
        self.orphans.insert(hash, Kept { orphan, number, since: now });
        Ok(evicted)
    }

    /// A block is in the tree now: takes out everything that waits for nothing more, parents before children.
    pub fn resolve(&mut self, known: BlockHash) -> Vec<Orphan<T>> {
        let mut released: Vec<Orphan<T>> = self.take_ready(known);
        let mut next = 0;
        while let Some(hash) = released.get(next).map(|orphan| orphan.hash) {
            released.extend(self.take_ready(hash));
            next += 1;
        }
        released
    }

    /// A block is in the tree now: takes out its children that wait for nothing more, the oldest first. For those who have to
    /// look at each before its own children are released.
    pub fn take_ready(&mut self, known: BlockHash) -> Vec<Orphan<T>> {
        let mut ready = Vec::new();
        let children: Vec<BlockHash> = self.children(known).map(|child| child.hash).collect();
        for child in children {
            let Some(kept) = self.orphans.get_mut(&child) else { continue };
            self.waiting.remove(&(known, kept.number, child));
            kept.orphan.parents.retain(|parent| *parent != known);
            if kept.orphan.parents.is_empty() {
                ready.extend(self.remove(child));
            }
        }
        ready
    }

    /// Takes out a block, if it is an orphan, and everything that builds on it, parents before children where it builds on one
    /// only: a descendant of a rejected block is rejected.
    pub fn remove_subtree(&mut self, root: BlockHash) -> Vec<Orphan<T>> {
        let mut removed = Vec::new();
        let mut queue = VecDeque::from([root]);
        while let Some(hash) = queue.pop_front() {
            queue.extend(self.children(hash).map(|child| child.hash));
            removed.extend(self.remove(hash));
        }
        removed
    }

    /// Takes out one orphan. Those who wait for it wait on.
    pub fn remove(&mut self, hash: BlockHash) -> Option<Orphan<T>> {
        let Kept { orphan, number, .. } = self.orphans.remove(&hash)?;
        for parent in &orphan.parents {
            self.waiting.remove(&(*parent, number, hash));
        }
        self.by_age.remove(&number);
        self.bytes -= orphan.bytes;
        if let Some(held) = self.held.get_mut(&orphan.peer) {
            held.numbers.remove(&number);
            held.bytes -= orphan.bytes;
            if held.numbers.is_empty() {
                self.held.remove(&orphan.peer);
            }
        }
        Some(orphan)
    }

    /// Takes out what has waited for too long, the oldest first.
    pub fn expire(&mut self, now: Instant) -> Vec<Orphan<T>> {
        let mut expired = Vec::new();
        while self.next_expiry().is_some_and(|at| at <= now) {
            let oldest = self.by_age.first_key_value().map(|(_, hash)| *hash);
            expired.extend(oldest.and_then(|hash| self.remove(hash)));
        }
        expired
    }

    /// When [`expire`](Self::expire) will have an effect.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let (_, hash) = self.by_age.first_key_value()?;
        Some(self.orphans.get(hash)?.since + self.options.expiry)
    }

    /// The blocks that have to come before this orphan can be released: its ancestors that are neither in the tree nor in the
    /// pool, ascending. Empty if it is no orphan.
    #[must_use]
    pub fn missing_ancestors(&self, of: BlockHash) -> Vec<BlockHash> {
        let mut missing = BTreeSet::new();
        let mut seen = BTreeSet::from([of]);
        let mut stack = vec![of];
        while let Some(hash) = stack.pop() {
            match self.orphans.get(&hash) {
                Some(kept) => stack.extend(kept.orphan.parents.iter().filter(|parent| seen.insert(**parent))),
                None => _ = missing.insert(hash),
            }
        }
        missing.remove(&of);
        missing.into_iter().collect()
    }

    /// The blocks that have to come before all orphans can be released, ascending.
    pub fn missing(&self) -> impl Iterator<Item = BlockHash> {
        let mut last = None;
        let parents = self.waiting.iter().map(|(parent, ..)| *parent);
        parents.filter(move |parent| last.replace(*parent) != Some(*parent) && !self.contains(*parent))
    }

    /// Whether this block is an orphan of the pool.
    #[must_use]
    pub fn contains(&self, hash: BlockHash) -> bool {
        self.orphans.contains_key(&hash)
    }

    /// An orphan.
    #[must_use]
    pub fn get(&self, hash: BlockHash) -> Option<&Orphan<T>> {
        self.orphans.get(&hash).map(|kept| &kept.orphan)
    }

    /// The orphans that wait for this block, the oldest first.
    pub fn children(&self, of: BlockHash) -> impl Iterator<Item = &Orphan<T>> {
        let first = (of, 0, BlockHash::ZERO);
        let waiting = self.waiting.range(first..).take_while(move |(parent, ..)| *parent == of);
        waiting.filter_map(|(.., child)| self.get(*child))
    }

    /// Whether an orphan waits for this block.
    #[must_use]
    pub fn is_awaited(&self, hash: BlockHash) -> bool {
        self.children(hash).next().is_some()
    }

    /// How many orphans there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orphans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orphans.is_empty()
    }

    /// The sum of their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many orphans, and how many bytes of them, this peer can add without losing any: what is free, or what is left of its
    /// share if that is more. Bytes of single orphans that do not fit exactly may make it less.
    #[must_use]
    pub fn room_for(&self, peer: PeerId) -> (usize, u64) {
        let held = self.held.get(&peer);
        let (count, bytes) = held.map_or((0, 0), |held| (held.numbers.len(), held.bytes));
        let free = self.options.max_count.saturating_sub(self.len());
        let free_bytes = self.options.max_bytes.saturating_sub(self.bytes);
        (
            free.max(self.share_of_count().saturating_sub(count)),
            free_bytes.max(self.share_of_bytes().saturating_sub(bytes)),
        )
    }

    /// How many bytes of orphans can be added, from whomever, without losing any.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.options.max_bytes.saturating_sub(self.bytes)
    }

    fn share_of_count(&self) -> usize {
        self.options.max_count / self.options.shares.max(1) as usize
    }

    fn share_of_bytes(&self) -> u64 {
        self.options.max_bytes / u64::from(self.options.shares.max(1))
    }

    /// Who has to go for one more orphan of this size from this peer; `None` if it does not fit whoever goes.
    ///
    /// Of what is short, count or bytes, the peer that has most of it loses its oldest, as long as that is above its share;
    /// then the newcomer's own peer.
    fn make_room(&self, peer: PeerId, bytes: u64) -> Option<Vec<BlockHash>> {
        let mut victims = Vec::new();
        let (mut count, mut total) = (self.len().checked_add(1)?, self.bytes.checked_add(bytes)?);
        let is_count_short = |count: usize| count > self.options.max_count;
        if !is_count_short(count) && total <= self.options.max_bytes {
            return Some(victims);
        }
        // What would be left of each: count, bytes, and the oldest.
        let left = |(&id, held): (&PeerId, &Held)| {
            let (own, own_bytes) = if id == peer { (1, bytes) } else { (0, 0) };
            (id, (held.numbers.len() + own, held.bytes.saturating_add(own_bytes)))
        };
        let mut left: BTreeMap<PeerId, (usize, u64)> = self.held.iter().map(left).collect();
        let mut ages: BTreeMap<_, _> =
            self.held.iter().map(|(&id, held)| (id, held.numbers.iter())).collect();
        while is_count_short(count) || total > self.options.max_bytes {
            let most = if is_count_short(count) {
                let most = left.iter().max_by_key(|(_, (count, _))| *count);
                most.filter(|(_, (count, _))| *count > self.share_of_count())
            } else {
                left.iter()
                    .max_by_key(|(_, (_, bytes))| *bytes)
                    .filter(|(_, (_, bytes))| *bytes > self.share_of_bytes())
            };
            let loser = most.map_or(peer, |(&id, _)| id);
            let Some(number) = ages.get_mut(&loser)?.next() else {
                // The newcomer alone is above the share: there is nothing else of its peer.
                left.remove(&loser)?;
                continue;
            };
            let hash = *self.by_age.get(number)?;
            let size = self.orphans.get(&hash)?.orphan.bytes;
            let (of_count, of_bytes) = left.get_mut(&loser)?;
            (*of_count, *of_bytes) = (*of_count - 1, *of_bytes - size);
            (count, total) = (count - 1, total - size);
            victims.push(hash);
        }
        Some(victims)
    }
}

#[cfg(test)]
mod tests;
