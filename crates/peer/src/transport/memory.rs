//! A network within this process, for tests and simulations.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use super::{Dialed, Dialer, Stream};
use crate::PeerAddress;

/// How many connections may wait to be accepted by one listener; more wait at the dialler.
const BACKLOG: usize = 16;
/// How many listeners and names there may be in one network.
const MAX_ENTRIES: usize = 100_000;
/// How many bytes may be under way in each direction, unless told otherwise.
const BUFFER: usize = 64 << 10;

/// A network of listeners by address. Clones are the same network.
#[derive(Debug, Clone)]
pub struct Memory {
    buffer: usize,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    listeners: BTreeMap<PeerAddress, mpsc::Sender<DuplexStream>>,
    names: BTreeMap<String, Vec<PeerAddress>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(BUFFER)
    }
}

impl Memory {
    /// An empty network, in which so many bytes, at least one, may be under way in each direction of a connection.
    #[must_use]
    pub fn new(buffer: usize) -> Self {
        Self { buffer: buffer.max(1), places: Arc::default() }
    }

    /// Listens at an address until the listener is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if somebody listens there; [`io::ErrorKind::QuotaExceeded`] beyond 100,000 listeners.
    pub fn listen(&self, address: PeerAddress) -> io::Result<MemoryListener> {
        let mut places = self.lock();
        if places.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if places.listeners.len() >= MAX_ENTRIES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (sender, streams) = mpsc::channel(BACKLOG);
        places.listeners.insert(address.clone(), sender);
        Ok(MemoryListener { address, network: self.clone(), streams })
    }

    /// Lets a name resolve to addresses, in place of those it had.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] beyond 100,000 names.
    pub fn name(&self, name: impl Into<String>, addresses: Vec<PeerAddress>) -> io::Result<()> {
        let (name, mut places) = (name.into(), self.lock());
        if places.names.len() >= MAX_ENTRIES && !places.names.contains_key(&name) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        places.names.insert(name, addresses);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Dialer for Memory {
    async fn dial(&self, address: &PeerAddress) -> io::Result<Dialed> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = self.lock().listeners.get(address).cloned().ok_or_else(refused)?;
        let (ours, theirs) = duplex(self.buffer);
        listener.send(theirs).await.map_err(|_| refused())?;
        Ok(Dialed { stream: Box::new(ours), remote: None })
    }

    async fn resolve(&self, seed: &str, _: u16) -> io::Result<Vec<PeerAddress>> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("nothing is named '{seed}'"));
        self.lock().names.get(seed).cloned().ok_or_else(unknown)
    }
}

/// Takes the connections to one address.
#[derive(Debug)]
pub struct MemoryListener {
    address: PeerAddress,
    network: Memory,
    streams: mpsc::Receiver<DuplexStream>,
}

impl MemoryListener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// The next connection. May be dropped while it waits, and called again.
    pub async fn accept(&mut self) -> Box<dyn Stream> {
        match self.streams.recv().await {
            Some(stream) => Box::new(stream),
            // The network holds the other end for as long as this listener lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.lock().listeners.remove(&self.address);
    }
}
