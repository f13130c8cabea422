//! Transactions in and out of the mempool (BIP 35, BIP 37, BIP 339), and addresses (BIP 155).

use std::{net::SocketAddr, sync::PoisonError};

use tipward_wire::{
    Txid, Wtxid,
    bitcoin::{
        AddressV2, HostAddress, Inventory, InventoryKind, MAX_ADDRESSES, MAX_INVENTORY, Message,
        NetworkAddress, Reject, TimedAddress, Transaction,
    },
};

use super::{Connection, ServeError, seconds_since_1970};
use crate::{
    Behaviour,
    mempool::{Accepted, Origin},
    transaction::without_witnesses,
};

impl Connection<'_> {
    /// Takes a transaction from the client, which is not told of it again.
    pub(super) async fn take(&mut self, transaction: Transaction) -> Result<(), ServeError> {
        let Behaviour::RejectsTransactions { code, reason } = self.behaviour() else {
            // A view keeps the whole read buffer; the mempool should not.
            let copy = bytes::Bytes::copy_from_slice(transaction.as_bytes());
            let transaction = Transaction::new(copy).unwrap_or(transaction);
            self.node.mempool.accept(transaction, Origin::Connection(self.number));
            return Ok(());
        };
        let hash = Some(*transaction.txid().as_bytes());
        let reject = Reject { message: "tx".into(), code, reason: reason.into(), hash };
        self.send(&Message::Reject(reject)).await
    }

    /// Asks for the transactions of an inventory that the node does not know; it wants no blocks from clients.
    pub(super) async fn ask_for(&mut self, entries: &[Inventory]) -> Result<(), ServeError> {
        let mut wanted = Vec::new();
        for entry in entries {
            let kind = match entry.kind {
                InventoryKind::Tx if self.is_btc() => InventoryKind::WitnessTx,
                InventoryKind::Tx => InventoryKind::Tx,
                InventoryKind::Wtx if self.is_btc() => InventoryKind::Wtx,
                _ => continue,
            };
            if self.known_transaction(*entry).is_none() {
                wanted.push(Inventory { kind, hash: entry.hash });
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.send(&Message::GetData(wanted)).await
    }

    /// The transaction in the mempool that an entry names.
    pub(super) fn known_transaction(&self, entry: Inventory) -> Option<Transaction> {
        let mempool = &self.node.mempool;
        match entry.kind {
            InventoryKind::Tx => mempool.by_txid(Txid::from_bytes(entry.hash)),
            InventoryKind::WitnessTx if self.is_btc() => mempool.by_txid(Txid::from_bytes(entry.hash)),
            InventoryKind::Wtx if self.is_btc() => mempool.by_wtxid(Wtxid::from_bytes(entry.hash)),
            _ => None,
        }
    }

    /// Sends a transaction, without its witnesses to those who did not ask for them.
    pub(super) async fn serve_transaction(
        &mut self,
        kind: InventoryKind,
        transaction: Transaction,
    ) -> Result<(), ServeError> {
        let transaction = match kind {
            InventoryKind::Tx => Transaction::new(without_witnesses(&transaction)).unwrap_or(transaction),
            _ => transaction,
        };
        self.node.counters.transactions.add(1);
        self.send(&Message::Tx(transaction)).await
    }

    /// Announces a transaction that the node has just taken, unless the client sent it or does not want it.
    pub(super) async fn announce_transaction(&mut self, accepted: &Accepted) -> Result<(), ServeError> {
        let is_own = accepted.origin == Origin::Connection(self.number);
        if self.is_silent() || is_own || !self.client.transactions || !self.matches(&accepted.transaction) {
            return Ok(());
        }
        let entry = self.inventory(&accepted.transaction);
        self.send(&Message::Inv(vec![entry])).await
    }

    /// Announces everything in the mempool that matches the client's filter, if it has one.
    pub(super) async fn serve_mempool(&mut self) -> Result<(), ServeError> {
        let mut entries = Vec::new();
        for transaction in self.node.mempool.all() {
            if self.matches(&transaction) {
                entries.push(self.inventory(&transaction));
            }
        }
        for entries in entries.chunks(MAX_INVENTORY) {
            self.send(&Message::Inv(entries.to_vec())).await?;
        }
        Ok(())
    }

    fn matches(&mut self, transaction: &Transaction) -> bool {
        self.client.filter.as_mut().is_none_or(|filter| filter.matches_transaction(transaction))
    }

    fn inventory(&self, transaction: &Transaction) -> Inventory {
        if self.client.wtxids {
            Inventory { kind: InventoryKind::Wtx, hash: *transaction.wtxid().as_bytes() }
        } else {
            Inventory { kind: InventoryKind::Tx, hash: *transaction.txid().as_bytes() }
        }
    }

    /// Answers `getaddr`. Every address is said to be of a node like this one.
    pub(super) async fn serve_addresses(&mut self) -> Result<(), ServeError> {
        let mut addresses = self.node.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Ok(());
        }
        let (time, services) = (seconds_since_1970(), self.services());
        let message = if self.client.addr_v2 {
            let entry = |address: SocketAddr| AddressV2 {
                time,
                services,
                host: match address {
                    SocketAddr::V4(v4) => HostAddress::Ipv4(*v4.ip()),
                    SocketAddr::V6(v6) => HostAddress::Ipv6(*v6.ip()),
                },
                port: address.port(),
            };
            Message::AddrV2(addresses.into_iter().map(entry).collect())
        } else {
            let entry = |address: SocketAddr| TimedAddress {
                time,
                address: NetworkAddress { services, ..address.into() },
            };
            Message::Addr(addresses.into_iter().map(entry).collect())
        };
        self.send(&message).await
    }
}
