//! Frames: magic, command, length, checksum, payload; and BSV's extended frames for payloads beyond 4 GiB.

use bitcoin_hashes::{HashEngine as _, sha256d as engine};
use bytes::{Buf, BufMut, BytesMut};

use super::{BlockReader, Chain, Command, DEFAULT_PART_SIZE, Message, Network, parse, serialize};
use crate::{BlockEvent, Dialect, DownloadId, Incoming, WireError, sha256d};

/// The size of a frame's header in bytes.
const HEADER: usize = 24;
/// What an extended header adds: the true command and its length in 64 bits.
const EXTENSION: usize = 20;
/// Before both sides have shaken hands nothing larger is legitimate.
const HANDSHAKE_LIMIT: u64 = 1024;

/// Choices of a [`Codec`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CodecOptions {
    /// The target size of a block's parts, in bytes; [`DEFAULT_PART_SIZE`] unless set.
    pub part_size: usize,
    /// The largest block accepted, in bytes. BTC's protocol limit is 4,000,000; BSV has none, the default is 8 GiB.
    pub max_block_size: u64,
}

impl CodecOptions {
    /// The defaults for a network.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        let max_block_size = match network.chain {
            Chain::Btc => 4_000_000,
            Chain::Bsv => 8 << 30,
        };
        Self { part_size: DEFAULT_PART_SIZE, max_block_size }
    }
}

/// The codec of one connection.
pub struct Codec {
    network: &'static Network,
    options: CodecOptions,
    handshake_done: bool,
    downloads: u64,
    state: State,
}

enum State {
    Header,
    Payload { command: Command, length: usize, checksum: [u8; 4] },
    Block(Box<Block>),
}

struct Block {
    reader: BlockReader,
    /// `None` for an extended frame: its checksum is zero and never verified.
    checksum: Option<([u8; 4], engine::HashEngine)>,
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
        Self { network, options, handshake_done: false, downloads: 0, state: State::Header }
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
        self.begin(Command::from_bytes(command)?, length, None)?;
        Ok(true)
    }

    fn begin(&mut self, command: Command, length: u64, checksum: Option<[u8; 4]>) -> Result<(), WireError> {
        let limit = self.limit(command);
        let too_long = WireError::TooLong { command: command.as_str().to_owned(), length, limit };
        if length > limit {
            return Err(too_long);
        }
        self.state = if command.as_str() == "block" {
            self.downloads += 1;
            let witnesses = self.network.chain == Chain::Btc;
            let download = DownloadId(self.downloads);
            State::Block(Box::new(Block {
                reader: BlockReader::new(download, length, witnesses, self.options.part_size),
                checksum: checksum.map(|expected| (expected, engine::HashEngine::new())),
                hashed: 0,
                unhashed: length,
            }))
        } else {
            // Only a block may come in an extended frame, so a checksum is there.
            let checksum = checksum.ok_or_else(|| too_long.clone())?;
            let length = usize::try_from(length).map_err(|_| too_long)?;
            State::Payload { command, length, checksum }
        };
        Ok(())
    }

    /// The longest payload accepted, in bytes: what the message can need, or the chain's limit for any message.
    fn limit(&self, command: Command) -> u64 {
        let chain = match self.network.chain {
            Chain::Btc => 4_000_000,
            Chain::Bsv => 2 << 20,
        };
        if !self.handshake_done {
            return HANDSHAKE_LIMIT;
        }
        match command.as_str() {
            "block" => self.options.max_block_size,
            "version" | "verack" | "ping" | "pong" | "sendheaders" | "protoconf" | "reject" => {
                HANDSHAKE_LIMIT
            }
            "getheaders" | "getblocks" => 4 + 9 + 32 * 102,
            "headers" => 9 + 81 * super::MAX_HEADERS as u64,
            "inv" | "getdata" | "notfound" => 9 + 36 * super::MAX_INVENTORY as u64,
            _ => chain,
        }
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
        verify(command.as_str(), checksum, sha256d(&payload))?;
        parse::message(command, payload).map(Some)
    }
}

impl Block {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BlockEvent>, WireError> {
        let before = input.len();
        if let Some((expected, engine)) = &mut self.checksum {
            let end = input
                .len()
                .min(self.hashed.saturating_add(usize::try_from(self.unhashed).unwrap_or(usize::MAX)));
            engine.input(&input[self.hashed..end]);
            self.unhashed -= (end - self.hashed) as u64;
            self.hashed = end;
            if self.unhashed == 0 {
                // Everything is here: a bad checksum must show before the last part is handed out.
                let found = engine::Hash::from_engine(engine.clone()).to_byte_array();
                verify("block", *expected, found)?;
                self.checksum = None;
            }
        }
        let event = self.reader.decode(input)?;
        self.hashed = self.hashed.saturating_sub(before - input.len());
        Ok(event)
    }
}

impl Dialect for Codec {
    type Message = Message;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming<Message>>, WireError> {
        loop {
            match &mut self.state {
                State::Header => {
                    if !self.read_header(input)? {
                        return Ok(None);
                    }
                }
                State::Payload { .. } => return Ok(self.read_payload(input)?.map(Incoming::Message)),
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
        let mut payload = BytesMut::new();
        serialize::payload(message, &mut payload);
        self.put_frame(message.command(), &payload, output);
    }

    fn handshake_done(&mut self) {
        self.handshake_done = true;
    }

    fn wanted(&self) -> usize {
        match &self.state {
            State::Header => HEADER,
            State::Payload { length, .. } => *length,
            State::Block(block) => block.reader.wanted(),
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

fn verify(command: &str, expected: [u8; 4], hash: [u8; 32]) -> Result<(), WireError> {
    let found = first_four(hash);
    if found == expected {
        return Ok(());
    }
    Err(WireError::Checksum { command: command.to_owned(), found, expected })
}

fn first_four(hash: [u8; 32]) -> [u8; 4] {
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests;
