//! Transactions that were announced to the peer, for when it asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tipward_wire::{Txid, bitcoin::Transaction};

/// How many transactions are kept for one peer.
const MAX_OFFERS: usize = 1000;
/// How many bytes of them; one alone may be larger.
const MAX_BYTES: usize = 32 << 20;

/// The offers, the oldest of which goes when there are too many.
#[derive(Debug, Default)]
pub(super) struct Offers {
    transactions: BTreeMap<Txid, Transaction>,
    order: VecDeque<Txid>,
    /// Those that the peer did not ask for yet.
    fresh: BTreeSet<Txid>,
    bytes: usize,
}

impl Offers {
    pub(super) fn add(&mut self, id: Txid, transaction: Transaction) {
        self.bytes += transaction.as_bytes().len();
        // The same transaction may come with other witnesses: the latest ones count.
        match self.transactions.insert(id, transaction) {
            Some(before) => self.bytes -= before.as_bytes().len(),
            None => self.order.push_back(id),
        }
        self.fresh.insert(id);
        while self.order.len() > MAX_OFFERS || (self.bytes > MAX_BYTES && self.order.len() > 1) {
            let oldest = self.order.pop_front().and_then(|id| {
                self.fresh.remove(&id);
                self.transactions.remove(&id)
            });
            self.bytes -= oldest.map_or(0, |transaction| transaction.as_bytes().len());
        }
    }

    /// What the peer asks for, if it was offered.
    pub(super) fn fetch(&mut self, id: &Txid) -> Option<&Transaction> {
        self.fresh.remove(id);
        self.transactions.get(id)
    }

    /// Whether it was offered and not asked for yet.
    pub(super) fn is_fresh(&self, id: &Txid) -> bool {
        self.fresh.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn transaction(n: u32) -> Transaction {
        // One input that spends nothing known, one output of no value.
        let mut bytes = vec![1, 0, 0, 0, 1];
        bytes.extend([7; 36]);
        bytes.extend([0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(n.to_le_bytes());
        Transaction::new(Bytes::from(bytes)).unwrap()
    }

    #[test]
    fn the_oldest_offer_goes_first() {
        let mut offers = Offers::default();
        let ids: Vec<Txid> = (0..=MAX_OFFERS as u32)
            .map(|n| {
                let transaction = transaction(n);
                let id = transaction.txid();
                offers.add(id, transaction.clone());
                offers.add(id, transaction);
                id
            })
            .collect();
        assert!(offers.fetch(&ids[0]).is_none() && offers.fetch(&ids[1]).is_some());
        assert!(!offers.is_fresh(&ids[0]) && !offers.is_fresh(&ids[1]) && offers.is_fresh(&ids[2]));
        assert_eq!((offers.order.len(), offers.transactions.len()), (MAX_OFFERS, MAX_OFFERS));
        assert_eq!(offers.bytes, MAX_OFFERS * transaction(0).as_bytes().len());
    }

    #[test]
    fn the_latest_witnesses_are_handed_over() {
        let with_witness = |item: &[u8]| {
            let mut bytes = vec![2, 0, 0, 0, 0, 1, 1];
            bytes.extend([7; 36]);
            bytes.extend([0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, item.len() as u8]);
            bytes.extend(item);
            bytes.extend([0; 4]);
            Transaction::new(Bytes::from(bytes)).unwrap()
        };
        let (spoiled, good) = (with_witness(&[1, 2, 3]), with_witness(&[4]));
        assert_eq!(spoiled.txid(), good.txid());
        let mut offers = Offers::default();
        offers.add(good.txid(), spoiled);
        offers.add(good.txid(), good.clone());
        assert_eq!(offers.fetch(&good.txid()).map(Transaction::as_bytes), Some(good.as_bytes()));
        assert_eq!((offers.order.len(), offers.bytes), (1, good.as_bytes().len()));
    }
}
