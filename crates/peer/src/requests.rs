//! Requests that outlive the peer they were asked of: a machine without I/O.
//!
//! A request is asked of one peer at a time. Loss, silence, a denial and a dialect without words for it pass it on to the
//! next at once; it ends with one answer or one error, when its total time is over at the latest. Answers are recognised by
//! what they say, never by when they come, so one that comes after its peer was given up still counts. Only where the
//! content can't tell (no headers, addresses) does an answer go to the question that its peer was asked first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use crate::{DisconnectReason, PeerId, Reply, Want, link::after};

mod policy;
mod work;

pub use policy::{Answer, AskError, GaveUp, RequestError, RequestId, RequestPolicy, SubmitError};
use work::{Effect, Work};

/// The most requests that may be open.
const MAX_REQUESTS: usize = 256;
/// The most peers that one request is asked of, whatever its policy says.
const MAX_ATTEMPTS: usize = 64;
/// The most bytes that the answers under way may have together; a request that may exceed it alone is asked alone.
const MAX_HELD: u64 = 256 << 20;
/// How many times the attempt's time-out a peer gets that brings other blocks before anything of the one asked for.
const BUSY: u32 = 6;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum RequestOutput {
    /// Ask the peer, which is ready. If that fails, say so by [`Requests::refused`].
    Ask { peer: PeerId, want: Want },
    /// The request has its answer.
    Done { id: RequestId, peer: PeerId, answer: Answer },
    /// The request ends without one.
    Failed { id: RequestId, reason: RequestError },
    /// The peer brought nothing for too long.
    TimedOut { peer: PeerId },
}

/// The open requests and the ready peers.
///
/// Call order: after every other call take [`poll`](Self::poll) until `None`, and come back at
/// [`deadline`](Self::deadline).
#[derive(Debug, Default)]
pub(crate) struct Requests {
    requests: BTreeMap<RequestId, Request>,
    live: BTreeSet<PeerId>,
    outputs: VecDeque<RequestOutput>,
    next_id: u64,
    /// Numbers the questions to peers.
    next_order: u64,
}

#[derive(Debug)]
struct Request {
    work: Work,
    policy: RequestPolicy,
    deadline: Instant,
    asks: Vec<Ask>,
    state: State,
}

/// A peer that was asked.
#[derive(Debug)]
struct Ask {
    peer: PeerId,
    order: u64,
    /// What came of it, if it has ended. A peer that timed out may still answer.
    failure: Option<AskError>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Asking {
        peer: PeerId,
        want: Want,
        since: Instant,
        /// When something of the answer came last.
        moved: Instant,
    },
}

impl Requests {
    /// Takes a question. `now` starts its total time.
    ///
    /// # Errors
    /// Too many are open, or it can't have an answer.
    pub(crate) fn submit(
        &mut self,
        want: Want,
        policy: RequestPolicy,
        now: Instant,
    ) -> Result<RequestId, SubmitError> {
        if self.requests.len() >= MAX_REQUESTS {
            return Err(SubmitError::Full { open: self.requests.len() });
        }
        let work = Work::new(want)?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let deadline = after(now, policy.total_timeout);
        let request = Request { work, policy, deadline, asks: Vec::new(), state: State::Waiting };
        self.requests.insert(id, request);
        Ok(id)
    }

    /// Forgets the request: nothing more is told of it. Whether there was something to be told.
    pub(crate) fn cancel(&mut self, id: RequestId) -> bool {
        let before = self.outputs.len();
        self.outputs.retain(|output| match output {
            RequestOutput::Done { id: of, .. } | RequestOutput::Failed { id: of, .. } => *of != id,
            RequestOutput::Ask { .. } | RequestOutput::TimedOut { .. } => true,
        });
        self.requests.remove(&id).is_some() || self.outputs.len() < before
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// A peer may be asked from now on.
    pub(crate) fn peer_ready(&mut self, peer: PeerId) {
        self.live.insert(peer);
    }

    /// A peer is gone, and what it has brought of an unfinished block is void.
    pub(crate) fn peer_lost(&mut self, peer: PeerId, reason: &DisconnectReason) {
        self.live.remove(&peer);
        for request in self.requests.values_mut() {
            request.work.peer_lost(peer);
            request.fail(peer, AskError::Lost(reason.clone()));
        }
    }

    /// A peer can't be asked what [`RequestOutput::Ask`] said.
    pub(crate) fn refused(&mut self, peer: PeerId, refused: &Want) {
        let asked = |request: &&mut Request| matches!(&request.state, State::Asking { peer: of, want, .. } if *of == peer && want == refused);
        let first = self.requests.values_mut().filter(asked).min_by_key(|request| request.order(peer));
        if let Some(request) = first {
            request.fail(peer, AskError::Unsupported);
        }
    }

    /// A peer said something. Whether it is about what it was asked by an open request.
    pub(crate) fn reply(&mut self, peer: PeerId, reply: &Reply, now: Instant) -> bool {
        if let Reply::Unsupported(want) = reply {
            self.refused(peer, want);
            return false;
        }
        let mut asked: Vec<(u64, RequestId)> =
            self.requests.iter().filter_map(|(id, request)| Some((request.order(peer)?, *id))).collect();
        asked.sort_unstable();
        let mut is_ours = false;
        for (_, id) in asked {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            match request.take(peer, reply, now) {
                Effect::Foreign => continue,
                Effect::Useless | Effect::Progress => {}
                Effect::Failed(why) => request.fail(peer, why),
                Effect::Done(answer) => {
                    self.requests.remove(&id);
                    self.outputs.push_back(RequestOutput::Done { id, peer, answer });
                }
            }
            is_ours = true;
            if Work::is_exclusive(reply) {
                break;
            }
        }
        is_ours
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (id, request) in &mut self.requests {
            if let State::Asking { peer, .. } = request.state
                && request.attempt_ends().is_some_and(|at| at <= now)
            {
                request.fail(peer, AskError::TimedOut);
                self.outputs.push_back(RequestOutput::TimedOut { peer });
            }
            if request.deadline <= now {
                over.push(*id);
            }
        }
        for id in over {
            let end = self.give_up(id, GaveUp::Deadline);
            self.outputs.extend(end);
        }
    }

    /// What is to be done next. `choose` names the peer to be asked, other than those that were; `None` while there is no
    /// suitable one, which ends a request that does not wait.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        choose: &mut dyn FnMut(&Want, &[PeerId]) -> Option<PeerId>,
    ) -> Option<RequestOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let is_waiting = |request: &Request| matches!(request.state, State::Waiting);
        let waiting: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| is_waiting(request)).map(|(id, _)| *id).collect();
        waiting.into_iter().find_map(|id| self.advance(id, now, choose))
    }

    /// When [`timeout`](Self::timeout) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let next =
            |request: &Request| request.attempt_ends().into_iter().fold(request.deadline, Instant::min);
        self.requests.values().map(next).min()
    }

    /// Asks the next peer, or ends a request that has no hope.
    fn advance(
        &mut self,
        id: RequestId,
        now: Instant,
        choose: &mut dyn FnMut(&Want, &[PeerId]) -> Option<PeerId>,
    ) -> Option<RequestOutput> {
        let has_room = self.has_room(id);
        let request = self.requests.get_mut(&id)?;
        if now >= request.deadline {
            return None;
        }
        let max_bytes = request.policy.max_bytes;
        let too_large = request.too_large();
        if too_large > 1 {
            return self.give_up(id, GaveUp::TooLarge { max_bytes });
        }
        if request.asks.len() >= request.policy.attempts.clamp(1, MAX_ATTEMPTS) {
            let reason = if too_large > 0 { GaveUp::TooLarge { max_bytes } } else { GaveUp::Attempts };
            return self.give_up(id, reason);
        }
        if !has_room {
            return None;
        }
        if let Some((peer, want)) = request.next_peer(&self.live, choose) {
            request.ask(peer, want.clone(), self.next_order, now);
            self.next_order += 1;
            return Some(RequestOutput::Ask { peer, want });
        }
        if too_large > 0 {
            return self.give_up(id, GaveUp::TooLarge { max_bytes });
        }
        if request.policy.fail_fast { self.give_up(id, GaveUp::NoPeer) } else { None }
    }

    /// Whether the answer of this request fits beside those that are under way.
    fn has_room(&self, id: RequestId) -> bool {
        let under_way = |(of, request): &(&RequestId, &Request)| {
            **of != id && request.work.is_bulky() && !request.asks.is_empty()
        };
        let held = self
            .requests
            .iter()
            .filter(under_way)
            .fold(0_u64, |sum, (_, it)| sum.saturating_add(it.policy.max_bytes));
        self.requests.get(&id).is_some_and(|request| {
            !request.work.is_bulky()
                || !request.asks.is_empty()
                || held == 0
                || held.saturating_add(request.policy.max_bytes) <= MAX_HELD
        })
    }

    fn give_up(&mut self, id: RequestId, reason: GaveUp) -> Option<RequestOutput> {
        let Request { work, asks, .. } = self.requests.remove(&id)?;
        // Some of the transactions are an answer; whom it names is who was asked last.
        if let Some(last) = asks.last()
            && !matches!(reason, GaveUp::TooLarge { .. })
            && let Some(answer) = work.partial()
        {
            return Some(RequestOutput::Done { id, peer: last.peer, answer });
        }
        let tried =
            asks.into_iter().map(|ask| (ask.peer, ask.failure.unwrap_or(AskError::Unfinished))).collect();
        Some(RequestOutput::Failed { id, reason: RequestError { reason, tried } })
    }
}

impl Request {
    /// The place of the question in the order of all questions, if the peer was asked and may answer.
    fn order(&self, peer: PeerId) -> Option<u64> {
        let may_answer = |ask: &&Ask| !matches!(ask.failure, Some(AskError::Lost(_) | AskError::Unsupported));
        self.asks.iter().filter(may_answer).find(|ask| ask.peer == peer).map(|ask| ask.order)
    }

    fn take(&mut self, from: PeerId, reply: &Reply, now: Instant) -> Effect {
        let is_current = matches!(self.state, State::Asking { peer, .. } if peer == from);
        if matches!(reply, Reply::Progress { .. }) {
            self.hear_progress(from, now);
            return Effect::Foreign;
        }
        let effect = self.work.take(from, is_current, reply, self.policy.max_bytes);
        if let State::Asking { peer, moved, .. } = &mut self.state
            && matches!(effect, Effect::Progress)
        {
            if is_current {
                *moved = now;
            }
            let peer = *peer;
            if self.work.is_exhausted() {
                self.fail(peer, AskError::Missing);
            }
        }
        effect
    }

    /// More of some block has come from the peer. Whose it is can't be told before its first part.
    fn hear_progress(&mut self, from: PeerId, now: Instant) {
        let limit = self.policy.attempt_timeout.saturating_mul(BUSY);
        let is_block = matches!(self.work, Work::Block { .. });
        let has_begun = self.work.is_coming_from(from);
        if let State::Asking { peer, since, moved, .. } = &mut self.state
            && *peer == from
            && is_block
            && (has_begun || now < after(*since, limit))
        {
            *moved = now;
        }
    }

    /// Notes what came of asking the peer; if it is the one being asked, the next one's turn has come.
    fn fail(&mut self, from: PeerId, why: AskError) {
        if let Some(ask) = self.asks.iter_mut().find(|ask| ask.peer == from) {
            // What it did wrong says more than how it left.
            let stands = matches!(why, AskError::Lost(_))
                && matches!(&ask.failure, Some(failure) if !matches!(failure, AskError::TimedOut));
            if !stands {
                ask.failure = Some(why);
            }
        }
        if matches!(self.state, State::Asking { peer, .. } if peer == from) {
            self.state = State::Waiting;
        }
    }

    fn too_large(&self) -> usize {
        self.asks.iter().filter(|ask| matches!(ask.failure, Some(AskError::TooLarge { .. }))).count()
    }

    fn next_peer(
        &self,
        live: &BTreeSet<PeerId>,
        choose: &mut dyn FnMut(&Want, &[PeerId]) -> Option<PeerId>,
    ) -> Option<(PeerId, Want)> {
        let tried: Vec<PeerId> = self.asks.iter().map(|ask| ask.peer).collect();
        if live.len() <= tried.iter().filter(|peer| live.contains(peer)).count() {
            return None;
        }
        let want = self.work.want();
        let peer = choose(&want, &tried)?;
        (live.contains(&peer) && !tried.contains(&peer)).then_some((peer, want))
    }

    fn ask(&mut self, peer: PeerId, want: Want, order: u64, now: Instant) {
        self.work.begin();
        self.asks.push(Ask { peer, order, failure: None });
        self.state = State::Asking { peer, want, since: now, moved: now };
    }

    /// When the peer that is being asked has been silent for too long.
    fn attempt_ends(&self) -> Option<Instant> {
        match self.state {
            State::Waiting => None,
            State::Asking { moved, .. } => Some(after(moved, self.policy.attempt_timeout)),
        }
    }
}

#[cfg(test)]
mod tests;
