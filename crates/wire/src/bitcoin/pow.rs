//! Targets and work, 256 bits wide. The compact form is Bitcoin Core's `arith_uint256::SetCompact`.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign},
};

use ruint::aliases::U256;

use crate::BlockHash;

/// A target in the header's `bits` form: one byte of exponent, three of mantissa.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompactTarget(pub u32);

impl CompactTarget {
    /// The target; `None` if it is zero, negative or wider than 256 bits, which no header may claim.
    #[must_use]
    pub fn to_target(self) -> Option<Target> {
        let exponent = (self.0 >> 24) as usize;
        let mantissa = U256::from(self.0 & 0x007f_ffff);
        let negative = self.0 & 0x0080_0000 != 0;
        let target = if exponent <= 3 {
            mantissa >> (8 * (3 - exponent))
        } else {
            mantissa.checked_shl(8 * (exponent - 3))?
        };
        (!negative && !target.is_zero()).then_some(Target(target))
    }
}

impl CompactTarget {
    /// The target, if a header may claim it on a network with this limit: it can be met and is no easier.
    #[must_use]
    pub fn to_target_within(self, limit: Self) -> Option<Target> {
        let limit = limit.to_target()?;
        self.to_target().filter(|target| *target <= limit)
    }
}

impl fmt::Display for CompactTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for CompactTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that a block's hash, read as a 256-bit little-endian integer, must not exceed. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(U256);

impl Target {
    /// Whether `hash` is at or below the target.
    #[must_use]
    pub fn is_met_by(self, hash: BlockHash) -> bool {
        U256::from_le_bytes(*hash.as_bytes()) <= self.0
    }

    /// The number, most significant byte first.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// The work to expect: 2^256 / (target + 1).
    #[must_use]
    pub fn work(self) -> Work {
        // 2^256 does not fit, so as Bitcoin Core does: 2^256 / (t + 1) = (2^256 - 1 - t) / (t + 1) + 1.
        match self.0.checked_add(U256::ONE) {
            Some(divisor) => Work(!self.0 / divisor + U256::ONE),
            None => Work(U256::ONE),
        }
    }
}

/// Expected number of hashes; adds up along a chain. Sums saturate at 2^256 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Work(U256);

impl Work {
    /// No work.
    pub const ZERO: Self = Self(U256::ZERO);

    /// The number, most significant byte first.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::ZERO, Self::add)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:064x}", self.0)
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bits: u32) -> Option<U256> {
        CompactTarget(bits).to_target().map(|target| target.0)
    }

    #[test]
    fn compact_targets_as_bitcoin_core_reads_them() {
        // From Bitcoin Core's arith_uint256 tests.
        assert_eq!(target(0), None);
        assert_eq!(target(0x0012_3456), None);
        assert_eq!(target(0x0112_3456), Some(U256::from(0x12)));
        assert_eq!(target(0x0212_3456), Some(U256::from(0x1234)));
        assert_eq!(target(0x0312_3456), Some(U256::from(0x12_3456)));
        assert_eq!(target(0x0412_3456), Some(U256::from(0x1234_5600)));
        assert_eq!(target(0x0492_3456), None, "negative");
        assert_eq!(target(0x2012_3456), Some(U256::from(0x12_3456) << 232));
        assert_eq!(target(0xff12_3456), None, "overflow");
        assert_eq!(target(0x1d00_ffff), Some(U256::from(0xffff) << 208));
    }

    #[test]
    fn work_of_known_targets() {
        let work = |bits| CompactTarget(bits).to_target().unwrap().work().0;
        assert_eq!(work(0x1d00_ffff), U256::from(0x1_0001_0001_u64));
        assert_eq!(work(0x207f_ffff), U256::from(2));
    }
}
