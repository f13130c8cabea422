//! The line from a peer to us: everything comes in the order of the questions, at the line's speed.
//!
//! Times are those of arrival. One thing is under way at a time: the next part of a block, or what has come of it after
//! 200 ms, or a whole message of another kind.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tipward_sync::peer::{Want, wire::BlockHash};

/// How often the progress of an arriving block is told, as the link does it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// How much may still come after we stop to read: what was read already.
pub(crate) const READ_BUFFER: u64 = 256 << 10;

/// Something to be sent.
#[derive(Debug)]
pub(crate) enum Item {
    /// The headers after a locator.
    HeadersAfter(Vec<BlockHash>),
    BlocksAfter(Vec<BlockHash>, BlockHash),
    Block(BlockHash),
    /// A range, or ancestors.
    Many(Want),
    RangeEnd,
    /// There are new blocks on top of this height.
    NewTip {
        from: u32,
    },
}

/// An item on its way.
#[derive(Debug)]
pub(crate) struct Sending<T> {
    pub(crate) what: T,
    /// Bytes on the line.
    pub(crate) size: u64,
    /// Bytes that have come.
    pub(crate) sent: u64,
    /// The next byte at which something is to be told.
    pub(crate) stop: u64,
    /// Progress is told in between.
    pub(crate) tells_progress: bool,
    chunk: Option<Chunk>,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    from: Instant,
    until: Instant,
    bytes: u64,
}

/// The line.
#[derive(Debug)]
pub(crate) struct Pipe<T> {
    queue: VecDeque<(Instant, Item)>,
    pub(crate) sending: Option<Sending<T>>,
    /// When the last byte that was under way has come.
    free_at: Instant,
    /// We do not read; so many bytes may still come.
    hold: Option<u64>,
    /// Numbers what is under way; what had another number was called off.
    epoch: u64,
}

impl<T> Pipe<T> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { queue: VecDeque::new(), sending: None, free_at: now, hold: None, epoch: 0 }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Forgets everything: the connection has ended.
    pub(crate) fn close(&mut self, now: Instant) {
        *self = Self { epoch: self.epoch + 1, ..Self::new(now) };
    }

    pub(crate) fn push(&mut self, ready_at: Instant, item: Item) {
        self.queue.push_back((ready_at, item));
    }

    /// In place of the item that was taken last.
    pub(crate) fn push_front(&mut self, items: impl DoubleEndedIterator<Item = Item>) {
        items.rev().for_each(|item| self.queue.push_front((self.free_at, item)));
    }

    /// The next item, if nothing is on its way.
    pub(crate) fn take(&mut self) -> Option<Item> {
        let (ready_at, item) = self.queue.pop_front()?;
        self.free_at = self.free_at.max(ready_at);
        Some(item)
    }

    pub(crate) fn start(&mut self, what: T, size: u64, stop: u64, tells_progress: bool) {
        self.sending = Some(Sending { what, size, sent: 0, stop, tells_progress, chunk: None });
    }

    /// What was asked for and has not come: whole blocks, and those in the queue.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &BlockHash> {
        self.queue.iter().filter_map(|(_, item)| if let Item::Block(hash) = item { Some(hash) } else { None })
    }

    /// Whether it still answers what it was asked.
    pub(crate) fn is_busy(&self) -> bool {
        self.sending.is_some() || !self.queue.is_empty()
    }

    /// Sets the next bytes on their way; tells when they will have come. Nothing if something is on its way already, or
    /// nothing can be.
    pub(crate) fn advance(
        &mut self,
        bandwidth: u64,
        clear: impl Fn(Instant) -> Instant,
    ) -> Option<(Instant, u64)> {
        let sending = self.sending.as_mut().filter(|sending| sending.chunk.is_none())?;
        let mut bytes = sending.stop - sending.sent;
        if sending.tells_progress {
            let in_time = (bandwidth as f64 * PROGRESS_INTERVAL.as_secs_f64()) as u64;
            bytes = bytes.min(in_time.max(1));
        }
        if let Some(allowance) = &mut self.hold {
            // A little may still come; it is not told before the whole of it is there.
            *allowance = allowance.checked_sub(bytes)?;
        }
        let from = clear(self.free_at);
        let until = from + Duration::from_secs_f64(bytes as f64 / bandwidth as f64);
        sending.chunk = Some(Chunk { from, until, bytes });
        self.epoch += 1;
        Some((until, self.epoch))
    }

    /// What was under way has come.
    pub(crate) fn arrive(&mut self) -> Option<&mut Sending<T>> {
        let sending = self.sending.as_mut()?;
        let chunk = sending.chunk.take()?;
        sending.sent += chunk.bytes;
        self.free_at = chunk.until;
        Some(sending)
    }

    /// We stop reading.
    pub(crate) fn hold(&mut self, now: Instant, mut allowance: u64) {
        if self.hold.is_some() {
            return;
        }
        if let Some(sending) = &mut self.sending
            && let Some(chunk) = sending.chunk
        {
            let whole = chunk.until.saturating_duration_since(chunk.from).as_secs_f64();
            let part = now.saturating_duration_since(chunk.from).as_secs_f64();
            let share = if whole > 0.0 { (part / whole).min(1.0) } else { 1.0 };
            let come = (chunk.bytes as f64 * share) as u64;
            let rest = chunk.bytes - come;
            if rest <= allowance {
                allowance -= rest;
            } else {
                sending.sent += come + allowance;
                sending.chunk = None;
                self.epoch += 1;
                allowance = 0;
            }
        }
        self.hold = Some(allowance);
    }

    /// We read again.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.hold = None;
        self.free_at = self.free_at.max(now);
    }
}
