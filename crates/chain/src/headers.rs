//! The header chain: tree, rules and store together, as the scheduler wants it.

use std::{path::Path, sync::Arc};

use tipward_sync::{
    Accepted, Block, BlockId, Chain, RefusedHeaders, Update,
    peer::wire::{BlockHash, Header, bitcoin::Work},
};

use crate::{BlockTree, Coin, HeaderError, HeaderRules, HeaderStore, StoreError};

/// How many headers beside the best chain are kept; who sends more is refused. Real chains have a handful.
const MAX_SIDE_HEADERS: usize = 100_000;

/// All headers of a network: checked, stored, and the best branch known.
#[derive(Debug)]
pub struct HeaderChain {
    tree: BlockTree,
    rules: Box<dyn HeaderRules>,
    store: HeaderStore,
    genesis: Block,
    /// Headers above this height are passed over.
    max_height: Option<u64>,
}

impl HeaderChain {
    /// Opens the store and rebuilds the tree from it. Headers above `max_height` that arrive later are not taken.
    ///
    /// # Errors
    /// The store can't be opened, or what it holds is no chain.
    pub fn open(path: &Path, coin: &dyn Coin, max_height: Option<u64>) -> Result<Self, StoreError> {
        let (rules, store) = (coin.rules(), HeaderStore::open(path, coin)?);
        let genesis = coin.genesis_header();
        let work = rules.check(&genesis).map_err(|error| StoreError::damaged(path, error.to_string()))?;
        let mut tree = BlockTree::new(&genesis, work);
        store.load(|raw| {
            let header = coin.parse_header(raw).map_err(|error| error.to_string())?;
            let work = rules.check(&header).map_err(|error| error.to_string())?;
            if tree.get(header.parent).is_none() {
                return Err(format!("its parent {} is not there", header.parent));
            }
            tree.insert(&header, work);
            Ok(())
        })?;
        Ok(Self { tree, rules, store, genesis: coin.genesis_block(), max_height })
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &BlockTree {
        &self.tree
    }

    /// Checks the new ones among headers that follow each other: their work, in order.
    fn check(&self, headers: &[Header]) -> Result<Vec<Work>, HeaderError> {
        for pair in headers.windows(2) {
            if pair[1].parent != pair[0].hash {
                return Err(HeaderError::NotLinked { hash: pair[1].hash });
            }
        }
        let works =
            headers.iter().map(|header| self.rules.check(header)).collect::<Result<Vec<Work>, _>>()?;
        // On top of the best chain there is room for all.
        let extends = headers.first().is_some_and(|first| first.parent == self.tree.tip().hash);
        if !extends && self.tree.side_headers() + headers.len() > MAX_SIDE_HEADERS {
            return Err(HeaderError::TooManyBranches { limit: MAX_SIDE_HEADERS });
        }
        Ok(works)
    }
}

impl Chain for HeaderChain {
    fn tip(&self) -> BlockId {
        self.tree.tip()
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.tree.best_at(height)
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.fork_point(hash)
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.tree.locator(from)
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let Some(first) = headers.first() else { return Ok(Accepted { added: 0, last: None, update: None }) };
        let known = headers.iter().take_while(|header| self.tree.get(header.hash).is_some()).count();
        let below = match self.tree.get(first.parent) {
            Some(parent) => parent.height + 1,
            None if known > 0 => 0,
            None => return Err(RefusedHeaders::UnknownParent { parent: first.parent }),
        };
        let room = self
            .max_height
            .map_or(usize::MAX, |max| usize::try_from((max + 1).saturating_sub(below)).unwrap_or(usize::MAX));
        let headers = &headers[..headers.len().min(room)];
        let known = known.min(headers.len());
        let new = &headers[known..];
        let last = headers.last().map(|header| header.hash);
        if new.is_empty() {
            return Ok(Accepted { added: 0, last, update: None });
        }
        let works = self.check(new).map_err(|error| RefusedHeaders::Invalid(Arc::new(error)))?;
        self.store
            .append(new.iter().map(|header| &header.raw))
            .map_err(|error| RefusedHeaders::Store(Arc::new(error)))?;
        let updates = new.iter().zip(works).filter_map(|(header, work)| self.tree.insert(header, work));
        let update = updates.reduce(Then::then);
        Ok(Accepted { added: new.len(), last, update })
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        (id == self.genesis.id).then(|| self.genesis.clone())
    }
}

/// Two updates in a row as one.
trait Then {
    fn then(self, next: Self) -> Self;
}

impl Then for Update {
    fn then(mut self, next: Self) -> Self {
        let stay = next.keep.saturating_sub(self.keep);
        if next.keep < self.keep {
            return next;
        }
        self.append.truncate(usize::try_from(stay).unwrap_or(usize::MAX));
        self.append.extend(next.append);
        self
    }
}

#[cfg(test)]
mod tests {
    use tipward_sync::peer::wire::bitcoin::{BlockHeader, Network};

    use super::*;

    fn mined(parent: BlockHash, time: u32) -> BlockHeader {
        let network = Network::BTC_REGTEST;
        let mut header = BlockHeader { parent, time, ..network.genesis() };
        while !header.meets_target(network.pow_limit) {
            header.nonce += 1;
        }
        header
    }

    fn run(mut parent: BlockHash, length: usize, time: u32) -> Vec<Header> {
        let mut headers = Vec::new();
        for n in 0..length {
            let header = mined(parent, time + n as u32);
            parent = header.hash();
            headers.push(header.into());
        }
        headers
    }

    fn open(dir: &tempfile::TempDir, max_height: Option<u64>) -> HeaderChain {
        HeaderChain::open(&dir.path().join("headers.redb"), &Network::BTC_REGTEST, max_height).unwrap()
    }

    #[test]
    fn a_restart_finds_the_same_tree() {
        let dir = tempfile::tempdir().unwrap();
        let genesis = Network::BTC_REGTEST.genesis_hash();
        let (first, second) = (run(genesis, 5, 1), run(genesis, 5, 1000));
        let mut chain = open(&dir, None);
        assert_eq!(chain.accept(&first).unwrap().update.unwrap().append.len(), 5);
        assert_eq!(chain.accept(&second).unwrap().update, None);
        assert_eq!(
            chain.accept(&first).unwrap(),
            Accepted { added: 0, last: Some(first[4].hash), update: None }
        );
        drop(chain);
        let mut chain = open(&dir, None);
        assert_eq!(chain.tip(), BlockId { height: 5, hash: first[4].hash });
        let next = run(second[4].hash, 1, 2000);
        let update = chain.accept(&next).unwrap().update.unwrap();
        assert_eq!((update.keep, update.append.len()), (1, 6));
        // Overlap of known and new.
        let more = run(next[0].hash, 2, 3000);
        let overlap = [&second[3..], &next[..], &more[..]].concat();
        assert_eq!(chain.accept(&overlap).unwrap().added, 2);
        assert_eq!(chain.tip().height, 8);
    }

    #[test]
    fn a_bad_header_spoils_its_whole_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = open(&dir, None);
        let good = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);

        let mut gap = good.clone();
        gap.remove(2);
        let error = chain.accept(&gap).unwrap_err().to_string();
        assert!(error.contains("does not follow the header before it"), "{error}");

        let mut lazy = mined(good[3].hash, 9);
        while lazy.meets_target(lazy.bits) {
            lazy.nonce += 1;
        }
        let mut bad = good[..4].to_vec();
        bad.push(lazy.into());
        let error = chain.accept(&bad).unwrap_err().to_string();
        assert!(error.contains("lacks proof of work"), "{error}");

        let strays = run(BlockHash::from_bytes([9; 32]), 2, 1);
        assert!(matches!(chain.accept(&strays), Err(RefusedHeaders::UnknownParent { .. })));
        assert_eq!(chain.tree().len(), 1, "nothing of them is kept");
        drop(chain);
        assert_eq!(open(&dir, None).tree().len(), 1);
    }

    #[test]
    fn headers_above_the_height_asked_for_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = open(&dir, Some(3));
        let headers = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);
        let accepted = chain.accept(&headers).unwrap();
        assert_eq!((accepted.added, accepted.last), (3, Some(headers[2].hash)));
        assert_eq!(chain.accept(&headers[3..]).unwrap(), Accepted { added: 0, last: None, update: None });
    }

    #[test]
    fn a_store_of_another_network_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(&dir, None));
        let path = dir.path().join("headers.redb");
        let error = HeaderChain::open(&path, &Network::BTC, None).unwrap_err().to_string();
        assert!(error.ends_with("headers.redb belongs to network btc-regtest, not btc"), "{error}");
        let _kept = open(&dir, None);
        let error = HeaderChain::open(&path, &Network::BTC_REGTEST, None).unwrap_err().to_string();
        assert!(error.ends_with("headers.redb is in use by another process"), "{error}");
    }

    #[test]
    fn updates_add_up() {
        let hash = |n| BlockHash::from_bytes([n; 32]);
        let update = |keep, append: &[u8]| Update { keep, append: append.iter().map(|&n| hash(n)).collect() };
        assert_eq!(update(5, &[1]).then(update(6, &[2])), update(5, &[1, 2]));
        assert_eq!(update(5, &[1, 2]).then(update(6, &[3, 4])), update(5, &[1, 3, 4]));
        assert_eq!(update(5, &[1]).then(update(3, &[2, 3, 4])), update(3, &[2, 3, 4]));
    }
}
