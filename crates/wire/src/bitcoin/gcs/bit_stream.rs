//! The bit stream of a filter: differences in the Golomb-Rice coding of BIP 158.

use bytes::{BufMut, Bytes, BytesMut};

/// How many low bits of a difference are written as they are; the rest is unary (BIP 158's P).
pub(super) const REMAINDER_BITS: u32 = 19;

/// Reads bits from the most significant one of each byte on.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// The next bits, from the most significant one on. Below the available ones there may already be some of
    /// those that follow.
    window: u64,
    /// How many bits of the window are taken from `rest`; at most 63.
    available: u32,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(stream: &'a [u8]) -> Self {
        Self { rest: stream, window: 0, available: 0 }
    }

    /// Makes at least 56 bits available, or all that are left.
    fn refill(&mut self) {
        if let Some(word) = self.rest.first_chunk() {
            self.window |= u64::from_be_bytes(*word) >> self.available;
            let taken = (63 - self.available) / 8;
            self.rest = &self.rest[taken as usize..];
            self.available += 8 * taken;
            return;
        }
        while self.available < 56
            && let Some((byte, rest)) = self.rest.split_first()
        {
            self.window |= u64::from(*byte) << (56 - self.available);
            self.available += 8;
            self.rest = rest;
        }
    }

    fn skip(&mut self, bits: u32) {
        self.window <<= bits;
        self.available -= bits;
    }

    /// Counts ones up to the next zero and skips them and it. `None` if the stream ends before.
    pub(super) fn read_ones(&mut self) -> Option<u64> {
        let mut ones = 0;
        loop {
            self.refill();
            let run = self.window.leading_ones().min(self.available);
            ones += u64::from(run);
            if run < self.available {
                self.skip(run + 1);
                return Some(ones);
            }
            if run == 0 {
                return None;
            }
            self.skip(run);
        }
    }

    /// Reads the bits of a remainder. `None` if the stream ends before.
    pub(super) fn read_remainder(&mut self) -> Option<u64> {
        if self.available < REMAINDER_BITS {
            self.refill();
        }
        if self.available < REMAINDER_BITS {
            return None;
        }
        let remainder = self.window >> (64 - REMAINDER_BITS);
        self.skip(REMAINDER_BITS);
        Some(remainder)
    }

    /// How many bytes no bit was read of.
    pub(super) const fn unread_bytes(&self) -> usize {
        self.rest.len() + self.available as usize / 8
    }
}

/// Writes bits from the most significant one of each byte on.
pub(super) struct BitWriter {
    bytes: BytesMut,
    /// Bits that do not fill a byte yet, from the least significant one on.
    pending: u64,
    /// How many these are; at most 7 between calls.
    len: u32,
}

impl BitWriter {
    /// Writes behind `bytes`.
    pub(super) const fn new(bytes: BytesMut) -> Self {
        Self { bytes, pending: 0, len: 0 }
    }

    /// Writes the `count` low bits of `bits`, at most 32; the others are zero.
    fn write(&mut self, bits: u64, count: u32) {
        self.pending = self.pending << count | bits;
        self.len += count;
        while self.len >= 8 {
            self.len -= 8;
            self.bytes.put_u8((self.pending >> self.len) as u8);
        }
    }

    /// Writes a difference: the quotient as ones, a zero, and the remainder.
    pub(super) fn write_difference(&mut self, difference: u64) {
        let mut quotient = difference >> REMAINDER_BITS;
        while quotient > 0 {
            let ones = quotient.min(32) as u32;
            self.write((1 << ones) - 1, ones);
            quotient -= u64::from(ones);
        }
        self.write(0, 1);
        self.write(difference & ((1 << REMAINDER_BITS) - 1), REMAINDER_BITS);
    }

    /// Pads the last byte with zeros.
    pub(super) fn finish(mut self) -> Bytes {
        if self.len > 0 {
            self.write(0, 8 - self.len);
        }
        self.bytes.freeze()
    }
}
