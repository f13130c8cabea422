//! The lower half of the waist: how one family of chains frames and spells its messages.

use bytes::BytesMut;

use crate::{BlockEvent, WireError};

/// The codec of one connection: bytes to messages and back, without I/O.
///
/// A codec keeps its place inside a frame, so it may be given reads of any size; nothing that was consumed is needed
/// again.
pub trait Dialect: Send + 'static {
    /// The dialect's own messages.
    type Message: Send + std::fmt::Debug;

    /// Takes one message, or a part of a block, from the front of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The stream cannot be read on after an error: the connection is to be closed.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming<Self::Message>>, WireError>;

    /// Appends a message as a whole frame.
    fn encode(&self, message: &Self::Message, output: &mut BytesMut);

    /// Lifts the limits that hold before both sides have shaken hands.
    fn handshake_done(&mut self);

    /// How many bytes the codec can use at once: what a reader should have room for. Bounded by the part size or, where a
    /// message is longer, by the limit on messages.
    fn wanted(&self) -> usize;

    /// Whether the stream may end here: no frame was begun.
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
}
