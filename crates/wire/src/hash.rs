//! 32-byte identifiers, kept in the order in which they travel and shown in the order in which explorers print them
//! (reversed).

use std::{fmt, str::FromStr};

use hex_conservative::{DisplayHex, decode_to_array};

/// SHA-256 applied twice: the hash of Bitcoin's headers, transactions and frame checksums.
///
/// ```
/// let hash = tipward_wire::sha256d(b"");
/// assert_eq!(hash[..4], [0x5d, 0xf6, 0xe0, 0xe2]); // the checksum of an empty payload
/// ```
#[must_use]
pub fn sha256d(bytes: &[u8]) -> [u8; 32] {
    bitcoin_hashes::sha256d::hash(bytes).to_byte_array()
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
