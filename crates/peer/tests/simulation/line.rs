//! One connection of the pool: the real machine, and the wire to the far end of it.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tipward_peer::{Connection, DisconnectReason, LinkOptions, PeerAddress};

use crate::far::Far;

/// How much a far end that does not read takes nevertheless, in bytes: what its system buffers.
const BUFFERED: usize = 1024;
/// How much more than [`LinkOptions::max_unsent`] may wait: what one message makes us say.
const ONE_MESSAGE: usize = 64 << 10;

pub(crate) struct Line {
    pub(crate) address: PeerAddress,
    /// The number of the node; none has an address that was made up.
    pub(crate) host: Option<usize>,
    pub(crate) state: State,
    /// Why we end it, from when that was said until it is done.
    pub(crate) ending: Option<DisconnectReason>,
    /// When the last bytes arrive that are under way, in either direction.
    pub(crate) to_us: Instant,
    pub(crate) to_them: Instant,
}

pub(crate) enum State {
    Dialing,
    Open(Box<Open>),
}

pub(crate) struct Open {
    pub(crate) link: Box<dyn Connection>,
    pub(crate) input: BytesMut,
    /// There is input that was not decoded yet, because too much waits to be sent.
    pub(crate) backlog: bool,
    pub(crate) admitted: bool,
    /// `None` once the far end is gone.
    pub(crate) far: Option<Far>,
    pub(crate) reads: Reads,
    unread_since: Option<Instant>,
}

/// Whether the far end reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reads {
    All,
    /// Only so many bytes more.
    Until(usize),
}

impl Line {
    pub(crate) fn new(address: PeerAddress, host: Option<usize>, now: Instant) -> Self {
        Self { address, host, state: State::Dialing, ending: None, to_us: now, to_them: now }
    }

    /// What is not being ended by us.
    pub(crate) fn open(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) if self.ending.is_none() => Some(open),
            State::Open(_) | State::Dialing => None,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ending.is_none() && matches!(&self.state, State::Open(open) if open.admitted)
    }

    /// When [`Open::timeout`] is due.
    pub(crate) fn deadline(&self, options: &LinkOptions) -> Option<Instant> {
        match &self.state {
            State::Open(open) if self.ending.is_none() => {
                let unread = open.unread_since.map(|since| since + options.write_timeout);
                Some(unread.map_or(open.link.deadline(), |at| at.min(open.link.deadline())))
            }
            State::Open(_) | State::Dialing => None,
        }
    }

    /// When bytes arrive that leave now: in order, whatever the jitter.
    pub(crate) fn arrival(last: &mut Instant, at: Instant, delay: Duration) -> Instant {
        *last = (at + delay).max(*last);
        *last
    }
}

impl Open {
    pub(crate) fn new(link: Box<dyn Connection>, far: Far, is_deaf: bool) -> Self {
        Self {
            link,
            input: BytesMut::new(),
            backlog: false,
            admitted: false,
            far: Some(far),
            reads: if is_deaf { Reads::Until(BUFFERED) } else { Reads::All },
            unread_since: None,
        }
    }

    /// What leaves now of what is to be sent.
    pub(crate) fn send(&mut self, options: &LinkOptions, now: Instant) -> BytesMut {
        let output = self.link.output();
        assert!(output.len() <= options.max_unsent + ONE_MESSAGE, "{} bytes wait", output.len());
        let length = match &mut self.reads {
            Reads::All => output.len(),
            Reads::Until(room) => {
                let length = output.len().min(*room);
                *room -= length;
                length
            }
        };
        let sent = output.split_to(length);
        let is_left = !output.is_empty();
        self.unread_since = is_left.then(|| if length > 0 { now } else { self.unread_since.unwrap_or(now) });
        self.link.figures().sent += length as u64;
        sent
    }

    /// Acts on the time, as the driver does.
    pub(crate) fn timeout(&mut self, options: &LinkOptions, now: Instant) -> Result<(), DisconnectReason> {
        if self.unread_since.is_some_and(|since| now >= since + options.write_timeout) {
            return Err(DisconnectReason::WriteTimedOut);
        }
        if now >= self.link.deadline() { self.link.timeout(now) } else { Ok(()) }
    }
}
