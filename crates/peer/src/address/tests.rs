use super::*;

const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
const I2P: &str = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p";

fn parse(text: &str) -> PeerAddress {
    PeerAddress::parse(text, 8333).unwrap()
}

#[test]
fn every_form_round_trips() {
    for (text, host, port) in [
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("node.example", "node.example", 8333),
        ("node.example:18444", "node.example", 18444),
        ("[::1]:8334", "::1", 8334),
        ("[2001:db8::7]", "2001:db8::7", 8333),
        ("::1", "::1", 8333),
        (ONION, ONION, 8333),
        (I2P, I2P, 8333),
    ] {
        let address = PeerAddress::parse(text, 8333).unwrap();
        assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
        assert_eq!(PeerAddress::parse(&address.to_string(), 1), Ok(address));
    }
}

#[test]
fn what_is_no_address_is_refused() {
    let long = "a".repeat(254);
    for text in [
        "",
        ".",
        ":8333",
        "host:",
        "host:0",
        "host:70000",
        "host:x",
        "[::1",
        "[host]:1",
        "[::1]8333",
        "a b:1",
        "1:2:3",
        "a]:1",
        &long,
    ] {
        assert!(PeerAddress::parse(text, 8333).is_err(), "{text}");
    }
}

#[test]
fn one_node_has_one_address() {
    for (text, normal) in [
        ("Node.Example.", "node.example:8333"),
        ("[0:0:0:0:0:0:0:1]:5", "[::1]:5"),
        ("[2001:DB8:0::7]:5", "[2001:db8::7]:5"),
        ("[::ffff:1.2.3.4]:5", "1.2.3.4:5"),
        ("::FFFF:0102:0304", "1.2.3.4:8333"),
        (&ONION.to_ascii_uppercase(), &format!("{ONION}:8333")),
    ] {
        assert_eq!(parse(text).to_string(), normal, "{text}");
    }
    let by_hand = PeerAddress { host: "[::FFFF:1.2.3.4]".to_owned(), port: 5 };
    assert_eq!(by_hand.normalized(), parse("1.2.3.4:5"));
    let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().unwrap();
    assert_eq!(PeerAddress::from(mapped), parse("1.2.3.4:5"));
}

#[test]
fn kinds() {
    assert_eq!(parse("1.2.3.4").kind(), HostKind::Ipv4([1, 2, 3, 4].into()));
    assert_eq!(parse("::1").kind(), HostKind::Ipv6(Ipv6Addr::LOCALHOST));
    assert_eq!(parse(ONION).kind(), HostKind::Onion);
    assert_eq!(parse(I2P).kind(), HostKind::I2p);
    for name in ["node.example", "expyuzz4wqqyqhjn.onion", &ONION[1..], "a.b32.i2p"] {
        assert_eq!(parse(name).kind(), HostKind::Name, "{name}");
    }
}

#[test]
fn groups_are_as_bitcoin_core_has_them() {
    let group = |text: &str| parse(text).network_group();
    assert_eq!(group("1.2.3.4"), NetworkGroup::Ipv4([1, 2]));
    assert_eq!(group("[::ffff:1.2.9.9]:1"), NetworkGroup::Ipv4([1, 2]));
    assert_eq!(group("2002:0102:0304::1"), NetworkGroup::Ipv4([1, 2]), "6to4");
    assert_eq!(group("2001:0:9999:9999:9999:9999:fefd:fcfb"), NetworkGroup::Ipv4([1, 2]), "teredo");
    assert_eq!(group("64:ff9b::102:304"), NetworkGroup::Ipv4([1, 2]), "NAT64");
    assert_eq!(group("2a01:4f8:1:2::3"), NetworkGroup::Ipv6([0x2a, 0x01, 0x04, 0xf8]));
    assert_eq!(group(ONION), NetworkGroup::Onion(15 >> 1));
    assert_eq!(group(I2P), NetworkGroup::I2p(20 >> 1));
    assert_ne!(group("10.0.0.1"), group("10.0.0.2"), "every private host is by itself");
    assert_ne!(group("127.0.0.1"), group("127.0.0.2"));
    assert_eq!(group("127.0.0.1:1"), group("127.0.0.1:2"));
    assert_ne!(group("a.example"), group("b.example"));
}

#[test]
fn what_no_stranger_can_reach_is_not_routable() {
    for text in [
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "2001:10::1",
        "2002:7f00:1::1",
        "64:ff9b::7f00:1",
        "localhost",
        "intranet",
        "a.local",
        "expyuzz4wqqyqhjn.onion",
        "127.1",
        "1.0x7f",
    ] {
        assert!(!parse(text).is_routable(), "{text}");
    }
    for text in ["1.2.3.4", "100.63.0.1", "2a01:4f8::1", "2002:102:304::1", "node.example", ONION, I2P] {
        assert!(parse(text).is_routable(), "{text}");
    }
}
