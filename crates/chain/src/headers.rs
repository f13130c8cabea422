//! The header chain: tree, rules and store together, as the scheduler wants it.

use std::{path::Path, sync::Arc};

use tipward_sync::{
    Accepted, Block, BlockHead, BlockId, Chain, RefusedHeaders, Update,
    peer::wire::{BlockHash, Header, bitcoin::Work},
};

use crate::{BlockTree, Coin, HeaderError, HeaderRules, HeaderStore, StoreError};

/// How many headers beside the best chain are kept, unless they can make another branch best. Real chains have a handful.
const MAX_SIDE_HEADERS: usize = 100_000;

/// All headers of a network: checked, stored, and the best branch known.
#[derive(Debug)]
pub struct HeaderChain {
    tree: BlockTree,
    rules: Box<dyn HeaderRules>,
    store: HeaderStore,
    genesis: Block,
    /// Headers that extend the best chain above this height are passed over.
    max_height: Option<u64>,
}

impl HeaderChain {
    /// Opens the store and rebuilds the tree from it. Later, headers that extend the best chain above `max_height` are not
    /// taken; a branch may be longer, for it must be able to show that it has more work.
    ///
    /// # Errors
    /// The store can't be opened, or what it holds is no chain.
    pub fn open(path: &Path, coin: &dyn Coin, max_height: Option<u64>) -> Result<Self, StoreError> {
        let (rules, store) = (coin.rules(), HeaderStore::open(path, coin)?);
        let genesis = coin.genesis_header();
        let work = rules.check(&genesis, 0).map_err(|error| StoreError::damaged(path, error.to_string()))?;
        let mut tree = BlockTree::new(&genesis, work);
        store.load(|raw| {
            let header = coin.parse_header(raw).map_err(|error| error.to_string())?;
            let parent = tree.get(header.parent);
            let parent = parent.ok_or_else(|| format!("its parent {} is not there", header.parent))?;
            let work = rules.check(&header, parent.height + 1).map_err(|error| error.to_string())?;
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

    /// The work of each of these new headers, in order.
    fn check(&self, headers: &[Header], below: u64) -> Result<Vec<Work>, HeaderError> {
        (below..).zip(headers).map(|(height, header)| self.rules.check(header, height)).collect()
    }

    /// Whether a run on top of `parent` has to be kept. What can become best always is; of the rest, so much is.
    fn has_room(&self, parent: BlockHash, works: &[Work]) -> bool {
        let total = self.tree.work(parent).unwrap_or_default() + works.iter().copied().sum();
        let best = self.tree.work(self.tree.tip().hash).unwrap_or_default();
        total > best || self.tree.side_headers() + works.len() <= MAX_SIDE_HEADERS
    }

    /// How many of so many headers from height `below` on are wanted on top of `parent`.
    fn wanted(&self, parent: BlockHash, below: u64, count: usize) -> usize {
        match self.max_height {
            Some(max) if parent == self.tree.tip().hash => {
                count.min(usize::try_from(max.saturating_add(1).saturating_sub(below)).unwrap_or(usize::MAX))
            }
            _ => count,
        }
    }
}

impl Chain for HeaderChain {
    fn tip(&self) -> BlockId {
        self.tree.tip()
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.tree.best_at(height)
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.get(hash)
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.fork_point(hash)
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.tree.locator(from)
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let Some(first) = headers.first() else { return Ok(Accepted { added: 0, last: None, update: None }) };
        let is_linked = |pair: &[Header]| pair[1].parent == pair[0].hash;
        if let Some(stray) = headers.windows(2).find(|pair| !is_linked(pair)) {
            return Err(RefusedHeaders::Invalid(Arc::new(HeaderError::NotLinked { hash: stray[1].hash })));
        }
        let known = headers.iter().take_while(|header| self.tree.get(header.hash).is_some()).count();
        let (known, new) = headers.split_at(known);
        let Some(next) = new.first() else {
            return Ok(Accepted { added: 0, last: known.last().map(|header| header.hash), update: None });
        };
        let Some(parent) = self.tree.get(next.parent) else {
            return Err(RefusedHeaders::UnknownParent { parent: first.parent });
        };
        let below = parent.height + 1;
        let new = &new[..self.wanted(parent.hash, below, new.len())];
        let works = self.check(new, below).map_err(|error| RefusedHeaders::Invalid(Arc::new(error)))?;
        let Some(last) = new.last().filter(|_| self.has_room(parent.hash, &works)) else {
            return Ok(Accepted { added: 0, last: Some(parent.hash), update: None });
        };
        self.store
            .append(new.iter().map(|header| &header.raw))
            .map_err(|error| RefusedHeaders::Store(Arc::new(error)))?;
        let updates = new.iter().zip(works).filter_map(|(header, work)| self.tree.insert(header, work));
        let update = updates.reduce(join);
        Ok(Accepted { added: new.len(), last: Some(last.hash), update })
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        self.rules.read_head(start).ok()
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        (id == self.genesis.id).then(|| self.genesis.clone())
    }
}

/// Two updates in a row as one.
fn join(mut first: Update, next: Update) -> Update {
    let Some(stay) = next.keep.checked_sub(first.keep) else { return next };
    first.append.truncate(usize::try_from(stay).unwrap_or(usize::MAX));
    first.append.extend(next.append);
    first
}

#[cfg(test)]
mod tests {
    use tipward_simnet::SimChain;
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

    /// What the inventory flow needs: a block that came unannounced names its parent and can be accepted.
    #[test]
    fn a_block_can_be_taken_by_its_own_header() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = open(&dir, None);
        let mut blocks = SimChain::genesis(Network::BTC_REGTEST);
        blocks.extend_sized(3, 300..=5000, 1);
        for block in &blocks.blocks()[1..] {
            let head = chain.read_head(&block.raw).unwrap();
            assert_eq!((head.header.hash, &head.parents[..]), (block.hash, &[block.header.parent][..]));
            assert_eq!(chain.accept(&[head.header]).unwrap().added, 1);
        }
        assert_eq!(chain.tip().hash, blocks.tip().hash);
        let mut raw = blocks.tip().raw.to_vec();
        while BlockHeader::from_bytes(raw.first_chunk().unwrap()).meets_target(Network::BTC_REGTEST.pow_limit)
        {
            raw[76] = raw[76].wrapping_add(1);
        }
        assert_eq!(chain.read_head(&raw), None);
        assert_eq!(chain.read_head(b"no header"), None);
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

        // A known header does not make what follows it less of a stray.
        chain.accept(&good[..1]).unwrap();
        let error = chain.accept(&[good[0].clone(), good[2].clone()]).unwrap_err().to_string();
        assert!(error.contains("does not follow the header before it"), "{error}");

        let strays = run(BlockHash::from_bytes([9; 32]), 2, 1);
        assert!(matches!(chain.accept(&strays), Err(RefusedHeaders::UnknownParent { .. })));
        assert_eq!(chain.tree().len(), 2, "nothing of them is kept");
        drop(chain);
        assert_eq!(open(&dir, None).tree().len(), 2);
    }

    #[test]
    fn headers_above_the_height_asked_for_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = open(&dir, Some(3));
        let headers = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);
        let accepted = chain.accept(&headers).unwrap();
        assert_eq!((accepted.added, accepted.last), (3, Some(headers[2].hash)));
        let passed_over = Accepted { added: 0, last: Some(headers[2].hash), update: None };
        assert_eq!(chain.accept(&headers[3..]).unwrap(), passed_over);
        // But a branch with more work wins, and it shows that by what lies above.
        let branch = run(Network::BTC_REGTEST.genesis_hash(), 4, 1000);
        assert_eq!(chain.accept(&branch).unwrap().update.unwrap().keep, 1);
        assert_eq!(chain.tip().height, 4);
        assert_eq!(
            HeaderChain::open(&dir.path().join("other"), &Network::BTC_REGTEST, Some(u64::MAX))
                .unwrap()
                .accept(&headers)
                .unwrap()
                .added,
            5
        );
    }

    #[test]
    fn a_header_of_a_sister_chain_is_refused_where_they_part() {
        let dir = tempfile::tempdir().unwrap();
        let headers = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);
        let network: &'static Network = Box::leak(Box::new(Network {
            chain_block: Some((3, BlockHash::from_bytes([3; 32]))),
            ..Network::BTC_REGTEST.clone()
        }));
        let mut chain = HeaderChain::open(&dir.path().join("headers.redb"), &network, None).unwrap();
        assert_eq!(chain.accept(&headers[..2]).unwrap().added, 2);
        let error = chain.accept(&headers[2..]).unwrap_err().to_string();
        assert!(error.contains("belongs to another chain: at height 3 this one has 0303"), "{error}");
        assert_eq!(chain.tip().height, 2);
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
        assert_eq!(join(update(5, &[1]), update(6, &[2])), update(5, &[1, 2]));
        assert_eq!(join(update(5, &[1, 2]), update(6, &[3, 4])), update(5, &[1, 3, 4]));
        assert_eq!(join(update(5, &[1]), update(3, &[2, 3, 4])), update(3, &[2, 3, 4]));
    }
}
