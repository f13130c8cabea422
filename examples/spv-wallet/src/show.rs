//! What the wallet tells of itself: its balance, and what became of each transaction.

use std::{
    collections::HashMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use bdk_wallet::{
    bitcoin::{Amount, Transaction, Txid},
    chain::{Balance, ChainPosition, tx_graph::TxNode},
};
use serde_json::{Value, json};

use crate::{
    ledger::{CHANGE, Found, Ledger, usual},
    wallet::News,
};

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It is in a block of the best chain, which so many blocks confirm, that one included.
    Confirmed(Found, u32),
    /// It is in no block yet.
    Unconfirmed,
    /// It was in a block that is not on the best chain any more, and is in none now.
    ReorgedOut(Found),
    /// It can't come any more, or is not waited for: its coins went elsewhere, it was rejected or abandoned, or it is the
    /// coinbase of a block that was left.
    Gone,
}

/// A transaction as it concerns the wallet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) txid: Txid,
    pub(crate) received: Amount,
    pub(crate) sent: Amount,
    pub(crate) state: State,
}

/// The balance at the tip.
pub(crate) fn balance(ledger: &Ledger) -> Balance {
    let is_change =
        |script| ledger.keychains.index_of_spk(script).is_some_and(|&(number, _)| number == CHANGE);
    let outpoints = ledger.outpoints().into_iter().map(|outpoint| ((), outpoint));
    ledger.graph.balance(&ledger.chain, ledger.tip(), usual(), outpoints, |(), script| is_change(script))
}

/// All transactions: those in no block first, then the highest block first.
pub(crate) fn history(ledger: &Ledger) -> Vec<Entry> {
    let counting = ledger.graph.list_canonical_txs(&ledger.chain, ledger.tip(), usual());
    let positions: HashMap<Txid, ChainPosition<Found>> =
        counting.map(|transaction| (transaction.tx_node.txid, transaction.chain_position)).collect();
    let mut entries: Vec<Entry> =
        ledger.graph.full_txs().map(|node| entry(ledger, &node, positions.get(&node.txid))).collect();
    entries.sort_by_key(|entry| match &entry.state {
        State::Confirmed(found, _) => (1, u32::MAX - found.block.height, found.position),
        _ => (0, 0, 0),
    });
    entries
}

fn entry(
    ledger: &Ledger,
    node: &TxNode<'_, impl AsRef<Transaction>, Found>,
    position: Option<&ChainPosition<Found>>,
) -> Entry {
    let transaction = node.tx.as_ref();
    let ours =
        transaction.output.iter().filter(|output| ledger.watched().contains(output.script_pubkey.as_bytes()));
    let spent = transaction.input.iter().filter_map(|input| ledger.owned(input.previous_output));
    let state = match (position, node.anchors.last()) {
        (Some(ChainPosition::Confirmed { anchor, .. }), _) => {
            State::Confirmed(anchor.clone(), ledger.tip().height + 1 - anchor.block.height)
        }
        (Some(ChainPosition::Unconfirmed { .. }), Some(left)) => State::ReorgedOut(left.clone()),
        (Some(ChainPosition::Unconfirmed { .. }), None) => State::Unconfirmed,
        (None, _) => State::Gone,
    };
    Entry {
        txid: node.txid,
        received: ours.map(|output| output.value).sum(),
        sent: spent.map(|output| output.value).sum(),
        state,
    }
}

impl Entry {
    pub(crate) fn json(&self) -> Value {
        let mut line = json!({
            "txid": self.txid.to_string(),
            "received_sat": self.received.to_sat(),
            "sent_sat": self.sent.to_sat(),
        });
        let (name, found) = match &self.state {
            State::Confirmed(found, confirmations) => {
                line["confirmations"] = json!(confirmations);
                ("confirmed", Some(found))
            }
            State::Unconfirmed => ("unconfirmed", None),
            State::ReorgedOut(left) => ("reorged out", Some(left)),
            State::Gone => ("gone", None),
        };
        line["state"] = json!(name);
        if let Some(found) = found {
            line["block"] = json!(found.block.hash.to_string());
            line["height"] = json!(found.block.height);
            line["position"] = json!(found.position);
            line["time"] = json!(found.time);
        }
        line
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, change) = match self.received.checked_sub(self.sent) {
            Some(more) => ('+', more),
            None => ('-', self.sent - self.received),
        };
        write!(f, "{} {sign}{change} ", self.txid)?;
        match &self.state {
            State::Confirmed(found, confirmations) => {
                let plural = if *confirmations == 1 { "" } else { "s" };
                write!(f, "{confirmations} confirmation{plural}, ")?;
                write!(
                    f,
                    "transaction {} of block {}:{}",
                    found.position, found.block.height, found.block.hash
                )
            }
            State::Unconfirmed => write!(f, "unconfirmed"),
            State::ReorgedOut(left) => {
                write!(f, "reorged out of block {}:{}, unconfirmed again", left.block.height, left.block.hash)
            }
            State::Gone => write!(f, "gone: it can't be confirmed any more, or was abandoned"),
        }
    }
}

pub(crate) fn balance_json(balance: &Balance, ledger: &Ledger) -> Value {
    json!({
        "confirmed_sat": balance.confirmed.to_sat(),
        "immature_sat": balance.immature.to_sat(),
        "pending_change_sat": balance.trusted_pending.to_sat(),
        "pending_sat": balance.untrusted_pending.to_sat(),
        "total_sat": balance.total().to_sat(),
        "height": ledger.tip().height,
        "block": ledger.tip().hash.to_string(),
    })
}

pub(crate) fn balance_text(balance: &Balance, ledger: &Ledger) -> String {
    let tip = ledger.tip();
    let mut text = format!("confirmed       {}\n", balance.confirmed);
    for (amount, what) in [
        (balance.immature, "immature        "),
        (balance.trusted_pending, "pending change  "),
        (balance.untrusted_pending, "pending         "),
    ] {
        if amount > Amount::ZERO {
            text += &format!("{what}{amount}\n");
        }
    }
    text + &format!("as of block     {}:{}", tip.height, tip.hash)
}

/// News of the sync, for the user.
pub(crate) fn news(news: News, is_json: bool) -> String {
    let (event, txid, block) = match news {
        News::InBlock(txid, block) => ("found", txid, block),
        News::ReorgedOut(txid, block) => ("reorged_out", txid, block),
    };
    if is_json {
        let (height, hash) = (block.height, block.hash.to_string());
        return json!({"event": event, "txid": txid.to_string(), "height": height, "block": hash})
            .to_string();
    }
    match news {
        News::InBlock(..) => format!("found {txid} in block {block}"),
        News::ReorgedOut(..) => format!("reorg: {txid} was in a block above {block} that is gone"),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
