use super::*;
use crate::BookOptions;

fn address(host: &str) -> PeerAddress {
    PeerAddress { host: host.to_owned(), port: 1 }
}

/// A pool and what it wanted.
struct Talk {
    pool: Pool,
    now: Instant,
    outputs: Vec<PoolOutput>,
}

impl Talk {
    fn new(options: PoolOptions, hosts: &[&str]) -> Self {
        let now = Instant::now();
        let book = Book::new(BookOptions::default(), fastrand::Rng::with_seed(1));
        let mut pool = Pool::new(options, book, 1, UnixTime::from_secs(1_700_000_000), now);
        hosts.iter().for_each(|host| pool.give(address(host), now));
        let mut talk = Self { pool, now, outputs: Vec::new() };
        talk.poll();
        talk
    }

    fn poll(&mut self) {
        while let Some(output) = self.pool.poll(self.now) {
            self.outputs.push(output);
        }
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now = self.pool.deadline(self.now).max(self.now + Duration::from_millis(1)).min(end);
            self.pool.timeout(self.now);
            self.poll();
        }
    }

    /// The dials wanted since the last call.
    fn dials(&mut self) -> Vec<(PeerId, String)> {
        let mut dials = Vec::new();
        self.outputs.retain(|output| match output {
            PoolOutput::Dial { id, address, .. } => {
                dials.push((*id, address.host.clone()));
                false
            }
            _ => true,
        });
        dials
    }

    fn connect(&mut self, id: PeerId) {
        let info = PeerInfo::new("/them/", 100);
        self.pool.admit(id, &info, false, self.now).unwrap();
        self.poll();
    }

    fn connect_all(&mut self) -> Vec<PeerId> {
        let ids: Vec<PeerId> = self.dials().into_iter().map(|(id, _)| id).collect();
        ids.iter().for_each(|id| self.connect(*id));
        ids
    }

    fn end(&mut self, id: PeerId, reason: &DisconnectReason) {
        self.pool.ended(id, reason, false, self.now);
        self.poll();
    }

    fn disconnects(&mut self) -> Vec<(PeerId, String)> {
        let mut found = Vec::new();
        for output in self.outputs.drain(..) {
            if let PoolOutput::Disconnect { id, reason } = output {
                found.push((id, reason.to_string()));
            }
        }
        found
    }

    fn told(&mut self, matches: fn(&PoolOutput) -> bool) -> usize {
        let before = self.outputs.len();
        self.outputs.retain(|output| !matches(output));
        before - self.outputs.len()
    }
}

fn options() -> PoolOptions {
    PoolOptions { max_peers: 3, ..PoolOptions::default() }
}

#[test]
fn no_more_connections_than_asked_and_a_lost_one_is_replaced() {
    let hosts: Vec<String> = (0..20).map(|n| format!("host{n}")).collect();
    let mut talk = Talk::new(options(), &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let first = talk.connect_all();
    assert_eq!(first.len(), 3);
    assert_eq!(talk.told(|o| matches!(o, PoolOutput::Settled)), 1);
    talk.wait(100);
    assert!(talk.dials().is_empty(), "only an end makes room");
    talk.end(first[0], &DisconnectReason::Closed);
    let next = talk.dials();
    assert_eq!(next.len(), 1);
    assert_eq!(talk.told(|o| matches!(o, PoolOutput::Settled)), 0, "it is told once");
}

#[test]
fn one_failed_dial_is_not_the_end_of_an_address() {
    let mut talk = Talk::new(options(), &["a"]);
    for _ in 0..30 {
        let dials = talk.dials();
        assert_eq!(dials.len(), 1);
        talk.pool.dial_failed(dials[0].0, &ConnectError::TimedOut, talk.now);
        talk.poll();
        talk.wait(60);
    }
}

#[test]
fn who_broke_the_protocol_is_left_alone_for_a_day() {
    let mut talk = Talk::new(options(), &["a"]);
    let [id] = talk.connect_all()[..] else { panic!() };
    let lie = Refusal::Misbehaved("lied".to_owned()).into();
    talk.end(id, &lie);
    assert_eq!(talk.told(|o| matches!(o, PoolOutput::Banned { .. })), 1);
    assert_eq!(talk.told(|o| matches!(o, PoolOutput::Exhausted)), 1);
    talk.wait(23 * 3600);
    assert!(talk.dials().is_empty());
    talk.wait(2 * 3600);
    assert_eq!(talk.dials().len(), 1, "a ban ends");
}

#[test]
fn small_faults_add_up_unless_they_fade() {
    let mut talk = Talk::new(options(), &["a", "b"]);
    let ids = talk.connect_all();
    for _ in 0..9 {
        talk.pool.misbehaved(ids[0], 10, "a message that does not parse", talk.now);
        talk.pool.misbehaved(ids[1], 10, "a message that does not parse", talk.now);
    }
    talk.poll();
    assert!(talk.disconnects().is_empty());
    talk.pool.misbehaved(ids[0], 10, "a message that does not parse", talk.now);
    talk.poll();
    let gone = talk.disconnects();
    assert_eq!(gone, [(ids[0], "misbehaved too often, lastly: a message that does not parse".to_owned())]);
    talk.wait(3600);
    talk.pool.misbehaved(ids[1], 50, "a message that does not parse", talk.now);
    talk.poll();
    assert!(talk.disconnects().is_empty(), "45 + 50 points");
}

#[test]
fn a_peer_that_does_not_advance_while_others_do_is_replaced() {
    let mut talk = Talk::new(options(), &["a", "b", "c"]);
    let ids = talk.connect_all();
    talk.wait(3600);
    assert!(talk.disconnects().is_empty(), "a quiet chain leaves everybody alone");
    let news = Reply::NewTip(BlockHash::from_bytes([1; 32]));
    talk.pool.reply(ids[0], &news, talk.now);
    talk.pool.reply(ids[1], &news, talk.now);
    talk.wait(119);
    assert!(talk.disconnects().is_empty());
    talk.wait(12);
    assert_eq!(talk.disconnects(), [(ids[2], "has not advanced for 120 s while others did".to_owned())]);
}

#[test]
fn lists_of_blocks_that_were_asked_for_are_no_news() {
    let mut talk = Talk::new(options(), &["a", "b", "c"]);
    let ids = talk.connect_all();
    talk.wait(3600);
    let hash = |n: u16| BlockHash::from_bytes([n as u8; 32]);
    let list = Reply::Announced((1..=500).map(hash).chain([BlockHash::ZERO]).collect());
    talk.pool.reply(ids[0], &list, talk.now);
    talk.pool.reply(ids[1], &list, talk.now);
    talk.wait(600);
    assert!(talk.disconnects().is_empty(), "nobody else was asked");
}

#[test]
fn a_peer_that_is_held_or_sends_one_large_block_need_not_tell_of_anything() {
    let mut talk = Talk::new(PoolOptions { max_peers: 4, ..options() }, &["a", "b", "c", "d"]);
    let ids = talk.connect_all();
    talk.wait(3600);
    let news = Reply::NewTip(BlockHash::from_bytes([1; 32]));
    talk.pool.reply(ids[0], &news, talk.now);
    talk.pool.reply(ids[1], &news, talk.now);
    // Longer than any silence may last.
    for n in 0..400 {
        talk.wait(10);
        for (id, is_large) in [(ids[0], false), (ids[1], false), (ids[2], true)] {
            let mut figures = Figures::new(talk.now);
            figures.received = 1000 * n;
            figures.messages = if is_large { 5 } else { n };
            talk.pool.sample(id, figures, talk.now);
        }
        talk.pool.held(ids[3], talk.now);
    }
    assert!(talk.disconnects().is_empty());
    assert!(talk.pool.peers(talk.now).iter().all(|peer| matches!(peer.state, PeerState::Ready { .. })));
    // Once they can speak they have to.
    let news = Reply::NewTip(BlockHash::from_bytes([2; 32]));
    talk.wait(60);
    talk.pool.reply(ids[0], &news, talk.now);
    talk.pool.reply(ids[1], &news, talk.now);
    talk.wait(131);
    assert!(talk.disconnects().iter().any(|(id, reason)| *id == ids[3] && reason.starts_with("has not")));
}

#[test]
fn the_slowest_makes_room_for_one_measured_to_be_twice_as_fast() {
    let mut talk = Talk::new(PoolOptions { max_peers: 1, ..options() }, &["fast", "slow"]);
    let sample = |talk: &mut Talk, id, speed: f64| {
        let mut figures = Figures::new(talk.now);
        (figures.speed, figures.received) = (Some(speed), 1);
        talk.pool.sample(id, figures, talk.now);
    };
    // Both are known: one was fast and hung up, the other is slow and stays.
    let (first, host) = talk.dials().remove(0);
    talk.connect(first);
    sample(&mut talk, first, if host == "fast" { 1e6 } else { 1e5 });
    talk.wait(61);
    talk.end(first, &DisconnectReason::Closed);
    let (second, other) = talk.dials().remove(0);
    assert_ne!(host, other);
    talk.connect(second);
    sample(&mut talk, second, if other == "fast" { 1e6 } else { 1e5 });
    talk.wait(400);
    let replaced = talk.disconnects();
    if other == "slow" {
        assert_eq!(replaced, [(second, "replaced by a better peer".to_owned())]);
        talk.end(second, &Refusal::Replaced.into());
        assert_eq!(talk.dials().remove(0).1, "fast");
    } else {
        assert!(replaced.is_empty(), "the better one stays");
    }
}

#[test]
fn a_faster_peer_is_no_way_around_the_limit_of_its_network() {
    let hosts = ["1.1.0.1", "2.2.0.1", "1.1.0.2"];
    let two = PoolOptions { max_peers: 2, discovery: Discovery::On, ..options() };
    let mut talk = Talk::new(two, &[]);
    talk.pool.resolved(hosts.iter().map(|host| address(host)).collect(), talk.now);
    talk.poll();
    let sample = |talk: &mut Talk, id, speed: f64| {
        let mut figures = Figures::new(talk.now);
        (figures.speed, figures.received) = (Some(speed), 1);
        talk.pool.sample(id, figures, talk.now);
    };
    // One of the two in the same network was fast and left; the other one took its place, faster than the third.
    let connected: Vec<(PeerId, String)> = talk.dials();
    connected.iter().for_each(|(id, _)| talk.connect(*id));
    let (fast, left) = connected.into_iter().find(|(_, host)| host.starts_with("1.1.")).unwrap();
    sample(&mut talk, fast, 1e9);
    talk.wait(61);
    talk.pool.ended(fast, &Refusal::TimeOuts(16).into(), false, talk.now);
    talk.poll();
    let (other, host) = talk.dials().remove(0);
    assert!(host.starts_with("1.1.") && host != left, "{host}");
    talk.connect(other);
    let ids: Vec<PeerId> = talk.pool.peers(talk.now).iter().map(|peer| peer.id).collect();
    ids.iter().for_each(|id| sample(&mut talk, *id, if *id == other { 1e6 } else { 1e5 }));
    talk.wait(400);
    assert!(talk.disconnects().is_empty(), "the fast one's network has its connection");
}

#[test]
fn several_connections_to_one_address_only_when_asked() {
    let mut talk = Talk::new(PoolOptions { connections_per_host: 3, ..options() }, &["a"]);
    assert_eq!(talk.dials().len(), 1, "one until it works");
    let mut talk = Talk::new(PoolOptions { connections_per_host: 3, ..options() }, &["a"]);
    talk.connect_all();
    let more = talk.connect_all();
    assert_eq!(more.len(), 2);
    talk.end(more[0], &DisconnectReason::Closed);
    assert_eq!(talk.dials().len(), 1);
    let mut single = Talk::new(options(), &["a"]);
    single.connect_all();
    assert!(single.dials().is_empty());
}

#[test]
fn learned_addresses_are_of_different_networks() {
    let mut talk = Talk::new(PoolOptions { discovery: Discovery::On, ..options() }, &["8.8.8.8"]);
    let [id] = talk.connect_all()[..] else { panic!() };
    let addresses = (1..200_u8)
        .map(|n| crate::KnownAddress {
            address: PeerAddress { host: format!("9.9.{n}.1"), port: 8333 },
            services: 1,
            last_seen: 1_700_000_000,
        })
        .collect();
    talk.pool.reply(id, &Reply::Addresses(addresses), talk.now);
    talk.poll();
    assert_eq!(talk.dials().len(), 1, "all are of one /16");
}

#[test]
fn the_primary_peer_is_the_eldest_or_the_one_that_is_forced() {
    let mut talk = Talk::new(options(), &["a", "b", "c"]);
    let ids: Vec<PeerId> = talk.dials().into_iter().map(|(id, _)| id).collect();
    assert_eq!(talk.pool.primary(), None);
    for id in [1, 0, 2] {
        talk.now += Duration::from_secs(1);
        talk.connect(ids[id]);
    }
    assert_eq!(talk.pool.primary(), Some(ids[1]));
    talk.pool.force_primary(ids[2], Some(true), talk.now);
    talk.poll();
    assert_eq!(talk.pool.primary(), Some(ids[2]));
    talk.pool.force_primary(ids[2], None, talk.now);
    talk.pool.force_primary(ids[1], Some(false), talk.now);
    talk.poll();
    assert_eq!(talk.pool.primary(), Some(ids[0]));
}

#[test]
fn inbound_peers_have_their_own_room() {
    let mut talk = Talk::new(PoolOptions { max_inbound: 2, ..options() }, &["a", "b", "c"]);
    talk.connect_all();
    for n in 1..=2 {
        let id = talk.pool.accept(PeerAddress { host: format!("1.{n}.1.1"), port: 999 }, talk.now).unwrap();
        talk.connect(id);
    }
    assert_eq!(talk.pool.accept(PeerAddress { host: "1.3.1.1".into(), port: 9 }, talk.now), None, "full");
    let mut crowded = Talk::new(PoolOptions { max_inbound: 3, ..options() }, &[]);
    let crowd: Vec<PeerId> = (1..=3)
        .map(|n| {
            crowded.pool.accept(PeerAddress { host: format!("1.1.{n}.1"), port: 999 }, crowded.now).unwrap()
        })
        .collect();
    crowd.iter().for_each(|id| crowded.connect(*id));
    assert!(crowded.pool.accept(PeerAddress { host: "2.2.2.2".into(), port: 9 }, crowded.now).is_some());
    crowded.poll();
    assert_eq!(crowded.disconnects()[0].0, crowd[2], "the youngest of the largest group goes");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let hosts: Vec<String> = (0..30).map(|n| format!("host{n}")).collect();
        let mut talk = Talk::new(options(), &hosts.iter().map(String::as_str).collect::<Vec<_>>());
        let (mut trace, mut connected) = (Vec::new(), Vec::new());
        let mut random = fastrand::Rng::with_seed(seed);
        let start = talk.now;
        for _ in 0..300 {
            for (id, host) in talk.dials() {
                trace.push((host, (talk.now - start).as_millis()));
                if random.u8(..3) == 0 {
                    talk.pool.dial_failed(id, &ConnectError::TimedOut, talk.now);
                } else {
                    talk.connect(id);
                    connected.push(id);
                }
            }
            // Most that are connected stay for some rounds.
            for n in (0..connected.len()).rev() {
                if random.u8(..8) == 0 {
                    talk.end(connected.swap_remove(n), &DisconnectReason::Closed);
                }
            }
            talk.wait(7);
        }
        trace
    };
    let first = run(5);
    assert!(first.len() > 100, "{} dials", first.len());
    assert_eq!(first, run(5));
    assert_ne!(first, run(6));
}

#[test]
fn two_names_of_one_node_are_one_connection() {
    let mut talk = Talk::new(options(), &["localhost", "127.0.0.1"]);
    let ids: Vec<PeerId> = talk.dials().into_iter().map(|(id, _)| id).collect();
    let remote = "127.0.0.1:1".parse().unwrap();
    assert_eq!(talk.pool.locate(ids[0], remote), Ok(()));
    talk.connect(ids[0]);
    assert_eq!(talk.pool.locate(ids[1], remote), Err(Refusal::Duplicate));
    let reason = ConnectError::Handshake(Refusal::Duplicate.into());
    let mut dials = 0;
    talk.pool.dial_failed(ids[1], &reason, talk.now);
    for _ in 0..600 {
        talk.wait(1);
        for (id, _) in talk.dials() {
            dials += 1;
            talk.pool.dial_failed(id, &reason, talk.now);
        }
    }
    assert!(dials < 40, "{dials} dials in ten minutes: less and less often");
}

/// Whatever pause addresses have come to, those that worked are dialled early when nothing else is left.
#[test]
fn all_dead_is_not_stuck() {
    let book = BookOptions { max_back_off: Duration::from_secs(3600), ..BookOptions::default() };
    let (now, unix) = (Instant::now(), UnixTime::from_secs(1_700_000_000));
    let mut pool = Pool::new(options(), Book::new(book, fastrand::Rng::with_seed(1)), 1, unix, now);
    pool.give(address("a"), now);
    let mut talk = Talk { pool, now, outputs: Vec::new() };
    talk.poll();
    let [id] = talk.connect_all()[..] else { panic!() };
    talk.end(id, &DisconnectReason::Closed);
    // The network is away for six hours.
    for _ in 0..6 * 60 {
        talk.wait(60);
        for (id, _) in talk.dials() {
            talk.pool.dial_failed(id, &ConnectError::TimedOut, talk.now);
            talk.poll();
        }
    }
    talk.wait(40);
    assert!(!talk.dials().is_empty(), "and is found again within a minute, not within the hour of its pause");
}

#[test]
fn with_given_addresses_a_book_of_earlier_runs_is_left_alone() {
    let (now, unix) = (Instant::now(), UnixTime::from_secs(1_700_000_000));
    for (discovery, expected) in [(Discovery::IfNoneGiven, 1), (Discovery::On, 3)] {
        let mut book = Book::new(BookOptions::default(), fastrand::Rng::with_seed(1));
        for n in 1..20 {
            let old = PeerAddress { host: format!("9.{n}.1.1"), port: 8333 };
            assert!(book.add(old, Source::Book, 0, unix, unix));
        }
        let mut pool = Pool::new(PoolOptions { discovery, ..options() }, book, 1, unix, now);
        pool.give(address("given"), now);
        let mut talk = Talk { pool, now, outputs: Vec::new() };
        talk.poll();
        assert_eq!(talk.connect_all().len(), expected);
        assert_eq!(talk.told(|output| matches!(output, PoolOutput::Settled)), 1, "{discovery:?}");
        talk.wait(3600);
        assert!(talk.dials().is_empty());
    }
}
