//! Interim.
use super::super::{
    Fault,
    flow::{FlowContext, FlowInput, FlowOutput},
};
use crate::{Chain, RefusedHeaders, SyncOptions};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};
use tipward_peer::{PeerId, Want, wire::BlockHash};

#[derive(Debug, Clone, Copy)]
enum S {
    Fresh,
    Asked(Instant),
    Answered(Instant),
    Failed(Instant),
}
#[derive(Debug)]
struct P {
    claimed: u64,
    s: S,
    silences: u32,
    unlinked: u32,
    progress: Option<Instant>,
    tip: Option<BlockHash>,
}
#[derive(Debug)]
pub(crate) struct HeadersFlow {
    timeout: Duration,
    interval: Duration,
    strikes: u32,
    stop: Option<u64>,
    peers: BTreeMap<PeerId, P>,
    from: Option<PeerId>,
    done: bool,
    out: VecDeque<FlowOutput>,
}

impl HeadersFlow {
    pub(crate) fn new(o: &SyncOptions, _seed: u64) -> Self {
        Self {
            timeout: o.header_timeout,
            interval: o.header_interval,
            strikes: o.max_strikes,
            stop: o.stop_at,
            peers: BTreeMap::new(),
            from: None,
            done: false,
            out: VecDeque::new(),
        }
    }
    pub(crate) fn poll(&mut self) -> Option<FlowOutput> {
        self.out.pop_front()
    }
    pub(crate) fn may_fetch(&self) -> bool {
        self.done
    }
    pub(crate) fn is_caught_up(&self) -> bool {
        self.done && !self.peers.is_empty() && self.peers.values().all(|p| !matches!(p.s, S::Asked(_)))
    }
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.peers
            .values()
            .filter_map(|p| match p.s {
                S::Fresh => None,
                S::Asked(t) | S::Answered(t) | S::Failed(t) => Some(t),
            })
            .min()
    }
    pub(crate) fn handle(&mut self, now: Instant, input: FlowInput, cx: &mut FlowContext<'_>) {
        match input {
            FlowInput::Connected(id, info) => {
                self.peers.insert(
                    id,
                    P {
                        claimed: info.claimed_height,
                        s: S::Fresh,
                        silences: 0,
                        unlinked: 0,
                        progress: None,
                        tip: None,
                    },
                );
            }
            FlowInput::Disconnected(id) => {
                self.gone(id);
            }
            FlowInput::Progress(id) => {
                if let Some(p) = self.peers.get_mut(&id) {
                    p.progress = Some(now);
                }
                return;
            }
            FlowInput::Headers { peer, headers, more } => self.headers(now, peer, &headers, more, cx),
            FlowInput::Announced(id, blocks) => {
                if self.done
                    && blocks.iter().any(|b| cx.chain.fork_point(*b).is_none())
                    && self.peers.get(&id).is_some_and(|p| !matches!(p.s, S::Asked(_)))
                {
                    let l = below(cx.chain);
                    self.ask(now, id, l);
                }
            }
            FlowInput::Unsupported(id, Want::HeadersAfter(_)) => self.dropit(id, Fault::NoHeaders),
            FlowInput::Tick => {
                let late: Vec<PeerId> = self
                    .peers
                    .iter()
                    .filter(|(_, p)| matches!(p.s, S::Asked(t) if t <= now))
                    .map(|(i, _)| *i)
                    .collect();
                for id in late {
                    let (timeout, strikes) = (self.timeout, self.strikes);
                    let Some(p) = self.peers.get_mut(&id) else { continue };
                    if p.progress.is_some_and(|at| at + Duration::from_secs(2) > now) {
                        p.s = S::Asked(now + timeout);
                        continue;
                    }
                    p.s = S::Failed(now + timeout * 3);
                    p.silences += 1;
                    let silences = p.silences;
                    if self.from == Some(id) {
                        self.from = None;
                    }
                    if silences >= strikes {
                        self.dropit(id, Fault::NoHeaders);
                    }
                }
            }
            _ => {}
        }
        let may = |s: S| match s {
            S::Fresh => true,
            S::Asked(_) => false,
            S::Answered(t) | S::Failed(t) => t <= now,
        };
        if self.done {
            let due: Vec<PeerId> = self.peers.iter().filter(|(_, p)| may(p.s)).map(|(i, _)| *i).collect();
            for id in due {
                let l = below(cx.chain);
                self.ask(now, id, l);
            }
        } else if self.from.is_none() {
            let best = self
                .peers
                .iter()
                .filter(|(_, p)| may(p.s))
                .max_by_key(|(id, p)| (p.claimed, std::cmp::Reverse(**id)))
                .map(|(i, _)| *i);
            if let Some(id) = best {
                self.from = Some(id);
                let l = cx.chain.locator(cx.chain.tip().hash);
                self.ask(now, id, l);
            }
        }
    }
    fn gone(&mut self, id: PeerId) {
        self.peers.remove(&id);
        if self.from == Some(id) {
            self.from = None;
        }
    }
    fn dropit(&mut self, id: PeerId, f: Fault) {
        self.gone(id);
        self.out.push_back(FlowOutput::Drop(id, f));
    }
    fn ask(&mut self, now: Instant, id: PeerId, l: Vec<BlockHash>) {
        if let Some(p) = self.peers.get_mut(&id) {
            p.s = S::Asked(now + self.timeout);
            self.out.push_back(FlowOutput::Ask(id, Want::HeadersAfter(l)));
        }
    }
    fn answered(&mut self, now: Instant, id: PeerId) {
        if let Some(p) = self.peers.get_mut(&id) {
            p.silences = 0;
            p.s = S::Answered(now + self.interval);
            if self.from == Some(id) {
                self.done = true;
            }
        }
    }
    fn headers(
        &mut self,
        now: Instant,
        id: PeerId,
        headers: &[tipward_peer::wire::Header],
        more: bool,
        cx: &mut FlowContext<'_>,
    ) {
        if headers.is_empty() {
            self.out.push_back(FlowOutput::ShowsNothing(id));
            return self.answered(now, id);
        }
        let a = match cx.chain.accept(headers) {
            Ok(a) => a,
            Err(RefusedHeaders::UnknownParent { .. }) => {
                let Some(p) = self.peers.get_mut(&id) else { return };
                p.unlinked += 1;
                if headers.len() > 8 || p.unlinked > 3 {
                    return self.dropit(id, Fault::UnlinkedHeaders);
                }
                let l = cx.chain.locator(cx.chain.tip().hash);
                return self.ask(now, id, l);
            }
            Err(RefusedHeaders::Invalid(r)) => return self.dropit(id, Fault::InvalidHeaders(r)),
            Err(RefusedHeaders::Store(r)) => return self.out.push_back(FlowOutput::Failed(r)),
        };
        let last = a.last;
        let added = a.added;
        self.out.push_back(FlowOutput::Accepted(a));
        let Some(p) = self.peers.get_mut(&id) else { return };
        p.unlinked = 0;
        let repeated = added == 0 && p.tip.is_some() && p.tip == last;
        p.tip = last.or(p.tip);
        if let Some(l) = last {
            self.out.push_back(FlowOutput::Shows(id, l));
        }
        let whole = last == headers.last().map(|h| h.hash);
        let at_stop = self.stop.is_some_and(|s| cx.chain.tip().height >= s);
        match last.filter(|_| whole) {
            Some(_) if more && repeated => self.dropit(id, Fault::RepeatedHeaders),
            Some(l) if more && !at_stop => {
                let l = cx.chain.locator(l);
                self.ask(now, id, l)
            }
            _ => self.answered(now, id),
        }
    }
}

fn below(chain: &dyn Chain) -> Vec<BlockHash> {
    let tip = chain.tip();
    let b = tip.height.checked_sub(1).and_then(|h| chain.best_at(h)).unwrap_or(tip.hash);
    chain.locator(b)
}
