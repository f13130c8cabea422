//! What a connection says: collected while there is more to say, and sent at the node's pace.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use super::{Connection, ServeError, ears::LOOK_AGAIN};
use crate::{Behaviour, Midway};

/// So much is collected before it is sent, in bytes.
const COLLECTED: usize = 64 << 10;
/// How many times a second a node with a limit sends something, if that is at least a byte.
const STEPS: u64 = 50;

impl Connection<'_> {
    /// Says something, sooner or later; [`flush`](Self::flush) sends it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ServeError> {
        self.output.extend_from_slice(bytes);
        if self.output.len() >= COLLECTED { self.flush().await } else { Ok(()) }
    }

    /// The same for bytes that need not be copied if there are many.
    pub(super) async fn write_shared(&mut self, bytes: Bytes) -> Result<(), ServeError> {
        if bytes.len() < COLLECTED {
            return self.write(&bytes).await;
        }
        self.flush().await?;
        self.send_now(&bytes).await
    }

    /// Sends what was collected. To be called before anything is waited for.
    pub(super) async fn flush(&mut self) -> Result<(), ServeError> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut output = std::mem::take(&mut self.output);
        let sent = self.send_now(&output).await;
        output.clear();
        self.output = if output.capacity() > 4 * COLLECTED { BytesMut::new() } else { output };
        sent
    }

    async fn send_now(&mut self, mut bytes: &[u8]) -> Result<(), ServeError> {
        while !bytes.is_empty() {
            // Before the pace is looked up, so that no change is missed.
            let mut turned = self.node.behaviour.subscribe();
            let sent = match self.pace() {
                None => send_some(self.stream, bytes).await?,
                Some(0) => {
                    tokio::select! {
                        gone = self.gone() => return Err(gone),
                        _ = turned.changed() => {}
                    }
                    continue;
                }
                Some(rate) => {
                    let now = Instant::now();
                    if self.free_at > now {
                        tokio::select! {
                            () = sleep_until(self.free_at) => {}
                            _ = turned.changed() => self.free_at = now,
                        }
                        continue;
                    }
                    let step = usize::try_from((rate / STEPS).max(1)).unwrap_or(usize::MAX).min(bytes.len());
                    let sent = send_some(self.stream, &bytes[..step]).await?;
                    // Time is made up for that a step came late by, up to a tenth of a second.
                    let since = self.free_at.max(now - Duration::from_millis(100));
                    self.free_at = since + Duration::from_secs_f64(sent as f64 / rate as f64);
                    sent
                }
            };
            self.node.counters.bytes_sent.add(sent);
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// How many bytes a second may be sent now; `None` for any number.
    fn pace(&self) -> Option<u64> {
        let by_behaviour = match self.behaviour() {
            Behaviour::Slow { bytes_per_second } => Some(u64::from(bytes_per_second.max(1))),
            Behaviour::Midway { then: Midway::Trickles { bytes_per_second }, .. } if self.is_broken => {
                Some(u64::from(bytes_per_second.max(1)))
            }
            Behaviour::Midway { then: Midway::Stalls, .. } if self.is_broken => Some(0),
            _ => None,
        };
        let by_options = self.node.options.bytes_per_second.map(|rate| rate.max(1));
        by_behaviour.into_iter().chain(by_options).min()
    }

    /// Waits for the client's end. What has come and is not read hides the end of the stream from a read, not from here.
    pub(super) async fn gone(&self) -> ServeError {
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if ready.is_read_closed() => return ServeError::Done,
                Ok(_) => sleep(LOOK_AGAIN).await,
                Err(error) => return error.into(),
            }
        }
    }
}

/// Sends as much as there is room for. May be dropped while it waits, and has sent nothing then.
pub(super) async fn send_some(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
    }
}
