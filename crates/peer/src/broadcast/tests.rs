use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MALFORMED: u8 = 0x01;
const INVALID: u8 = 0x10;
const DUPLICATE: u8 = 0x12;

fn txid(n: u8) -> Txid {
    Txid::from_bytes([n; 32])
}

fn announced(n: u8) -> Reply {
    Reply::AnnouncedTransactions(vec![txid(99), txid(n)])
}

fn rejected(n: Option<u8>, code: u8, reason: &str) -> Reply {
    Reply::Rejected(Rejection { transaction: n.map(txid), block: None, code, reason: reason.to_owned() })
}

fn strings(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|&host| host.to_owned()).collect()
}

fn rejections(hosts: &[&str], reason: &str) -> Vec<HostRejection> {
    let rejection =
        |&host: &&str| HostRejection { host: host.to_owned(), code: INVALID, reason: reason.to_owned() };
    hosts.iter().map(rejection).collect()
}

/// A broadcast machine, its clock, and what came out of it.
struct Bench {
    machine: Broadcast,
    start: Instant,
    now: Instant,
    /// To whom which transaction was offered.
    offers: Vec<(u64, Txid)>,
    done: Vec<(BroadcastId, BroadcastOutcome)>,
}

impl Bench {
    /// Peer `n` (from 1) is at the `n`th of these hosts.
    fn new(hosts: &[&str]) -> Self {
        let now = Instant::now();
        let machine = Broadcast::new(1);
        let mut bench = Self { machine, start: now, now, offers: Vec::new(), done: Vec::new() };
        for (n, host) in hosts.iter().enumerate() {
            bench.machine.peer_ready(PeerId(n as u64 + 1), host);
        }
        bench
    }

    fn submit(&mut self, n: u8, policy: BroadcastPolicy) -> BroadcastId {
        let id = self.machine.submit(txid(n), vec![n; 100].into(), policy, self.now).unwrap();
        self.take();
        id
    }

    fn ready(&mut self, peer: u64, host: &str) {
        self.machine.peer_ready(PeerId(peer), host);
        self.take();
    }

    fn lost(&mut self, peer: u64) {
        self.machine.peer_lost(PeerId(peer));
        self.take();
    }

    fn reply(&mut self, peer: u64, reply: &Reply) {
        self.machine.reply(PeerId(peer), reply, self.now);
        self.take();
    }

    fn fetch(&mut self, peer: u64, n: u8) {
        self.reply(peer, &Reply::Fetched(txid(n)));
    }

    /// Lets time pass up to so many seconds after the start, as a driver would.
    fn until(&mut self, seconds: u64) {
        let end = self.start + Duration::from_secs(seconds);
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.machine.timeout(self.now);
            self.take();
        }
        self.now = end;
    }

    fn take(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                BroadcastOutput::Offer { peer, id, .. } => self.offers.push((peer.0, id)),
                BroadcastOutput::Done { submission, outcome, .. } => self.done.push((submission, outcome)),
            }
        }
    }

    /// Who was offered it, in order of number.
    fn offered(&self, n: u8) -> Vec<u64> {
        let mut peers: Vec<u64> =
            self.offers.iter().filter(|(_, id)| *id == txid(n)).map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers
    }

    /// With the hosts "a" and "b": who was offered transaction `n`, and who is the witness.
    fn two(&self, n: u8) -> ((u64, &'static str), (u64, &'static str)) {
        match *self.offered(n) {
            [1] => ((1, "a"), (2, "b")),
            [2] => ((2, "b"), (1, "a")),
            ref other => panic!("offered to {other:?}"),
        }
    }

    fn outcome(&self) -> Option<&BroadcastOutcome> {
        self.done.last().map(|(_, outcome)| outcome)
    }
}

fn policy() -> BroadcastPolicy {
    BroadcastPolicy::default()
}

#[test]
fn concurrent_broadcasts_of_one_transaction_are_one() {
    let mut bench = Bench::new(&["a", "b", "c"]);
    let first = bench.submit(1, policy());
    let offered = bench.offered(1);
    assert_eq!(offered.len(), 2, "one is left to see it from");
    let second = bench.submit(1, policy());
    let other = bench.submit(2, policy());
    assert_eq!(bench.offered(1), offered, "sent once to each");
    let witness = (1..=3).find(|peer| !offered.contains(peer)).unwrap();
    bench.reply(witness, &announced(1));
    let outcome = BroadcastOutcome::SeenBack { hosts: strings(&[["a", "b", "c"][witness as usize - 1]]) };
    assert_eq!(bench.done, [(first, outcome.clone()), (second, outcome)]);
    bench.until(30);
    assert_eq!(bench.done[2].0, other);
}

#[test]
fn who_joins_keeps_its_own_policy() {
    let mut bench = Bench::new(&["a", "b", "c", "d"]);
    let patient = bench.submit(1, BroadcastPolicy { seen_from: 2, ..policy() });
    assert_eq!(bench.offered(1).len(), 2);
    let hasty = bench.submit(1, BroadcastPolicy { timeout: SECOND, ..policy() });
    bench.until(1);
    assert!(matches!(&*bench.done, [(id, BroadcastOutcome::Undecided { .. })] if *id == hasty));
    let witness = (1..=4).find(|peer| !bench.offered(1).contains(peer)).unwrap();
    bench.reply(witness, &announced(1));
    let late = bench.submit(1, policy());
    assert_eq!(bench.done.last().unwrap().0, late, "profits from what was seen");
    bench.until(30);
    assert_eq!(bench.done.last().unwrap().0, patient);
}

#[test]
fn a_late_reject_does_not_block_another_broadcast() {
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.fetch(1, 1);
    bench.until(30);
    assert!(matches!(bench.outcome(), Some(BroadcastOutcome::Fetched { .. })));
    bench.reply(1, &rejected(Some(1), INVALID, "late"));
    assert_eq!(bench.done.len(), 1);
    let again = bench.submit(1, policy());
    assert_eq!(bench.offered(1), [1, 1], "offered anew");
    bench.fetch(1, 1);
    bench.until(60);
    let hosts = strings(&["a"]);
    assert_eq!(bench.done[1], (again, BroadcastOutcome::Fetched { hosts, rejections: vec![] }));
}

#[test]
fn sibling_connections_of_a_host_are_no_evidence() {
    let mut bench = Bench::new(&["a", "a", "a"]);
    bench.submit(1, policy());
    assert_eq!(bench.offered(1), [1], "one connection of a host");
    bench.reply(2, &announced(1));
    bench.fetch(1, 1);
    bench.reply(3, &announced(1));
    bench.ready(4, "a");
    bench.reply(4, &announced(1));
    bench.until(30);
    let expected = BroadcastOutcome::Fetched { hosts: strings(&["a"]), rejections: vec![] };
    assert_eq!(bench.outcome(), Some(&expected));

    // Two connections of another host are one host.
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, BroadcastPolicy { seen_from: 2, ..policy() });
    [(2, "b"), (3, "b"), (4, "c")].into_iter().for_each(|(peer, host)| bench.ready(peer, host));
    [2, 3].into_iter().for_each(|peer| bench.reply(peer, &announced(1)));
    assert_eq!(bench.outcome(), None);
    bench.reply(4, &announced(1));
    assert_eq!(bench.outcome(), Some(&BroadcastOutcome::SeenBack { hosts: strings(&["b", "c"]) }));
}

#[test]
fn it_does_not_wait_when_it_is_decided() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, policy());
    let ((offered, _), (witness, witness_host)) = bench.two(1);
    bench.fetch(offered, 1);
    bench.reply(offered, &announced(1));
    assert_eq!(bench.outcome(), None, "who got it from us says nothing new");
    bench.reply(witness, &Reply::Transaction { id: txid(1), bytes: Bytes::new() });
    assert_eq!(bench.outcome(), Some(&BroadcastOutcome::SeenBack { hosts: strings(&[witness_host]) }));

    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.fetch(1, 1);
    bench.reply(1, &rejected(Some(1), INVALID, "bad"));
    assert_eq!(bench.outcome(), Some(&BroadcastOutcome::Rejected { rejections: rejections(&["a"], "bad") }));

    // With nobody to see it from, having been fetched is the best there is; a reject gets its time.
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.until(5);
    bench.fetch(1, 1);
    bench.until(6);
    assert_eq!(bench.outcome(), None);
    bench.until(7);
    assert!(matches!(bench.outcome(), Some(BroadcastOutcome::Fetched { .. })));
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn with_a_witness_connected_being_fetched_is_waited_on() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, policy());
    let ((peer, host), _) = bench.two(1);
    bench.fetch(peer, 1);
    bench.until(29);
    assert_eq!(bench.outcome(), None);
    bench.until(30);
    let expected = BroadcastOutcome::Fetched { hosts: strings(&[host]), rejections: vec![] };
    assert_eq!(bench.outcome(), Some(&expected));

    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, BroadcastPolicy { accept_fetched: true, ..policy() });
    let ((peer, _), _) = bench.two(1);
    bench.fetch(peer, 1);
    bench.until(2);
    assert_eq!(bench.outcome(), Some(&expected), "unless that is enough");

    // The witness goes away.
    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, policy());
    let ((peer, _), (witness, _)) = bench.two(1);
    bench.fetch(peer, 1);
    bench.until(10);
    bench.lost(witness);
    bench.until(10);
    assert_eq!(bench.outcome(), Some(&expected));
}

#[test]
fn who_announces_before_it_fetched_has_it_from_elsewhere() {
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.reply(1, &announced(1));
    assert_eq!(bench.outcome(), Some(&BroadcastOutcome::SeenBack { hosts: strings(&["a"]) }));

    // Who announces it first is not offered it.
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, BroadcastPolicy { seen_from: 3, ..policy() });
    for (peer, host) in [(2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        bench.ready(peer, host);
    }
    let offered = bench.offered(1);
    let first = (2..=5).find(|peer| !offered.contains(peer)).unwrap();
    bench.reply(first, &announced(1));
    bench.lost(1);
    assert!(!bench.offered(1).contains(&first));
}

#[test]
fn all_or_most_must_reject() {
    for (reject, needed) in [(RejectRule::All, 4), (RejectRule::Majority, 3)] {
        let mut bench = Bench::new(&["a", "b", "c", "d", "e"]);
        bench.submit(1, BroadcastPolicy { peers: 4, reject, ..policy() });
        let offered = bench.offered(1);
        assert_eq!(offered.len(), 4);
        for (n, peer) in offered.into_iter().enumerate() {
            assert_eq!(bench.outcome().is_some(), n >= needed, "{reject:?} after {n}");
            bench.reply(peer, &rejected(Some(1), INVALID, "bad"));
        }
        let Some(BroadcastOutcome::Rejected { rejections }) = bench.outcome() else { panic!() };
        assert_eq!((rejections.len(), bench.done.len()), (needed, 1));
    }
}

#[test]
fn one_host_does_not_reject_for_those_that_were_left_out() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, policy());
    let ((first, host), (second, _)) = bench.two(1);
    bench.reply(second, &rejected(Some(1), INVALID, "was not offered it"));
    bench.reply(first, &rejected(Some(1), INVALID, "bad"));
    assert_eq!(bench.offered(1), [1, 2], "the other one is asked too");
    assert_eq!(bench.outcome(), None);
    bench.fetch(second, 1);
    bench.until(30);
    let Some(BroadcastOutcome::Fetched { hosts, rejections: found }) = bench.outcome() else { panic!() };
    assert_eq!((hosts.len(), &**found), (1, &*rejections(&[host], "bad")));
}

#[test]
fn rejected_as_duplicate_is_known() {
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.reply(1, &rejected(Some(1), DUPLICATE, "txn-already-in-mempool"));
    bench.until(2);
    let expected = BroadcastOutcome::Fetched { hosts: strings(&["a"]), rejections: vec![] };
    assert_eq!(bench.outcome(), Some(&expected));

    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.reply(1, &rejected(Some(1), DUPLICATE, "txn-mempool-conflict"));
    assert!(
        matches!(bench.outcome(), Some(BroadcastOutcome::Rejected { .. })),
        "a double spend is not known"
    );
}

#[test]
fn a_reject_without_hash_is_of_the_only_transaction_sent() {
    let malformed = rejected(None, MALFORMED, "malformed");
    let mut bench = Bench::new(&["a"]);
    bench.submit(1, policy());
    bench.reply(1, &malformed);
    assert_eq!(bench.outcome(), None, "it was not sent yet");
    bench.fetch(1, 1);
    bench.reply(1, &malformed);
    assert!(matches!(bench.outcome(), Some(BroadcastOutcome::Rejected { .. })));

    let mut bench = Bench::new(&["a"]);
    [1, 2].into_iter().for_each(|n| _ = bench.submit(n, policy()));
    [1, 2].into_iter().for_each(|n| bench.fetch(1, n));
    bench.reply(1, &malformed);
    assert_eq!(bench.outcome(), None, "which of the two can't be told");

    let mut bench = Bench::new(&["a"]);
    [1, 2].into_iter().for_each(|n| _ = bench.submit(n, policy()));
    bench.fetch(1, 1);
    bench.reply(1, &malformed);
    assert_eq!(bench.outcome(), None, "the last one offered was not sent");
}

#[test]
fn another_host_takes_the_place_of_one_that_is_lost() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, policy());
    let ((first, _), _) = bench.two(1);
    bench.lost(first);
    assert_eq!(bench.offered(1), [1, 2]);
    // A sibling connection of the same host does too.
    let mut bench = Bench::new(&["a", "a"]);
    bench.submit(1, policy());
    bench.lost(1);
    assert_eq!(bench.offered(1), [1, 2]);
    // One that has fetched it has it.
    let mut bench = Bench::new(&["a", "b"]);
    bench.submit(1, policy());
    let ((first, host), _) = bench.two(1);
    bench.fetch(first, 1);
    bench.lost(first);
    assert_eq!(bench.offered(1), [first]);
    bench.until(30);
    let expected = BroadcastOutcome::Fetched { hosts: strings(&[host]), rejections: vec![] };
    assert_eq!(bench.outcome(), Some(&expected));
}

#[test]
fn newcomers_are_offered_it_as_long_as_there_is_room() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, BroadcastPolicy { peers: 2, ..policy() });
    for (peer, host) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        bench.ready(peer, host);
    }
    assert_eq!(bench.offered(1).len(), 2);
    bench.until(30);
    let Some(BroadcastOutcome::Undecided { offered_to, .. }) = bench.outcome() else { panic!() };
    assert_eq!(offered_to.len(), 2);
}

#[test]
fn nobody_connected_is_undecided_in_time() {
    let mut bench = Bench::new(&[]);
    bench.submit(1, policy());
    bench.until(29);
    assert_eq!(bench.outcome(), None);
    bench.until(30);
    let expected = BroadcastOutcome::Undecided { offered_to: vec![], rejections: vec![] };
    assert_eq!(bench.outcome(), Some(&expected));
}

#[test]
fn what_is_held_is_bounded() {
    let now = Instant::now();
    let mut machine = Broadcast::new(1);
    let mut submit =
        |n: u8, size: usize| machine.submit(txid(n), Bytes::from(vec![0; size]), policy(), now).map(|_| ());
    let too_large = BroadcastError::NoRoom { size: MAX_BYTES + 1, held: 0, max: MAX_BYTES };
    assert_eq!(submit(0, MAX_BYTES + 1), Err(too_large));
    assert_eq!(submit(0, MAX_BYTES - 63), Ok(()));
    assert!(matches!(submit(1, 64), Err(BroadcastError::NoRoom { .. })));
    assert_eq!(submit(0, MAX_BYTES), Ok(()), "to join needs no room");
    (1..MAX_RUNNING as u8).for_each(|n| assert_eq!(submit(n, 1), Ok(())));
    assert_eq!(submit(200, 0), Err(BroadcastError::Full { running: MAX_RUNNING }));
    (1..MAX_JOINED).for_each(|_| assert_eq!(submit(1, 1), Ok(())));
    assert_eq!(submit(1, 1), Err(BroadcastError::Joined { id: txid(1), times: MAX_JOINED }));
}

/// Random events, and what was promised of each submission: its transaction and its deadline.
fn chaos(seed: u64) -> (usize, Vec<String>) {
    let mut random = Rng::with_seed(seed);
    let mut bench = Bench::new(&[]);
    let mut trace = Vec::new();
    let mut open: BTreeMap<BroadcastId, Instant> = BTreeMap::new();
    let mut live: BTreeMap<u64, String> = BTreeMap::new();
    let mut next_peer = 0;
    for step in 0..400 {
        let n = random.u8(0..4);
        let peer = random.choice(live.keys().copied()).unwrap_or_default();
        match random.u8(0..12) {
            0 => {
                let policy = BroadcastPolicy {
                    peers: random.usize(0..5),
                    seen_from: random.usize(0..4),
                    timeout: SECOND * random.u32(0..60),
                    accept_fetched: random.bool(),
                    reject_wait: SECOND * random.u32(0..4),
                    reject: if random.bool() { RejectRule::All } else { RejectRule::Majority },
                };
                let deadline = bench.now + policy.timeout;
                let id = bench.machine.submit(txid(n), vec![n; 10].into(), policy, bench.now).unwrap();
                assert!(open.insert(id, deadline).is_none());
            }
            1 | 2 => {
                next_peer += 1;
                let host = format!("host{}", random.u8(0..8));
                bench.machine.peer_ready(PeerId(next_peer), &host);
                live.insert(next_peer, host);
            }
            3 => {
                bench.machine.peer_lost(PeerId(peer));
                live.remove(&peer);
            }
            4 => {
                let next = bench.now + Duration::from_millis(random.u64(1..8000));
                bench.now = bench.machine.deadline().map_or(next, |at| at.max(bench.now).min(next));
                bench.machine.timeout(bench.now);
            }
            5 => bench.machine.reply(PeerId(peer), &announced(n), bench.now),
            6 => bench.machine.reply(PeerId(peer), &rejected(None, MALFORMED, ""), bench.now),
            7 | 8 => bench.machine.reply(PeerId(peer), &rejected(Some(n), INVALID, ""), bench.now),
            9 => bench.machine.reply(PeerId(peer), &rejected(Some(n), DUPLICATE, ""), bench.now),
            _ => bench.machine.reply(PeerId(peer), &Reply::Fetched(txid(n)), bench.now),
        }
        while let Some(output) = bench.machine.poll() {
            trace.push(format!("{output:?}"));
            match output {
                BroadcastOutput::Offer { peer, .. } => assert!(live.contains_key(&peer.0), "step {step}"),
                BroadcastOutput::Done { submission, .. } => {
                    let deadline = open.remove(&submission).expect("one outcome");
                    assert!(bench.now <= deadline, "step {step}");
                }
            }
        }
        let waiting: usize = bench.machine.running.values().map(|running| running.submissions.len()).sum();
        assert_eq!(waiting, open.len(), "step {step}");
        let overdue = bench.machine.deadline().is_some_and(|at| at < bench.now)
            && open.values().any(|deadline| *deadline < bench.now);
        assert!(!overdue, "step {step}");
    }
    let undone = open.len();
    bench.until(1_000_000);
    assert_eq!((bench.done.len(), bench.machine.running.len()), (undone, 0));
    (trace.iter().filter(|line| line.starts_with("Done")).count(), trace)
}

#[test]
fn every_submission_has_one_outcome_in_time() {
    let mut done = 0;
    for seed in 0..300 {
        let (count, trace) = chaos(seed);
        done += count;
        if seed < 10 {
            assert_eq!(chaos(seed).1, trace, "the same seed, the same trace");
        }
    }
    assert!(done > 1000, "{done} done: the test tests little");
}
