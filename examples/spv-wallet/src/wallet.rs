//! The ledger and its file, as one: what the sync fills and the commands ask. The sync gives blocks to the [`WalletSink`].

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bdk_wallet::bitcoin::Txid;
use tipward_chain::{
    Checkpoint,
    sync::{Block, BlockId, BlockSink, SinkError, async_trait, peer::wire::bitcoin::Network},
};

use crate::{
    checkpoint,
    ledger::Ledger,
    store::{Settings, Store},
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
    /// Makes an empty wallet that looks at the blocks from a height on.
    pub(crate) fn create(
        dir: &Path,
        network: &'static Network,
        checkpoint: Option<Checkpoint>,
        birthday: Option<u64>,
    ) -> Result<Self, SinkError> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let settings = Settings { network: network.name.to_owned(), cursor: None, scan_from: birthday };
        let ledger = Ledger::load(network, crate::ledger::ChangeSet::default(), None)?;
        let store = Store::create(&dir.join(FILE), &settings)?;
        if let Some(checkpoint) = &checkpoint {
            checkpoint::write(&dir.join(CHECKPOINT), checkpoint)?;
        }
        Ok(Self { ledger, settings, store, dir: dir.to_owned(), checkpoint })
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

    /// Has the next sync begin with the block at this height; `None` when that is done.
    pub(crate) fn set_scan_from(&mut self, height: Option<u64>) -> Result<(), SinkError> {
        if let (Some(height), Some(start)) = (height, self.checkpoint.as_ref().map(|it| it.height))
            && height <= start
        {
            return Err(
                format!("the wallet starts at a checkpoint: height {height} is not above {start}").into()
            );
        }
        let changes = self.ledger.take_changes()?;
        self.settings.scan_from = height;
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
    pub(crate) tell: Box<dyn Fn(News) + Send>,
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
