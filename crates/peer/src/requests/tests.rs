use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use tipward_wire::{BlockEnd, BlockHash, BlockPart, DownloadId, Header, Txid, Verdict};

use super::*;
use crate::{KnownAddress, PeerAddress};

const SECOND: Duration = Duration::from_secs(1);

fn hash(n: u8) -> BlockHash {
    BlockHash::from_bytes([n; 32])
}

fn txid(n: u8) -> Txid {
    Txid::from_bytes([n; 32])
}

fn header(n: u8) -> Header {
    Header { hash: hash(n), parent: hash(n - 1), raw: Bytes::new() }
}

fn headers(of: impl IntoIterator<Item = u8>) -> Reply {
    Reply::Headers { headers: of.into_iter().map(header).collect(), more: false }
}

fn transaction(n: u8) -> Reply {
    Reply::Transaction { id: txid(n), bytes: vec![n; 10].into() }
}

fn addresses(count: u64) -> Reply {
    let address = |n| PeerAddress { host: format!("host{n}"), port: 1 };
    Reply::Addresses(
        (0..count).map(|n| KnownAddress { address: address(n), services: 1, last_seen: n }).collect(),
    )
}

/// Part `index` of a block of parts of ten bytes, each with one transaction at its start.
fn part(block: u8, download: u64, index: u32) -> Reply {
    Reply::Part(BlockPart {
        block: hash(block),
        download: DownloadId(download),
        block_size: 1000,
        index,
        offset: u64::from(index) * 10,
        first_transaction: u64::from(index),
        transactions: vec![0],
        bytes: vec![block; 10].into(),
        ends_inside_transaction: false,
    })
}

fn end(block: u8, download: u64, parts: u32) -> Reply {
    Reply::BlockEnd(BlockEnd {
        block: hash(block),
        download: DownloadId(download),
        transactions: u64::from(parts),
        size: u64::from(parts) * 10,
        parts,
        checksum: Verdict::Verified,
        merkle_root: Verdict::Verified,
    })
}

fn lost() -> DisconnectReason {
    DisconnectReason::Closed
}

/// Takes all outputs; peers are chosen in order.
fn drain(requests: &mut Requests, peers: &[u64], now: Instant) -> Vec<RequestOutput> {
    let mut choose =
        |_: &Want, tried: &[PeerId]| peers.iter().copied().map(PeerId).find(|peer| !tried.contains(peer));
    std::iter::from_fn(|| requests.poll(now, &mut choose)).collect()
}

/// Whom the outputs say to ask.
fn asked(outputs: &[RequestOutput]) -> Vec<u64> {
    let asked = |output: &RequestOutput| match output {
        RequestOutput::Ask { peer, .. } => Some(peer.0),
        _ => None,
    };
    outputs.iter().filter_map(asked).collect()
}

fn answer(outputs: Vec<RequestOutput>) -> Option<(u64, Answer)> {
    outputs.into_iter().find_map(|output| match output {
        RequestOutput::Done { peer, answer, .. } => Some((peer.0, answer)),
        _ => None,
    })
}

fn failure(outputs: Vec<RequestOutput>) -> Option<RequestError> {
    outputs.into_iter().find_map(|output| match output {
        RequestOutput::Failed { reason, .. } => Some(reason),
        _ => None,
    })
}

fn block_of(outputs: Vec<RequestOutput>) -> (u64, usize, Vec<u64>) {
    match answer(outputs) {
        Some((peer, Answer::Block { bytes, transactions, .. })) => (peer, bytes.len(), transactions),
        other => panic!("no block: {other:?}"),
    }
}

/// A request that was submitted while these peers are ready, and whom it was asked of.
fn started(want: Want, policy: RequestPolicy, peers: &[u64], now: Instant) -> (Requests, RequestId) {
    let mut requests = Requests::default();
    peers.iter().for_each(|&peer| requests.peer_ready(PeerId(peer)));
    let id = requests.submit(want, policy, now).unwrap();
    let outputs = drain(&mut requests, peers, now);
    assert_eq!(asked(&outputs), peers.first().copied().into_iter().collect::<Vec<_>>());
    (requests, id)
}

fn block_request(peers: &[u64], now: Instant) -> (Requests, RequestId) {
    let want = Want::Blocks(vec![hash(1)]);
    let policy = RequestPolicy::of(&want);
    started(want, policy, peers, now)
}

#[test]
fn work_of_a_lost_peer_is_asked_of_the_next_at_once() {
    let now = Instant::now();
    let (mut requests, _) = block_request(&[1, 2, 3, 4], now);
    assert!(requests.reply(PeerId(1), &part(1, 1, 0), now));
    requests.peer_lost(PeerId(1), &lost());
    assert_eq!(asked(&drain(&mut requests, &[2, 3, 4], now)), [2]);
    requests.reply(PeerId(2), &Reply::Missing(vec![hash(9), hash(1)]), now);
    assert_eq!(asked(&drain(&mut requests, &[2, 3, 4], now)), [3]);
    requests.refused(PeerId(3), &Want::Blocks(vec![hash(1)]));
    assert_eq!(asked(&drain(&mut requests, &[2, 3, 4], now)), [4]);
    // The lost peer's part is void.
    assert!(requests.reply(PeerId(4), &part(1, 1, 1), now));
    assert!(answer(drain(&mut requests, &[2, 3, 4], now)).is_none());
}

#[test]
fn a_block_is_gathered_from_the_parts_of_one_download() {
    let now = Instant::now();
    let (mut requests, _) = block_request(&[1], now);
    assert!(!requests.reply(PeerId(1), &part(2, 0, 0), now), "another block is not ours");
    assert!(!requests.reply(PeerId(7), &part(1, 0, 0), now), "another peer was not asked");
    (0..3).for_each(|n| assert!(requests.reply(PeerId(1), &part(1, 5, n), now)));
    requests.reply(PeerId(1), &end(1, 4, 3), now);
    assert!(drain(&mut requests, &[1], now).is_empty(), "the end of another download");
    requests.reply(PeerId(1), &end(1, 5, 3), now);
    assert_eq!(block_of(drain(&mut requests, &[1], now)), (1, 30, vec![0, 10, 20]));
    assert_eq!(requests.deadline(), None);
}

#[test]
fn a_block_that_fails_its_checks_is_asked_of_the_next() {
    let now = Instant::now();
    for block in [hash(1), hash(1)] {
        let (mut requests, _) = block_request(&[1, 2], now);
        requests.reply(PeerId(1), &part(1, 5, 0), now);
        assert!(!requests.reply(
            PeerId(1),
            &Reply::BlockAborted { block: hash(3), download: DownloadId(4) },
            now
        ));
        assert!(requests.reply(PeerId(1), &Reply::BlockAborted { block, download: DownloadId(5) }, now));
        assert_eq!(asked(&drain(&mut requests, &[1, 2], now)), [2]);
    }
    // So is one with a hole.
    let (mut requests, _) = block_request(&[1, 2], now);
    requests.reply(PeerId(1), &part(1, 5, 0), now);
    requests.reply(PeerId(1), &part(1, 5, 2), now);
    assert_eq!(asked(&drain(&mut requests, &[1, 2], now)), [2]);
}

#[test]
fn a_block_that_flows_is_not_stalled() {
    let mut now = Instant::now();
    let (mut requests, _) = block_request(&[1, 2], now);
    for n in 0..20 {
        now += 9 * SECOND;
        requests.timeout(now);
        assert!(drain(&mut requests, &[1, 2], now).is_empty(), "part {n}");
        let reply = if n % 2 == 0 { part(1, 5, n / 2) } else { Reply::Progress { received: 1 } };
        requests.reply(PeerId(1), &reply, now);
    }
    now += 10 * SECOND;
    assert_eq!(requests.deadline(), Some(now));
    requests.timeout(now);
    let outputs = drain(&mut requests, &[1, 2], now);
    assert!(matches!(outputs[0], RequestOutput::TimedOut { peer: PeerId(1) }));
    assert_eq!(asked(&outputs), [2]);
}

#[test]
fn a_peer_that_brings_only_other_blocks_is_given_up() {
    let start = Instant::now();
    let (mut requests, _) = block_request(&[1, 2], start);
    let mut now = start;
    while asked(&drain(&mut requests, &[1, 2], now)).is_empty() {
        now += SECOND;
        requests.reply(PeerId(1), &Reply::Progress { received: 1 }, now);
        requests.timeout(now);
    }
    assert!((60..=70).contains(&(now - start).as_secs()), "{:?}", now - start);
}

#[test]
fn an_answer_after_its_time_still_counts() {
    let start = Instant::now();
    let (mut requests, _) = block_request(&[1, 2], start);
    requests.reply(PeerId(1), &part(1, 5, 0), start);
    let now = start + 10 * SECOND;
    requests.timeout(now);
    assert_eq!(asked(&drain(&mut requests, &[1, 2], now)), [2]);
    requests.reply(PeerId(2), &part(1, 5, 0), now);
    requests.reply(PeerId(1), &part(1, 5, 1), now);
    requests.reply(PeerId(1), &end(1, 5, 2), now);
    assert_eq!(block_of(drain(&mut requests, &[1, 2], now)), (1, 20, vec![0, 10]));
}

#[test]
fn a_block_larger_than_allowed_fails_when_a_second_peer_agrees() {
    let now = Instant::now();
    let policy = RequestPolicy { max_bytes: 19, ..RequestPolicy::default() };
    let (mut requests, _) = started(Want::Blocks(vec![hash(1)]), policy, &[1, 2, 3], now);
    for (peer, next) in [(1, vec![2]), (2, vec![])] {
        requests.reply(PeerId(peer), &part(1, 5, 0), now);
        requests.reply(PeerId(peer), &part(1, 5, 1), now);
        let outputs = drain(&mut requests, &[1, 2, 3], now);
        assert_eq!(asked(&outputs), next);
        if next.is_empty() {
            let error = failure(outputs).unwrap();
            assert_eq!(
                error.to_string(),
                "the answer is larger than 19 bytes; peer 1 sent more than 19 bytes; peer 2 sent more than 19 bytes"
            );
        }
    }
    // With nobody else to ask it fails at once.
    let policy = RequestPolicy { max_bytes: 9, ..RequestPolicy::default() };
    let (mut requests, _) = started(Want::Blocks(vec![hash(1)]), policy, &[1], now);
    requests.reply(PeerId(1), &part(1, 5, 0), now);
    let error = failure(drain(&mut requests, &[1], now)).unwrap();
    assert_eq!(error.reason, GaveUp::TooLarge { max_bytes: 9 });
}

#[test]
fn the_downloads_of_a_request_hold_no_more_than_its_answer_may_have() {
    let start = Instant::now();
    let policy = RequestPolicy { max_bytes: 30, attempts: 9, ..RequestPolicy::default() };
    let (mut requests, id) = started(Want::Blocks(vec![hash(1)]), policy, &[1, 2, 3], start);
    for peer in 1..=3 {
        let now = start + 10 * SECOND * (peer as u32 - 1);
        requests.timeout(now);
        drain(&mut requests, &[1, 2, 3], now);
        for index in 0..2 {
            requests.reply(PeerId(peer), &part(1, peer, index), now);
            let Work::Block { downloads, .. } = &requests.requests[&id].work else { panic!() };
            assert!(downloads.len() <= 2, "{downloads:?}");
        }
    }
    // The one that moved last is whole.
    requests.reply(PeerId(3), &end(1, 3, 2), start + 20 * SECOND);
    assert_eq!(block_of(drain(&mut requests, &[], start)).0, 3);
}

#[test]
fn no_more_is_gathered_at_a_time_than_fits() {
    let now = Instant::now();
    let mut requests = Requests::default();
    requests.peer_ready(PeerId(1));
    let submit = |requests: &mut Requests, n, max_bytes| {
        let policy = RequestPolicy { max_bytes, ..RequestPolicy::default() };
        requests.submit(Want::Blocks(vec![hash(n)]), policy, now).unwrap();
        asked(&drain(requests, &[1], now)).len()
    };
    assert_eq!(submit(&mut requests, 1, MAX_HELD * 2), 1, "alone it may");
    assert_eq!(submit(&mut requests, 2, MAX_HELD / 2), 0);
    assert_eq!(submit(&mut requests, 3, MAX_HELD / 2), 0);
    assert_eq!(submit(&mut requests, 4, 1), 0);
    requests.submit(Want::Addresses, RequestPolicy::default(), now).unwrap();
    assert_eq!(asked(&drain(&mut requests, &[1], now)).len(), 1, "small answers have no need to wait");
    requests.reply(PeerId(1), &part(1, 1, 0), now);
    requests.reply(PeerId(1), &end(1, 1, 1), now);
    let outputs = drain(&mut requests, &[1], now);
    assert_eq!((asked(&outputs).len(), outputs.len()), (2, 3), "room for two");
}

#[test]
fn unsolicited_headers_are_no_answer() {
    let now = Instant::now();
    let want = Want::HeadersAfter(vec![hash(5), hash(3)]);
    let (mut requests, _) = started(want, RequestPolicy::default(), &[1, 2], now);
    assert!(!requests.reply(PeerId(1), &headers([9]), now), "an announcement far ahead");
    let unlinked = Reply::Headers { headers: vec![header(6), header(8)], more: false };
    assert!(!requests.reply(PeerId(1), &unlinked, now), "not a chain");
    assert!(!requests.reply(PeerId(2), &headers([6]), now), "not asked");
    assert!(requests.reply(PeerId(1), &headers(4..9), now));
    let (peer, answer) = answer(drain(&mut requests, &[1, 2], now)).unwrap();
    assert_eq!(peer, 1);
    assert_eq!(answer, Answer::Headers { headers: (4..9).map(header).collect(), more: false });
}

#[test]
fn no_headers_answer_the_oldest_question_only() {
    let now = Instant::now();
    let (mut requests, first) =
        started(Want::HeadersAfter(vec![hash(5)]), RequestPolicy::default(), &[1], now);
    let second = requests.submit(Want::HeadersAfter(vec![hash(9)]), RequestPolicy::default(), now).unwrap();
    drain(&mut requests, &[1], now);
    for expected in [first, second] {
        requests.reply(PeerId(1), &headers([]), now);
        let outputs = drain(&mut requests, &[1], now);
        assert!(matches!(&*outputs, [RequestOutput::Done { id, .. }] if *id == expected), "{outputs:?}");
    }
}

#[test]
fn what_one_peer_misses_another_is_asked() {
    let now = Instant::now();
    let want = Want::Transactions([1, 2, 3, 2].map(txid).into());
    let (mut requests, _) = started(want, RequestPolicy::default(), &[1, 2], now);
    requests.reply(PeerId(1), &transaction(2), now);
    assert!(!requests.reply(PeerId(1), &transaction(9), now), "not asked for");
    requests.reply(PeerId(1), &Reply::MissingTransactions(vec![txid(1), txid(3)]), now);
    let outputs = drain(&mut requests, &[1, 2], now);
    let [RequestOutput::Ask { peer: PeerId(2), want }] = &*outputs else { panic!("{outputs:?}") };
    assert_eq!(*want, Want::Transactions([1, 3].map(txid).into()));
    requests.reply(PeerId(2), &transaction(3), now);
    requests.reply(PeerId(1), &transaction(1), now); // it has come since
    let (_, answer) = answer(drain(&mut requests, &[1, 2], now)).unwrap();
    let found = [1, 2, 3].map(|n| (txid(n), vec![n; 10].into())).into();
    assert_eq!(answer, Answer::Transactions { found, missing: vec![] });
}

#[test]
fn some_transactions_are_an_answer_and_none_is_not() {
    let now = Instant::now();
    for has_one in [true, false] {
        let policy = RequestPolicy { fail_fast: true, ..RequestPolicy::default() };
        let (mut requests, _) = started(Want::Transactions([1, 2].map(txid).into()), policy, &[1], now);
        if has_one {
            requests.reply(PeerId(1), &transaction(2), now);
        }
        requests.reply(PeerId(1), &Reply::MissingTransactions(vec![txid(1)]), now);
        requests.reply(PeerId(1), &Reply::MissingTransactions(vec![txid(2)]), now);
        let outputs = drain(&mut requests, &[1], now);
        if has_one {
            let found = vec![(txid(2), vec![2; 10].into())];
            let expected = Answer::Transactions { found, missing: vec![txid(1)] };
            assert_eq!(answer(outputs), Some((1, expected)));
        } else {
            let error = failure(outputs).unwrap();
            assert!(matches!(*error.tried, [(PeerId(1), AskError::Missing)]), "{error}");
        }
    }
}

#[test]
fn a_single_address_is_no_answer() {
    let now = Instant::now();
    let (mut requests, _) = started(Want::Addresses, RequestPolicy::default(), &[1], now);
    assert!(!requests.reply(PeerId(1), &addresses(1), now));
    assert!(requests.reply(PeerId(1), &addresses(2), now));
    assert!(answer(drain(&mut requests, &[1], now)).is_some());
}

#[test]
fn with_nobody_left_a_request_waits_or_is_given_back() {
    let start = Instant::now();
    let (mut requests, _) = started(Want::Addresses, RequestPolicy::default(), &[], start);
    requests.peer_ready(PeerId(1));
    assert_eq!(asked(&drain(&mut requests, &[1], start)), [1]);
    requests.peer_lost(PeerId(1), &lost());
    assert!(drain(&mut requests, &[1], start).is_empty(), "only live peers are asked");
    requests.peer_ready(PeerId(2));
    let now = start + 59 * SECOND;
    assert_eq!(asked(&drain(&mut requests, &[1, 2], now)), [2]);
    assert_eq!(requests.deadline(), Some(start + 60 * SECOND));
    requests.timeout(start + 60 * SECOND);
    let error = failure(drain(&mut requests, &[1, 2], now)).unwrap();
    assert_eq!(error.to_string(), "no answer in time; peer 1 lost: closed by the peer; peer 2 was not done");

    let policy = RequestPolicy { fail_fast: true, ..RequestPolicy::default() };
    let mut requests = Requests::default();
    requests.submit(Want::Addresses, policy, start).unwrap();
    assert_eq!(failure(drain(&mut requests, &[], start)).unwrap().reason, GaveUp::NoPeer);
}

#[test]
fn a_request_gives_up_after_its_attempts() {
    let now = Instant::now();
    let policy = RequestPolicy { attempts: 2, ..RequestPolicy::default() };
    let (mut requests, _) = started(Want::Blocks(vec![hash(1)]), policy, &[1, 2, 3], now);
    requests.reply(PeerId(1), &Reply::Missing(vec![hash(1)]), now);
    drain(&mut requests, &[1, 2, 3], now);
    requests.reply(PeerId(2), &Reply::Unsupported(Want::Blocks(vec![hash(1)])), now);
    let error = failure(drain(&mut requests, &[1, 2, 3], now)).unwrap();
    assert_eq!((error.reason, error.tried.len()), (GaveUp::Attempts, 2));
}

#[test]
fn what_has_no_answer_is_not_taken() {
    let now = Instant::now();
    let mut requests = Requests::default();
    let mut submit = |want| requests.submit(want, RequestPolicy::default(), now).unwrap_err();
    assert_eq!(submit(Want::Offer { id: txid(1), bytes: Bytes::new() }), SubmitError::NoAnswer);
    assert_eq!(submit(Want::HeadersAfter(vec![])), SubmitError::Empty);
    assert_eq!(submit(Want::Blocks(vec![hash(1); 2])), SubmitError::TooMany { asked: 2, max: 1 });
    assert!(matches!(submit(Want::Transactions(vec![txid(1); 1001])), SubmitError::TooMany { .. }));
    for _ in 0..MAX_REQUESTS {
        requests.submit(Want::Addresses, RequestPolicy::default(), now).unwrap();
    }
    let full = requests.submit(Want::Addresses, RequestPolicy::default(), now);
    assert_eq!(full, Err(SubmitError::Full { open: MAX_REQUESTS }));
}

#[test]
fn a_cancelled_request_is_forgotten() {
    let now = Instant::now();
    let (mut requests, id) = started(Want::Addresses, RequestPolicy::default(), &[1], now);
    requests.reply(PeerId(1), &addresses(2), now);
    assert!(requests.cancel(id), "its answer was not told yet");
    assert!(!requests.cancel(id));
    assert!(drain(&mut requests, &[1], now).is_empty());
}

/// A run of random events; what is promised of every request is checked on the way and at the end.
struct Chaos {
    random: Rng,
    requests: Requests,
    now: Instant,
    live: Vec<u64>,
    next_peer: u64,
    /// Open requests: what was asked for, until when, of whom.
    open: BTreeMap<RequestId, (Want, Instant)>,
    asked: Vec<(u64, Want)>,
    trace: Vec<String>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            requests: Requests::default(),
            now: Instant::now(),
            live: Vec::new(),
            next_peer: 0,
            open: BTreeMap::new(),
            asked: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn submit(&mut self) {
        // Different things, so that a question tells its request.
        let n = self.random.u8(1..250);
        let want = match self.random.u8(0..4) {
            0 => Want::HeadersAfter(vec![hash(n)]),
            1 => Want::Blocks(vec![hash(n)]),
            2 => Want::Transactions(vec![txid(n), txid(n + 1)]),
            _ => Want::Addresses,
        };
        if self.open.values().any(|(open, _)| *open == want) {
            return;
        }
        let policy = RequestPolicy {
            attempts: self.random.usize(1..5),
            attempt_timeout: Duration::from_secs(self.random.u64(1..20)),
            total_timeout: Duration::from_secs(self.random.u64(1..60)),
            max_bytes: self.random.u64(5..40),
            fail_fast: self.random.u8(0..4) == 0,
        };
        let deadline = self.now + policy.total_timeout;
        let id = self.requests.submit(want.clone(), policy, self.now).unwrap();
        self.open.insert(id, (want, deadline));
    }

    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let (peer, want) = self.asked[self.random.usize(..self.asked.len())].clone();
        if !self.live.contains(&peer) {
            return;
        }
        let (block, download, index) = match &want {
            Want::Blocks(blocks) => (blocks[0].as_bytes()[0], self.random.u64(0..2), self.random.u32(0..3)),
            _ => (1, 0, 0),
        };
        let reply = match (&want, self.random.u8(0..4)) {
            (_, 0) => Reply::Unsupported(want),
            (Want::HeadersAfter(locator), _) => headers([locator[0].as_bytes()[0] + self.random.u8(0..3)]),
            (Want::Blocks(blocks), 1) => Reply::Missing(blocks.clone()),
            (Want::Blocks(_), 2) => end(block, download, index + 1),
            (Want::Blocks(_), _) => part(block, download, index),
            (Want::Transactions(ids), 1) => Reply::MissingTransactions(ids.clone()),
            (Want::Transactions(ids), _) => transaction(ids[0].as_bytes()[0]),
            _ => addresses(self.random.u64(0..4)),
        };
        self.requests.reply(PeerId(peer), &reply, self.now);
    }

    fn step(&mut self) {
        match self.random.u8(0..12) {
            0 | 1 => self.submit(),
            2 => {
                self.next_peer += 1;
                self.live.push(self.next_peer);
                self.requests.peer_ready(PeerId(self.next_peer));
            }
            3 if !self.live.is_empty() => {
                let peer = self.live.swap_remove(self.random.usize(..self.live.len()));
                self.requests.peer_lost(PeerId(peer), &lost());
            }
            4 | 5 => {
                // A driver that is on time.
                let next = self.now + Duration::from_millis(self.random.u64(1..8000));
                self.now = self.requests.deadline().map_or(next, |at| at.max(self.now).min(next));
                self.requests.timeout(self.now);
            }
            6 if !self.open.is_empty() && self.random.bool() => {
                let id = *self.open.keys().nth(self.random.usize(..self.open.len())).unwrap();
                assert!(self.requests.cancel(id));
                self.open.remove(&id);
            }
            _ => self.answer(),
        }
        self.take_outputs();
    }

    fn take_outputs(&mut self) {
        loop {
            let (live, random) = (&self.live, &mut self.random);
            let mut choose = |_: &Want, tried: &[PeerId]| {
                if random.u8(0..8) == 0 {
                    return Some(PeerId(random.u64(0..20))); // who may have been asked, or be gone
                }
                let untried: Vec<u64> =
                    live.iter().copied().filter(|peer| !tried.contains(&PeerId(*peer))).collect();
                random.choice(untried).map(PeerId)
            };
            let Some(output) = self.requests.poll(self.now, &mut choose) else { break };
            self.trace.push(format!("{output:?}"));
            match output {
                RequestOutput::Ask { peer, want } => {
                    assert!(self.live.contains(&peer.0), "{peer} is gone");
                    self.asked.push((peer.0, want));
                }
                RequestOutput::Done { id, answer, .. } => {
                    let (want, deadline) = self.open.remove(&id).expect("ends once");
                    assert!(self.now <= deadline);
                    assert_fits(&want, &answer);
                }
                RequestOutput::Failed { id, reason } => {
                    let (_, deadline) = self.open.remove(&id).expect("ends once");
                    assert!(self.now <= deadline);
                    let mut tried: Vec<PeerId> = reason.tried.iter().map(|(peer, _)| *peer).collect();
                    tried.sort_unstable();
                    tried.dedup();
                    assert_eq!(tried.len(), reason.tried.len(), "no peer twice: {reason}");
                }
                RequestOutput::TimedOut { .. } => {}
            }
        }
        assert_eq!(self.requests.requests.len(), self.open.len());
        assert!(self.open.values().all(|(_, deadline)| *deadline >= self.now));
    }
}

fn assert_fits(want: &Want, answer: &Answer) {
    match (want, answer) {
        (Want::HeadersAfter(locator), Answer::Headers { headers, .. }) => {
            assert!(
                headers
                    .first()
                    .is_none_or(|first| locator.contains(&first.parent) || locator.contains(&first.hash))
            );
        }
        (Want::Blocks(blocks), Answer::Block { hash, bytes, transactions }) => {
            assert_eq!(blocks[0], *hash);
            assert!(bytes.len() < 40 && bytes.len() == transactions.len() * 10);
        }
        (Want::Transactions(ids), Answer::Transactions { found, missing }) => {
            assert!(!found.is_empty());
            let mut all: Vec<Txid> = found.iter().map(|(id, _)| *id).chain(missing.iter().copied()).collect();
            all.sort_unstable();
            assert_eq!(all, *ids);
        }
        (Want::Addresses, Answer::Addresses(addresses)) => assert!(addresses.len() > 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_requested_is_lost() {
    let (mut done, mut failed) = (0, 0);
    for seed in 0..300 {
        let mut chaos = Chaos::new(seed);
        (0..400).for_each(|_| chaos.step());
        while let Some(at) = chaos.requests.deadline() {
            chaos.now = at.max(chaos.now);
            chaos.requests.timeout(chaos.now);
            chaos.take_outputs();
        }
        assert!(chaos.open.is_empty(), "seed {seed}");
        done += chaos.trace.iter().filter(|line| line.starts_with("Done")).count();
        failed += chaos.trace.iter().filter(|line| line.starts_with("Failed")).count();
        if seed < 10 {
            let mut again = Chaos::new(seed);
            (0..400).for_each(|_| again.step());
            assert!(chaos.trace.starts_with(&again.trace), "the same seed, the same trace");
        }
    }
    assert!(done > 1000 && failed > 1000, "{done} done, {failed} failed: the test tests little");
}
