//! The user's handle to a peer, before there is one.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    Direction, Figures, Peer, PeerAddress, PeerId, PeerInfo,
    hold::Hold,
    peer::{Command, Kill, Shared},
};

/// What the user's handle to the peer is made of once the peer is ready.
pub(super) struct Handle {
    pub(super) id: PeerId,
    pub(super) address: PeerAddress,
    pub(super) direction: Direction,
    pub(super) remote: Option<SocketAddr>,
    pub(super) request_timeout: Duration,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) kill: Kill,
    pub(super) hold: Arc<Hold>,
    pub(super) figures: Arc<Mutex<Figures>>,
}

impl Handle {
    pub(super) fn peer(self, info: PeerInfo, encrypted: bool) -> Peer {
        let Self { id, address, direction, remote, request_timeout, commands, kill, hold, figures } = self;
        Peer::new(Shared {
            id,
            address,
            direction,
            remote,
            encrypted,
            info,
            request_timeout,
            commands,
            kill,
            hold,
            figures,
        })
    }
}
