//! `CompactSize`: the variable-length integer of lengths and counts.

use bytes::{BufMut, BytesMut};

/// Appends a CompactSize in its shortest form.
pub fn encode_compact_size(value: u64, output: &mut BytesMut) {
    match value {
        0..=0xfc => output.put_u8(value as u8),
        0xfd..=0xffff => {
            output.put_u8(0xfd);
            output.put_u16_le(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            output.put_u8(0xfe);
            output.put_u32_le(value as u32);
        }
        _ => {
            output.put_u8(0xff);
            output.put_u64_le(value);
        }
    }
}

/// The length of a CompactSize in bytes, from its first byte.
pub(crate) const fn compact_size_len(first: u8) -> usize {
    match first {
        0..=0xfc => 1,
        0xfd => 3,
        0xfe => 5,
        0xff => 9,
    }
}

/// Reads a CompactSize from the front of `input`: the value and its length in bytes. `None` if `input` is too short or
/// the value is not in its shortest form, which nodes refuse.
#[must_use]
pub fn decode_compact_size(input: &[u8]) -> Option<(u64, usize)> {
    let (&first, rest) = input.split_first()?;
    let len = compact_size_len(first);
    let mut bytes = [0; 8];
    bytes.get_mut(..len - 1)?.copy_from_slice(rest.get(..len - 1)?);
    let value = u64::from_le_bytes(bytes);
    let shortest = match len {
        1 => return Some((u64::from(first), 1)),
        3 => value > 0xfc,
        5 => value > 0xffff,
        _ => value > 0xffff_ffff,
    };
    shortest.then_some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_every_boundary() {
        for value in [0, 1, 0xfc, 0xfd, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut bytes = BytesMut::new();
            encode_compact_size(value, &mut bytes);
            assert_eq!(decode_compact_size(&bytes), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(decode_compact_size(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn refuses_longer_forms() {
        assert_eq!(decode_compact_size(&[0xfd, 0xfc, 0]), None);
        assert_eq!(decode_compact_size(&[0xfe, 0xff, 0xff, 0, 0]), None);
        assert_eq!(decode_compact_size(&[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), None);
    }
}
