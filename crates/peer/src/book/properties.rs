//! Random histories against the promises of a book.

use proptest::prelude::*;

use super::{
    index::Shelf,
    tests::{SECOND, START, book, public},
    *,
};

const MAX: usize = 64;
/// More than fit.
const ADDRESSES: usize = 100;

#[derive(Debug, Clone)]
enum Act {
    Add { address: usize, source: usize, age: u64 },
    Given(usize),
    Tried(usize),
    Succeeded(usize),
    Failed(usize, Failure),
    Ended(usize, u64, Failure),
    Ban(usize, u64),
    Unban(usize),
    Recycle,
    Next { skip: usize },
    Wait(i64),
    Reload,
}

fn failure() -> impl Strategy<Value = Failure> {
    prop::sample::select(vec![
        Failure::Unreachable,
        Failure::Handshake,
        Failure::Closed,
        Failure::Poor,
        Failure::Local,
    ])
}

fn act() -> impl Strategy<Value = Act> {
    let address = 0..ADDRESSES;
    prop_oneof![
        6 => (address.clone(), 0..40_usize, 0..10_000_000_u64)
            .prop_map(|(address, source, age)| Act::Add { address, source, age }),
        1 => (0..5_usize).prop_map(Act::Given),
        4 => address.clone().prop_map(Act::Tried),
        2 => address.clone().prop_map(Act::Succeeded),
        3 => (address.clone(), failure()).prop_map(|(n, failure)| Act::Failed(n, failure)),
        2 => (address.clone(), 0..200_u64, failure()).prop_map(|(n, lived, failure)| Act::Ended(n, lived, failure)),
        1 => (address.clone(), 0..200_000_u64).prop_map(|(n, secs)| Act::Ban(n, secs)),
        1 => address.prop_map(Act::Unban),
        1 => Just(Act::Recycle),
        3 => (0..4_usize).prop_map(|skip| Act::Next { skip }),
        2 => (-100_000_i64..4_000_000).prop_map(Act::Wait),
        1 => Just(Act::Reload),
    ]
}

fn apply(book: &mut Book, now: &mut UnixTime, act: &Act) {
    let at = *now;
    match act {
        Act::Add { address, source, age } => {
            let source = match source {
                0 => Source::Dns,
                1 => Source::Book,
                n => Source::Peer(public(1000 + 7 * (n / 3) + n % 3 * 4)),
            };
            book.add(public(*address), source, 1, at.before(SECOND * *age as u32), at);
        }
        Act::Given(n) => {
            book.add(public(*n), Source::Given, 1, at, at);
        }
        Act::Tried(n) => book.tried(&public(*n), at),
        Act::Succeeded(n) => book.succeeded(&public(*n), 1, Transport::V1, at),
        Act::Failed(n, failure) => book.failed(&public(*n), *failure, at),
        Act::Ended(n, lived, failure) => book.ended(&public(*n), SECOND * *lived as u32, *failure, at),
        Act::Ban(n, secs) => book.ban(&public(*n), "lied", at.after(SECOND * *secs as u32), at),
        Act::Unban(n) => book.unban(&public(*n)),
        Act::Recycle => {
            book.recycle(at);
        }
        Act::Next { skip } => {
            let mut skip = *skip;
            let next = book.next(at, |_, _| {
                let pass = skip == 0;
                skip = skip.saturating_sub(1);
                pass
            });
            if let Some(next) = next {
                assert!(!book.is_banned(&next, at));
                book.tried(&next, at);
            }
        }
        Act::Wait(millis) if *millis < 0 => *now = at.before(Duration::from_millis(millis.unsigned_abs())),
        Act::Wait(millis) => *now = at.after(Duration::from_millis(millis.unsigned_abs())),
        Act::Reload => {
            let text = book.to_json("net");
            let random = fastrand::Rng::with_seed(book.random.u64(..));
            let read = Book::from_json(&text, "net", book.options.clone(), random, at).unwrap();
            assert!(read.len() <= book.len());
            *book = read;
        }
    }
}

/// Bounds hold, and the index is what it would be if it were made anew.
fn check(book: &Book) {
    assert!(book.len() <= MAX);
    assert_eq!(book.ids.len(), book.slots.len());
    let mut anew = Index::default();
    book.slots.iter().for_each(|(id, slot)| anew.insert(*id, slot));
    assert!(anew.counts().eq(book.index.counts()), "shelves");
    assert_eq!(anew.untried(), book.index.untried());
    for (shelf, count) in book.index.counts() {
        assert!(count <= shelf.limit(MAX), "{shelf:?}: {count}");
    }
    assert_eq!(
        book.index.counts().filter(|(shelf, _)| **shelf == Shelf::All).count(),
        usize::from(!book.is_empty())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_and_nothing_is_dead_for_ever(seed: u64, acts in prop::collection::vec(act(), 1..100)) {
        let options = BookOptions { max_entries: MAX, ..BookOptions::default() };
        let mut book = Book::new(options, fastrand::Rng::with_seed(seed));
        let mut now = START;
        for act in &acts {
            apply(&mut book, &mut now, act);
            check(&book);
        }
        // Whatever is connected ends; then every address comes up within a time that follows from the longest pause and ban.
        let all: Vec<PeerAddress> = book.entries().map(|entry| entry.address.clone()).collect();
        all.iter().for_each(|address| book.ended(address, SECOND, Failure::Poor, now));
        let mut left: std::collections::BTreeSet<PeerAddress> = all.into_iter().collect();
        let end = now.after(SECOND * 400_000);
        while !left.is_empty() {
            while let Some(next) = book.next(now, |_, _| true) {
                book.tried(&next, now);
                book.failed(&next, Failure::Unreachable, now);
                left.remove(&next);
            }
            let Some(deadline) = book.deadline(now) else { break };
            prop_assert!(deadline > now, "no time would pass");
            now = deadline;
            prop_assert!(now < end, "dead for ever: {left:?}");
        }
        check(&book);
        prop_assert!(left.is_empty(), "dead for ever: {left:?}");
    }

    #[test]
    fn any_text_is_a_book_or_a_problem(text in ".{0,200}") {
        let random = fastrand::Rng::with_seed(1);
        prop_assert!(Book::from_json(&text, "net", BookOptions::default(), random, START).is_err());
    }

    #[test]
    fn one_host_cannot_take_more_than_its_share(told in prop::collection::vec((0..20_000_usize, 0..100_000_u32), 1..200)) {
        let mut book = book(BookOptions { max_entries: 640, ..BookOptions::default() });
        (0..600).for_each(|n| { book.add(public(n), Source::Peer(public(21_000 - n)), 1, START, START); });
        let honest = book.len();
        for (n, later) in told {
            book.add(public(n), Source::Peer(public(30_000)), 1, UnixTime::MAX, START.after(SECOND * later));
        }
        let own = |entry: &&BookEntry| entry.source == Source::Peer(public(30_000));
        let taken = book.entries().filter(own).count();
        prop_assert!(taken <= 20, "{taken}");
        prop_assert!(book.len() - taken >= honest - 20);
    }
}
