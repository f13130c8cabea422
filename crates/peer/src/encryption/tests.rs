use bip324::{GarbageResult, Handshake, InboundCipher, ReceivedKey, VersionResult};
use bytes::BufMut;
use tipward_wire::{
    Dialect, Incoming,
    bitcoin::{Codec, Message, Network},
};

use super::*;

const MAGIC: [u8; 4] = Network::BTC.magic;

fn entropy(seed: u64, garbage: usize) -> Entropy {
    let mut entropy = Entropy::from_seed(seed);
    entropy.garbage = (0..garbage).map(|n| n as u8).collect();
    entropy
}

fn record(contents: &[u8]) -> BytesMut {
    let mut record = BytesMut::new();
    record.put_u32_le(contents.len() as u32);
    record.put_slice(contents);
    record
}

/// One side: the machine, what it has to say, what it has heard.
struct Side {
    machine: Encryption,
    records: BytesMut,
    sent: BytesMut,
    input: BytesMut,
    heard: BytesMut,
}

impl Side {
    fn new(machine: Encryption) -> Self {
        let empty = BytesMut::new;
        Self { machine, records: empty(), sent: empty(), input: empty(), heard: empty() }
    }

    fn pair(seed: u64, garbage: (usize, usize)) -> (Self, Self) {
        let options = EncryptionOptions::default;
        let ours = Encryption::initiator(MAGIC, options(), entropy(seed, garbage.0));
        let theirs = Encryption::responder(MAGIC, options(), entropy(seed + 1, garbage.1));
        (Self::new(ours), Self::new(theirs))
    }

    fn say(&mut self, contents: &[u8]) {
        self.records.unsplit(record(contents));
        self.machine.seal(&mut self.records, &mut self.sent).unwrap();
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), EncryptionError> {
        self.input.extend_from_slice(bytes);
        let mut plain = BytesMut::new();
        while self.machine.receive(&mut self.input, &mut plain)? {
            self.heard.unsplit(plain.split());
        }
        self.machine.seal(&mut self.records, &mut self.sent)
    }
}

/// Carries bytes both ways in reads of up to `most` bytes until nothing is under way.
fn talk(a: &mut Side, b: &mut Side, random: &mut fastrand::Rng, most: usize) -> Result<(), EncryptionError> {
    for side in [&mut *a, &mut *b] {
        side.machine.seal(&mut side.records, &mut side.sent)?;
    }
    while !(a.sent.is_empty() && b.sent.is_empty()) {
        for _ in 0..2 {
            let read = a.sent.len().min(random.usize(1..=most));
            b.hear(&a.sent.split_to(read))?;
            let read = b.sent.len().min(random.usize(1..=most));
            a.hear(&b.sent.split_to(read))?;
        }
    }
    Ok(())
}

/// Two machines that have shaken hands.
fn ready() -> (Side, Side) {
    let (mut a, mut b) = Side::pair(1, (20, 30));
    talk(&mut a, &mut b, &mut fastrand::Rng::with_seed(1), 5000).unwrap();
    assert!(a.machine.is_ready() && b.machine.is_ready());
    (a, b)
}

#[test]
fn two_sides_understand_each_other_however_the_bytes_arrive() {
    let garbage = [(0, 0), (0, 4095), (4095, 0), (4095, 4095), (17, 300)];
    for (case, garbage) in garbage.into_iter().enumerate() {
        for most in [1, 2, 64, 10_000] {
            let mut random = fastrand::Rng::with_seed(case as u64);
            let (mut a, mut b) = Side::pair(random.u64(..1000), garbage);
            // Said before the handshake is done, it waits for that.
            a.say(b"early");
            b.say(b"bird");
            talk(&mut a, &mut b, &mut random, most).unwrap();
            assert_eq!((&a.heard[..], &b.heard[..]), (&record(b"bird")[..], &record(b"early")[..]));
            assert_eq!(a.machine.session_id(), b.machine.session_id());
            assert!(a.machine.session_id().is_some());

            // More packets than one key is for (224), of many lengths.
            let mut expected = b.heard.clone();
            for n in 0..500 {
                let contents = vec![n as u8; random.usize(0..100)];
                a.say(&contents);
                expected.unsplit(record(&contents));
            }
            talk(&mut a, &mut b, &mut random, most).unwrap();
            assert_eq!(b.heard, expected);
            assert!(b.machine.is_between_packets() && b.input.is_empty() && a.records.is_empty());
        }
    }
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let trace = |seed| {
        let entropy = Entropy::from_seed(seed);
        let mut side = Side::new(Encryption::initiator(MAGIC, EncryptionOptions::default(), entropy));
        side.machine.seal(&mut side.records, &mut side.sent).unwrap();
        side.sent
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
    let lengths: Vec<usize> = (0..2000).map(|seed| Entropy::from_seed(seed).garbage.len()).collect();
    assert!(lengths.iter().all(|length| *length <= 4095));
    assert!(lengths.iter().any(|length| *length < 100) && lengths.iter().any(|length| *length > 4000));
    let (one, other) = (Entropy::from_system().unwrap(), Entropy::from_system().unwrap());
    assert_ne!(one.secret, other.secret);
}

#[test]
fn who_does_not_encrypt_gets_little_garbage() {
    let mut lengths = std::collections::BTreeSet::new();
    for garbage in 0..=4095 {
        let (mut a, _) = Side::pair(1, (garbage, 0));
        a.machine.seal(&mut a.records, &mut a.sent).unwrap();
        assert!((64..=64 + 128).contains(&a.sent.len()) && a.sent.len() <= 64 + garbage, "{garbage}");
        lengths.insert(a.sent.split().len());
        let answer = a.hear(&MAGIC);
        assert_eq!((answer, a.sent.len()), (Err(EncryptionError::V1Peer), 0));
    }
    assert_eq!(lengths.len(), 129, "every length is seen");
}

#[test]
fn a_codec_speaks_through_it() {
    let (mut a, mut b) = ready();
    let mut codec = Codec::new(Network::BTC);
    assert!(codec.use_v2());
    codec.encode(&Message::Verack, &mut a.records);
    codec.encode(&Message::Ping(7), &mut a.records);
    talk(&mut a, &mut b, &mut fastrand::Rng::with_seed(3), 3).unwrap();
    assert!(matches!(codec.decode(&mut b.heard), Ok(Some(Incoming::Message(Message::Verack)))));
    assert!(matches!(codec.decode(&mut b.heard), Ok(Some(Incoming::Message(Message::Ping(7))))));
    assert!(b.heard.is_empty());
}

#[test]
fn a_record_is_made_where_its_packet_was_read() {
    let (mut a, mut b) = ready();
    a.say(&[7; 1000]);
    let mut input = a.sent.split();
    let place = input.as_ptr();
    let mut plain = BytesMut::new();
    assert_eq!(b.machine.receive(&mut input, &mut plain), Ok(true));
    assert_eq!(plain.as_ptr(), place);
    assert_eq!(plain, record(&[7; 1000]));
    // Behind what was not taken yet it is copied, and one call gives one record.
    a.say(b"one");
    a.say(b"two");
    let mut input = a.sent.split();
    assert_eq!(b.machine.receive(&mut input, &mut plain), Ok(true));
    assert_eq!(plain[1004..], record(b"one")[..]);
    assert_eq!(b.machine.receive(&mut input, &mut plain), Ok(true));
    assert_eq!(b.machine.receive(&mut input, &mut plain), Ok(false));
    assert_eq!(plain[1011..], record(b"two")[..]);
}

/// A peer made of the library's own parts, up to its garbage and version, with decoys before that.
fn library_peer(machine: &mut Side, decoys: &[&[u8]]) -> (CipherSession, Vec<u8>) {
    machine.machine.seal(&mut machine.records, &mut machine.sent).unwrap();
    let garbage = [9; 33];
    let curve = secp256k1::Secp256k1::signing_only();
    let mut secret = handshake_secret();
    let handshake = Handshake::new_with_rng(MAGIC, Role::Responder, &mut secret, &curve).unwrap();
    let mut sent = vec![0; 64 + garbage.len()];
    let handshake = handshake.send_key(Some(&garbage), &mut sent).unwrap();
    let handshake = handshake.receive_key(machine.sent[..64].try_into().unwrap()).unwrap();
    let mut version = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(Some(decoys))];
    let handshake = handshake.send_version(&mut version, Some(decoys)).unwrap();
    sent.extend(version);
    // The machine's terminator and version come once it has our key.
    machine.hear(&sent[..64]).unwrap();
    let theirs = machine.sent.split();
    let GarbageResult::FoundGarbage { mut handshake, consumed_bytes } =
        handshake.receive_garbage(&theirs[64..]).unwrap_or_else(|error| panic!("{error}"))
    else {
        panic!("no terminator")
    };
    let mut packet = theirs[64 + consumed_bytes..].to_vec();
    let length = handshake.decrypt_packet_len(packet[..3].try_into().unwrap()).unwrap();
    assert_eq!(length, packet.len() - 3);
    let Ok(VersionResult::Complete { cipher }) = handshake.receive_version(&mut packet[3..]) else {
        panic!("no version")
    };
    (cipher, sent.split_off(64))
}

fn handshake_secret() -> impl bip324::FillBytes {
    struct Fixed;
    impl bip324::FillBytes for Fixed {
        fn fill_bytes(&mut self, bytes: &mut [u8; 32]) {
            *bytes = [3; 32];
        }
    }
    Fixed
}

fn initiator(max_contents: usize) -> Side {
    let options = EncryptionOptions { max_contents };
    Side::new(Encryption::initiator(MAGIC, options, entropy(8, 100)))
}

fn packet(cipher: &mut CipherSession, contents: &[u8], kind: PacketType) -> Vec<u8> {
    let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
    cipher.outbound().encrypt(contents, &mut packet, kind, None).unwrap();
    packet
}

#[test]
fn decoys_are_dropped_before_and_after_the_version() {
    for chunk in [1, 13, 10_000] {
        let mut side = initiator(4_000_013);
        let (mut cipher, mut bytes) = library_peer(&mut side, &[b"nothing", &[0; 3000], b""]);
        for decoy in [&b"more"[..], b"", &[1; 500]] {
            bytes.extend(packet(&mut cipher, decoy, PacketType::Decoy));
        }
        bytes.extend(packet(&mut cipher, b"word", PacketType::Genuine));
        bytes.extend(packet(&mut cipher, b"end", PacketType::Decoy));
        for bytes in bytes.chunks(chunk) {
            side.hear(bytes).unwrap();
        }
        assert_eq!(side.heard, record(b"word"));
        assert_eq!(side.machine.session_id().as_ref(), Some(cipher.id()));
        // And the library reads what we say.
        side.say(b"back");
        let mut back = side.sent.split();
        let length = cipher.inbound().decrypt_packet_len(back[..3].try_into().unwrap());
        assert_eq!(InboundCipher::decryption_buffer_len(length), 5);
        let (kind, contents) = cipher.inbound().decrypt_in_place(&mut back[3..], None).unwrap();
        assert_eq!((kind, contents), (PacketType::Genuine, &b"\0back"[..]));
    }
}

#[test]
fn any_byte_that_was_changed_is_noticed() {
    let mut changed = 0;
    for at in (0..1000).step_by(7) {
        let mut side = initiator(100);
        let (mut cipher, mut bytes) = library_peer(&mut side, &[b"decoy"]);
        bytes.extend(packet(&mut cipher, b"word", PacketType::Genuine));
        let Some(byte) = bytes.get_mut(at) else { break };
        *byte ^= 1;
        // A damaged terminator is searched for on and on, a damaged length waits for what does not come.
        bytes.resize(bytes.len() + 5000, 0);
        let error = side.hear(&bytes).unwrap_err();
        let is_expected = matches!(
            error,
            EncryptionError::Forged | EncryptionError::TooLong { .. } | EncryptionError::NoTerminator { .. }
        );
        assert!(is_expected, "{at}: {error}");
        assert!(side.heard.is_empty(), "{at}");
        assert_eq!(side.hear(&[0]), Err(error), "it stays so");
        changed += 1;
    }
    assert!(changed > 10);
}

#[test]
fn a_changed_key_makes_other_keys() {
    let (mut a, mut b) = Side::pair(1, (0, 0));
    for side in [&mut a, &mut b] {
        side.machine.seal(&mut side.records, &mut side.sent).unwrap();
    }
    a.sent[10] ^= 1;
    b.hear(&a.sent.split()).unwrap();
    a.hear(&b.sent.split()).unwrap();
    assert_eq!(a.hear(&[0; 5000]), Err(EncryptionError::NoTerminator { limit: 4095 }));
}

#[test]
fn garbage_ends_within_its_limit() {
    let mut side = initiator(100);
    let (_, bytes) = library_peer(&mut side, &[]);
    // Its 33 bytes of garbage are replaced by more, which the version packet does not authenticate.
    let after = &bytes[33..];
    for (garbage, error) in [
        (4095, EncryptionError::Forged),
        (4096, EncryptionError::NoTerminator { limit: 4095 }),
        (100_000, EncryptionError::NoTerminator { limit: 4095 }),
    ] {
        for chunk in [100, 200_000] {
            let mut side = initiator(100);
            library_peer(&mut side, &[]);
            let bytes = [&vec![1; garbage][..], after].concat();
            let result = bytes.chunks(chunk).try_for_each(|bytes| side.hear(bytes));
            assert_eq!(result, Err(error.clone()), "{garbage}");
        }
    }
}

#[test]
fn packets_that_are_too_long_are_refused_by_their_length() {
    // In the clear a peer could not announce what it does not send; here only one who has the keys can.
    let mut side = initiator(100);
    let (mut cipher, mut bytes) = library_peer(&mut side, &[]);
    bytes.extend(packet(&mut cipher, &[0; 100], PacketType::Genuine));
    side.hear(&bytes).unwrap();
    assert_eq!(side.heard.len(), 104);
    for length in [101, 1 << 20] {
        let mut side = initiator(100);
        let (mut cipher, bytes) = library_peer(&mut side, &[]);
        side.hear(&bytes).unwrap();
        let long = packet(&mut cipher, &vec![0; length], PacketType::Decoy);
        assert_eq!(side.hear(&long[..2]), Ok(()));
        assert_eq!(side.hear(&long[2..3]), Err(EncryptionError::TooLong { length, limit: 100 }));
    }
    // Before the version, too.
    let mut side = initiator(100);
    let (_, bytes) = library_peer(&mut side, &[&[0; 101]]);
    assert_eq!(side.hear(&bytes[..33 + 16 + 3]), Err(EncryptionError::TooLong { length: 101, limit: 100 }));
}

#[test]
fn what_no_packet_can_hold_is_not_sealed() {
    let (mut a, _) = ready();
    a.records.put_u32_le(1 << 24);
    let error = a.machine.seal(&mut a.records, &mut a.sent).unwrap_err();
    assert_eq!(error, EncryptionError::TooLong { length: 1 << 24, limit: (1 << 24) - 1 });
    assert!(a.sent.is_empty());
}

#[test]
fn a_record_that_is_not_whole_waits() {
    let (mut a, mut b) = ready();
    let whole = record(b"word");
    for byte in &whole[..] {
        a.records.put_u8(*byte);
        talk(&mut a, &mut b, &mut fastrand::Rng::with_seed(1), 100).unwrap();
    }
    assert_eq!(b.heard, whole);
}

#[test]
fn a_peer_in_the_clear_is_told_from_an_encrypted_one() {
    let mut side = initiator(100);
    assert!(!side.machine.has_heard());
    assert_eq!(side.hear(&[]), Ok(()));
    assert!(!side.machine.has_heard(), "closed without a word");
    assert_eq!(side.hear(&MAGIC[..3]), Ok(()));
    assert!(side.machine.has_heard());
    let error = side.hear(&MAGIC[3..]).unwrap_err();
    assert!(error.is_v1_peer() && !EncryptionError::Forged.is_v1_peer());
}

#[test]
fn a_dialler_in_the_clear_shows_by_sixteen_bytes() {
    let mut start = [&MAGIC[..], b"version\0\0\0\0\0"].concat();
    for length in 0..16 {
        assert_eq!(is_v1(MAGIC, &start[..length]), None);
    }
    assert_eq!(is_v1(MAGIC, &start), Some(true));
    start.extend_from_slice(&[1, 2, 3]);
    assert_eq!(is_v1(MAGIC, &start), Some(true));
    for at in 0..16 {
        start[at] ^= 1;
        for length in 0..start.len() {
            let expected = (length > at).then_some(false);
            assert_eq!(is_v1(MAGIC, &start[..length]), expected, "{at} {length}");
        }
        start[at] ^= 1;
    }
    assert_eq!(is_v1(Network::BTC_REGTEST.magic, &start), Some(false));
}
