//! Headers that are added, one by one or many at a time, which is much faster.

use tipward_sync::{
    Update,
    peer::{
        UnixTime,
        wire::{BlockHash, Header},
    },
};

use super::{
    BlockTree, Entry, TreeBranch,
    links::{Linked, skip_depth},
    make_room,
};
use crate::{HeaderError, HeaderFacts, HeaderRules};

impl BlockTree {
    /// Adds a header whose parent is in the tree. Returns how the best chain changed, if it did; `None` also if the header is
    /// known or its parent is not.
    pub fn insert(&mut self, header: &Header, facts: HeaderFacts) -> Option<Update> {
        self.add(header, facts).then(|| self.choose(header.hash)).flatten()
    }

    /// Checks headers by these rules, each as the child of the one before it, the first as the child of one in the tree, and
    /// adds them. Returns how the best chain changed, if it did. Headers that are known are passed over.
    ///
    /// # Errors
    /// The first rule that one of them breaks, or [`HeaderError::NotLinked`]; none of them is added then.
    pub fn extend(
        &mut self,
        headers: &[Header],
        rules: &dyn HeaderRules,
        now: UnixTime,
    ) -> Result<Option<Update>, HeaderError> {
        let len = self.len();
        let Some(last) = headers.last() else { return Ok(None) };
        if let Err((_, error)) = self.add_all(headers, rules, now) {
            self.take_back(len);
            return Err(error);
        }
        Ok(self.choose(last.hash))
    }

    /// As [`extend`](Self::extend), without a look at which branch is best. On an error, what came before it stays; says how
    /// many headers that are.
    pub(crate) fn add_all(
        &mut self,
        headers: &[Header],
        rules: &dyn HeaderRules,
        now: UnixTime,
    ) -> Result<(), (usize, HeaderError)> {
        let follow =
            |header: &Header, facts, branch: TreeBranch<'_>| rules.follow(header, facts, &branch, now);
        self.add_by(headers, rules, follow)
    }

    /// As [`add_all`](Self::add_all), for headers that were checked once: of the rules only those that need no other header.
    pub(crate) fn add_linked(
        &mut self,
        headers: &[Header],
        rules: &dyn HeaderRules,
    ) -> Result<(), (usize, HeaderError)> {
        self.add_by(headers, rules, |_, _, _| Ok(()))
    }

    fn add_by(
        &mut self,
        headers: &[Header],
        rules: &dyn HeaderRules,
        follow: impl Fn(&Header, HeaderFacts, TreeBranch<'_>) -> Result<(), HeaderError>,
    ) -> Result<(), (usize, HeaderError)> {
        let known = headers.iter().map_while(|header| self.find(header.hash)).count();
        let Some(first) = headers.get(known) else { return Ok(()) };
        let headers = &headers[known..];
        // What can be done for all at once is, first their hashes and targets, last their places in the index: the processor
        // begins with the next then while it waits for memory.
        let (all, read) = rules.read_all(headers);
        let start = self.entries.len();
        let mut result = read.map_err(|error| (known + all.len(), error));
        let mut parent = self.find(first.parent);
        for (count, (header, facts)) in headers.iter().zip(&all).enumerate() {
            let checked = match parent.filter(|&at| self.entry(at).hash == header.parent) {
                Some(at) => follow(header, *facts, TreeBranch { tree: self, at }).map(|()| at),
                None => Err(HeaderError::NotLinked { hash: header.hash }),
            };
            match checked {
                Ok(at) => parent = Some(self.push(at, header.hash, *facts)),
                Err(error) => {
                    result = Err((known + count, error));
                    break;
                }
            }
        }
        (start..self.entries.len()).for_each(|at| self.put_into_index(at as u32));
        result
    }

    /// Adds a header without a look at which branch is best. False if it is known, or its parent is not.
    pub(crate) fn add(&mut self, header: &Header, facts: HeaderFacts) -> bool {
        self.put(header.hash, header.parent, facts)
    }

    pub(super) fn put(&mut self, hash: BlockHash, parent: BlockHash, facts: HeaderFacts) -> bool {
        let Some(parent) = self.find(parent).filter(|_| self.find(hash).is_none()) else { return false };
        let at = self.push(parent, hash, facts);
        self.put_into_index(at);
        true
    }

    /// Puts a new header on top of one, and not yet into the index. Returns where it is.
    fn push(&mut self, parent: u32, hash: BlockHash, facts: HeaderFacts) -> u32 {
        // 2^32 headers are 340 GB.
        let at = u32::try_from(self.entries.len()).expect("memory ends before");
        let HeaderFacts { work, time, bits } = facts;
        let before = self.entry(parent);
        let (work, depth) = (before.work + work, before.depth + 1);
        let skip = self.back_to(parent, skip_depth(depth));
        make_room(&mut self.entries);
        self.entries.push(Entry { hash, work, parent, skip, depth, time, bits });
        at
    }

    /// Takes back what was added since there were `len` headers. None of it must have been made best.
    pub(crate) fn take_back(&mut self, len: usize) {
        for at in len..self.entries.len() {
            let slot = self.slot(self.entries[at].hash, at as u32);
            let found = self.index.find_entry(slot.spread(), |other| other.at == slot.at);
            found.expect("every entry is in the index").remove();
        }
        self.entries.truncate(len);
    }
}
