//! What the wallet knows: its scripts, the transactions found for them, and the blocks that these are in.
//!
//! `bdk_chain` keeps it: descriptors and their scripts in a [`KeychainTxOutIndex`], transactions in a [`TxGraph`], the blocks that
//! matter in a sparse [`LocalChain`]. Each change is staged as a [`ChangeSet`] for the store; all of them merged are the ledger.

mod changes;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
};

use bdk_wallet::{
    bitcoin::{self, Amount, OutPoint, ScriptBuf, TxOut, Txid},
    chain::{
        self, Anchor, BlockId as ChainId, CanonicalizationParams, Indexer as _, Merge, TxGraph,
        keychain_txout::{self, KeychainTxOutIndex},
        local_chain::{self, LocalChain},
        spk_txout::SpkTxOutIndex,
    },
    miniscript::{Descriptor, DescriptorPublicKey},
};
use tipward_chain::{
    prove,
    sync::{Block, BlockId, SinkError, WatchSet},
    wire::{
        self,
        bitcoin::{Network, Transaction, transactions},
    },
};

pub(crate) use changes::{ChangeSet, Found};

/// So many scripts beyond the last one that was used or given out are looked for.
pub(crate) const GAP: u32 = 25;
/// The descriptor that addresses are given out from.
pub(crate) const RECEIVE: u32 = 0;
/// The descriptor that change goes to. Those with higher numbers are watched only.
pub(crate) const CHANGE: u32 = 1;
/// Where the time is in a block's header.
const TIME: std::ops::Range<usize> = 68..72;

/// Why something can't be added to the ledger.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is there.
    Known,
    /// The descriptor is of no use for a wallet, because of this.
    Useless(String),
}

impl Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => write!(f, "that is watched already"),
            Self::Useless(why) => write!(f, "descriptor: {why}"),
        }
    }
}

/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) network: &'static Network,
    pub(crate) chain: LocalChain,
    pub(crate) graph: TxGraph<Found>,
    pub(crate) keychains: KeychainTxOutIndex<u32>,
    scripts: SpkTxOutIndex<ScriptBuf>,
    watch: WatchSet,
    /// The last block whose transactions are known.
    cursor: Option<BlockId>,
    /// The blocks that something was found in.
    found_in: BTreeSet<ChainId>,
    staged: ChangeSet,
}

impl Ledger {
    /// A ledger of what was stored.
    pub(crate) fn load(
        network: &'static Network,
        stored: ChangeSet,
        cursor: Option<BlockId>,
    ) -> Result<Self, SinkError> {
        let (mut chain, _) = LocalChain::from_genesis_hash(network.genesis_hash().into());
        chain.apply_changeset(&stored.chain)?;
        let mut ledger = Self {
            network,
            chain,
            graph: TxGraph::from_changeset(stored.graph),
            keychains: KeychainTxOutIndex::new(GAP, false),
            scripts: SpkTxOutIndex::default(),
            watch: WatchSet::new(),
            cursor,
            found_in: BTreeSet::new(),
            staged: ChangeSet::default(),
        };
        for (number, descriptor) in stored.descriptors {
            ledger.keychains.insert_descriptor(number, descriptor)?;
        }
        ledger.keychains.apply_changeset(stored.index);
        for script in stored.scripts {
            ledger.scripts.insert_spk(script.clone(), script);
        }
        ledger.found_in = ledger.graph.all_anchors().values().flatten().map(Anchor::anchor_block).collect();
        ledger.index_all();
        // What that reveals was stored when the transactions were found.
        ledger.staged = ChangeSet::default();
        Ok(ledger)
    }

    /// Takes a descriptor for its scripts.
    pub(crate) fn add_descriptor(
        &mut self,
        number: u32,
        descriptor: Descriptor<DescriptorPublicKey>,
    ) -> Result<(), Refused> {
        let useless = |error: &dyn std::fmt::Display| Refused::Useless(error.to_string());
        descriptor.sanity_check().map_err(|error| useless(&error))?;
        if descriptor.is_multipath()
            || descriptor.has_wildcard() && descriptor.at_derivation_index(0).is_err()
        {
            return Err(useless(&"it can't be derived from its public keys"));
        }
        match self.keychains.insert_descriptor(number, descriptor.clone()) {
            Ok(true) => {}
            Ok(false) | Err(keychain_txout::InsertDescriptorError::DescriptorAlreadyAssigned { .. }) => {
                return Err(Refused::Known);
            }
            Err(error) => return Err(useless(&error)),
        }
        self.staged.descriptors.insert(number, descriptor);
        self.watch_all();
        Ok(())
    }

    /// Takes one more descriptor, to be watched only.
    pub(crate) fn watch_descriptor(
        &mut self,
        descriptor: Descriptor<DescriptorPublicKey>,
    ) -> Result<(), Refused> {
        let last = self.keychains.keychains().map(|(number, _)| number).max();
        self.add_descriptor(last.map_or(CHANGE, |last| last.max(CHANGE)) + 1, descriptor)
    }

    /// Takes a single script, to be watched only.
    pub(crate) fn watch_script(&mut self, script: ScriptBuf) -> Result<(), Refused> {
        if !self.watch.insert(script.to_bytes()) {
            return Err(Refused::Known);
        }
        self.scripts.insert_spk(script.clone(), script.clone());
        self.staged.scripts.insert(script);
        Ok(())
    }

    /// Looks for what is watched since just now in the transactions that there are. Returns the height of the lowest block that has
    /// one: where these coins went was not looked for.
    pub(crate) fn index_known(&mut self) -> Option<u64> {
        let before = self.outpoints();
        self.index_all();
        let anchors = self.graph.all_anchors();
        let new = self.outpoints().into_iter().filter(|outpoint| !before.contains(outpoint));
        let blocks = new.filter_map(|outpoint| anchors.get(&outpoint.txid)).flatten();
        blocks.map(|found| found.block.height.into()).min()
    }

    /// The scripts that are looked for.
    pub(crate) fn watched(&self) -> &WatchSet {
        &self.watch
    }

    pub(crate) fn cursor(&self) -> Option<BlockId> {
        self.cursor
    }

    /// The block that everything is seen from.
    pub(crate) fn tip(&self) -> ChainId {
        self.chain.tip().block_id()
    }

    /// An output that is ours, whether spent or not.
    pub(crate) fn owned(&self, outpoint: OutPoint) -> Option<&TxOut> {
        let of_descriptor = self.keychains.txout(outpoint).map(|(_, output)| output);
        of_descriptor.or_else(|| self.scripts.txout(outpoint).map(|(_, output)| output))
    }

    /// All outputs that are ours, each once.
    pub(crate) fn outpoints(&self) -> BTreeSet<OutPoint> {
        let of_descriptors = self.keychains.outpoints().iter().map(|(_, outpoint)| *outpoint);
        of_descriptors.chain(self.scripts.outpoints().iter().map(|(_, outpoint)| *outpoint)).collect()
    }

    /// The next address's script, counted as given out: one that nobody has paid to yet, or a new one.
    pub(crate) fn next_script(&mut self, is_new: bool) -> Option<ScriptBuf> {
        let ((_, script), changes) = if is_new {
            self.keychains.reveal_next_spk(RECEIVE)?
        } else {
            self.keychains.next_unused_spk(RECEIVE)?
        };
        self.staged.index.merge(changes);
        self.watch_all();
        Some(script)
    }

    /// Counts the scripts up to those of a transaction of ours as given out.
    pub(crate) fn reveal(&mut self, changes: keychain_txout::ChangeSet) {
        self.keychains.apply_changeset(changes.clone());
        self.staged.index.merge(changes);
        self.watch_all();
    }

    /// Takes the transactions of a block that concern us. Returns which.
    pub(crate) fn apply(&mut self, block: &Block) -> Result<Vec<Txid>, SinkError> {
        let mut found = BTreeMap::new();
        // What was found may have brought a script into the gap that a transaction before it pays to.
        while self.look_through(block, &mut found)? {}
        if found.is_empty() {
            self.cursor = Some(block.id);
            return Ok(Vec::new());
        }
        let (id, bytes) = (chain_id(block.id)?, block.bytes());
        self.set_tip(id)?;
        let time = bytes.get(TIME).and_then(|time| time.first_chunk().copied()).map_or(0, u32::from_le_bytes);
        for (position, txid) in &found {
            let proof = prove(self.network, block.size, || Ok(&bytes[..]), &[*txid])?;
            let anchor = Found { block: id, position: *position, time, proof: hex(&proof.to_bytes()) };
            self.staged.graph.merge(self.graph.insert_anchor((*txid).into(), anchor));
        }
        self.found_in.insert(id);
        self.cursor = Some(block.id);
        Ok(found.into_values().map(Into::into).collect())
    }

    /// Takes the transactions of a block that concern us, by their positions. Says whether more scripts are watched by now.
    fn look_through(
        &mut self,
        block: &Block,
        found: &mut BTreeMap<u32, wire::Txid>,
    ) -> Result<bool, SinkError> {
        let watched = self.watch.len();
        for (position, (_, transaction)) in (0..).zip(transactions(&block.parts)) {
            let pays = transaction.outputs().any(|output| self.watch.contains(output.script().as_bytes()));
            let mut spent = transaction.inputs().map(|input| input.outpoint().into());
            let is_ours = pays || spent.any(|outpoint| self.owned(outpoint).is_some());
            if !is_ours || !is_possible(&transaction) || found.contains_key(&position) {
                continue;
            }
            let whole = bitcoin::Transaction::try_from(&transaction)
                .map_err(|error| format!("transaction {}: {error}", transaction.txid()))?;
            self.insert(whole);
            found.insert(position, transaction.txid());
        }
        Ok(self.watch.len() > watched)
    }

    /// There is nothing for us up to this block.
    pub(crate) fn skip(&mut self, to: BlockId) {
        self.cursor = Some(to);
    }

    /// The blocks above this one are not on the best chain any more. Returns which transactions were in them.
    pub(crate) fn rollback(&mut self, to: BlockId) -> Result<Vec<Txid>, SinkError> {
        let id = chain_id(to)?;
        let is_undone = |found: &Found| {
            found.block.height > id.height
                && self.chain.get(found.block.height).is_some_and(|block| block.hash() == found.block.hash)
        };
        let anchors = self.graph.all_anchors().iter();
        let undone = anchors.filter(|(_, anchors)| anchors.iter().any(is_undone)).map(|(txid, _)| *txid);
        let undone = undone.collect();
        self.set_tip(id)?;
        self.cursor = Some(to);
        Ok(undone)
    }

    /// Goes back to before everything, or to a block that everything after is to be looked through for once more.
    pub(crate) fn restart_from(&mut self, cursor: Option<BlockId>) -> Result<(), SinkError> {
        let genesis = ChainId { height: 0, hash: self.chain.genesis_hash() };
        self.set_tip(cursor.map_or(Ok(genesis), chain_id)?)?;
        self.cursor = cursor;
        Ok(())
    }

    /// Takes a transaction that is in no block yet, seen at a time in seconds since 1970.
    pub(crate) fn insert_unconfirmed(&mut self, transaction: bitcoin::Transaction, seen: u64) {
        let txid = transaction.compute_txid();
        self.insert(transaction);
        // What happened last counts, within a second too.
        let seen = self.graph.get_last_evicted(txid).map_or(seen, |at| seen.max(at + 1));
        self.staged.graph.merge(self.graph.insert_seen_at(txid, seen));
    }

    /// Counts a transaction that is in no block as one that never will be, so that its coins are free.
    pub(crate) fn abandon(&mut self, txid: Txid, at: u64) {
        let seen = self.graph.get_tx_node(txid).and_then(|node| node.last_seen);
        let at = seen.map_or(at, |seen| at.max(seen));
        self.staged.graph.merge(self.graph.insert_evicted_at(txid, at));
    }

    /// Sees everything from the cursor, and gives what has changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Result<ChangeSet, SinkError> {
        if let Some(cursor) = self.cursor {
            self.set_tip(chain_id(cursor)?)?;
        }
        Ok(std::mem::take(&mut self.staged))
    }

    /// Indexes a transaction. Its scripts may bring more of them into the gap.
    fn insert(&mut self, transaction: bitcoin::Transaction) {
        self.staged.index.merge(self.keychains.index_tx(&transaction));
        self.scripts.scan(&transaction);
        self.staged.graph.merge(self.graph.insert_tx(transaction));
        self.watch_all();
    }

    /// Looks for what is watched in all transactions that there are.
    fn index_all(&mut self) {
        loop {
            let watched = self.watch.len();
            for node in self.graph.full_txs() {
                self.staged.index.merge(self.keychains.index_tx(&node.tx));
                self.scripts.scan(&node.tx);
            }
            self.watch_all();
            if self.watch.len() == watched {
                return;
            }
        }
    }

    fn watch_all(&self) {
        let of_descriptors = self.keychains.inner().all_spks().values();
        for script in of_descriptors.chain(self.scripts.all_spks().values()) {
            if !self.watch.contains(script.as_bytes()) {
                self.watch.insert(script.to_bytes());
            }
        }
    }

    /// Makes a block the last one of the chain that `bdk` sees. Those below stay only if something was found in them, so that
    /// it does not grow with the chain.
    fn set_tip(&mut self, to: ChainId) -> Result<(), SinkError> {
        let old = self.chain.tip().block_id();
        if old == to {
            return Ok(());
        }
        let above = self.chain.iter_checkpoints().take_while(|block| block.height() > to.height);
        let mut blocks: BTreeMap<u32, Option<_>> = above.map(|block| (block.height(), None)).collect();
        if old.height > 0 && old.height < to.height && !self.found_in.contains(&old) {
            blocks.insert(old.height, None);
        }
        blocks.insert(to.height, Some(to.hash));
        let changes = local_chain::ChangeSet { blocks };
        self.chain.apply_changeset(&changes)?;
        self.staged.chain.merge(changes);
        Ok(())
    }
}

/// Nobody can pay more than there is. Blocks are not checked for it, and sums of what they say must not overflow.
fn is_possible(transaction: &Transaction) -> bool {
    let sum = transaction.outputs().try_fold(0_u64, |sum, output| sum.checked_add(output.value()));
    sum.is_some_and(|sum| sum <= Amount::MAX_MONEY.to_sat())
}

/// All transactions count that don't conflict with others that count more.
pub(crate) fn usual() -> CanonicalizationParams {
    CanonicalizationParams::default()
}

fn chain_id(id: BlockId) -> Result<ChainId, SinkError> {
    let height = u32::try_from(id.height).map_err(|_| format!("{id} is too high"))?;
    Ok(chain::BlockId { height, hash: id.hash.into() })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bitcoin::hex::DisplayHex::to_lower_hex_string(bytes)
}
