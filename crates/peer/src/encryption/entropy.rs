//! What is random in an encrypted connection: our key and our garbage (BIP 324).

use std::{fmt, io};

/// The most bytes of garbage that may follow a key.
pub(super) const MAX_GARBAGE: usize = 4095;

/// A secret key and garbage: bytes without meaning that follow our key, so that neither its length nor what comes after it
/// can be told from noise.
pub struct Entropy {
    pub(super) secret: [u8; 32],
    pub(super) garbage: Vec<u8>,
}

impl Entropy {
    /// From the system's generator; the garbage has from 0 to 4095 bytes.
    ///
    /// # Errors
    /// The system has none, or it failed.
    pub fn from_system() -> Result<Self, io::Error> {
        Self::new(|bytes| getrandom::fill(bytes).map_err(io::Error::other))
    }

    /// From a seed, for tests and simulations: the key can be guessed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let filled: Result<Self, std::convert::Infallible> = Self::new(|bytes| {
            random.fill(bytes);
            Ok(())
        });
        match filled {
            Ok(entropy) => entropy,
        }
    }

    fn new<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let (mut secret, mut length) = ([0; 32], [0; 2]);
        fill(&mut secret)?;
        fill(&mut length)?;
        // Twelve bits: all lengths are as likely.
        let mut garbage = vec![0; usize::from(u16::from_le_bytes(length)) & MAX_GARBAGE];
        fill(&mut garbage)?;
        Ok(Self { secret, garbage })
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").field("garbage", &self.garbage.len()).finish_non_exhaustive()
    }
}
