//! A SOCKS5 proxy on loopback (RFC 1928).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A proxy that wants no credentials, and keeps a list. Ends when dropped.
#[derive(Debug)]
pub struct Socks {
    address: SocketAddr,
    through: Arc<Mutex<Vec<Through>>>,
    task: JoinHandle<()>,
}

/// A connection that the proxy made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Through {
    /// The host and port that it was asked for, names as they came.
    pub asked: String,
    /// Its own end of the connection to there.
    pub from: SocketAddr,
}

impl Socks {
    /// Starts to listen. Every name leads to `behind_names`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(behind_names: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let through = Arc::new(Mutex::new(Vec::new()));
        let list = through.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, behind_names, list.clone()));
            }
        });
        Ok(Self { address, through, task })
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections that it made, the first one first.
    #[must_use]
    pub fn through(&self) -> Vec<Through> {
        self.through.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    mut client: TcpStream,
    behind_names: SocketAddr,
    list: Arc<Mutex<Vec<Through>>>,
) -> io::Result<()> {
    client.read_u8().await?;
    let methods = client.read_u8().await?;
    client.read_exact(&mut vec![0; methods.into()]).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let (asked, target) = match request[3] {
        1 => {
            let ip = Ipv4Addr::from(client.read_u32().await?);
            let target = SocketAddr::from((ip, client.read_u16().await?));
            (target.to_string(), target)
        }
        4 => {
            let ip = Ipv6Addr::from(client.read_u128().await?);
            let target = SocketAddr::from((ip, client.read_u16().await?));
            (target.to_string(), target)
        }
        _ => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            let port = client.read_u16().await?;
            (format!("{}:{port}", String::from_utf8_lossy(&name)), behind_names)
        }
    };
    let Ok(mut server) = TcpStream::connect(target).await else {
        return client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    let from = server.local_addr()?;
    list.lock().unwrap_or_else(PoisonError::into_inner).push(Through { asked, from });
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
