//! A connection as its driver sees it.

use std::{collections::BTreeMap, time::Instant};

use bytes::BytesMut;
use tipward_wire::Piece;

use super::{CallError, Figures};
use crate::{AnyMessage, DisconnectReason, PeerInfo, Reply, Unsupported, Want};

/// What a connection tells.
#[derive(Debug, Clone)]
pub enum LinkEvent {
    /// Both sides have shaken hands; comes once and first.
    Ready(PeerInfo),
    /// An answer or an announcement.
    Reply(Reply),
    /// A message in its dialect's own type, as far as [`LinkOptions::delivery`](crate::LinkOptions::delivery) asks for such.
    Message(AnyMessage),
    /// A piece of a message too long to be held, from codecs that let such pass.
    Piece(Piece),
    /// The peer did something that it must not; so many points, of which 100 are too many.
    Misbehaved(u32, String),
    /// What became of a request in the dialect's own messages.
    Answer(u64, Result<AnyMessage, CallError>),
}

/// A connection without the type of its dialect.
///
/// Call order: after every other call, take [`poll`](Self::poll) until `None`, send what is in
/// [`output`](Self::output), and come back at [`deadline`](Self::deadline). After an error nothing but `poll` may be called.
pub trait Connection: Send {
    /// Takes what it can from the front of `input`: all whole messages, unless too much waits to be
    /// [polled](Self::poll) or sent. True if it is to be called again for that reason, once that is done.
    ///
    /// # Errors
    /// The peer broke the protocol.
    fn receive(&mut self, now: Instant, input: &mut BytesMut) -> Result<bool, DisconnectReason>;

    /// The peer closed its side; `rest` is unread input. The reason tells whether that was in the middle of a message.
    fn closed(&self, rest: &[u8]) -> DisconnectReason;

    /// Asks the peer something.
    ///
    /// # Errors
    /// [`Unsupported`] if the dialect has no words for it, or before the handshake is done.
    fn ask(&mut self, want: Want, now: Instant) -> Result<(), Unsupported>;

    /// Sends a message of the dialect's own. One of another dialect is not sent, nor is any before the handshake is done.
    fn send(&mut self, message: AnyMessage);

    /// Sends a message of the dialect's own; the event [`LinkEvent::Answer`] with this number follows.
    ///
    /// # Errors
    /// Too many requests wait already, or the handshake is not done.
    fn call(&mut self, id: u64, message: AnyMessage, deadline: Instant) -> Result<(), CallError>;

    /// The next event.
    fn poll(&mut self) -> Option<LinkEvent>;

    /// Bytes to be sent; the caller takes from the front what it has sent.
    fn output(&mut self) -> &mut BytesMut;

    /// When [`timeout`](Self::timeout) is due.
    fn deadline(&self) -> Instant;

    /// Acts on the time.
    ///
    /// # Errors
    /// A time-out has passed.
    fn timeout(&mut self, now: Instant) -> Result<(), DisconnectReason>;

    /// We did not read between these two moments, which must not be held against the peer: what waits for it starts anew.
    fn resumed(&mut self, since: Instant, now: Instant);

    /// How many bytes of room the next read should have.
    fn wanted(&self) -> usize;

    /// Whether what is sent is encrypted.
    fn is_encrypted(&self) -> bool;

    /// What was measured. The caller counts the bytes.
    fn figures(&mut self) -> &mut Figures;

    /// How many messages of each name were received since the last call.
    fn take_counts(&mut self) -> BTreeMap<&'static str, u64>;
}
