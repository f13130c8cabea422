//! The handshake of BIP 324, as a future without I/O: it waits for bytes only, and is polled when there are more.
//!
//! A future, because the states of the `bip324` crate's handshake borrow the garbage they authenticate: a value that holds
//! both can be written as a coroutine and not as an enum.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bip324::{
    CipherSession, FillBytes, GarbageResult, Handshake, NUM_LENGTH_BYTES, ReceivedKey, Role, VersionResult,
};
use bytes::{Buf, BytesMut};
use secp256k1::Secp256k1;

use super::{EncryptionError, Entropy, check_length, entropy::MAX_GARBAGE};

/// The size of a public key in bytes.
const KEY: usize = 64;
/// The size of what ends the garbage, in bytes.
const TERMINATOR: usize = 16;
/// The most bytes of garbage that are sent before the peer has answered. Nodes that know no encryption take each 24 bytes for
/// a broken message, and bcoin bans for ten of them. The rest of the garbage costs no time later: what ends it has to wait for
/// the peer's key anyway.
const EARLY_GARBAGE: usize = 128;

/// A handshake that is not done.
pub(super) struct Handshaking {
    pipe: Pipe,
    run: Pin<Box<dyn Future<Output = Result<CipherSession, EncryptionError>> + Send>>,
}

impl Handshaking {
    pub(super) fn new(magic: [u8; 4], role: Role, max_contents: usize, entropy: Entropy) -> Self {
        let pipe = Pipe::default();
        let run = Box::pin(shake_hands(pipe.clone(), magic, role, max_contents, entropy));
        Self { pipe, run }
    }

    /// Takes all of `input`, and gives back what follows the handshake; appends to `output` what is to be sent. Not to be
    /// called again after it has returned something.
    pub(super) fn receive(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Option<Result<CipherSession, EncryptionError>> {
        self.pipe.lock().input.unsplit(input.split());
        let end = match self.run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(end) => {
                *input = self.pipe.lock().input.split();
                Some(end)
            }
        };
        output.unsplit(self.pipe.lock().output.split());
        end
    }

    /// How many bytes can be used at once.
    pub(super) fn wanted(&self) -> usize {
        self.pipe.lock().wanted
    }
}

/// What the future shares with its owner. Only one of them runs at a time.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Buffers>>);

#[derive(Default)]
struct Buffers {
    input: BytesMut,
    output: BytesMut,
    wanted: usize,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the front of the input holds so many bytes.
    async fn wait(&self, wanted: usize) {
        poll_fn(|_| {
            let mut buffers = self.lock();
            buffers.wanted = wanted;
            if buffers.input.len() >= wanted { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn take(&self, length: usize) -> BytesMut {
        self.wait(length).await;
        self.lock().input.split_to(length)
    }

    async fn take_array<const N: usize>(&self) -> [u8; N] {
        self.wait(N).await;
        let mut bytes = [0; N];
        self.lock().input.copy_to_slice(&mut bytes);
        bytes
    }
}

struct Secret([u8; 32]);

impl FillBytes for Secret {
    fn fill_bytes(&mut self, bytes: &mut [u8; 32]) {
        *bytes = self.0;
    }
}

/// Goes through the handshake; what follows it stays in the pipe.
async fn shake_hands(
    pipe: Pipe,
    magic: [u8; 4],
    role: Role,
    max_contents: usize,
    entropy: Entropy,
) -> Result<CipherSession, EncryptionError> {
    let Entropy { secret, garbage } = entropy;
    let handshake = Handshake::new_with_rng(magic, role, &mut Secret(secret), &Secp256k1::signing_only())?;
    let mut key = vec![0; KEY + garbage.len()];
    let handshake = handshake.send_key(Some(&garbage), &mut key)?;
    let early = match role {
        // No more than may be, and not always the same: the length of the first bytes shall say nothing.
        Role::Initiator => KEY + garbage.len() % (EARLY_GARBAGE + 1),
        Role::Responder => key.len(),
    };
    pipe.lock().output.extend_from_slice(&key[..early]);

    pipe.wait(magic.len()).await;
    if pipe.lock().input.starts_with(&magic) {
        return Err(EncryptionError::V1Peer); // which may send less than a key
    }
    pipe.lock().output.extend_from_slice(&key[early..]);
    let handshake = handshake.receive_key(pipe.take_array().await)?;
    let mut version = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
    let mut waiting = handshake.send_version(&mut version, None)?;
    pipe.lock().output.extend_from_slice(&version);

    let mut seen = TERMINATOR;
    let mut first;
    let (mut handshake, consumed) = loop {
        pipe.wait(seen).await;
        first = {
            let buffers = pipe.lock();
            seen = buffers.input.len() + 1;
            buffers.input[..buffers.input.len().min(MAX_GARBAGE + TERMINATOR)].to_vec()
        };
        match waiting.receive_garbage(&first)? {
            GarbageResult::FoundGarbage { handshake, consumed_bytes } => break (handshake, consumed_bytes),
            GarbageResult::NeedMoreData(handshake) => waiting = handshake,
        }
    };
    pipe.lock().input.advance(consumed);

    // Decoys may come before the version; the garbage is authenticated by the first of them all.
    loop {
        let length: [u8; NUM_LENGTH_BYTES] = pipe.take_array().await;
        let length = handshake.decrypt_packet_len(length)?;
        check_length(length, max_contents)?;
        let mut packet = pipe.take(length).await;
        handshake = match handshake.receive_version(&mut packet)? {
            VersionResult::Complete { cipher } => return Ok(cipher),
            VersionResult::Decoy(handshake) => handshake,
        };
    }
}
