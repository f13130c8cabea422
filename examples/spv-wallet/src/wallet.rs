//! The ledger and its file, as one: what the sync fills and the commands ask. The sync gives blocks to the [`WalletSink`].

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bdk_wallet::{
    bitcoin::Txid,
    miniscript::{Descriptor, DescriptorPublicKey},
};
use tipward_chain::{
    Checkpoint,
    sync::{Block, BlockId, BlockSink, SinkError, async_trait},
    wire::bitcoin::Network,
};

use crate::{
    checkpoint,
    ledger::{CHANGE, ChangeSet, Ledger, RECEIVE},
    store::{Settings, Store, absent},
};

/// The names of files in the data directory. The node keeps its headers beside them.
const FILE: &str = "wallet.redb";
const CHECKPOINT: &str = "checkpoint.json";

/// A wallet that is open. No other process can open it meanwhile.
#[derive(Debug)]
pub(crate) struct Wallet {
    pub(crate) ledger: Ledger,
    pub(crate) settings: Settings,
    store: Store,
    dir: PathBuf,
    checkpoint: Option<Checkpoint>,
}

impl Wallet {
    /// Whether a data directory has a wallet.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Makes a wallet of these descriptors, of receiving and of change, that looks at the blocks from a height on.
    pub(crate) fn create(
        dir: &Path,
        network: &'static Network,
        descriptors: Vec<Descriptor<DescriptorPublicKey>>,
        checkpoint: Option<&Checkpoint>,
        birthday: Option<u64>,
    ) -> Result<Self, SinkError> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut ledger = Ledger::load(network, ChangeSet::default(), None)?;
        for (number, descriptor) in [RECEIVE, CHANGE].into_iter().zip(descriptors) {
            ledger.add_descriptor(number, descriptor)?;
        }
        let file = dir.join(CHECKPOINT);
        match checkpoint {
            Some(checkpoint) => checkpoint::write(&file, checkpoint)?,
            // That of a wallet that was here before says nothing of this one.
            None => std::fs::remove_file(&file).or_else(absent)?,
        }
        let settings = Settings { network: network.name.to_owned(), cursor: None, scan_from: birthday };
        Store::create(&dir.join(FILE), &ledger.take_changes()?, &settings)?;
        Self::open(dir)
    }

    /// Opens the wallet of a data directory.
    pub(crate) fn open(dir: &Path) -> Result<Self, SinkError> {
        let (store, settings, stored) = Store::open(&dir.join(FILE))?;
        let network = Network::by_name(&settings.network)
            .ok_or_else(|| format!("the wallet is of an unknown network, {}", settings.network))?;
        let checkpoint = dir.join(CHECKPOINT);
        let checkpoint = checkpoint.exists().then(|| checkpoint::read(&checkpoint)).transpose()?;
        let ledger = Ledger::load(network, stored, settings.cursor()?)?;
        Ok(Self { ledger, settings, store, dir: dir.to_owned(), checkpoint })
    }

    pub(crate) fn network(&self) -> &'static Network {
        self.ledger.network
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the headers start with, instead of genesis.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Writes what has changed, and how far was looked.
    pub(crate) fn save(&mut self) -> Result<(), SinkError> {
        let changes = self.ledger.take_changes()?;
        let before = self.settings.cursor.clone();
        self.settings.set_cursor(self.ledger.cursor());
        if changes.is_empty() && before == self.settings.cursor {
            return Ok(());
        }
        self.store.commit(&changes, &self.settings)
    }

    /// Has the next sync begin with the block at this height, or lower if it would without.
    pub(crate) fn scan_from(&mut self, height: u64) -> Result<(), SinkError> {
        if let Some(start) = self.checkpoint.as_ref().map(|it| it.height).filter(|start| height <= *start) {
            return Err(
                format!("the wallet starts at a checkpoint: height {height} is not above {start}").into()
            );
        }
        self.settings.scan_from = match (self.settings.scan_from, self.ledger.cursor()) {
            (Some(due), _) => Some(due.min(height)),
            (None, Some(cursor)) if height <= cursor.height => Some(height),
            // It has not been there yet, and must pass over nothing before it.
            (None, _) => None,
        };
        self.commit()
    }

    /// The ledger is where the next sync is to begin.
    pub(crate) fn is_at_start(&mut self) -> Result<(), SinkError> {
        self.settings.scan_from = None;
        self.commit()
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        let changes = self.ledger.take_changes()?;
        self.settings.set_cursor(self.ledger.cursor());
        self.store.commit(&changes, &self.settings)
    }
}

/// A wallet in the hands of the sync and of who asks it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Wallet>>);

impl Shared {
    pub(crate) fn new(wallet: Wallet) -> Self {
        Self(Arc::new(Mutex::new(wallet)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Wallet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sync has found out about a transaction of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News {
    /// It is in this block.
    InBlock(Txid, BlockId),
    /// The block that it was in is not on the best chain any more; this one is the last that stays.
    ReorgedOut(Txid, BlockId),
}

/// Takes the blocks of the best chain. All that a program has to write to be fed by Tipward is this.
pub(crate) struct WalletSink {
    pub(crate) wallet: Shared,
    pub(crate) tell: Arc<dyn Fn(News) + Send + Sync>,
}

#[async_trait]
impl BlockSink for WalletSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(self.wallet.lock().ledger.cursor())
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let found = self.wallet.lock().ledger.apply(&block)?;
        found.into_iter().for_each(|txid| (self.tell)(News::InBlock(txid, block.id)));
        Ok(())
    }

    async fn skip(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.wallet.lock().ledger.skip(to);
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        let undone = self.wallet.lock().ledger.rollback(to)?;
        undone.into_iter().for_each(|txid| (self.tell)(News::ReorgedOut(txid, to)));
        Ok(())
    }

    /// What was not flushed comes again after a crash, since the cursor is written with it.
    async fn flush(&mut self) -> Result<(), SinkError> {
        self.wallet.lock().save()
    }
}
