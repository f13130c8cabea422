//! Simulated sinks: slow, in bursts, pausing, failing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tipward_sync::{Block, BlockId, peer::wire::BlockPart};

/// What a sink is like.
#[derive(Debug, Clone, Default)]
pub(crate) struct SinkNature {
    /// What every block takes, at least.
    pub(crate) call: Duration,
    /// Bytes a second.
    pub(crate) speed: Option<u64>,
    /// Calls are reported done when there were so many, or there are no more.
    pub(crate) burst: usize,
    /// From when to when it does nothing.
    pub(crate) pauses: Vec<(Duration, Duration)>,
    /// It fails at the calls of these numbers, and works again after a restart.
    pub(crate) fails_at: Vec<u64>,
}

/// A call of the sink.
#[derive(Debug)]
pub(crate) enum Call {
    Apply(Block),
    Part(BlockPart),
    Abort,
    Rollback(BlockId),
}

impl Call {
    fn bytes(&self) -> u64 {
        match self {
            Self::Apply(block) => block.parts.iter().map(|part| part.bytes.len() as u64).sum(),
            Self::Part(part) => part.bytes.len() as u64,
            Self::Abort | Self::Rollback(_) => 0,
        }
    }
}

/// The sink's task: one call after the other.
#[derive(Debug)]
pub(crate) struct Sink {
    nature: SinkNature,
    start: Instant,
    calls: VecDeque<Call>,
    /// Whether a call is being made.
    is_busy: bool,
    /// Calls done and not reported.
    unreported: usize,
    /// Calls made, over all restarts.
    made: u64,
    /// Numbers the tasks.
    epoch: u64,
}

/// What a call came to.
pub(crate) enum Made {
    Done(Call),
    Failed,
}

impl Sink {
    pub(crate) fn new(nature: SinkNature, start: Instant) -> Self {
        let calls = VecDeque::new();
        Self { nature, start, calls, is_busy: false, unreported: 0, made: 0, epoch: 0 }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Everything that was not done is lost.
    pub(crate) fn restart(&mut self) {
        self.calls.clear();
        (self.is_busy, self.unreported) = (false, 0);
        self.epoch += 1;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.unreported == 0
    }

    pub(crate) fn push(&mut self, call: Call) {
        self.calls.push_back(call);
    }

    /// Begins the next call, if there is one; tells when it will be done.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Instant> {
        if self.is_busy {
            return None;
        }
        let call = self.calls.front()?;
        self.is_busy = true;
        let mut at = now;
        for (from, to) in &self.nature.pauses {
            if self.start + *from <= at && at < self.start + *to {
                at = self.start + *to;
            }
        }
        let bytes = self.nature.speed.map_or(0.0, |speed| call.bytes() as f64 / speed as f64);
        // What is stored with every block is not stored with every part.
        let call = if matches!(call, Call::Part(_)) { Duration::ZERO } else { self.nature.call };
        Some(at + call + Duration::from_secs_f64(bytes))
    }

    /// The call that was begun is done.
    pub(crate) fn finish(&mut self) -> Option<Made> {
        self.is_busy = false;
        let call = self.calls.pop_front()?;
        self.made += 1;
        if self.nature.fails_at.contains(&self.made) {
            return Some(Made::Failed);
        }
        self.unreported += 1;
        Some(Made::Done(call))
    }

    /// How many calls are to be reported done now.
    pub(crate) fn report(&mut self) -> Option<usize> {
        let is_due = self.unreported > 0 && (self.unreported >= self.nature.burst || self.calls.is_empty());
        is_due.then(|| std::mem::take(&mut self.unreported))
    }
}
