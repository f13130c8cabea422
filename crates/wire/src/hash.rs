//! 32-byte identifiers, kept in the order in which they travel and shown in the order in which explorers print them
//! (reversed).

use std::{fmt, str::FromStr};

use bitcoin_hashes::HashEngine as _;
use hex_conservative::{DisplayHex, decode_to_array};
use sha2::block_api::compress256;

/// SHA-256 applied twice: the hash of Bitcoin's headers, transactions and frame checksums.
///
/// ```
/// let hash = tipward_wire::sha256d(b"");
/// assert_eq!(hash[..4], [0x5d, 0xf6, 0xe0, 0xe2]); // the checksum of an empty payload
/// ```
#[must_use]
pub fn sha256d(bytes: &[u8]) -> [u8; 32] {
    let first = sha256(bytes);
    let mut block = [0; 64];
    block[..32].copy_from_slice(&bytes_of(first));
    // The padding of 32 bytes: a one bit, zeros, and the length in bits.
    (block[32], block[62]) = (0x80, 1);
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    bytes_of(state)
}

/// [`sha256d`] of bytes that come in pieces.
///
/// ```
/// let mut hash = tipward_wire::Sha256d::new();
/// hash.update(b"ab");
/// hash.update(b"c");
/// assert_eq!(hash.finish(), tipward_wire::sha256d(b"abc"));
/// ```
#[derive(Clone, Default)]
pub struct Sha256d(bitcoin_hashes::sha256d::HashEngine);

impl Sha256d {
    /// No bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.input(bytes);
    }

    /// The hash of all bytes.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        bitcoin_hashes::sha256d::Hash::from_engine(self.0).to_byte_array()
    }
}

impl fmt::Debug for Sha256d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256d").finish_non_exhaustive()
    }
}

/// What SHA-256 starts with (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 straight on its compression function: most of what is hashed here is so short that the buffer of a hasher that
/// could be fed again costs a tenth of the time.
fn sha256(bytes: &[u8]) -> [u32; 8] {
    let mut state = INITIAL;
    let (blocks, rest) = bytes.as_chunks::<64>();
    let mut tail = [[0; 64]; 2];
    tail[0][..rest.len()].copy_from_slice(rest);
    tail[0][rest.len()] = 0x80;
    // The length takes eight bytes after the one bit.
    let tail = if rest.len() < 56 { &mut tail[..1] } else { &mut tail[..] };
    let bits = (bytes.len() as u64).wrapping_mul(8);
    if let Some(length) = tail.as_flattened_mut().last_chunk_mut() {
        *length = bits.to_be_bytes();
    }
    compress256(&mut state, blocks);
    compress256(&mut state, tail);
    state
}

fn bytes_of(state: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    bytes
}

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a hash: 64 hexadecimal digits are needed")]
pub struct ParseHashError {
    text: String,
}

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes as they travel.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes as they travel.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// All zeros: "no hash" in the protocol, such as the parent of a genesis block.
            pub const ZERO: Self = Self([0; 32]);
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut reversed = self.0;
                reversed.reverse();
                fmt::Display::fmt(&reversed.as_hex(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;

            fn from_str(text: &str) -> Result<Self, ParseHashError> {
                let mut bytes: [u8; 32] =
                    decode_to_array(text).map_err(|_| ParseHashError { text: text.to_owned() })?;
                bytes.reverse();
                Ok(Self(bytes))
            }
        }
    };
}

hash! {
    /// The identifier of a block, for Bitcoin SHA-256d of its 80-byte header.
    BlockHash
}
hash! {
    /// The identifier of a transaction with its witnesses (BIP 141).
    Wtxid
}
hash! {
    /// The hash of a block's basic filter (BIP 157): SHA-256d of the serialized filter.
    FilterHash
}
hash! {
    /// The header of a block's basic filter (BIP 157): SHA-256d of the filter's hash and the previous filter's header. The
    /// filter before the genesis block's has [`FilterHeader::ZERO`].
    FilterHeader
}
hash! {
    /// The identifier of a transaction, for Bitcoin SHA-256d of its serialization without witnesses (BIP 141).
    Txid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_hashes_as_the_library_does() {
        let bytes: Vec<u8> = (0..400u32).map(|n| (n * n) as u8).collect();
        for len in 0..bytes.len() {
            let expected = bitcoin_hashes::sha256d::hash(&bytes[..len]).to_byte_array();
            assert_eq!(sha256d(&bytes[..len]), expected, "{len} bytes");
        }
    }
}
