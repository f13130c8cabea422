//! Frames: magic, command, length, checksum, payload; BSV's extended frames for payloads beyond 4 GiB; and the records of
//! an encrypted connection, once [`Codec::use_v2`] was called.

use bitcoin_hashes::{HashEngine as _, sha256d as engine};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BlockReader, Chain, Command, Message, Network};
use crate::{BlockError, BlockEvent, Dialect, DownloadId, Incoming, Piece, Verdict, WireError, sha256d};

pub use options::CodecOptions;

mod options;
mod records;

/// The size of a frame's header in bytes.
const HEADER: usize = 24;
/// What an extended header adds: the true command and its length in 64 bits.
const EXTENSION: usize = 20;

/// The codec of one connection.
pub struct Codec {
    network: &'static Network,
    options: CodecOptions,
    framing: Framing,
    handshake_done: bool,
    downloads: u64,
    state: State,
    trailing: Bytes,
}

/// What is around a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Frames with magic and checksum, as they travel in the clear.
    V1,
    /// Records without, as they come out of an encrypted connection.
    V2,
}

enum State {
    Header,
    /// The checksum is `None` in an extended frame, which has none.
    Payload {
        command: Command,
        length: usize,
        checksum: Option<[u8; 4]>,
    },
    Block(Box<Block>),
    Pieces(Box<Pieces>),
}

struct Pieces {
    command: &'static str,
    size: u64,
    offset: u64,
    piece_size: usize,
    checksum: Option<([u8; 4], engine::HashEngine)>,
}

struct Block {
    reader: BlockReader,
    /// `None` for an extended frame, whose checksum is zero and never verified; and once it is verified.
    checksum: Option<([u8; 4], engine::HashEngine)>,
    verdict: Verdict,
    /// Bytes at the front of the input that the checksum covers already.
    hashed: usize,
    /// Bytes of the block that the checksum does not cover yet.
    unhashed: u64,
}

impl Codec {
    /// A codec with the network's defaults.
    #[must_use]
    pub fn new(network: &'static Network) -> Self {
        Self::with_options(network, CodecOptions::new(network))
    }

    /// A codec with options.
    #[must_use]
    pub fn with_options(network: &'static Network, options: CodecOptions) -> Self {
        Self {
            network,
            options,
            framing: Framing::V1,
            handshake_done: false,
            downloads: 0,
            state: State::Header,
            trailing: Bytes::new(),
        }
    }

    /// From here on the stream is that of an encrypted connection (BIP 324), decrypted: records of `u32 length | contents`,
    /// little-endian, where the contents are a message type and a payload. [`encode`](Dialect::encode) writes such, too. To
    /// be called before the first byte of the stream. Of a block's checks only the checksum's verdict changes: it is
    /// [`Verdict::NotChecked`].
    ///
    /// Returns `false`, and changes nothing, if the chain has no such transport, or inside a frame.
    #[must_use]
    pub fn use_v2(&mut self) -> bool {
        let is_possible = self.network.chain == Chain::Btc && self.is_between_frames();
        if is_possible {
            self.framing = Framing::V2;
        }
        is_possible
    }

    /// The bytes that followed the last known field of the message decoded last. Nodes ignore them, and so may you; a proxy
    /// passes them on with [`Codec::encode_with_trailing`].
    #[must_use]
    pub fn trailing(&self) -> &Bytes {
        &self.trailing
    }

    /// Appends a message as a whole frame, with bytes after its last field.
    pub fn encode_with_trailing(&self, message: &Message, trailing: &[u8], output: &mut BytesMut) {
        let mut payload = BytesMut::new();
        message.serialize(&mut payload);
        payload.put_slice(trailing);
        self.put_frame(message.command(), &payload, output);
    }

    /// Appends what goes before a block of `size` bytes, which is to follow: for who sends a block in pieces. `checksum` is the
    /// start of SHA-256d of the block, and is asked for only where a frame has one.
    pub fn encode_block_start(&self, size: u64, checksum: impl FnOnce() -> [u8; 4], output: &mut BytesMut) {
        match self.framing {
            Framing::V1 => self.put_header(Command::BLOCK, size, checksum, output),
            Framing::V2 => records::put_record_start(Command::BLOCK, size, output),
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// It ends inside a frame; if that is a block's, the error says which download is void. `rest` is what is left of the
    /// input once [`decode`](Dialect::decode) has returned `None`.
    pub fn finish(&self, rest: &[u8]) -> Result<(), WireError> {
        match &self.state {
            State::Header if rest.is_empty() => Ok(()),
            State::Header | State::Payload { .. } | State::Pieces(_) => Err(WireError::Cut),
            State::Block(block) => {
                if let Some(aborted) = block.reader.failure() {
                    return Err(aborted.into());
                }
                let reason = BlockError::Cut { received: block.reader.seen(), size: block.reader.size() };
                Err(block.reader.abort(reason).into())
            }
        }
    }

    /// Appends the frame header for a payload of `length` bytes: an extended one, which has no checksum, beyond 4 GiB.
    fn put_header(
        &self,
        command: Command,
        length: u64,
        checksum: impl FnOnce() -> [u8; 4],
        output: &mut BytesMut,
    ) {
        output.put_slice(&self.network.magic);
        if let Ok(length) = u32::try_from(length) {
            output.put_slice(command.as_bytes());
            output.put_u32_le(length);
            output.put_slice(&checksum());
        } else {
            output.put_slice(b"extmsg\0\0\0\0\0\0");
            output.put_u32_le(u32::MAX);
            output.put_u32_le(0);
            output.put_slice(command.as_bytes());
            output.put_u64_le(length);
        }
    }

    fn put_frame(&self, command: Command, payload: &[u8], output: &mut BytesMut) {
        if self.framing == Framing::V2 {
            return records::put_record(command, payload, output);
        }
        output.reserve(HEADER + EXTENSION + payload.len());
        self.put_header(command, payload.len() as u64, || first_four(sha256d(payload)), output);
        output.put_slice(payload);
    }

    fn read_header(&mut self, input: &mut BytesMut) -> Result<bool, WireError> {
        let Some(header) = input.first_chunk::<HEADER>() else {
            // Another protocol shows by its first bytes; don't wait for a whole header of it.
            return match input.first_chunk::<4>() {
                Some(&found) if found != self.network.magic => Err(self.wrong_magic(found)),
                _ => Ok(false),
            };
        };
        let mut header = &header[..];
        let mut magic = [0; 4];
        header.copy_to_slice(&mut magic);
        if magic != self.network.magic {
            return Err(self.wrong_magic(magic));
        }
        let mut command = [0; 12];
        header.copy_to_slice(&mut command);
        let command = Command::from_bytes(command)?;
        let length = header.get_u32_le();
        let mut checksum = [0; 4];
        header.copy_to_slice(&mut checksum);
        if command.as_str() == "extmsg" && self.network.chain == Chain::Bsv {
            return self.read_extension(input);
        }
        input.advance(HEADER);
        self.begin(command, u64::from(length), Some(checksum))?;
        Ok(true)
    }

    fn read_extension(&mut self, input: &mut BytesMut) -> Result<bool, WireError> {
        if input.len() < HEADER + EXTENSION {
            return Ok(false);
        }
        input.advance(HEADER);
        let mut command = [0; 12];
        input.copy_to_slice(&mut command);
        let length = input.get_u64_le();
        if command == *b"extmsg\0\0\0\0\0\0" {
            return Err(WireError::Command { found: command }); // one in another
        }
        self.begin(Command::from_bytes(command)?, length, None)?;
        Ok(true)
    }

    fn begin(&mut self, command: Command, length: u64, checksum: Option<[u8; 4]>) -> Result<(), WireError> {
        self.trailing = Bytes::new(); // it may keep a large buffer
        let limit = self.options.limit(command, self.handshake_done);
        let too_long = WireError::TooLong { command: command.as_str().to_owned(), length, limit };
        if length > limit {
            return Err(too_long);
        }
        let long = options::long_name(command);
        self.state = if let Some(command) = long.filter(|_| length > self.options.whole_limit(command)) {
            State::Pieces(Box::new(Pieces {
                command,
                size: length,
                offset: 0,
                piece_size: self.options.block.part_size.max(1),
                checksum: checksum.map(|expected| (expected, engine::HashEngine::new())),
            }))
        } else if command.as_str() == "block" {
            self.downloads += 1;
            let checksum = checksum.filter(|_| self.options.checksum);
            let deferred = checksum.filter(|_| self.options.defer_checksum);
            let checksum = checksum.filter(|_| deferred.is_none());
            State::Block(Box::new(Block {
                reader: BlockReader::new(DownloadId(self.downloads), length, self.options.block),
                checksum: checksum.map(|expected| (expected, engine::HashEngine::new())),
                verdict: deferred.map_or(Verdict::NotChecked, Verdict::Deferred),
                hashed: 0,
                unhashed: length,
            }))
        } else {
            let length = usize::try_from(length).map_err(|_| too_long)?;
            State::Payload { command, length, checksum }
        };
        Ok(())
    }

    fn wrong_magic(&self, found: [u8; 4]) -> WireError {
        WireError::Magic { found, expected: self.network.magic }
    }

    fn read_payload(&mut self, input: &mut BytesMut) -> Result<Option<Message>, WireError> {
        let State::Payload { command, length, checksum } = self.state else { return Ok(None) };
        if input.len() < length {
            return Ok(None);
        }
        self.state = State::Header;
        let payload = input.split_to(length).freeze();
        if let Some(expected) = checksum {
            verify(command, expected, &payload)?;
        }
        let (message, trailing) = Message::parse(command, payload)?;
        if self.network.chain == Chain::Bsv && message.has_witnesses() {
            let (command, field) = (command.as_str().to_owned(), "transaction");
            return Err(WireError::Malformed {
                command,
                field,
                offset: 0,
                problem: "witnesses are not of this chain",
            });
        }
        self.trailing = trailing;
        Ok(Some(message))
    }
}

impl Block {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BlockEvent>, WireError> {
        let before = input.len();
        self.reader.note_header(input);
        if let Some((expected, engine)) = &mut self.checksum {
            let end = input
                .len()
                .min(self.hashed.saturating_add(usize::try_from(self.unhashed).unwrap_or(usize::MAX)));
            engine.input(&input[self.hashed..end]);
            self.unhashed -= (end - self.hashed) as u64;
            self.hashed = end;
            if self.unhashed == 0 {
                // Everything is here: a bad checksum must show before the last part is handed out.
                let found = first_four(engine::Hash::from_engine(engine.clone()).to_byte_array());
                if found != *expected {
                    let reason = BlockError::Checksum { found, expected: *expected };
                    return Err(self.reader.fail(reason).into());
                }
                self.checksum = None;
                self.verdict = Verdict::Verified;
            }
        }
        let mut event = self.reader.decode(input)?;
        if let Some(BlockEvent::End(end)) = &mut event {
            end.checksum = self.verdict;
        }
        self.hashed = self.hashed.saturating_sub(before - input.len());
        Ok(event)
    }
}

impl Pieces {
    /// How long the next piece is.
    fn next(&self) -> usize {
        usize::try_from(self.size - self.offset).map_or(self.piece_size, |left| left.min(self.piece_size))
    }

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, WireError> {
        if input.len() < self.next() {
            return Ok(None);
        }
        let bytes = input.split_to(self.next()).freeze();
        let (command, size, offset) = (self.command, self.size, self.offset);
        self.offset += bytes.len() as u64;
        if let Some((expected, engine)) = &mut self.checksum {
            engine.input(&bytes);
            if self.offset == self.size {
                let found = first_four(engine::Hash::from_engine(engine.clone()).to_byte_array());
                if found != *expected {
                    let (command, expected) = (command.to_owned(), *expected);
                    return Err(WireError::Checksum { command, found, expected });
                }
            }
        }
        Ok(Some(Piece { command, offset, size, bytes }))
    }
}

impl Dialect for Codec {
    type Message = Message;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming<Message>>, WireError> {
        loop {
            match &mut self.state {
                State::Header => {
                    let is_whole = match self.framing {
                        Framing::V1 => self.read_header(input)?,
                        Framing::V2 => self.read_record_header(input)?,
                    };
                    if !is_whole {
                        return Ok(None);
                    }
                }
                State::Payload { .. } => return Ok(self.read_payload(input)?.map(Incoming::Message)),
                State::Pieces(pieces) => {
                    let piece = pieces.decode(input)?;
                    if pieces.offset == pieces.size {
                        self.state = State::Header;
                    }
                    return Ok(piece.map(Incoming::Piece));
                }
                State::Block(block) => {
                    let event = block.decode(input)?;
                    if block.reader.is_done() {
                        self.state = State::Header;
                    }
                    return Ok(event.map(Incoming::Block));
                }
            }
        }
    }

    fn encode(&self, message: &Message, output: &mut BytesMut) {
        if let Message::Block(payload) | Message::Other { payload, .. } = message {
            return self.put_frame(message.command(), payload, output);
        }
        self.encode_with_trailing(message, &[], output);
    }

    fn handshake_done(&mut self) {
        self.handshake_done = true;
    }

    fn use_records(&mut self) -> bool {
        self.use_v2()
    }

    fn wanted(&self) -> usize {
        match &self.state {
            State::Header => HEADER,
            State::Payload { length, .. } => *length,
            State::Block(block) => block.reader.wanted(),
            State::Pieces(pieces) => pieces.next(),
        }
    }

    fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header)
    }

    fn block_progress(&self) -> Option<u64> {
        match &self.state {
            State::Block(block) => Some(block.reader.seen()),
            _ => None,
        }
    }
}

fn verify(command: Command, expected: [u8; 4], payload: &[u8]) -> Result<(), WireError> {
    let found = first_four(sha256d(payload));
    if found == expected {
        return Ok(());
    }
    Err(WireError::Checksum { command: command.as_str().to_owned(), found, expected })
}

fn first_four(hash: [u8; 32]) -> [u8; 4] {
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests;
