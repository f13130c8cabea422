use std::{ffi::OsString, time::Duration};

use super::*;
use crate::{
    PeerAddress,
    book::{
        BookEntry, Failure, Source, Transport,
        tests::{START, address, book, public},
    },
};

fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn full_of_history() -> Book {
    let mut book = book(BookOptions::default());
    let onion = address("pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333");
    for address in [address("node.example:1"), address("[::1]:8333"), onion] {
        assert!(book.add(address, Source::Dns, u64::MAX, START, START));
    }
    assert!(book.add(public(1), Source::Peer(address("[2a01::1]:9")), 9, START, START));
    let (a, b) = (address("node.example:1"), address("[::1]:8333"));
    book.tried(&a, START);
    book.succeeded(&a, 1033, Transport::V2, START);
    book.measured(&a, Some(1_000_000), Some(Duration::from_micros(1500)));
    book.tried(&b, START);
    book.failed(&b, Failure::Handshake, START);
    book.ban(&b, "sent \"nonsense\" \\ ü", START.after(Duration::from_secs(86_400)), START);
    book
}

fn entries(book: &Book) -> Vec<BookEntry> {
    book.entries().cloned().collect()
}

fn load(file: &BookFile) -> Loaded {
    file.load(BookOptions::default(), random(), START).unwrap()
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_book_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = BookFile::new(Some(folder.path().join("peers.json")), "regtest");
    assert!(load(&file).book.is_empty(), "no file yet");
    let book = full_of_history();
    file.write(&file.text(&book).unwrap()).unwrap();
    file.write(&file.text(&book).unwrap()).unwrap();
    let loaded = load(&file);
    assert!(loaded.problem.is_none());
    assert_eq!(entries(&loaded.book), entries(&book));
    assert_eq!(names(folder.path()), ["peers.json"], "nothing temporary is left");
}

#[test]
fn no_peers_file_is_written_when_disabled() {
    let file = BookFile::new(None, "regtest");
    assert_eq!(file.text(&full_of_history()), None);
    file.write("text").unwrap();
    assert!(load(&file).book.is_empty());
    let folder = tempfile::tempdir().unwrap();
    load(&BookFile::new(Some(folder.path().join("peers.json")), "regtest"));
    assert!(names(folder.path()).is_empty(), "loading writes nothing");
}

#[test]
fn writing_is_atomic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let file = BookFile::new(Some(path.clone()), "regtest");
    file.write("before").unwrap();
    let opened = File::open(&path).unwrap();
    file.write("after").unwrap();
    let mut text = String::new();
    (&opened).read_to_string(&mut text).unwrap();
    assert_eq!(text, "before", "a reader keeps what it opened: the file is replaced, not written over");
    // The temporary file cannot be made: the old one stays.
    fs::create_dir(folder.path().join("peers.json.tmp")).unwrap();
    let error = file.write("never").unwrap_err();
    assert!(matches!(error, BookFileError::Io { action: "write", .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "after");
}

#[test]
fn a_file_torn_anywhere_is_set_aside_or_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let file = BookFile::new(Some(path.clone()), "regtest");
    let text = file.text(&full_of_history()).unwrap();
    for length in 0..text.len() {
        fs::write(&path, &text.as_bytes()[..length]).unwrap();
        let loaded = load(&file);
        let (problem, aside) = loaded.problem.unwrap_or_else(|| panic!("{length} bytes are a book"));
        assert!(matches!(problem, BookProblem::Damaged(_) | BookProblem::NotText), "{problem}");
        assert!(loaded.book.is_empty() && !path.exists());
        assert_eq!(fs::read(&aside).unwrap(), &text.as_bytes()[..length]);
        fs::remove_file(aside).unwrap();
    }
}

#[test]
fn every_damaged_byte_is_set_aside_or_loads() {
    let text = full_of_history().to_json("regtest").into_bytes();
    for place in 0..text.len() {
        for byte in [0, b'"', b'9', b'}', 0xff] {
            let mut damaged = text.clone();
            damaged[place] = byte;
            let Ok(damaged) = std::str::from_utf8(&damaged) else { continue };
            if let Ok(book) = Book::from_json(damaged, "regtest", BookOptions::default(), random(), START) {
                book.entries().for_each(|entry| assert!(entry.address.is_well_formed()));
            }
        }
    }
}

#[test]
fn what_is_set_aside_is_never_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let file = BookFile::new(Some(path.clone()), "regtest");
    let seconds = START.as_secs();
    fs::write(&path, "{").unwrap();
    assert_eq!(load(&file).problem.unwrap().1, folder.path().join(format!("peers.json.damaged-{seconds}")));
    fs::write(&path, r#"{"version":2,"network":"regtest","shelves":[]}"#).unwrap();
    let (problem, _) = load(&file).problem.unwrap();
    assert!(matches!(problem, BookProblem::Version { found: 2 }), "{problem}");
    File::create(&path).unwrap().set_len(MIN_LIMIT + 1).unwrap();
    let (problem, _) = load(&file).problem.unwrap();
    assert!(matches!(problem, BookProblem::TooLarge { .. }), "{problem}");
    assert_eq!(names(folder.path()).len(), 3);
    fs::create_dir(&path).unwrap();
    let error = file.load(BookOptions::default(), random(), START).unwrap_err();
    assert!(matches!(error, BookFileError::Io { action: "read", .. }), "{error}");
}

#[test]
fn a_file_of_another_network_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let other = BookFile::new(Some(path.clone()), "btc main");
    other.write(&other.text(&full_of_history()).unwrap()).unwrap();
    let file = BookFile::new(Some(path.clone()), "bsv main");
    let error = file.load(BookOptions::default(), random(), START).unwrap_err();
    assert!(error.to_string().ends_with("is of network 'btc main', not 'bsv main'"), "{error}");
    assert_eq!(load(&other).book.len(), 4);
}

#[test]
fn a_loaded_book_obeys_its_options_and_the_clock() {
    let text = full_of_history().to_json("regtest");
    let read = |options, now| Book::from_json(&text, "regtest", options, random(), now).unwrap();
    let small = read(BookOptions { max_entries: 1, ..BookOptions::default() }, START);
    let kept: Vec<&str> = small.entries().map(|entry| &*entry.address.host).collect();
    assert_eq!(kept, ["node.example"], "the one that worked");

    let earlier = START.before(Duration::from_secs(1_000_000));
    let book = read(BookOptions::default(), earlier);
    for entry in book.entries() {
        assert!(entry.last_seen <= earlier && entry.last_tried <= Some(earlier));
        assert!(entry.ban.as_ref().is_none_or(|ban| ban.until <= earlier.after(Duration::from_secs(86_400))));
    }
    assert_eq!(book.counts(earlier).banned, 1);
}

#[test]
fn what_was_given_once_is_not_given_for_ever() {
    let mut before = book(BookOptions::default());
    before.add(address("a.example"), Source::Given, 0, START, START);
    let text = before.to_json("regtest");
    let mut after = Book::from_json(&text, "regtest", BookOptions::default(), random(), START).unwrap();
    assert_eq!(after.get(&address("a.example")).unwrap().source, Source::Book);
    after.add(address("a.example"), Source::Given, 0, START, START);
    assert!(after.get(&address("a.example")).unwrap().is_given());
}

#[test]
fn the_longest_entry_fits_its_limit() {
    let mut book = book(BookOptions { accept_private: true, ..BookOptions::default() });
    let host = "\"".repeat(253);
    let far = UnixTime::from_millis(u64::MAX / 2);
    let long = PeerAddress { host: host.clone(), port: 65_535 };
    let source = Source::Peer(long.clone());
    assert!(book.add(long.clone(), source, u64::MAX, far, far));
    book.tried(&long, far);
    book.succeeded(&long, u64::MAX, Transport::Unknown, far);
    book.ended(&long, Duration::MAX, Failure::Unreachable, far);
    book.measured(&long, Some(u64::MAX), Some(Duration::MAX));
    book.ban(&long, &"\\".repeat(300), UnixTime::MAX, far);
    let length = book.to_json("").len() as u64;
    assert!(length <= MAX_ENTRY_SIZE, "{length} bytes");
}
