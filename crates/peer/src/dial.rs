//! From an address to a connection that has shaken hands, and on to its end.

use std::sync::{Arc, Mutex};

use tipward_wire::{BlockHash, DownloadId};
use tokio::sync::{mpsc, watch};

use crate::{
    ConnectError, Dialed, Dialer, Direction, DisconnectReason, Encrypt, Figures, LinkOptions, Local,
    PeerAddress, PeerEvent, PeerId, Protocol, Reply, Start, Stream,
    driver::{Driver, Ended, Interest, Notice, now},
    peer::{Kill, ended},
    transport,
};

/// One attempt at an address, and the connection that comes of it.
pub(crate) struct Attempt {
    pub(crate) id: PeerId,
    pub(crate) address: PeerAddress,
    pub(crate) protocol: Arc<dyn Protocol>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) options: LinkOptions,
    pub(crate) local: Local,
    pub(crate) seed: u64,
    pub(crate) events: mpsc::Sender<PeerEvent>,
    pub(crate) kill: Kill,
    pub(crate) figures: Arc<Mutex<Figures>>,
    pub(crate) manager: Option<(mpsc::Sender<Notice>, Arc<Interest>)>,
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// No connection that could be used.
    Failed(ConnectError),
    /// A connection, which has ended.
    Ended {
        reason: DisconnectReason,
        /// The peer was spoken to in clear text because it does not know encryption.
        fell_back: bool,
    },
}

impl Attempt {
    /// Dials, talks to the end, and tells of it.
    pub(crate) async fn dial(mut self) -> Outcome {
        let mut encrypted = self.protocol.can_encrypt() && self.options.encrypt != Encrypt::Off;
        let mut fell_back = false;
        loop {
            let mut killed = self.kill.subscribe();
            tracing::debug!(id = %self.id, address = %self.address, encrypted, "connecting");
            let connecting = transport::connect(&*self.dialer, &self.address, self.options.connect_timeout);
            let connected = tokio::select! {
                biased;
                reason = ended(&mut killed) => return Outcome::Failed(ConnectError::Handshake(reason)),
                connected = connecting => connected,
            };
            let dialed = match connected {
                Ok(dialed) => dialed,
                Err(reason) => return self.failed(reason).await,
            };
            let mut ended = self.talk(dialed, Direction::Outbound, encrypted).await;
            let is_hint = !ended.was_ready
                && (ended.reason.is_clear_text() || (!ended.has_heard && ended.reason.is_hanging_up()));
            match self.options.encrypt {
                Encrypt::Prefer if encrypted && is_hint => {
                    (encrypted, fell_back) = (false, true);
                    self.seed = self.seed.wrapping_add(1);
                    continue;
                }
                Encrypt::Require if is_hint => ended.reason = DisconnectReason::NotEncrypted,
                Encrypt::Prefer | Encrypt::Require | Encrypt::Off => {}
            }
            return self.ended(ended, fell_back).await;
        }
    }

    /// Talks over a connection that the peer has opened.
    pub(crate) async fn accept(mut self, stream: Box<dyn Stream>) -> Outcome {
        let encrypted = self.protocol.can_encrypt() && self.options.encrypt != Encrypt::Off;
        let dialed = Dialed { stream, remote: None };
        let ended = self.talk(dialed, Direction::Inbound, encrypted).await;
        self.ended(ended, false).await
    }

    async fn talk(&mut self, dialed: Dialed, direction: Direction, encrypted: bool) -> Ended {
        let start = Start { direction, encrypted, seed: self.seed, now: now() };
        let link = self.protocol.connect(&self.local, &self.options, start);
        // What a peer that dialled us begins with is not known yet, unless this network knows no encryption.
        let is_bare = !link.is_encrypted() && (direction == Direction::Outbound || !encrypted);
        if self.options.encrypt == Encrypt::Require && is_bare {
            let reason = DisconnectReason::NotEncrypted;
            return Ended { reason, was_ready: false, has_heard: false, void: None };
        }
        let driver = Driver {
            id: self.id,
            address: self.address.clone(),
            direction,
            remote: dialed.remote,
            link,
            options: self.options.clone(),
            events: self.events.clone(),
            kill: self.kill.clone(),
            figures: self.figures.clone(),
            manager: self.manager.clone(),
        };
        driver.run(dialed.stream).await
    }

    async fn ended(self, ended: Ended, fell_back: bool) -> Outcome {
        let Ended { reason, was_ready, void, .. } = ended;
        if !was_ready {
            return self.failed(ConnectError::Handshake(reason)).await;
        }
        tracing::info!(id = %self.id, address = %self.address, %reason, "disconnected");
        if let Some((block, download)) = void {
            self.tell(PeerEvent::Reply { peer: self.id, reply: aborted(block, download) }).await;
        }
        let event =
            PeerEvent::Disconnected { peer: self.id, address: self.address.clone(), reason: reason.clone() };
        self.tell(event).await;
        Outcome::Ended { reason, fell_back }
    }

    async fn failed(self, reason: ConnectError) -> Outcome {
        tracing::info!(address = %self.address, %reason, "cannot connect");
        let event = PeerEvent::ConnectFailed { address: self.address.clone(), reason: reason.clone() };
        self.tell(event).await;
        Outcome::Failed(reason)
    }

    /// The receiver may have stopped taking events, and then stops us.
    async fn tell(&self, event: PeerEvent) {
        let mut killed = self.kill.subscribe();
        tokio::select! {
            biased;
            permit = self.events.reserve() => if let Ok(permit) = permit { permit.send(event) },
            () = is_shutdown(&mut killed) => {}
        }
    }
}

fn aborted(block: BlockHash, download: DownloadId) -> Reply {
    Reply::BlockAborted { block, download }
}

/// Waits until everything shuts down; a peer that was disconnected alone still has its end told.
async fn is_shutdown(killed: &mut watch::Receiver<Option<DisconnectReason>>) {
    let is_shutdown = |reason: &Option<DisconnectReason>| matches!(reason, Some(DisconnectReason::Shutdown));
    if killed.wait_for(is_shutdown).await.is_err() {
        std::future::pending::<()>().await;
    }
}
