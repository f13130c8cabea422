mod bounds;

use std::collections::BTreeSet;

use super::*;

pub(super) const START: UnixTime = UnixTime::from_secs(1_700_000_000);
pub(super) const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";

pub(super) fn address(text: &str) -> PeerAddress {
    PeerAddress::parse(text, 8333).unwrap()
}

/// The `n`th routable IPv4 address, each in a network of its own (up to 32,768).
pub(super) fn public(n: usize) -> PeerAddress {
    address(&format!("{}.{}.1.1", 11 + n / 256 % 80, n % 256))
}

pub(super) fn book(options: BookOptions) -> Book {
    Book::new(options, fastrand::Rng::with_seed(1))
}

fn small(max_entries: usize) -> Book {
    book(BookOptions { max_entries, ..BookOptions::default() })
}

fn with(addresses: &[&str]) -> Book {
    let mut book = book(BookOptions::default());
    for text in addresses {
        assert!(book.add(address(text), Source::Given, 0, START, START));
    }
    book
}

fn any(_: &BookEntry, _: NetworkGroup) -> bool {
    true
}

fn from(peer: &str) -> Source {
    Source::Peer(address(peer))
}

fn fail(book: &mut Book, address: &PeerAddress, now: UnixTime) {
    book.tried(address, now);
    book.failed(address, Failure::Unreachable, now);
}

fn work(book: &mut Book, address: &PeerAddress, now: UnixTime) {
    book.tried(address, now);
    book.succeeded(address, 1, Transport::V2, now);
    book.ended(address, Duration::from_secs(60), Failure::Closed, now);
}

/// The pauses after each of so many failures in a row, in seconds.
fn pauses(book: &mut Book, address: &PeerAddress, count: usize, start: UnixTime) -> Vec<f64> {
    let mut now = start;
    let mut pauses = Vec::new();
    for _ in 0..count {
        assert_eq!(book.next(now, any).as_ref(), Some(address));
        book.tried(address, now);
        assert_eq!(book.next(now, any), None, "dialled once at a time");
        book.failed(address, Failure::Unreachable, now);
        let next = book.deadline(now).unwrap();
        assert_eq!(book.next(next.before(Duration::from_millis(1)), any), None);
        pauses.push(next.since(now).as_secs_f64());
        now = next;
    }
    pauses
}

#[test]
fn one_failed_dial_is_not_dead_for_ever() {
    for (source, limit) in [(Source::Given, 60.0), (Source::Dns, 3600.0)] {
        let mut book = book(BookOptions::default());
        book.add(public(0), source, 0, START, START);
        for (n, pause) in pauses(&mut book, &public(0), 40, START).iter().enumerate() {
            let expected = 2_f64.powi(n as i32).min(limit);
            assert!((0.499 * expected..=expected).contains(pause), "pause {n}: {pause}");
        }
    }
}

#[test]
fn host_names_are_looked_up_under_one_key() {
    let mut book = with(&["Node.Example.:8333"]);
    assert!(!book.add(address("node.example"), Source::Dns, 0, START, START), "known already");
    let by_hand = PeerAddress { host: "NODE.example".to_owned(), port: 8333 };
    fail(&mut book, &by_hand, START);
    assert_eq!(book.get(&by_hand).unwrap().failures, 1);
    assert_eq!(book.next(START, any), None, "the mark reached the entry");
    for (text, again) in [("[::1]:8333", "::0001"), ("1.2.3.4:8333", "::ffff:1.2.3.4"), (ONION, ONION)] {
        let mut book = with(&[text]);
        assert!(!book.add(address(again), Source::Given, 0, START, START), "{text}");
        assert_eq!(book.next(START, any).unwrap().to_string(), text);
    }
}

#[test]
fn learned_addresses_are_used() {
    let mut book = with(&["10.0.0.1"]);
    assert!(book.add(public(1), from("10.0.0.1"), 9, START, START));
    assert!(book.has_untried());
    let mut now = START;
    let mut dialled = BTreeSet::new();
    for _ in 0..20 {
        let next = book.next(now, any).unwrap();
        fail(&mut book, &next, now);
        dialled.insert(next);
        now = book.deadline(now).unwrap();
    }
    assert!(dialled.contains(&public(1)), "although a given address keeps coming due");
    assert!(!book.has_untried());
}

#[test]
fn all_dead_is_not_stuck() {
    let mut book = book(BookOptions::default());
    (0..20).for_each(|n| assert!(book.add(public(n), Source::Dns, 0, START, START)));
    (0..5).for_each(|n| work(&mut book, &public(n), START));
    let mut now = START.after(DAY);
    for _ in 0..10 {
        (0..20).for_each(|n| fail(&mut book, &public(n), now));
    }
    assert_eq!(book.next(now, any), None);
    assert_eq!(book.recycle(now), 5);
    assert_eq!(book.next(now, any), None, "not within the shortest pause");
    now = now.after(SECOND);
    let mut first = BTreeSet::new();
    while let Some(next) = book.next(now, any) {
        fail(&mut book, &next, now);
        first.insert(next);
    }
    assert_eq!(first, (0..5).map(public).collect(), "those that worked come first");
    let mut rest = BTreeSet::new();
    now = now.after(Duration::from_secs(3600));
    while let Some(next) = book.next(now, any) {
        book.tried(&next, now);
        rest.insert(next);
    }
    assert_eq!(rest.len(), 20, "the others come back too");
}

#[test]
fn the_ban_flag_is_set_and_ends() {
    let mut book = with(&["a.example"]);
    let a = address("a.example");
    book.tried(&a, START);
    book.succeeded(&a, 1, Transport::V1, START);
    let until = START.after(DAY);
    book.ban(&a, &format!("sent\n{}", "é".repeat(200)), until, START);
    book.ban(&a, "shorter", START.after(SECOND), START);
    book.ended(&a, SECOND, Failure::Poor, START);
    let ban = book.get(&a).unwrap().ban.clone().unwrap();
    assert_eq!((ban.since, ban.until, ban.reason), (START, until, format!("sent{}", "é".repeat(98))));
    assert!(book.is_banned(&a, START) && book.counts(START).banned == 1);
    assert!(book.sample(10, START).is_empty() && book.recently_worked(10, START).is_empty());
    book.add(a.clone(), Source::Given, 0, START, START);
    assert_eq!(book.recycle(START), 0);
    assert_eq!((book.next(until.before(SECOND), any), book.deadline(START)), (None, Some(until)));
    assert_eq!(book.next(until, any), Some(a.clone()));
    assert_eq!(book.get(&a).unwrap().ban, None);
    book.ban(&a, "again", UnixTime::MAX, until);
    assert_eq!(book.next(until.after(DAY), any), None);
    book.unban(&a);
    assert_eq!(book.next(until.after(DAY), any), Some(a));
}

#[test]
fn the_given_come_first_until_they_fail_three_times() {
    let mut book = with(&["a.example"]);
    (0..50).for_each(|n| assert!(book.add(public(n), Source::Dns, 0, START, START)));
    let given = address("a.example");
    let mut now = START;
    for _ in 0..3 {
        assert_eq!(book.next(now, any).as_ref(), Some(&given));
        fail(&mut book, &given, now);
        now = now.after(Duration::from_secs(8));
    }
    let chosen: BTreeSet<PeerAddress> = (0..50).filter_map(|_| book.next(now, any)).collect();
    assert!(chosen.len() > 10, "the choice is random: {}", chosen.len());
    work(&mut book, &given, now);
    assert_eq!(book.next(now.after(SECOND), any), Some(given), "it worked again");
}

#[test]
fn the_proven_the_untried_and_the_failed_are_mixed() {
    let mut book = book(BookOptions::default());
    (0..300).for_each(|n| assert!(book.add(public(n), Source::Dns, 0, START, START)));
    (0..100).for_each(|n| work(&mut book, &public(n), START));
    (100..200).for_each(|n| fail(&mut book, &public(n), START));
    let now = START.after(DAY);
    let mut counts = [0; 3];
    for _ in 0..8000 {
        let next = book.next(now, any).unwrap();
        let entry = book.get(&next).unwrap();
        counts[if entry.has_worked() { 0 } else { 1 + usize::from(entry.failures > 0) }] += 1;
    }
    for (count, expected) in counts.into_iter().zip([4000, 3000, 1000]) {
        assert!((expected - 300..expected + 300).contains(&count), "{counts:?}");
    }
}

#[test]
fn who_hangs_up_at_once_is_not_dialled_at_once_for_ever() {
    let mut book = with(&["a.example"]);
    let a = address("a.example");
    for _ in 0..10 {
        book.tried(&a, START);
        book.succeeded(&a, 1, Transport::Unknown, START);
        assert_eq!(book.deadline(START), None, "in use");
        book.ended(&a, SECOND, Failure::Closed, START);
    }
    assert!(book.deadline(START).unwrap() >= START.after(Duration::from_secs(30)));
    book.ended(&a, Duration::from_secs(60), Failure::Closed, START);
    assert!(book.deadline(START).unwrap() <= START.after(SECOND), "a stable connection clears it");
    assert_eq!(book.get(&a).unwrap().failures, 0);
    for _ in 0..10 {
        book.failed(&a, Failure::Local, START);
    }
    assert_eq!(book.get(&a).unwrap().failures, 0, "our own doing is no failure");
}

#[test]
fn a_dial_whose_end_nobody_tells_is_repeated() {
    let mut book = with(&["a.example"]);
    let a = address("a.example");
    book.tried(&a, START);
    let lease = START.after(DIAL_LEASE);
    assert_eq!((book.next(lease.before(SECOND), any), book.deadline(START)), (None, Some(lease)));
    assert_eq!(book.next(lease, any), Some(a));
}

#[test]
fn what_the_filter_refuses_wakes_nobody() {
    let mut book = with(&["a.example", "b.example"]);
    assert_eq!(book.deadline(START), Some(START), "not looked at yet");
    assert_eq!(book.next(START, |_, group| group == NetworkGroup::Name("c".to_owned())), None);
    assert_eq!(book.deadline(START), None);
    let only_b = |entry: &BookEntry, _| entry.address.host == "b.example";
    assert_eq!(book.next(START, only_b), Some(address("b.example")));
}

#[test]
fn what_peers_tell_is_not_believed() {
    let mut book = book(BookOptions::default());
    for text in ["10.0.0.1", "[::1]:1", "node.example", "localhost", "127.1", "2002:7f00:1::1"] {
        assert!(!book.add(address(text), from("1.2.3.4"), 0, START, START), "{text}");
        assert!(book.add(address(text), Source::Given, 0, START, START), "{text}");
    }
    for (host, port) in [("1.2.3.4", 0), ("", 1), ("a b", 1), ("fe80::1%eth0", 1), (&*"a".repeat(254), 1)] {
        let bad = PeerAddress { host: host.to_owned(), port };
        assert!(!book.add(bad, Source::Given, 0, START, START), "{host}:{port}");
    }
    for (n, (told, kept)) in [
        (UnixTime::MAX, START.before(NONSENSE_AGE)),
        (UnixTime::default(), START.before(NONSENSE_AGE)),
        (START.after(SECOND), START.before(GOSSIP_PENALTY)),
        (START.before(DAY), START.before(DAY).before(GOSSIP_PENALTY)),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(book.add(public(n), from("1.2.3.4"), 0, told, START));
        assert_eq!(book.get(&public(n)).unwrap().last_seen, kept);
    }
    let mut open = crate::book::tests::book(BookOptions { accept_private: true, ..BookOptions::default() });
    assert!(open.add(address("127.0.0.1:5"), from("127.0.0.1:6"), 0, START, START));
}

#[test]
fn a_stranger_does_not_change_what_a_peer_said_itself() {
    let mut book = with(&["a.example"]);
    let a = address("a.example");
    work(&mut book, &a, START);
    book.add(a.clone(), Source::Dns, 0xff, START, START);
    assert_eq!(book.get(&a).unwrap().services, 1);
    assert_eq!(book.get(&a).unwrap().transport, Transport::V2);
    book.set_transport(&a, Transport::V1);
    book.measured(&a, Some(5), None);
    book.measured(&a, None, Some(SECOND));
    let entry = book.get(&a).unwrap();
    assert_eq!((entry.transport, entry.speed, entry.latency), (Transport::V1, Some(5), Some(SECOND)));
}

#[test]
fn counts_and_views() {
    let mut book = with(&["10.0.0.1", "a.example", "[2a01::1]:1", ONION]);
    work(&mut book, &address("10.0.0.1"), START);
    work(&mut book, &address("a.example"), START.after(SECOND));
    fail(&mut book, &address(ONION), START);
    let counts = book.counts(START);
    assert_eq!((counts.total, counts.tried, counts.worked, counts.banned), (4, 3, 2, 0));
    assert_eq!((counts.ipv4, counts.ipv6, counts.onion, counts.i2p, counts.names), (1, 1, 1, 0, 1));
    let recent: Vec<&str> =
        book.recently_worked(5, START.after(DAY)).iter().map(|entry| &*entry.address.host).collect();
    assert_eq!(recent, ["a.example", "10.0.0.1"]);
    assert!(book.recently_worked(5, START.after(DAY * 31)).is_empty());
    assert_eq!(book.entries().count(), book.len());
}

#[test]
fn a_clock_set_back_kills_no_address() {
    let mut book = with(&["a.example", "b.example"]);
    let wrong = START.after(DAY * 10_000);
    fail(&mut book, &address("a.example"), wrong);
    book.ban(&address("b.example"), "lied", wrong.after(DAY), wrong);
    book.next(START, any);
    let deadline = book.deadline(START).unwrap();
    assert!(deadline <= START.after(SECOND));
    assert_eq!(book.next(deadline, any), Some(address("a.example")));
    assert_eq!(book.get(&address("b.example")).unwrap().ban.as_ref().unwrap().until, START.after(DAY));
}

#[test]
fn absurd_options_do_no_harm() {
    let options = BookOptions {
        max_entries: 0,
        min_back_off: Duration::MAX,
        max_back_off: Duration::MAX,
        max_back_off_unproven: Duration::MAX,
        ..BookOptions::default()
    };
    let mut book = book(options);
    assert!(book.add(address("a.example"), Source::Given, 0, START, START));
    assert!(!book.add(address("b.example"), Source::Given, 0, START, START), "one is the least");
    fail(&mut book, &address("a.example"), START);
    assert!(book.deadline(START).unwrap() <= START.after(DAY * 365));
    fail(&mut book, &address("a.example"), UnixTime::MAX);
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let trace = |seed| {
        let mut book = Book::new(BookOptions::default(), fastrand::Rng::with_seed(seed));
        (0..50).for_each(|n| assert!(book.add(public(n), Source::Dns, 0, START, START)));
        let mut now = START;
        let mut trace = Vec::new();
        for _ in 0..200 {
            if let Some(next) = book.next(now, any) {
                fail(&mut book, &next, now);
                trace.push((now, next));
            } else {
                now = book.deadline(now).unwrap();
            }
        }
        trace
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
