//! The pool's task: carries out what the [`Pool`] wants and tells it what came of it.
//!
//! It never waits for anybody but in its one `select!`, so whoever waits for it is answered. What it tells the user waits in
//! a bounded queue while the user is slow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::{self, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    Command, ManagerHandle, ManagerOptions, PeerEvent, StartError, accept, commands::RequestAnswer, open_book,
};
use crate::{
    BookFile, BroadcastId, BroadcastOutcome, Dialer, DisconnectReason, Encrypt, Peer, PeerAddress, PeerId,
    Pool, PoolOutput, Protocol, RequestId, Stream, Transport, UnixTime,
    dial::{Attempt, Outcome},
    driver::{Interest, Notice, now},
    handler::{AnyHandler, Pump},
    link::after,
    metrics,
    peer::{Kill, end},
};

/// How long connections may take to end at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long resolving one DNS seed may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What an interval of zero means.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// How many notices of all connections may wait.
const NOTICES: usize = 256;
/// How many events may wait for a slow user. The oldest go first.
const MAX_EVENTS: usize = 1024;
/// How many events of one connection may wait for the handler.
const HANDLER_EVENTS: usize = 16;
/// How many connections of others may wait to be looked at.
const ACCEPTED: usize = 16;

pub(super) struct PoolTask {
    protocol: Arc<dyn Protocol>,
    pub(super) options: ManagerOptions,
    events: mpsc::Sender<PeerEvent>,
    handler: Option<Arc<dyn AnyHandler>>,
    handle: ManagerHandle,
    commands: mpsc::Receiver<Command>,
    random: fastrand::Rng,
    pub(super) pool: Pool,
    file: BookFile,
    connections: JoinSet<Outcome>,
    /// Which peer each task is for.
    tasks: BTreeMap<task::Id, PeerId>,
    pub(super) live: BTreeMap<PeerId, Live>,
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    interest: Arc<Interest>,
    waiting: VecDeque<PeerEvent>,
    pub(super) requests: BTreeMap<RequestId, RequestAnswer>,
    pub(super) broadcasts: BTreeMap<BroadcastId, oneshot::Sender<BroadcastOutcome>>,
    lookups: JoinSet<(String, Result<Vec<PeerAddress>, String>)>,
    saves: JoinSet<Result<(), crate::BookFileError>>,
    next_save: Instant,
    pub(super) next_sample: Instant,
}

/// A connection's task, seen from here.
pub(super) struct Live {
    kill: Kill,
    figures: Arc<Mutex<crate::Figures>>,
    /// Once it is ready.
    pub(super) peer: Option<Peer>,
}

impl PoolTask {
    pub(super) fn new(
        protocol: Arc<dyn Protocol>,
        mut options: ManagerOptions,
        events: mpsc::Sender<PeerEvent>,
        handler: Option<Arc<dyn AnyHandler>>,
        handle: ManagerHandle,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, StartError> {
        let mut random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let unix = unix_now();
        let book = options.pool.book.clone();
        let (file, loaded) = open_book(&options, book, protocol.name(), random.fork(), unix)?;
        let mut pool = Pool::new(options.pool.clone(), loaded.book, random.u64(..), unix, now());
        for address in std::mem::take(&mut options.addresses) {
            pool.give(address, now());
        }
        let waiting = loaded
            .problem
            .map(|(problem, aside)| PeerEvent::BookDamaged { problem: Arc::new(problem), aside });
        Ok(Self {
            next_save: after(now(), options.book_interval),
            next_sample: now(),
            protocol,
            options,
            events,
            handler,
            handle,
            commands,
            random,
            pool,
            file,
            connections: JoinSet::new(),
            tasks: BTreeMap::new(),
            live: BTreeMap::new(),
            notices: mpsc::channel(NOTICES),
            interest: Arc::new(Interest::default()),
            waiting: waiting.into_iter().collect(),
            requests: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            lookups: JoinSet::new(),
            saves: JoinSet::new(),
        })
    }

    /// Runs until it is stopped, or the receiver of the events is gone and there is no handler.
    pub(super) async fn run(mut self, listeners: Vec<TcpListener>, mut stopped: watch::Receiver<bool>) {
        let (accepted, mut incoming) = mpsc::channel(ACCEPTED);
        // Dropped with the task, which closes the listeners.
        let _listening = accept::accept(listeners, &accepted);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => {}
            () = self.keep_connected(&mut incoming) => {}
        }
        for live in self.live.values() {
            end(&live.kill, DisconnectReason::Shutdown);
        }
        // Who asks now, such as a handler, is not left waiting for the end.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        self.requests.clear();
        self.broadcasts.clear();
        let all = async {
            while let Some(joined) = self.connections.join_next_with_id().await {
                self.joined(joined);
            }
        };
        if timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            self.connections.shutdown().await;
        }
        while let Some(saved) = self.saves.join_next().await {
            self.saved(saved);
        }
        self.save();
        while let Some(saved) = self.saves.join_next().await {
            self.saved(saved);
        }
    }

    async fn keep_connected(&mut self, incoming: &mut mpsc::Receiver<(Box<dyn Stream>, PeerAddress)>) {
        let needs_listener = self.handler.is_none();
        let events = self.events.clone();
        loop {
            self.sample();
            self.pool.timeout(now());
            self.act();
            if needs_listener && self.events.is_closed() {
                return;
            }
            let deadline = self.pool.deadline(now()).min(self.next_sample).min(self.next_save);
            tokio::select! {
                biased;
                // The end of connections makes room for others.
                Some(joined) = self.connections.join_next_with_id() => self.joined(joined),
                permit = events.reserve(), if !self.waiting.is_empty() => match (permit, self.waiting.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => self.waiting.clear(),
                },
                Some(command) = self.commands.recv() => self.obey(command),
                Some(lookup) = self.lookups.join_next() => self.resolved(lookup),
                Some(saved) = self.saves.join_next() => self.saved(saved),
                // After the user's own, which are few: peers can send notices as fast as we take them.
                Some(notice) = self.notices.1.recv() => self.notice(notice),
                Some((stream, from)) = incoming.recv() => self.accepted(stream, from),
                () = sleep_until(deadline.into()) => {}
                () = events.closed(), if needs_listener => return,
            }
        }
    }

    /// What the drivers measured goes to the pool, which looks at it at its own times.
    fn sample(&mut self) {
        if now() >= self.next_save {
            self.next_save = after(now(), self.options.book_interval.max(SHORTEST_INTERVAL));
            self.save();
        }
        if now() < self.next_sample {
            return;
        }
        let interval = self.options.pool.check_interval.min(self.options.pool.timings.check);
        self.next_sample = after(now(), interval.max(SHORTEST_INTERVAL));
        self.sample_peers();
        metrics::gauges(&self.pool, now());
    }

    pub(super) fn sample_peers(&mut self) {
        for (id, live) in &self.live {
            if let Some(peer) = &live.peer {
                self.pool.sample(*id, peer.figures(), now());
                if peer.is_held() {
                    self.pool.held(*id, now());
                }
            }
        }
    }

    /// Carries out what the pool wants.
    fn act(&mut self) {
        // Before anybody is asked, or an answer could come too early to be heard.
        self.interest.set(self.pool.open());
        while let Some(output) = self.pool.poll(now()) {
            match output {
                PoolOutput::Dial { id, address, transport } => self.dial(id, address, transport),
                PoolOutput::Disconnect { id, reason } => {
                    if let Some(live) = self.live.get(&id) {
                        tracing::info!(%id, %reason, "disconnecting");
                        end(&live.kill, reason);
                    }
                }
                PoolOutput::Ask { id, want } => {
                    let peer = self.live.get(&id).and_then(|live| live.peer.as_ref());
                    if peer.is_none_or(|peer| peer.ask(want.clone()).is_err()) {
                        self.pool.refused(id, &want);
                    }
                }
                PoolOutput::Resolve => self.resolve_seeds(),
                PoolOutput::Answered(id, result) => {
                    if let Some(answer) = self.requests.remove(&id) {
                        answer.send(Ok(result)).ok();
                    }
                }
                PoolOutput::Broadcast(id, outcome) => {
                    if let Some(answer) = self.broadcasts.remove(&id) {
                        answer.send(outcome).ok();
                    }
                }
                PoolOutput::Changed(change) => self.tell(PeerEvent::Changed(change)),
                PoolOutput::Primary(primary) => self.tell(PeerEvent::Primary(primary)),
                PoolOutput::Banned { address, reason } => {
                    metrics::banned();
                    self.tell(PeerEvent::Banned { address, reason });
                }
                PoolOutput::Settled => self.tell(PeerEvent::Settled),
                PoolOutput::Exhausted => self.tell(PeerEvent::Exhausted),
            }
        }
        self.interest.set(self.pool.open());
    }

    fn tell(&mut self, event: PeerEvent) {
        if self.waiting.is_empty() {
            match self.events.try_send(event) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => self.waiting.push_back(event),
            }
        } else {
            self.waiting.push_back(event);
        }
        if self.waiting.len() > MAX_EVENTS {
            tracing::warn!("an event is lost, for nobody takes them");
            self.waiting.pop_front();
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Ready(peer, verdict) => {
                let id = peer.id();
                let located = peer.remote().map_or(Ok(()), |remote| self.pool.locate(id, remote));
                let admission =
                    located.and_then(|()| self.pool.admit(id, peer.info(), peer.is_encrypted(), now()));
                if admission.is_ok()
                    && let Some(live) = self.live.get_mut(&id)
                {
                    live.peer = Some(peer);
                }
                verdict.send(admission.map_err(DisconnectReason::from)).ok();
            }
            Notice::Reply(peer, reply) => self.pool.reply(peer, &reply, now()),
            Notice::Misbehaved(peer, points, what) => self.pool.misbehaved(peer, points, &what, now()),
        }
    }

    fn joined(&mut self, joined: Result<(task::Id, Outcome), task::JoinError>) {
        let (task, outcome, is_told) = match joined {
            Ok((task, outcome)) => (task, outcome, true),
            // A bug in a session must cost its connection only.
            Err(panic) => {
                let reason = DisconnectReason::Handler(Arc::new(std::io::Error::other("panicked")));
                (panic.id(), Outcome::Ended { reason, fell_back: false }, false)
            }
        };
        let Some(id) = self.tasks.remove(&task) else { return };
        if let Some(live) = self.live.remove(&id)
            && let Some(peer) = live.peer
        {
            let figures = *live.figures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.pool.sample(id, figures, now());
            if let Outcome::Ended { reason, .. } = &outcome
                && !is_told
            {
                let (address, reason) = (peer.address().clone(), reason.clone());
                self.tell(PeerEvent::Disconnected { peer: id, address, reason });
            }
        }
        match outcome {
            Outcome::Failed(reason) => {
                metrics::connect_failed(&reason);
                self.pool.dial_failed(id, &reason, now());
            }
            Outcome::Ended { reason, fell_back } => {
                metrics::disconnected(&reason);
                self.pool.ended(id, &reason, fell_back, now());
            }
        }
    }

    fn dial(&mut self, id: PeerId, address: PeerAddress, transport: Transport) {
        let mut options = self.options.link.clone();
        if transport == Transport::V1 && options.encrypt == Encrypt::Prefer {
            options.encrypt = Encrypt::Off;
        }
        self.start(id, address, options, None);
    }

    fn accepted(&mut self, stream: Box<dyn Stream>, from: PeerAddress) {
        if let Some(id) = self.pool.accept(from.clone(), now()) {
            let mut options = self.options.link.clone();
            options.needs = crate::Needs::Nothing;
            self.start(id, from, options, Some(stream));
        }
    }

    fn start(
        &mut self,
        id: PeerId,
        address: PeerAddress,
        options: crate::LinkOptions,
        stream: Option<Box<dyn Stream>>,
    ) {
        let kill: Kill = Arc::new(watch::channel(None).0);
        let figures = Arc::new(Mutex::new(crate::Figures::new(now())));
        let (events, pump) = match &self.handler {
            None => (self.events.clone(), None),
            Some(handler) => {
                let (events, inbox) = mpsc::channel(HANDLER_EVENTS);
                let pump = Pump {
                    handler: handler.clone(),
                    manager: self.handle.clone(),
                    on_error: self.options.on_handler_error,
                    id,
                    address: address.clone(),
                    kill: kill.clone(),
                    inbox,
                    events: self.events.clone(),
                };
                (events, Some(pump))
            }
        };
        let attempt = Attempt {
            id,
            address,
            protocol: self.protocol.clone(),
            dialer: self.options.dialer.clone(),
            options,
            local: self.options.local.clone(),
            seed: self.random.u64(..),
            events,
            kill: kill.clone(),
            figures: figures.clone(),
            manager: Some((self.notices.0.clone(), self.interest.clone())),
        };
        let task = self.connections.spawn(async move {
            let talk = async {
                match stream {
                    None => attempt.dial().await,
                    Some(stream) => attempt.accept(stream).await,
                }
            };
            match pump {
                None => talk.await,
                Some(pump) => pump.beside(talk).await,
            }
        });
        self.tasks.insert(task.id(), id);
        self.live.insert(id, Live { kill, figures, peer: None });
    }

    fn resolve_seeds(&mut self) {
        let port = self.protocol.default_port();
        for seed in self.protocol.dns_seeds(self.options.link.needs) {
            let dialer: Arc<dyn Dialer> = self.options.dialer.clone();
            self.lookups.spawn(async move {
                let found = match timeout(RESOLVE_TIMEOUT, dialer.resolve(&seed, port)).await {
                    Ok(Ok(addresses)) => Ok(addresses),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("timed out".to_owned()),
                };
                (seed, found)
            });
        }
    }

    fn resolved(&mut self, lookup: Result<(String, Result<Vec<PeerAddress>, String>), task::JoinError>) {
        match lookup {
            Ok((seed, Ok(addresses))) => {
                tracing::debug!(seed, found = addresses.len(), "resolved a DNS seed");
                self.pool.resolved(addresses, now());
            }
            Ok((seed, Err(reason))) => self.tell(PeerEvent::ResolveFailed { seed, reason }),
            Err(panic) => tracing::warn!(%panic, "a resolver panicked"),
        }
    }

    fn save(&mut self) {
        if !self.saves.is_empty() {
            return;
        }
        if let Some(text) = self.file.text(self.pool.book()) {
            let file = self.file.clone();
            self.saves.spawn_blocking(move || file.write(&text));
        }
    }

    fn saved(&mut self, saved: Result<Result<(), crate::BookFileError>, task::JoinError>) {
        if let Ok(Err(error)) = saved {
            self.tell(PeerEvent::BookNotWritten(Arc::new(error)));
        }
    }

    pub(super) fn peer(&self, id: Option<PeerId>) -> Option<Peer> {
        self.live.get(&id?)?.peer.clone()
    }
}

pub(super) fn unix_now() -> UnixTime {
    UnixTime::since_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
