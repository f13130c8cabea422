//! Simulated nodes: what they answer to which question, and what they do instead.

use std::time::{Duration, Instant};

use tipward_sync::peer::{
    PeerId, Reply, Want,
    wire::{BlockEnd, BlockHash, DownloadId, Verdict},
};

use crate::{
    chain::{Universe, View, part},
    nature::{Announces, Behaviour, Nature},
    pipe::{Item, Pipe},
    scene::Scene,
};

/// How many bytes a header takes in its message, an entry of a list, and a message at least.
const HEADER: u64 = 81;
const ENTRY: u64 = 36;
const MESSAGE: u64 = 61;
/// An announcement by headers has at most so many.
const MAX_ANNOUNCED: u32 = 8;
/// Of how many blocks a session lets one peer be asked at once, as the Bitcoin session does.
const MAX_ASKED: usize = 4096;

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Load {
    Message(Vec<Reply>),
    Block { number: u32, part: u32, download: DownloadId, ending: Ending },
}

/// How a block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Whole,
    Reset { at: u64 },
    Aborted { at: u64 },
}

/// What an arrival means, besides the replies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Alive,
    Dead,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) nature: Nature,
    /// The connection to it, if there is one.
    pub(crate) id: Option<PeerId>,
    pub(crate) view: View,
    /// What it has of other branches.
    had: Vec<View>,
    pub(crate) pipe: Pipe<Load>,
    /// Blocks begun, over all connections.
    pub(crate) served: u64,
    downloads: u64,
    /// Questions for headers that are open.
    headers_asked: u32,
    /// The last header that it has sent on this connection: it knows that we have it.
    shown: Option<u32>,
    /// Blocks were asked for on this connection.
    pub(crate) was_asked: bool,
    /// What it claimed on this connection, and whether that was held against it.
    pub(crate) claimed: u64,
    pub(crate) is_penalised: bool,
}

impl Host {
    pub(crate) fn new(nature: Nature, view: View, now: Instant) -> Self {
        let pipe = Pipe::new(now);
        let (id, had) = (None, Vec::new());
        Self {
            nature,
            id,
            view,
            had,
            pipe,
            served: 0,
            downloads: 0,
            headers_asked: 0,
            shown: None,
            was_asked: false,
            claimed: 0,
            is_penalised: false,
        }
    }

    pub(crate) fn close(&mut self, now: Instant) {
        self.id = None;
        self.pipe.close(now);
        (self.headers_asked, self.shown) = (0, None);
        // What it brought before may be on its way to the sink: that it was asked stays so.
        self.is_penalised = false;
    }

    /// A connection is made: what it says of its height, or the slot of its tip.
    pub(crate) fn open(&mut self, id: PeerId, universe: &Universe) -> u64 {
        self.id = Some(id);
        self.claimed = universe.top(self.view).saturating_add_signed(self.nature.claim);
        self.claimed
    }

    /// What it did on this connection and must not get away with.
    pub(crate) fn offence(&self, universe: &Universe, top: u64) -> Option<&'static str> {
        let is_invalid = self.shown.is_some_and(|shown| !universe.is_valid(shown));
        match self.nature.behaviour {
            Behaviour::InvalidHeaders if is_invalid => Some("showed invalid headers"),
            Behaviour::LyingHigh if self.claimed > top && !self.is_penalised => {
                Some("claimed a height that nobody has")
            }
            _ => None,
        }
    }

    /// Something is asked; the answer can be here at `ready_at` at the earliest. What can't be asked comes back at once.
    pub(crate) fn ask(&mut self, want: Want, ready_at: Instant) -> Option<Reply> {
        match want {
            Want::HeadersAfter(locator) => {
                self.headers_asked += 1;
                self.pipe.push(ready_at, Item::HeadersAfter(locator));
            }
            Want::BlocksAfter { locator, stop } => {
                self.pipe.push(ready_at, Item::BlocksAfter(locator, stop));
            }
            Want::Blocks(blocks) => {
                if self.pipe.blocks().count() + blocks.len() > MAX_ASKED {
                    return Some(Reply::Unsupported(Want::Blocks(blocks)));
                }
                self.was_asked = true;
                blocks.into_iter().for_each(|block| self.pipe.push(ready_at, Item::Block(block)));
            }
            Want::Range { .. } | Want::SlotRange { .. } | Want::Ancestors { .. } => {
                self.was_asked = true;
                self.pipe.push(ready_at, Item::Many(want));
            }
            other => return Some(Reply::Unsupported(other)),
        }
        None
    }

    /// The node hears of another view, and takes it if it is higher.
    pub(crate) fn learn(&mut self, view: View, ready_at: Instant, universe: &Universe) {
        if view.height <= self.view.height {
            return;
        }
        let from = universe.fork_height(self.view, view);
        self.had.push(self.view);
        self.view = view;
        if self.id.is_some() && self.nature.announces != Announces::Nothing {
            self.pipe.push(ready_at, Item::NewTip { from });
        }
    }

    fn has(&self, number: u32, universe: &Universe) -> bool {
        let recent =
            self.nature.recent_only.map_or(0, |recent| u64::from(self.view.height).saturating_sub(recent));
        u64::from(universe.block(number).height) >= recent
            && (universe.contains(self.view, number)
                || self.had.iter().any(|view| universe.contains(*view, number)))
    }

    /// Sets the next bytes on their way, if there are any: when they will have come, and their number.
    pub(crate) fn advance(&mut self, scene: &Scene) -> Option<(Instant, u64)> {
        self.id?;
        while self.pipe.sending.is_none() {
            if matches!(self.nature.behaviour, Behaviour::Silent { after } if self.served >= after) {
                return None;
            }
            let item = self.pipe.take()?;
            self.begin(item, scene);
        }
        let bandwidth = match self.nature.behaviour {
            Behaviour::Trickling { after } if self.served > after => 1,
            _ => self.nature.bandwidth,
        };
        let clear = |mut at: Instant| {
            for (from, to) in &self.nature.stalls {
                if scene.start + *from <= at && at < scene.start + *to {
                    at = scene.start + *to;
                }
            }
            at
        };
        self.pipe.advance(bandwidth, clear)
    }

    /// Looks at what was asked, at the moment when the answer begins.
    fn begin(&mut self, item: Item, scene: &Scene) {
        let universe = &scene.universe;
        match item {
            Item::HeadersAfter(locator) => {
                self.headers_asked = self.headers_asked.saturating_sub(1);
                if self.nature.behaviour == Behaviour::NoHeaders {
                    return;
                }
                let from = universe.find(&locator, self.view);
                let to = self.view.height.min(from + scene.headers);
                let replies = vec![self.headers(from, to, to - from == scene.headers, universe)];
                self.message(MESSAGE + HEADER * u64::from(to - from), replies);
            }
            Item::NewTip { from } => self.announce(from, universe),
            Item::BlocksAfter(locator, stop) => self.list(&locator, stop, scene),
            Item::Block(hash) => self.block(hash, universe),
            Item::RangeEnd => self.message(MESSAGE, vec![Reply::RangeEnd]),
            Item::Many(want) => {
                let numbers = self.many(&want, universe);
                let blocks = numbers.into_iter().map(|number| Item::Block(universe.block(number).hash));
                self.pipe.push_front(blocks.chain([Item::RangeEnd]).collect::<Vec<_>>().into_iter());
            }
        }
    }

    fn message(&mut self, size: u64, replies: Vec<Reply>) {
        self.pipe.start(Load::Message(replies), size, size, false);
    }

    /// The headers above one height up to another.
    fn headers(&mut self, from: u32, to: u32, more: bool, universe: &Universe) -> Reply {
        self.shown = universe.at(self.view, u64::from(to));
        let numbers = (from + 1..=to).filter_map(|height| universe.at(self.view, u64::from(height)));
        Reply::Headers { headers: numbers.map(|number| universe.header(number)).collect(), more }
    }

    fn hash_at(&self, height: u32, universe: &Universe) -> BlockHash {
        let number = universe.at(self.view, u64::from(height)).expect("a height of its own view");
        universe.block(number).hash
    }

    fn announce(&mut self, from: u32, universe: &Universe) {
        let (tip, count) = (self.hash_at(self.view.height, universe), self.view.height.saturating_sub(from));
        let parent = universe.at(self.view, u64::from(from)).expect("a height of its own view");
        let links = self.shown.is_some_and(|shown| universe.descends(shown, parent));
        let by_headers = links && self.nature.announces == Announces::Headers;
        let replies = if by_headers && (1..=MAX_ANNOUNCED).contains(&count) {
            let mut replies = vec![self.headers(from, self.view.height, false, universe)];
            // The session takes them for the answer to an open question.
            if self.headers_asked == 0 {
                replies.push(Reply::NewTip(tip));
            }
            replies
        } else {
            vec![Reply::Announced(vec![tip])]
        };
        self.message(MESSAGE + HEADER * u64::from(count.min(MAX_ANNOUNCED)), replies);
    }

    /// A peer that has none stays silent.
    fn list(&mut self, locator: &[BlockHash], stop: BlockHash, scene: &Scene) {
        let universe = &scene.universe;
        let from = universe.find(locator, self.view);
        let stop = universe.number(&stop).filter(|number| universe.contains(self.view, *number));
        let stop = stop.map_or(u32::MAX, |number| universe.block(number).height);
        let to = self.view.height.min(from + scene.list).min(stop);
        let hashes: Vec<BlockHash> = (from + 1..=to).map(|height| self.hash_at(height, universe)).collect();
        if !hashes.is_empty() {
            self.message(MESSAGE + ENTRY * hashes.len() as u64, vec![Reply::Announced(hashes)]);
        }
    }

    fn many(&self, want: &Want, universe: &Universe) -> Vec<u32> {
        let at = |height| universe.at(self.view, height);
        match *want {
            Want::Range { start, count } => (start..start + u64::from(count)).map_while(at).collect(),
            Want::SlotRange { start, count } => {
                // Slots grow with the height, at least three a block.
                let mut height = (start / 3).saturating_sub(1);
                while at(height).is_some_and(|number| universe.index(number) < start) {
                    height += 1;
                }
                (height..).map_while(at).take(count as usize).collect()
            }
            Want::Ancestors { of, count } => {
                let of = universe.number(&of).filter(|number| self.has(*number, universe));
                let parent = |number: &u32| {
                    let block = universe.block(*number);
                    (block.height > 0).then_some(block.parent)
                };
                std::iter::successors(of, parent).skip(1).take(count as usize).collect()
            }
            _ => Vec::new(),
        }
    }

    fn block(&mut self, hash: BlockHash, universe: &Universe) {
        let number = universe.number(&hash).filter(|number| self.has(*number, universe));
        self.served += 1;
        let is_due = |after| self.served > after;
        let missing = matches!(self.nature.behaviour, Behaviour::Missing { one_in } if self.served.is_multiple_of(one_in));
        let Some(number) = number.filter(|_| !missing) else {
            return self.message(MESSAGE, vec![Reply::Missing(vec![hash])]);
        };
        let size = universe.block(number).size;
        let at = size / 2 + 1;
        let ending = match self.nature.behaviour {
            Behaviour::Resetting { after } if is_due(after) => Ending::Reset { at },
            Behaviour::WrongBlock { after } if is_due(after) => Ending::Reset { at: 1 },
            Behaviour::Aborting { after } if is_due(after) => Ending::Aborted { at },
            _ => Ending::Whole,
        };
        self.downloads += 1;
        let load = Load::Block { number, part: 0, download: DownloadId(self.downloads), ending };
        let stop = self.next_stop(0, size, ending);
        self.pipe.start(load, size, stop, true);
    }

    /// Where the next part ends, or the connection does.
    fn next_stop(&self, part: u32, size: u64, ending: Ending) -> u64 {
        let end = size.min(u64::from(part + 1) * self.nature.part_size);
        match ending {
            Ending::Whole => end,
            Ending::Reset { at } | Ending::Aborted { at } => end.min(at),
        }
    }

    /// What was under way has come: replies are added in their order.
    pub(crate) fn arrive(&mut self, scene: &Scene, replies: &mut Vec<Reply>) -> Outcome {
        let part_size = self.nature.part_size;
        let Some(sending) = self.pipe.arrive() else { return Outcome::Alive };
        let (sent, size) = (sending.sent, sending.size);
        let (number, index, download, ending) = match &mut sending.what {
            Load::Message(message) => {
                replies.append(message);
                self.pipe.sending = None;
                return Outcome::Alive;
            }
            Load::Block { number, part, download, ending } => (*number, *part, *download, *ending),
        };
        let block = scene.universe.block(number).hash;
        match ending {
            Ending::Reset { at } if sent == at => return Outcome::Dead,
            Ending::Aborted { at } if sent == at => {
                replies.push(Reply::BlockAborted { block, download });
                return Outcome::Dead;
            }
            Ending::Whole | Ending::Reset { .. } | Ending::Aborted { .. } => {}
        }
        if sent < sending.stop {
            replies.push(Reply::Progress { received: sent });
            return Outcome::Alive;
        }
        let range = (u64::from(index) * part_size, sent);
        replies.push(Reply::Part(part(&scene.universe, number, index, range, download, |bytes| {
            scene.lend(bytes)
        })));
        if sent < size {
            sending.what = Load::Block { number, part: index + 1, download, ending };
            let stop = self.next_stop(index + 1, size, ending);
            if let Some(sending) = &mut self.pipe.sending {
                sending.stop = stop;
            }
            return Outcome::Alive;
        }
        self.pipe.sending = None;
        replies.push(Reply::BlockEnd(BlockEnd {
            block,
            download,
            transactions: u64::from(index + 1),
            size,
            parts: index + 1,
            checksum: Verdict::Verified,
            merkle_root: Verdict::Verified,
        }));
        Outcome::Alive
    }

    /// When a block of this peer is on its way, or in its queue: its hash.
    pub(crate) fn brings(&self, hash: BlockHash, universe: &Universe) -> bool {
        let is_sent = self.pipe.sending.as_ref().is_some_and(
            |sending| matches!(sending.what, Load::Block { number, .. } if universe.block(number).hash == hash),
        );
        is_sent || self.pipe.blocks().any(|block| *block == hash)
    }

    /// How long a question and its answer are on their way.
    pub(crate) fn round_trip(&self, jitter: f64) -> Duration {
        self.nature.latency * 2 + self.nature.jitter.mul_f64(jitter)
    }
}
