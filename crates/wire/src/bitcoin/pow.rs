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
        let (exponent, mantissa) = ((self.0 >> 24) as usize, u64::from(self.0 & 0x007f_ffff));
        let is_negative = self.0 & 0x0080_0000 != 0;
        let (number, bytes) =
            if exponent <= 3 { (mantissa >> (8 * (3 - exponent)), 0) } else { (mantissa, exponent - 3) };
        if is_negative || number == 0 {
            return None;
        }
        // Limb by limb: this runs for every header, and a general shift looks at every limb and for overflow.
        let mut limbs = [0; 4];
        let shifted = u128::from(number) << (8 * (bytes % 8));
        *limbs.get_mut(bytes / 8)? = shifted as u64;
        match (limbs.get_mut(bytes / 8 + 1), (shifted >> 64) as u64) {
            (Some(above), high) => *above = high,
            (None, 0) => {}
            (None, _) => return None,
        }
        Some(Target(U256::from_limbs(limbs)))
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

    /// The compact form, which keeps the 15 to 23 highest bits and drops the others.
    #[must_use]
    pub fn to_compact(self) -> CompactTarget {
        let size = self.0.byte_len();
        let shifted = if size <= 3 { self.0 << (8 * (3 - size)) } else { self.0 >> (8 * (size - 3)) };
        let mantissa: u32 = shifted.wrapping_to();
        // The mantissa's highest bit is a sign.
        let (mantissa, size) =
            if mantissa & 0x0080_0000 == 0 { (mantissa, size) } else { (mantissa >> 8, size + 1) };
        CompactTarget(mantissa | (size as u32) << 24)
    }

    /// The target times `by / over`, rounded down, within 1 and 2^256 - 1. `over` must not be zero.
    #[must_use]
    pub fn scaled(self, by: u32, over: u32) -> Self {
        Self(scaled(self.0, by, over).max(U256::ONE))
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

    /// From the number, most significant byte first.
    #[must_use]
    pub const fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(U256::from_be_bytes(bytes))
    }

    /// The number, most significant byte first.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// The work without `other`; `None` if that is more.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The work times `by / over`, rounded down, at most 2^256 - 1. `over` must not be zero.
    #[must_use]
    pub fn scaled(self, by: u32, over: u32) -> Self {
        Self(scaled(self.0, by, over))
    }

    /// The target that takes this work: (2^256 - work) / work, rounded down. The easiest if there is no work, the hardest
    /// if the quotient is zero.
    #[must_use]
    pub fn to_target(self) -> Target {
        let quotient = self.0.wrapping_neg().checked_div(self.0);
        Target(quotient.map_or(U256::MAX, |target| target.max(U256::ONE)))
    }
}

/// Does not overflow on the way as a product first would.
fn scaled(number: U256, by: u32, over: u32) -> U256 {
    let (by, over) = (U256::from(by), U256::from(over));
    let (quotient, rest) = number.div_rem(over);
    quotient.saturating_mul(by).saturating_add(rest * by / over)
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
    fn the_compact_form_of_a_target_as_bitcoin_core_writes_it() {
        let compact = |target| Target(target).to_compact().0;
        for bits in
            [0x0101_0000, 0x0201_2300, 0x0312_3456, 0x0412_3456, 0x1d00_ffff, 0x1b04_04cb, 0x207f_ffff]
        {
            assert_eq!(compact(target(bits).unwrap()), bits, "{bits:08x}");
        }
        assert_eq!(compact(U256::from(0x80)), 0x0200_8000, "not a negative number");
        assert_eq!(compact(U256::from(0x12_3456_78ff_u64)), 0x0512_3456, "the rest is dropped");
        assert_eq!(compact((U256::ONE << 224) - U256::ONE), 0x1d00_ffff, "Bitcoin Core's limit");
        assert_eq!(compact(U256::MAX), 0x2100_ffff);
    }

    #[test]
    fn scaling_is_exact_and_stays_in_range() {
        let scale =
            |number: U256, by, over| (Target(number).scaled(by, over).0, Work(number).scaled(by, over).0);
        let both = |number| (number, number);
        assert_eq!(scale(U256::from(1001), 5, 4), both(U256::from(1251)));
        assert_eq!(
            scale(U256::MAX >> 1, 1_209_601, 1_209_600),
            both((U256::MAX >> 1) + (U256::MAX >> 1) / U256::from(1_209_600))
        );
        assert_eq!(scale(U256::MAX, 4, 1), both(U256::MAX));
        assert_eq!(scale(U256::ONE, 1, 4), (U256::ONE, U256::ZERO), "no target is zero");
    }

    #[test]
    fn work_and_targets_are_each_others_inverse() {
        for bits in [0x1d00_ffff, 0x207f_ffff, 0x1704_9c4e] {
            let work = CompactTarget(bits).to_target().unwrap().work();
            assert_eq!(work.to_target().work(), work);
        }
        assert_eq!(Work(U256::from(2)).to_target().0, (U256::MAX >> 1));
        assert_eq!((Work::ZERO.to_target().0, Work(U256::MAX).to_target().0), (U256::MAX, U256::ONE));
        let three = Work::from_be_bytes(U256::from(3).to_be_bytes());
        assert_eq!(three.checked_sub(Work(U256::ONE)), Some(Work(U256::from(2))));
        assert_eq!(Work(U256::ONE).checked_sub(three), None);
    }

    #[test]
    fn work_of_known_targets() {
        let work = |bits| CompactTarget(bits).to_target().unwrap().work().0;
        assert_eq!(work(0x1d00_ffff), U256::from(0x1_0001_0001_u64));
        assert_eq!(work(0x207f_ffff), U256::from(2));
    }
}
