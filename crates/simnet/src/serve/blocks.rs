//! Headers, inventories and blocks: whole, without their witnesses (BIP 144) or filtered (BIP 37).

use std::time::Duration;

use bytes::Bytes;
use tipward_wire::{
    BlockError, BlockHash, Txid,
    bitcoin::{
        Block, Inventory, InventoryKind, Locator, MAX_HEADERS, MerkleBlock, Message, PartialMerkleTree,
        Transaction,
    },
};
use tokio::time::sleep;

use super::{Connection, ServeError};
use crate::{
    Behaviour, SimBlock, SimChain,
    transaction::{block_without_witnesses, without_witnesses},
};

/// How many blocks one `getblocks` is answered with.
const MAX_GETBLOCKS: usize = 500;

impl Connection<'_> {
    /// The blocks that the node shows to anybody.
    pub(super) fn shown<'c>(&self, chain: &'c SimChain) -> &'c [SimBlock] {
        let blocks = chain.blocks();
        match self.behaviour() {
            Behaviour::StaleTip { height } => {
                let shown = usize::try_from(height).map_or(blocks.len(), |height| height.saturating_add(1));
                &blocks[..shown.min(blocks.len())]
            }
            _ => blocks,
        }
    }

    /// What follows the locator; what follows the first block if nothing is known.
    fn after<'c>(&self, chain: &'c SimChain, locator: &Locator) -> &'c [SimBlock] {
        let shown = self.shown(chain);
        let position = |&hash: &BlockHash| chain.position(hash).filter(|&position| position < shown.len());
        &shown[locator.hashes.iter().find_map(position).unwrap_or(0) + 1..]
    }

    pub(super) async fn serve_headers(&mut self, locator: &Locator) -> Result<(), ServeError> {
        let chain = self.chain.borrow().clone();
        let mut headers = Vec::new();
        for block in self.after(&chain, locator).iter().take(MAX_HEADERS) {
            headers.push(block.header);
            if block.hash == locator.stop {
                break;
            }
        }
        if self.behaviour() == Behaviour::OversizedLength {
            return self.send_oversized().await;
        }
        self.spoil_headers(&mut headers);
        self.send(&Message::Headers(headers)).await
    }

    /// As bitcoind: the stop itself is not listed.
    pub(super) async fn serve_inventory(&mut self, locator: &Locator) -> Result<(), ServeError> {
        let chain = self.chain.borrow().clone();
        let blocks = self.after(&chain, locator).iter().map(|block| block.hash);
        let hashes: Vec<BlockHash> =
            blocks.take_while(|&hash| hash != locator.stop).take(MAX_GETBLOCKS).collect();
        if hashes.len() == MAX_GETBLOCKS {
            self.continue_at = hashes.last().copied();
        }
        if hashes.is_empty() {
            return Ok(());
        }
        let entries = hashes.into_iter().map(|hash| Inventory::block(InventoryKind::Block, hash)).collect();
        self.send(&Message::Inv(entries)).await
    }

    /// Unknown blocks are answered with silence and unknown transactions with `notfound`, as nodes do.
    pub(super) async fn serve_data(&mut self, entries: &[Inventory]) -> Result<(), ServeError> {
        let mut missing = Vec::new();
        for entry in entries {
            if self.is_silent() || self.is_half_open() {
                return Ok(());
            }
            match entry.kind {
                InventoryKind::Block
                | InventoryKind::WitnessBlock
                | InventoryKind::CompactBlock
                | InventoryKind::FilteredBlock => {
                    if self.behaviour() == Behaviour::LacksBlocks {
                        missing.push(*entry);
                    } else {
                        self.serve_block(*entry).await?;
                    }
                }
                InventoryKind::Tx | InventoryKind::WitnessTx | InventoryKind::Wtx => {
                    match self.known_transaction(*entry) {
                        Some(transaction) => self.serve_transaction(entry.kind, transaction).await?,
                        None => missing.push(*entry),
                    }
                }
                InventoryKind::WitnessFilteredBlock | InventoryKind::Other(_) => {}
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.send(&Message::NotFound(missing)).await
    }

    async fn serve_block(&mut self, entry: Inventory) -> Result<(), ServeError> {
        let chain = self.chain.borrow().clone();
        let hash = BlockHash::from_bytes(entry.hash);
        let shown = self.shown(&chain);
        let Some(position) = chain.position(hash).filter(|&position| position < shown.len()) else {
            return Ok(());
        };
        let position = match self.behaviour() {
            Behaviour::UnrequestedBlock => (position + 7) % shown.len(),
            _ => position,
        };
        let block = &shown[position];
        match entry.kind {
            InventoryKind::FilteredBlock => self.send_filtered_block(block).await?,
            InventoryKind::Block if self.is_btc() && block.is_whole() => {
                // A file may hold what does not parse; whoever asks for it gets it.
                let stripped = self.parse(&block.raw).ok().map(|parsed| block_without_witnesses(&parsed));
                let raw = stripped.unwrap_or_else(|| block.raw.clone());
                self.send_block(&SimBlock::whole(block.header, raw)).await?;
            }
            _ => self.send_block(block).await?,
        }
        self.served += 1;
        self.node.counters.blocks.add(1);
        if self.continue_at == Some(hash) {
            self.continue_at = None;
            let tip = Inventory::block(InventoryKind::Block, self.tip(&chain).hash);
            self.send(&Message::Inv(vec![tip])).await?;
        }
        match self.behaviour() {
            Behaviour::ClosesAfter { blocks } if self.served >= blocks => Err(ServeError::Done),
            Behaviour::PausesAfter { blocks, milliseconds } if self.served == blocks => {
                self.flush().await?;
                sleep(Duration::from_millis(milliseconds)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The last block that the node shows.
    pub(super) fn tip<'c>(&self, chain: &'c SimChain) -> &'c SimBlock {
        self.shown(chain).last().unwrap_or(chain.tip())
    }

    /// The header and the proof of what matches the filter, then each transaction that matches. Without a filter: nothing.
    async fn send_filtered_block(&mut self, block: &SimBlock) -> Result<(), ServeError> {
        let Ok(block) = self.parse(&block.bytes()) else { return Ok(()) };
        let Some(filter) = &mut self.client.filter else { return Ok(()) };
        let transactions: Vec<Transaction> = block.transactions().collect();
        let txids: Vec<Txid> = transactions.iter().map(Transaction::txid).collect();
        let matches: Vec<bool> =
            transactions.iter().map(|transaction| filter.matches_transaction(transaction)).collect();
        let Some(tree) = PartialMerkleTree::build(&txids, |index| matches[index]) else { return Ok(()) };
        self.send(&Message::MerkleBlock(MerkleBlock { header: *block.header(), tree })).await?;
        for (transaction, _) in transactions.iter().zip(&matches).filter(|(_, matches)| **matches) {
            let stripped = without_witnesses(transaction);
            if let Ok(transaction) = Transaction::new(stripped) {
                self.send(&Message::Tx(transaction)).await?;
            }
        }
        Ok(())
    }

    fn parse(&self, raw: &Bytes) -> Result<Block, BlockError> {
        if self.is_btc() { Block::new(raw.clone()) } else { Block::without_witnesses(raw.clone()) }
    }

    /// Tells that the chain has changed.
    pub(super) async fn announce(&mut self) -> Result<(), ServeError> {
        let chain = self.chain.borrow_and_update().clone();
        let tip = self.tip(&chain);
        if self.is_silent() {
            return Ok(());
        }
        let announcement = if self.client.headers {
            Message::Headers(vec![tip.header])
        } else {
            Message::Inv(vec![Inventory::block(InventoryKind::Block, tip.hash)])
        };
        self.send(&announcement).await
    }
}
