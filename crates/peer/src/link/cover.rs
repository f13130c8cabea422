//! What is around the dialect's frames on the wire: nothing, or encryption.

use bytes::BytesMut;
use tipward_wire::{Dialect, Incoming};

use crate::{DisconnectReason, Encryption, EncryptionOptions, Entropy, is_v1};

/// How the bytes of a connection are to be covered.
#[derive(Debug)]
pub enum Cover {
    /// Not at all.
    Clear,
    /// By BIP 324: we begin.
    Initiate(Encryption),
    /// By what the peer begins with.
    Detect {
        /// The network's magic.
        magic: [u8; 4],
        /// For the case that it encrypts.
        entropy: Entropy,
        /// Whether it has to.
        required: bool,
    },
}

/// The way between the socket and the codec.
pub(super) enum Way {
    Clear,
    Undecided {
        magic: [u8; 4],
        entropy: Option<Entropy>,
        required: bool,
    },
    Encrypted {
        encryption: Box<Encryption>,
        /// What was decrypted and not decoded yet.
        plain: BytesMut,
        /// What was encoded and not encrypted yet.
        records: BytesMut,
    },
}

impl Way {
    pub(super) fn new<D: Dialect>(cover: Cover, dialect: &mut D) -> Self {
        match cover {
            Cover::Initiate(encryption) if dialect.use_records() => Self::encrypted(encryption),
            Cover::Clear | Cover::Initiate(_) => Self::Clear,
            Cover::Detect { magic, entropy, required } => {
                Self::Undecided { magic, entropy: Some(entropy), required }
            }
        }
    }

    fn encrypted(encryption: Encryption) -> Self {
        let encryption = Box::new(encryption);
        Self::Encrypted { encryption, plain: BytesMut::new(), records: BytesMut::new() }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Encrypted { .. })
    }

    /// The next message of the dialect.
    pub(super) fn decode<D: Dialect>(
        &mut self,
        dialect: &mut D,
        input: &mut BytesMut,
    ) -> Result<Option<Incoming<D::Message>>, DisconnectReason> {
        if let Self::Undecided { magic, entropy, required } = self {
            match is_v1(*magic, input) {
                None => return Ok(None),
                Some(true) if *required => return Err(DisconnectReason::NotEncrypted),
                Some(true) => *self = Self::Clear,
                Some(false) => {
                    let Some(entropy) = entropy.take().filter(|_| dialect.use_records()) else {
                        *self = Self::Clear;
                        return Ok(dialect.decode(input)?);
                    };
                    let options = EncryptionOptions::default();
                    *self = Self::encrypted(Encryption::responder(*magic, options, entropy));
                }
            }
        }
        match self {
            Self::Clear | Self::Undecided { .. } => Ok(dialect.decode(input)?),
            Self::Encrypted { encryption, plain, .. } => loop {
                if let Some(incoming) = dialect.decode(plain)? {
                    return Ok(Some(incoming));
                }
                if !encryption.receive(input, plain)? {
                    return Ok(None);
                }
            },
        }
    }

    pub(super) fn encode<D: Dialect>(&mut self, dialect: &D, message: &D::Message, output: &mut BytesMut) {
        match self {
            Self::Clear | Self::Undecided { .. } => dialect.encode(message, output),
            Self::Encrypted { records, .. } => dialect.encode(message, records),
        }
    }

    /// Moves on what is to be sent, as far as the handshake of the encryption allows.
    pub(super) fn seal(&mut self, output: &mut BytesMut) -> Result<(), DisconnectReason> {
        if let Self::Encrypted { encryption, records, .. } = self {
            encryption.seal(records, output)?;
        }
        Ok(())
    }

    pub(super) fn is_between_frames<D: Dialect>(&self, dialect: &D, rest: &[u8]) -> bool {
        let clean = match self {
            Self::Clear => true,
            // Nothing was understood yet.
            Self::Undecided { .. } => rest.is_empty(),
            Self::Encrypted { encryption, plain, .. } => encryption.is_between_packets() && plain.is_empty(),
        };
        clean && rest.is_empty() && dialect.is_between_frames()
    }

    pub(super) fn wanted<D: Dialect>(&self, dialect: &D) -> usize {
        match self {
            Self::Clear | Self::Undecided { .. } => dialect.wanted(),
            Self::Encrypted { encryption, .. } => encryption.wanted(),
        }
    }
}
