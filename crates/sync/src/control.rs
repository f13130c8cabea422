//! What can be changed while a sync runs.

use tipward_peer::{ManagerHandle, PeerAddress};
use tokio::sync::{mpsc, watch};

use crate::Progress;

/// The sync has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sync has ended")]
pub struct SyncEnded;

/// Controls a sync that is running. Clones control the same one; none keeps it alive.
#[derive(Debug, Clone)]
pub struct Control {
    pub(crate) paused: watch::Sender<bool>,
    pub(crate) manager: ManagerHandle,
    pub(crate) progress: watch::Receiver<Progress>,
    /// Where blocks are chosen by their filters.
    pub(crate) rescan: Option<mpsc::Sender<u64>>,
}

/// Why nothing is looked through again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RescanError {
    /// Blocks are not chosen by their filters: the sink has been given all of them.
    #[error("there is nothing to rescan: blocks are not chosen by their filters")]
    NotFiltered,
    /// The sync has ended.
    #[error("the sync has ended")]
    Ended,
}

impl Control {
    /// Asks for no more blocks. What is under way still comes and is delivered; headers are followed, connections kept.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Rolls the sink back to this height and looks again at all blocks above, for the scripts that are watched by then. Where
    /// the chain starts above that height the sink goes back to its start; where the sink is lower already, nothing happens.
    ///
    /// # Errors
    /// Blocks are not chosen by their filters, or the sync has ended.
    pub async fn rescan(&self, height: u64) -> Result<(), RescanError> {
        let rescan = self.rescan.as_ref().ok_or(RescanError::NotFiltered)?;
        rescan.send(height).await.map_err(|_| RescanError::Ended)
    }

    /// Connects to one more address, as to those that were given at the start.
    ///
    /// # Errors
    /// The sync has ended.
    pub async fn add_peer(&self, address: PeerAddress) -> Result<(), SyncEnded> {
        self.manager.add(address).await.map_err(|_| SyncEnded)
    }

    /// Leaves an address alone for as long as [`PoolOptions::ban`](tipward_peer::PoolOptions::ban) says, and disconnects it.
    /// What was asked of it is asked of others.
    ///
    /// # Errors
    /// The sync has ended.
    pub async fn ban_peer(
        &self,
        address: PeerAddress,
        reason: impl Into<String> + Send,
    ) -> Result<(), SyncEnded> {
        self.manager.ban(address, reason).await.map_err(|_| SyncEnded)
    }

    /// The pool of connections: to broadcast a transaction, to ask a question of one's own, to look at the peers.
    #[must_use]
    pub fn peers(&self) -> &ManagerHandle {
        &self.manager
    }

    /// Where the sync is, and after its end where it was.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The progress, for those who wait for changes of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}
