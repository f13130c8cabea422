//! Frames: magic, command, length, checksum, payload; and BSV's extended frames for payloads beyond 4 GiB.

use bitcoin_hashes::{HashEngine as _, sha256d as engine};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BlockOptions, BlockReader, Chain, Command, Message, Network};
use crate::{BlockError, BlockEvent, Dialect, DownloadId, Incoming, Verdict, WireError, sha256d};

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
    /// How blocks are read and checked.
    pub block: BlockOptions,
    /// Whether a block's bytes are compared with the checksum of its frame. On unless unset: it is what tells a block that
    /// was damaged on its way from one that was made up. Other messages are always compared.
    pub checksum: bool,
    /// The largest block accepted, in bytes. BTC's protocol limit is 4,000,000; BSV has none, the default is 8 GiB.
    pub max_block_size: u64,
    /// The longest other message accepted, in bytes, where its command allows no less. The default is the chain's limit:
    /// 4,000,000 for BTC, 2 MiB for BSV, whose nodes send more only to those who said so in `protoconf`. A message is
    /// buffered whole.
    pub max_message_size: u64,
}

impl CodecOptions {
    /// The defaults for a network.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        let (max_block_size, max_message_size) = match network.chain {
            Chain::Btc => (4_000_000, 4_000_000),
            Chain::Bsv => (8 << 30, 2 << 20),
        };
        Self { block: BlockOptions::new(network), checksum: true, max_block_size, max_message_size }
    }
}

/// The codec of one connection.
pub struct Codec {
    network: &'static Network,
    options: CodecOptions,
    handshake_done: bool,
    downloads: u64,
    state: State,
    trailing: Bytes,
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
            handshake_done: false,
            downloads: 0,
            state: State::Header,
            trailing: Bytes::new(),
        }
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

    /// Ends the stream.
    ///
    /// # Errors
    /// It ends inside a frame; if that is a block's, the error says which download is void.
    pub fn finish(&self) -> Result<(), WireError> {
        match &self.state {
            State::Header => Ok(()),
            State::Payload { .. } => Err(WireError::Cut),
            State::Block(block) => {
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
            let checksum = checksum.filter(|_| self.options.checksum);
            State::Block(Box::new(Block {
                reader: BlockReader::new(DownloadId(self.downloads), length, self.options.block),
                checksum: checksum.map(|expected| (expected, engine::HashEngine::new())),
                verdict: Verdict::NotChecked,
                hashed: 0,
                unhashed: length,
            }))
        } else {
            let length = usize::try_from(length).map_err(|_| too_long)?;
            State::Payload { command, length, checksum }
        };
        Ok(())
    }

    /// The longest payload accepted, in bytes: what the message can need, or the chain's limit for any message.
    fn limit(&self, command: Command) -> u64 {
        if !self.handshake_done {
            return HANDSHAKE_LIMIT;
        }
        match command.as_str() {
            "block" => self.options.max_block_size,
            name => {
                let most = self.options.max_message_size;
                Message::limit(name).map_or(most, |limit| limit.min(most))
            }
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
        if let Some(expected) = checksum {
            verify(command, expected, &payload)?;
        }
        let (message, trailing) = Message::parse(command, payload)?;
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
                    return Err(self.reader.abort(reason).into());
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
        self.encode_with_trailing(message, &[], output);
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
