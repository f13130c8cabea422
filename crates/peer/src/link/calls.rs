//! Requests in a dialect's own messages: each waits for the one message that answers it.

use std::time::{Duration, Instant};

use super::after;

/// How many requests may wait for their answers on one connection.
const MAX_CALLS: usize = 256;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing that answers it came in time.
    #[error("not answered in time")]
    TimedOut,
    /// The connection ended, or has not shaken hands.
    #[error("the connection has ended")]
    Disconnected,
    /// As many requests wait for answers as may.
    #[error("256 requests wait for answers already")]
    TooMany,
}

#[derive(Debug)]
struct Call<M> {
    id: u64,
    request: M,
    deadline: Instant,
}

/// The requests that wait, oldest first.
#[derive(Debug)]
pub(super) struct Calls<M>(Vec<Call<M>>);

impl<M> Calls<M> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn open(&mut self, id: u64, request: M, deadline: Instant) -> Result<(), CallError> {
        if self.0.len() >= MAX_CALLS {
            return Err(CallError::TooMany);
        }
        self.0.push(Call { id, request, deadline });
        Ok(())
    }

    /// The oldest request that the message answers, which then waits no more.
    pub(super) fn answered(&mut self, answers: impl Fn(&M) -> bool) -> Option<u64> {
        let at = self.0.iter().position(|call| answers(&call.request))?;
        Some(self.0.remove(at).id)
    }

    /// A request whose time is over, which then waits no more.
    pub(super) fn expired(&mut self, now: Instant) -> Option<u64> {
        let at = self.0.iter().position(|call| call.deadline <= now)?;
        Some(self.0.remove(at).id)
    }

    /// Gives every request so much more time.
    pub(super) fn postpone(&mut self, by: Duration) {
        self.0.iter_mut().for_each(|call| call.deadline = after(call.deadline, by));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|call| call.deadline).min()
    }
}
