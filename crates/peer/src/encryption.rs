//! The encrypted transport of BIP 324 as a machine: bytes of the socket in, records of the codec out, and back.
//!
//! What passes between this and a [`Codec`](crate::wire::bitcoin::Codec) that was told to
//! [`use_v2`](crate::wire::bitcoin::Codec::use_v2) are records: the length of a packet's contents as u32, little-endian,
//! and the contents. Ciphers and key exchange are the `bip324` crate's.

use std::fmt;

use bip324::{CipherSession, NUM_LENGTH_BYTES, OutboundCipher, PacketType, Role};
use bytes::{Buf, BytesMut};

pub use entropy::Entropy;
use handshake::Handshaking;

mod entropy;
mod handshake;

/// The size of a record's length field, and of a packet's length and header together: a record is made in place.
const LENGTH: usize = 4;
/// A packet's header and authentication tag, in bytes.
const HEADER_AND_TAG: usize = 17;
/// The bit of a packet's header that marks a decoy; the others mean nothing yet.
const DECOY: u8 = 0x80;
/// The longest contents that a packet can have, in bytes: their length takes three.
const LONGEST: usize = (1 << 24) - 1;

/// What a connection accepts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncryptionOptions {
    /// The longest contents of a packet accepted, in bytes: message type and payload. Decoys count too. A packet is buffered
    /// whole, for it can't be trusted before its end. 4,000,013: the protocol's longest message and the longest type.
    pub max_contents: usize,
}

impl Default for EncryptionOptions {
    fn default() -> Self {
        Self { max_contents: 4_000_013 }
    }
}

/// Why an encrypted connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptionError {
    /// The peer answered in the clear.
    #[error("the peer does not encrypt")]
    V1Peer,
    /// The peer's garbage does not end where it must.
    #[error("no terminator after {limit} bytes of garbage")]
    NoTerminator {
        /// The most bytes of garbage allowed.
        limit: usize,
    },
    /// A packet is longer than accepted. Nothing was allocated for it.
    #[error("a packet announces {length} bytes, the limit is {limit}")]
    TooLong {
        /// The length of its contents, in bytes.
        length: usize,
        /// The most that is accepted, in bytes.
        limit: usize,
    },
    /// A packet is not what the peer sent, or the peer has other keys than we.
    #[error("a packet does not authenticate")]
    Forged,
    /// No key or packet can be made of what this side gave. Not the peer's fault.
    #[error("no key or packet can be made of what was given")]
    Cipher,
}

impl EncryptionError {
    /// Whether the peer speaks the protocol in the clear: dial it again without encryption.
    #[must_use]
    pub fn is_v1_peer(&self) -> bool {
        matches!(self, Self::V1Peer)
    }
}

/// Whether a peer that has dialled us speaks in the clear, from the first bytes it sent; `None` if they are too few to tell.
/// The first bytes of a connection in the clear are those of a `version` message.
#[must_use]
pub fn is_v1(magic: [u8; 4], first: &[u8]) -> Option<bool> {
    let mut start = *b"????version\0\0\0\0\0";
    start[..4].copy_from_slice(&magic);
    let known = first.len().min(start.len());
    if first[..known] != start[..known] { Some(false) } else { (known == start.len()).then_some(true) }
}

/// One side of an encrypted connection.
///
/// Call order: send what [`seal`](Self::seal) appends, at the start, after every [`receive`](Self::receive) and after
/// every message written. After an error nothing but the same error comes.
///
/// Where the connection is closed and [`has_heard`](Self::has_heard) is `false`, the peer may be one that knows no
/// encryption: an initiator should dial it again and speak in the clear.
pub struct Encryption {
    options: EncryptionOptions,
    state: State,
    has_heard: bool,
    /// Bytes of the handshake that wait to be sent.
    output: BytesMut,
}

enum State {
    Handshaking(Handshaking),
    Ready {
        cipher: Box<CipherSession>,
        /// The length of the packet that is arriving, without its length field, once that is decrypted.
        packet: Option<usize>,
    },
    Failed(EncryptionError),
}

impl Encryption {
    /// The side that has dialled.
    #[must_use]
    pub fn initiator(magic: [u8; 4], options: EncryptionOptions, entropy: Entropy) -> Self {
        Self::new(magic, Role::Initiator, options, entropy)
    }

    /// The side that was dialled. To be made only when [`is_v1`] has told that the peer does not speak in the clear, since
    /// it sends at once.
    #[must_use]
    pub fn responder(magic: [u8; 4], options: EncryptionOptions, entropy: Entropy) -> Self {
        Self::new(magic, Role::Responder, options, entropy)
    }

    fn new(magic: [u8; 4], role: Role, options: EncryptionOptions, entropy: Entropy) -> Self {
        let handshaking = Handshaking::new(magic, role, options.max_contents, entropy);
        let state = State::Handshaking(handshaking);
        let mut encryption = Self { options, state, has_heard: false, output: BytesMut::new() };
        encryption.shake_hands(&mut BytesMut::new());
        encryption
    }

    /// Takes packets from the front of `input` up to the first with a message in it, and appends that to `plain` as a record;
    /// without a copy, if `plain` is empty. Decoys are dropped. Returns whether there was a record: call again after the codec
    /// took it, until `false` says that more input is needed.
    ///
    /// # Errors
    /// The peer broke the protocol, or somebody changed bytes on their way.
    pub fn receive(&mut self, input: &mut BytesMut, plain: &mut BytesMut) -> Result<bool, EncryptionError> {
        self.has_heard |= !input.is_empty();
        self.shake_hands(input);
        match &mut self.state {
            State::Handshaking(_) => Ok(false),
            State::Failed(error) => Err(error.clone()),
            State::Ready { cipher, packet } => {
                let opened = open(cipher, packet, self.options.max_contents, input, plain);
                if let Err(error) = &opened {
                    self.state = State::Failed(error.clone());
                }
                opened
            }
        }
    }

    /// Appends to `output` what is to be sent: the bytes of the handshake as they fall due and, after it, every whole record
    /// at the front of `records` as a packet. Until then records stay where they are.
    ///
    /// # Errors
    /// [`EncryptionError::TooLong`] if a record is longer than a packet can be, which is 16 MiB; it stays where it is.
    pub fn seal(&mut self, records: &mut BytesMut, output: &mut BytesMut) -> Result<(), EncryptionError> {
        output.unsplit(self.output.split());
        let State::Ready { cipher, .. } = &mut self.state else { return Ok(()) };
        while let Some(length) = records.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) {
            if length > LONGEST {
                return Err(EncryptionError::TooLong { length, limit: LONGEST });
            }
            let Some(contents) = records.get(LENGTH..LENGTH + length) else { break };
            let start = output.len();
            output.resize(start + OutboundCipher::encryption_buffer_len(length), 0);
            cipher.outbound().encrypt(contents, &mut output[start..], PacketType::Genuine, None)?;
            records.advance(LENGTH + length);
        }
        Ok(())
    }

    /// Whether both sides have shaken hands, so that records are sealed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Whether the peer has sent anything. A peer that knows no encryption closes the connection without a word.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Whether the stream may end here, if nothing is left of the input: no packet was begun.
    #[must_use]
    pub fn is_between_packets(&self) -> bool {
        matches!(self.state, State::Ready { packet: None, .. })
    }

    /// How many bytes can be used at once: the length of the packet that is arriving, what was read of it included.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match &self.state {
            State::Handshaking(handshaking) => handshaking.wanted(),
            State::Ready { packet, .. } => NUM_LENGTH_BYTES + packet.unwrap_or(0),
            State::Failed(_) => 0,
        }
    }

    /// Names the connection; the same on both sides unless somebody is between them. `None` before the handshake is done.
    #[must_use]
    pub fn session_id(&self) -> Option<[u8; 32]> {
        match &self.state {
            State::Ready { cipher, .. } => Some(*cipher.id()),
            State::Handshaking(_) | State::Failed(_) => None,
        }
    }

    fn shake_hands(&mut self, input: &mut BytesMut) {
        let State::Handshaking(handshaking) = &mut self.state else { return };
        match handshaking.receive(input, &mut self.output) {
            None => {}
            Some(Ok(cipher)) => self.state = State::Ready { cipher: Box::new(cipher), packet: None },
            Some(Err(error)) => self.state = State::Failed(error),
        }
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Handshaking(_) => "handshaking",
            State::Ready { .. } => "ready",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Encryption").field("state", &state).finish_non_exhaustive()
    }
}

/// Opens packets up to the first that is no decoy.
fn open(
    cipher: &mut CipherSession,
    packet: &mut Option<usize>,
    max_contents: usize,
    input: &mut BytesMut,
    plain: &mut BytesMut,
) -> Result<bool, EncryptionError> {
    loop {
        let length = match *packet {
            Some(length) => length,
            None => {
                let Some(bytes) = input.first_chunk() else { return Ok(false) };
                let length = cipher.inbound().decrypt_packet_len(*bytes);
                check_length(length, max_contents)?;
                *packet.insert(length)
            }
        };
        if input.len() < NUM_LENGTH_BYTES + length {
            return Ok(false);
        }
        *packet = None;
        let mut record = input.split_to(NUM_LENGTH_BYTES + length);
        cipher.inbound().decrypt_in_place(&mut record[NUM_LENGTH_BYTES..], None)?;
        if record[NUM_LENGTH_BYTES] & DECOY != 0 {
            continue;
        }
        let contents = length - HEADER_AND_TAG;
        record[..LENGTH].copy_from_slice(&(contents as u32).to_le_bytes());
        record.truncate(LENGTH + contents);
        if plain.is_empty() {
            *plain = record;
        } else {
            plain.extend_from_slice(&record);
        }
        return Ok(true);
    }
}

/// Refuses a packet by its decrypted length, which counts header and tag.
fn check_length(packet: usize, max_contents: usize) -> Result<(), EncryptionError> {
    let length = packet - HEADER_AND_TAG;
    if length > max_contents {
        return Err(EncryptionError::TooLong { length, limit: max_contents });
    }
    Ok(())
}

impl From<bip324::Error> for EncryptionError {
    fn from(error: bip324::Error) -> Self {
        match error {
            bip324::Error::V1Protocol => Self::V1Peer,
            bip324::Error::NoGarbageTerminator => Self::NoTerminator { limit: entropy::MAX_GARBAGE },
            bip324::Error::Decryption(_) => Self::Forged,
            bip324::Error::CiphertextTooSmall
            | bip324::Error::BufferTooSmall { .. }
            | bip324::Error::PacketTooBig
            | bip324::Error::TooMuchGarbage
            | bip324::Error::SecretGeneration(_) => Self::Cipher,
        }
    }
}

#[cfg(test)]
mod tests;
