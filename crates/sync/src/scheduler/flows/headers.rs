//! Headers first: one peer brings the headers, then all others are asked what they have on top.
//!
//! While headers are missing they come from one peer, the leader, since all peers would bring the same. Whoever is slow is
//! raced by others, and whoever brings new headers first leads from then on. When the leader has no more, everybody is
//! asked, and who has a better chain leads in turn. From then on peers announce, and who has been quiet for long is asked.
//!
//! Every question starts a block below what is known, so that a peer which has the same shows it, and so that a header on
//! top of the tip is an announcement and no answer. What was not asked for is taken as well: a header that links is
//! welcome from anybody. The height that a peer claims decides only whom to ask first.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Want};

use crate::{
    Chain, SyncOptions,
    scheduler::{
        Fault,
        flow::{FlowContext, FlowInput, FlowOutput},
    },
};
use peers::{Peers, Question, State};
use race::Race;

mod answers;
mod peers;
mod race;

/// Time-outs and intervals of less would make the machine spin.
const MIN_WAIT: Duration = Duration::from_millis(10);
/// As good as never, and no instant overflows.
const MAX_WAIT: Duration = Duration::from_secs(86_400 * 365);
/// The rest of a peer that did not answer doubles so often at most.
const MAX_REST_DOUBLINGS: u32 = 6;

/// Finds headers. See the module.
#[derive(Debug)]
pub(crate) struct HeadersFlow {
    /// See [`SyncOptions`]; these durations are within [`MIN_WAIT`] and [`MAX_WAIT`].
    header_timeout: Duration,
    header_interval: Duration,
    stall_timeout: Duration,
    max_strikes: u32,
    stop_at: Option<u64>,
    random: fastrand::Rng,
    peers: Peers,
    phase: Phase,
    /// A leader came to its end once, or the height to stop at is reached.
    has_end: bool,
    outputs: VecDeque<FlowOutput>,
}

#[derive(Debug)]
enum Phase {
    /// Headers come from one peer.
    Leading(Race),
    /// Everybody is asked.
    Following,
}

impl HeadersFlow {
    /// A flow that draws lots with this seed.
    pub(crate) fn new(options: &SyncOptions, seed: u64) -> Self {
        let stall_timeout = options.stall_timeout.clamp(MIN_WAIT, MAX_WAIT);
        Self {
            header_timeout: options.header_timeout.clamp(MIN_WAIT, MAX_WAIT),
            header_interval: options.header_interval.clamp(MIN_WAIT, MAX_WAIT),
            stall_timeout,
            max_strikes: options.max_strikes,
            stop_at: options.stop_at,
            random: fastrand::Rng::with_seed(seed),
            peers: Peers::default(),
            phase: Phase::Leading(Race::new(stall_timeout)),
            has_end: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`. Times must not go back.
    pub(crate) fn handle(&mut self, now: Instant, input: FlowInput, context: &mut FlowContext<'_>) {
        let chain = &mut *context.chain;
        match input {
            // Comes with every block: nothing else is looked at.
            FlowInput::Progress(id) => return self.peers.progress(id, now),
            FlowInput::Held(id) => return self.peers.hold(id),
            FlowInput::Released(id) => return self.peers.release(id, now),
            FlowInput::Rejected { parent } => self.peers.rejected(parent, chain),
            FlowInput::Room
            | FlowInput::Block(_)
            | FlowInput::Known(_)
            | FlowInput::Missing(..)
            | FlowInput::NoRoom { .. }
            | FlowInput::Passes(..)
            | FlowInput::RangeEnd(_) => {
                return;
            }
            FlowInput::Connected(id, info) => {
                self.forget(id);
                self.peers.insert(id, info.claimed_height);
            }
            FlowInput::Disconnected(id) => {
                chain.lost(id);
                self.forget(id);
            }
            FlowInput::Headers { peer, headers, more } => self.headers(now, peer, &headers, more, chain),
            FlowInput::Announced(id, blocks) => self.announced(now, id, &blocks, chain),
            FlowInput::Height(id, height) => self.height(id, height, chain),
            FlowInput::Unsupported(id, Want::HeadersAfter(_)) => self.drop_peer(id, Fault::NoHeaders),
            FlowInput::Unsupported(..) => return,
            FlowInput::Tick => self.expire(now, chain),
        }
        self.advance(now, chain);
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<FlowOutput> {
        self.outputs.pop_front()
    }

    /// When the time alone will have an effect; a tick then always has one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let another = match &self.phase {
            Phase::Leading(race) if self.peers.has_fresh() => race.another_at(),
            Phase::Leading(_) | Phase::Following => None,
        };
        another.into_iter().chain(self.peers.next_timer()).min()
    }

    /// Whether blocks may be downloaded: what is known was all that a leader had, or is all that is wanted.
    pub(crate) fn may_fetch(&self) -> bool {
        self.has_end
    }

    /// Whether all peers have shown what they have, or failed to; false without peers. Asking again now and then does not
    /// change that, and neither does a peer whose answer waits behind blocks for longer than an answer may take.
    pub(crate) fn is_caught_up(&self) -> bool {
        matches!(self.phase, Phase::Following) && self.peers.all_heard()
    }

    /// Acts on what is late.
    fn expire(&mut self, now: Instant, chain: &dyn Chain) {
        while let Some(id) = self.peers.pop_due(now) {
            match self.peers.get_mut(id).map(|peer| &peer.state) {
                Some(State::Asked(_)) => self.late(now, id, chain),
                Some(State::Answered { .. } | State::Resting { .. }) => {
                    self.peers.set_state(id, State::Fresh);
                }
                Some(State::Fresh) | None => {}
            }
        }
        let is_stalled = |race: &Race| race.another_at().is_some_and(|at| at <= now);
        if let Phase::Leading(race) = &mut self.phase
            && is_stalled(race)
            && self.peers.has_fresh()
        {
            race.stalled(now);
            self.enter_another(now, chain);
        }
    }

    /// A question was not answered in time.
    fn late(&mut self, now: Instant, id: PeerId, chain: &dyn Chain) {
        self.leave_race(id);
        // Nobody waits for it any longer.
        self.peers.heard(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let State::Asked(question) = &peer.state else { return };
        let mut question = question.clone();
        if peer.is_held {
            question.deadline = now + self.header_timeout;
            return self.peers.set_state(id, State::Asked(question));
        }
        if let Some(progress) = peer.progress.filter(|&at| at + self.header_timeout > now) {
            // The answer waits behind blocks that flow.
            question.deadline = progress + self.header_timeout;
            return self.peers.set_state(id, State::Asked(question));
        }
        if question.has_unlinked {
            return self.drop_peer(id, Fault::UnlinkedHeaders);
        }
        peer.strikes += 1;
        let strikes = peer.strikes;
        if strikes >= self.max_strikes {
            return self.drop_peer(id, Fault::NoHeaders);
        }
        let rest = self.header_timeout * 2u32.pow((strikes - 1).min(MAX_REST_DOUBLINGS));
        // It can still be right. Yet nobody waits for it because of what it claims.
        if peer.forget_claim_above(chain.tip().height) > 0 {
            self.outputs.push_back(FlowOutput::Disbelieve(id));
        }
        self.peers.set_state(id, State::Resting { until: now + rest, unanswered: question });
    }

    /// Asks whom it is time to ask.
    fn advance(&mut self, now: Instant, chain: &dyn Chain) {
        self.has_end |= self.is_at_stop(chain);
        if let Phase::Leading(race) = &self.phase
            && race.is_empty()
        {
            // Without anybody to hope for, what was answered has to do.
            if !self.peers.has_fresh_above(chain.tip().height) && self.peers.any_answered() {
                self.follow();
            } else {
                self.enter_another(now, chain);
            }
        }
        if matches!(self.phase, Phase::Following) {
            while let Some(id) = self.peers.first_fresh() {
                self.ask(now, id, chain);
            }
        }
    }

    /// From now on everybody is asked.
    fn follow(&mut self) {
        self.phase = Phase::Following;
        self.has_end = true;
    }

    /// Asks one more peer for the headers that are missing, if there is one: by lot, one that claims more than is known
    /// before all others.
    fn enter_another(&mut self, now: Instant, chain: &dyn Chain) {
        let (ahead, others) = self.peers.fresh_by_claim(chain.tip().height);
        let Some(id) = self.random.choice(if ahead.is_empty() { others } else { ahead }) else { return };
        if let Phase::Leading(race) = &mut self.phase {
            race.enter(id, now);
            self.ask(now, id, chain);
        }
    }

    fn ask(&mut self, now: Instant, id: PeerId, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let question = Question::new(peer.at.or(peer.shown), now, self.header_timeout, chain);
        self.outputs.push_back(FlowOutput::Ask(id, Want::HeadersAfter(question.locator.clone())));
        self.peers.set_state(id, State::Asked(question));
    }

    fn drop_peer(&mut self, id: PeerId, fault: Fault) {
        if self.peers.get_mut(id).is_some() {
            self.forget(id);
            self.outputs.push_back(FlowOutput::Drop(id, fault));
        }
    }

    fn forget(&mut self, id: PeerId) {
        self.peers.remove(id);
        self.leave_race(id);
        if self.peers.is_empty() {
            // Much may have been missed when somebody comes again.
            self.phase = Phase::Leading(Race::new(self.stall_timeout));
        }
    }

    fn leave_race(&mut self, id: PeerId) {
        if let Phase::Leading(race) = &mut self.phase {
            race.leave(id);
        }
    }

    fn is_at_stop(&self, chain: &dyn Chain) -> bool {
        self.stop_at.is_some_and(|stop| chain.tip().height >= stop)
    }

    /// When a peer that has shown its last header now is asked again; not all at once.
    fn next_asking(&mut self, now: Instant) -> Instant {
        now + self.header_interval.mul_f64(0.75 + self.random.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests;
