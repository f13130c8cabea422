//! A relay that makes a node slow.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Listens on loopback and relays to a node; what comes back from there is held to a rate. Ends when dropped, and so do its
/// connections.
#[derive(Debug)]
pub struct Throttle {
    address: SocketAddr,
    rate: watch::Sender<u32>,
    task: JoinHandle<()>,
}

impl Throttle {
    /// A relay to `target` that passes on so many bytes a second for each connection. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr, bytes_per_second: u32) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (rate, watched) = watch::channel(bytes_per_second);
        let task = tokio::spawn(async move {
            // Connections end with it.
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                relays.spawn(relay(client, target, watched.clone()));
            }
        });
        Ok(Self { address, rate, task })
    }

    /// Passes on so many bytes a second from now on.
    pub fn set_rate(&self, bytes_per_second: u32) {
        self.rate.send_replace(bytes_per_second);
    }

    /// Where the relay listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, target: SocketAddr, rate: watch::Receiver<u32>) -> io::Result<()> {
    const STEPS: u32 = 50;
    let server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let down = async move {
        loop {
            let mut chunk = vec![0; (*rate.borrow() / STEPS).max(1) as usize];
            match from_server.read(&mut chunk).await? {
                0 => return Ok(()),
                read => to_client.write_all(&chunk[..read]).await?,
            }
            tokio::time::sleep(Duration::from_secs(1) / STEPS).await;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}
