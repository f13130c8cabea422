//! The transactions that a node knows and that wait for a block.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tipward_wire::{
    Txid, Wtxid,
    bitcoin::{Block, Transaction},
};
use tokio::{sync::broadcast, time::Instant};

use crate::SimBlock;

/// The most transactions a mempool holds; more are ignored.
const MAX_TRANSACTIONS: usize = 10_000;
/// How many announcements a connection may be behind; older ones are lost to it.
const MAX_ANNOUNCEMENTS: usize = 1024;

/// Where a transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A connection, by its number.
    Connection(u64),
    /// The node's owner, or another node.
    Elsewhere,
}

/// A transaction that a node has just taken.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) transaction: Transaction,
    pub(crate) origin: Origin,
    pub(crate) at: Instant,
}

/// A node's mempool. Nothing is validated.
#[derive(Debug)]
pub(crate) struct Mempool {
    entries: Mutex<Entries>,
    announcements: broadcast::Sender<Accepted>,
}

#[derive(Debug, Default)]
struct Entries {
    /// By the order of their arrival.
    transactions: BTreeMap<u64, Transaction>,
    by_txid: BTreeMap<Txid, u64>,
    by_wtxid: BTreeMap<Wtxid, u64>,
    next: u64,
}

impl Mempool {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), announcements: broadcast::channel(MAX_ANNOUNCEMENTS).0 }
    }

    /// Hears of every transaction that is taken from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Accepted> {
        self.announcements.subscribe()
    }

    /// Takes a transaction and announces it; false if it is known or there is no room.
    pub(crate) fn accept(&self, transaction: Transaction, origin: Origin) -> bool {
        let txid = transaction.txid();
        let mut entries = self.lock();
        if entries.by_txid.contains_key(&txid) || entries.transactions.len() >= MAX_TRANSACTIONS {
            return false;
        }
        let arrival = entries.next;
        entries.next += 1;
        entries.by_txid.insert(txid, arrival);
        entries.by_wtxid.insert(transaction.wtxid(), arrival);
        entries.transactions.insert(arrival, transaction.clone());
        drop(entries);
        // An error says that nobody is connected.
        self.announcements.send(Accepted { transaction, origin, at: Instant::now() }).ok();
        true
    }

    pub(crate) fn by_txid(&self, txid: Txid) -> Option<Transaction> {
        let entries = self.lock();
        entries.by_txid.get(&txid).and_then(|arrival| entries.transactions.get(arrival)).cloned()
    }

    pub(crate) fn by_wtxid(&self, wtxid: Wtxid) -> Option<Transaction> {
        let entries = self.lock();
        entries.by_wtxid.get(&wtxid).and_then(|arrival| entries.transactions.get(arrival)).cloned()
    }

    /// All transactions, the first to arrive first.
    pub(crate) fn all(&self) -> Vec<Transaction> {
        self.lock().transactions.values().cloned().collect()
    }

    /// Forgets what is in these blocks, and what spends the same.
    pub(crate) fn remove_mined<'a>(&self, blocks: impl Iterator<Item = &'a SimBlock>) {
        if self.lock().transactions.is_empty() {
            return;
        }
        let mut spent = HashSet::new();
        for block in blocks.filter_map(|block| Block::new(block.raw.clone()).ok()) {
            for transaction in block.transactions() {
                spent.extend(transaction.inputs().map(|input| input.outpoint()));
            }
        }
        let mut entries = self.lock();
        let Entries { transactions, by_txid, by_wtxid, .. } = &mut *entries;
        transactions.retain(|_, transaction| {
            let stays = transaction.inputs().all(|input| !spent.contains(&input.outpoint()));
            if !stays {
                by_txid.remove(&transaction.txid());
                by_wtxid.remove(&transaction.wtxid());
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing panics while it holds the lock.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
