//! `tipward peers`.

mod events;
mod snapshot;
mod table;

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use tipward_chain::sync::peer::{
    Manager, ManagerHandle, ManagerOptions, PeerAddress, PeerEvent, PeerState, StartError, bitcoin::Bitcoin,
    wire::bitcoin::Network,
};
use tipward_simnet::Demo;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use crate::{
    Failure, args::PeersArguments, interrupted, runtime, sync::DEMO_SEED, trace, transport::addresses,
};
use events::{Display, Happened};
use snapshot::Snapshot;

/// How many events of the peers may wait.
const EVENTS: usize = 256;
/// How often to ping: a round trip that is shown should not be old.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Of how many addresses the failure is remembered.
const MAX_FAILURES: usize = 1000;

pub(crate) fn run(arguments: &PeersArguments) -> Result<(), Failure> {
    let mut options = ManagerOptions::default();
    options.addresses = addresses(&arguments.connect, arguments.network)?;
    options.listen.clone_from(&arguments.listen);
    options.book.clone_from(&arguments.book);
    options.pool.max_peers = usize::from(arguments.max_peers);
    options.link.ping_interval = PING_INTERVAL;
    arguments.transport.apply(arguments.network, &mut options)?;
    trace(arguments.verbose);
    runtime()?.block_on(peers(arguments, options))
}

async fn peers(arguments: &PeersArguments, mut options: ManagerOptions) -> Result<(), Failure> {
    let mut display = Display::choose(arguments);
    let mut demo = None;
    if arguments.network == Network::DEMO && options.addresses.is_empty() && options.listen.is_empty() {
        let network = Demo::start(DEMO_SEED)
            .await
            .map_err(|error| Failure::Failed(format!("cannot start the simulated network: {error}")))?;
        display
            .line(&format!("demo: a simulated network of {} nodes on loopback", network.nodes().count()))?;
        for (address, what) in network.nodes() {
            display.line(&format!("  {address}  {what}"))?;
        }
        options.addresses = network.nodes().map(|(address, _)| address.into()).collect();
        demo = Some(network);
    }
    let (events, inbox) = mpsc::channel(EVENTS);
    let protocol = Arc::new(Bitcoin::new(arguments.network));
    let result = match Manager::spawn(protocol, options, events).await {
        Ok(manager) => watch(manager, inbox, arguments, &mut display).await,
        Err(StartError::Listen { address, source }) => {
            Err(Failure::Failed(format!("cannot listen on {address}: {}", source.kind())))
        }
        Err(error) => Err(Failure::failed(error)),
    };
    if let Some(demo) = demo {
        demo.shutdown().await;
    }
    result
}

/// Shows the peers to the end, and closes everything.
async fn watch(
    manager: Manager,
    mut inbox: mpsc::Receiver<PeerEvent>,
    arguments: &PeersArguments,
    display: &mut Display,
) -> Result<(), Failure> {
    let mut watch = Watch {
        handle: manager.handle(),
        arguments,
        display,
        failures: BTreeMap::new(),
        listens: !manager.listening().is_empty(),
        had_peers: false,
        started: Instant::now(),
    };
    let mut result = watch.introduce(&manager);
    if result.is_ok() {
        result = watch.follow(&mut inbox).await;
    }
    display.close();
    let mut unwritten = None;
    let rest = async {
        while let Some(event) = inbox.recv().await {
            if let PeerEvent::BookNotWritten(error) = event {
                unwritten = Some(error);
            }
        }
    };
    tokio::join!(manager.shutdown(), rest);
    result.and(unwritten.map_or(Ok(()), |error| Err(Failure::failed(error))))
}

struct Watch<'a> {
    handle: ManagerHandle,
    arguments: &'a PeersArguments,
    display: &'a mut Display,
    /// The last failure of each address.
    failures: BTreeMap<PeerAddress, String>,
    listens: bool,
    had_peers: bool,
    started: Instant,
}

impl Watch<'_> {
    fn introduce(&mut self, manager: &Manager) -> Result<(), Failure> {
        manager
            .listening()
            .iter()
            .try_for_each(|address| self.display.line(&format!("listening on {address}")))
    }

    /// Until it is enough, or hopeless.
    async fn follow(&mut self, inbox: &mut mpsc::Receiver<PeerEvent>) -> Result<(), Failure> {
        let mut interrupt = pin!(interrupted());
        let interval = self.arguments.interval;
        let mut tick = interval_at(self.started + interval, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = self.arguments.duration.map(|duration| self.started + duration);
        let mut shown = 0;
        loop {
            tokio::select! {
                biased;
                () = &mut interrupt => return Ok(()),
                // Before the end, which may be due at the same moment; before events, of which there may be many.
                _ = tick.tick() => {
                    self.show().await?;
                    shown += 1;
                    if self.arguments.count == Some(shown) {
                        return self.somebody();
                    }
                }
                () = sleep_until(end.unwrap_or(self.started)), if end.is_some() => {
                    if shown == 0 {
                        self.show().await?;
                    }
                    return self.somebody();
                }
                event = inbox.recv() => match event {
                    Some(PeerEvent::Exhausted) if !self.listens => return Err(self.nobody()),
                    Some(event) => self.event(&event)?,
                    None => return Err(Failure::Failed("the connections' task has ended".to_owned())),
                },
            }
        }
    }

    async fn show(&mut self) -> Result<(), Failure> {
        let snapshot = Snapshot {
            network: self.arguments.network,
            peers: self.handle.peers().await.map_err(Failure::failed)?,
            book: self.handle.book().await.map_err(Failure::failed)?,
            time_offset: self.handle.time_offset().await.map_err(Failure::failed)?,
            target: usize::from(self.arguments.max_peers),
            elapsed: self.started.elapsed(),
        };
        self.had_peers |= snapshot.peers.iter().any(|peer| matches!(peer.state, PeerState::Ready { .. }));
        self.display.snapshot(&snapshot)
    }

    fn event(&mut self, event: &PeerEvent) -> Result<(), Failure> {
        let Some(happened) = Happened::new(event) else { return Ok(()) };
        match event {
            PeerEvent::Connected(peer) => {
                self.had_peers = true;
                self.failures.remove(peer.address());
            }
            PeerEvent::ConnectFailed { address, .. } | PeerEvent::Disconnected { address, .. } => {
                self.failed(address.clone(), &happened);
            }
            PeerEvent::ResolveFailed { seed, .. } => {
                self.failed(PeerAddress { host: seed.clone(), port: 0 }, &happened);
            }
            _ => {}
        }
        self.display.happened(happened)
    }

    fn failed(&mut self, address: PeerAddress, happened: &Happened) {
        if self.failures.len() < MAX_FAILURES || self.failures.contains_key(&address) {
            self.failures.insert(address, happened.to_string());
        }
    }

    /// Whether the time was enough to get to know anybody.
    fn somebody(&self) -> Result<(), Failure> {
        if self.had_peers || self.listens {
            return Ok(());
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let first = self.failures.values().next().map_or_else(String::new, |first| format!(": {first}"));
        Err(Failure::Failed(format!("no peer was ready within {seconds:.1} s{first}{}", self.others())))
    }

    fn nobody(&self) -> Failure {
        Failure::Failed(match self.failures.values().next() {
            Some(first) => format!("{first}{}", self.others()),
            None => "no address to connect to, and no DNS seeds to ask for one".to_owned(),
        })
    }

    fn others(&self) -> String {
        match self.failures.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} others failed)", count - 1),
        }
    }
}
