//! The lower half of the waist: how one family of chains frames and spells its messages.

use bytes::{Bytes, BytesMut};

use crate::{BlockEvent, WireError};

/// The codec of one connection: bytes to messages and back, without I/O.
///
/// A codec keeps its place inside a frame, so it may be given reads of any size; nothing that was consumed is needed
/// again.
pub trait Dialect: Send + 'static {
    /// The dialect's own messages.
    type Message: Clone + Send + Sync + std::fmt::Debug + 'static;

    /// Takes one message, or a part of a block, from the front of `input`; `None` when more bytes are needed. Call it until
    /// then, and only then read on: what is left in `input` must be there at the next call, with more behind it.
    ///
    /// # Errors
    /// What the stream says next can't be known after most errors, see [`WireError`]: the connection is to be closed.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming<Self::Message>>, WireError>;

    /// Appends a message as a whole frame.
    fn encode(&self, message: &Self::Message, output: &mut BytesMut);

    /// Lifts the limits that hold before both sides have shaken hands.
    fn handshake_done(&mut self);

    /// Speaks records inside an encrypted connection from the first byte on, instead of frames. False, and nothing changes,
    /// if the dialect has no such.
    fn use_records(&mut self) -> bool {
        false
    }

    /// How many bytes the codec can use at once: what a reader should have room for. Bounded by the part size or, where a
    /// message is longer, by the limit on messages.
    fn wanted(&self) -> usize;

    /// Whether the stream may end here, if nothing is left of the input: no frame was begun.
    fn is_between_frames(&self) -> bool;

    /// How many bytes of the block that is arriving were seen so far, if one is arriving.
    fn block_progress(&self) -> Option<u64>;
}

/// What comes out of a codec.
#[derive(Debug)]
pub enum Incoming<M> {
    /// A message.
    Message(M),
    /// A block goes by.
    Block(BlockEvent),
    /// A piece of a message that is too long to be buffered, for codecs that were told to let such pass.
    Piece(Piece),
}

/// A piece of a message's payload. Pieces come in order and without gaps; a checksum is compared before the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The message's name.
    pub command: &'static str,
    /// Where the piece starts in the payload, in bytes.
    pub offset: u64,
    /// The size of the whole payload in bytes.
    pub size: u64,
    /// The bytes, never empty.
    pub bytes: Bytes,
}
