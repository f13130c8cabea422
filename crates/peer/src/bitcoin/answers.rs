//! Which message answers which, by their contents: a message that only looks like an answer is none.

use tipward_wire::{
    BlockHash,
    bitcoin::{BlockHeader, Inventory, InventoryKind, Locator, Message},
};

/// Whether `reply` answers `request`.
pub(super) fn answers(request: &Message, reply: &Message) -> bool {
    match (request, reply) {
        (Message::Ping(asked), Message::Pong(answered)) => asked == answered,
        (Message::GetHeaders(locator), Message::Headers(headers)) => link_to(locator, headers),
        (Message::GetBlocks(_), Message::Inv(entries)) => {
            entries.iter().any(|entry| entry.kind == InventoryKind::Block)
        }
        (Message::Mempool(_), Message::Inv(entries)) => {
            entries.iter().any(|entry| matches!(entry.kind, InventoryKind::Tx | InventoryKind::Wtx))
        }
        // A single address is a node telling of itself.
        (Message::GetAddr, Message::Addr(addresses)) => addresses.len() > 1,
        (Message::GetAddr, Message::AddrV2(addresses)) => addresses.len() > 1,
        (Message::GetData(asked), reply) => is_among(asked, reply),
        (Message::GetBlockTxn(asked), Message::BlockTxn(answered)) => asked.block == answered.block,
        (Message::GetCFilters(asked), Message::CFilter(answered)) => {
            asked.filter_type == answered.filter_type
        }
        (Message::GetCFHeaders(asked), Message::CFHeaders(answered)) => {
            (asked.filter_type, asked.stop) == (answered.filter_type, answered.stop)
        }
        (Message::GetCFCheckpt(asked), Message::CFCheckpt(answered)) => {
            (asked.filter_type, asked.stop) == (answered.filter_type, answered.stop)
        }
        (Message::Tx(transaction), Message::Reject(reject)) => {
            reject.hash.is_some_and(|hash| hash == *transaction.txid().as_bytes())
        }
        _ => false,
    }
}

/// An empty message means that there is nothing after the locator. A locator without hashes asks for the stop alone.
fn link_to(locator: &Locator, headers: &[BlockHeader]) -> bool {
    let Some(first) = headers.first() else { return true };
    if locator.hashes.is_empty() {
        first.hash() == locator.stop
    } else {
        locator.hashes.contains(&first.parent)
    }
}

fn is_among(asked: &[Inventory], reply: &Message) -> bool {
    let has = |hash: &[u8; 32]| asked.iter().any(|entry| entry.hash == *hash);
    let has_block = |hash: BlockHash| has(hash.as_bytes());
    match reply {
        Message::Tx(transaction) => {
            has(transaction.txid().as_bytes())
                || asked.iter().any(|entry| {
                    entry.kind == InventoryKind::Wtx && entry.hash == *transaction.wtxid().as_bytes()
                })
        }
        Message::MerkleBlock(block) => has_block(block.header.hash()),
        Message::CmpctBlock(block) => has_block(block.header.hash()),
        Message::NotFound(entries) => entries.iter().any(|entry| has(&entry.hash)),
        _ => false,
    }
}
