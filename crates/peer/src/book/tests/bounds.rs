//! How much who may fill, and who makes room.

use super::*;

#[test]
fn one_source_fills_its_share_only() {
    let mut book = small(320);
    for n in 0..1000 {
        book.add(public(n), from("200.1.1.1"), 0, START, START.after(SECOND * n as u32));
    }
    assert_eq!(book.len(), 10, "one host");
    for n in 0..1000 {
        book.add(public(1000 + n), from(&format!("200.1.2.{}", n % 200)), 0, START, START);
    }
    assert_eq!(book.len(), 20, "one network of hosts");
    for n in 0..1000 {
        let told = address(&format!("150.1.{}.{}", n / 200, n % 200));
        book.add(told, from(&format!("201.{}.2.2", n % 256)), 0, START, START);
    }
    assert_eq!(book.len(), 30, "addresses of one network");
    (0..1000).for_each(|n| {
        book.add(public(3000 + n), Source::Dns, 0, START, START);
    });
    assert_eq!(book.len(), 110, "DNS seeds");
    let given = (0..310).filter(|n| book.add(public(5000 + n), Source::Given, 0, START, START)).count();
    assert_eq!((given, book.len()), (310, 320));
}

#[test]
fn a_flood_does_not_flush_what_works() {
    let mut book = small(64);
    assert!(book.add(address("a.example"), Source::Given, 0, START, START));
    for n in 0..30 {
        assert!(book.add(public(n), from(&format!("{}.7.7.7", 100 + n)), 0, START, START));
        work(&mut book, &public(n), START);
    }
    book.add(public(30), Source::Dns, 0, START, START);
    book.ban(&public(30), "lied", START.after(DAY * 100), START);
    let flood = |book: &mut Book, now: UnixTime| {
        for n in 0..5000 {
            let source = format!("{}.{}.9.9", 100 + n % 100, n % 251);
            book.add(public(100 + n), from(&source), 0, now, now);
            assert!(book.len() <= 64);
        }
    };
    let now = START.after(DAY * 29);
    flood(&mut book, now);
    assert_eq!(book.len(), 64);
    assert_eq!(book.counts(now).worked, 30);
    assert!(book.get(&address("a.example")).is_some() && book.get(&public(30)).is_some());
    // All that is left are good ones, one given, one banned: the banned one is what a newcomer may replace.
    let untried: Vec<PeerAddress> = book
        .entries()
        .filter(|entry| entry.last_tried.is_none() && entry.ban.is_none())
        .map(|e| e.address.clone())
        .collect();
    untried.iter().for_each(|address| work(&mut book, address, now));
    work(&mut book, &address("a.example"), now);
    assert!(book.add(public(9999), Source::Dns, 0, now, now) && book.get(&public(30)).is_none());
}

#[test]
fn the_worst_makes_room() {
    let mut book = small(4);
    for n in 0..4 {
        assert!(book.add(
            public(n),
            from(&format!("{}.7.7.7", 100 + n)),
            0,
            START.after(SECOND * n as u32),
            START.after(DAY)
        ));
    }
    let now = START.after(DAY);
    assert!(!book.add(public(10), from("150.1.1.1"), 0, START, now), "no better than any");
    fail(&mut book, &public(2), now);
    fail(&mut book, &public(3), now);
    fail(&mut book, &public(3), now);
    let mut gone = Vec::new();
    for n in 20..23 {
        let before: BTreeSet<PeerAddress> = book.entries().map(|entry| entry.address.clone()).collect();
        assert!(book.add(public(n), from(&format!("{}.8.8.8", 100 + n)), 0, now, now));
        gone.extend(before.into_iter().filter(|address| book.get(address).is_none()));
    }
    assert_eq!(gone, [public(3), public(2), public(0)], "most failures, then failures, then the oldest");
}

#[test]
fn a_sample_tells_a_part_and_nothing_private() {
    let mut book = with(&["10.0.0.1", "a.example"]);
    (0..100).for_each(|n| assert!(book.add(public(n), Source::Dns, 0, START, START)));
    (0..3).for_each(|_| fail(&mut book, &public(7), START));
    let mut told = BTreeSet::new();
    for _ in 0..100 {
        let sample: BTreeSet<PeerAddress> =
            book.sample(usize::MAX, START).into_iter().map(|entry| entry.address.clone()).collect();
        assert_eq!(sample.len(), 23);
        told.extend(sample);
    }
    assert_eq!(told.len(), 99);
    assert!(told.iter().all(PeerAddress::is_routable) && !told.contains(&public(7)));
    assert_eq!(book.sample(5, START).len(), 5);
    assert!(book.sample(5, START.after(DAY * 31)).is_empty(), "too old");
    let mut large = super::super::tests::book(BookOptions::default());
    (0..4096 + 2000).for_each(|n| {
        large.add(public(n), if n < 4096 { Source::Dns } else { Source::Book }, 0, START, START);
    });
    assert_eq!(large.sample(usize::MAX, START).len(), 1000);
}

#[test]
fn a_choice_in_a_full_book_looks_at_one_address() {
    let mut book = book(BookOptions::default());
    (0..16_384).for_each(|n| {
        let source = format!("{}.{}.1.1", 100 + n / 256 % 64, n % 256);
        book.add(public(n), from(&source), 0, START, START);
    });
    assert_eq!(book.len(), 16_384);
    let mut looks = 0;
    for _ in 0..1000 {
        let next = book.next(START, |_, _| {
            looks += 1;
            true
        });
        fail(&mut book, &next.unwrap(), START);
    }
    assert_eq!(looks, 1000);
}
