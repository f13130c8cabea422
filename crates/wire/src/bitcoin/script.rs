//! A script as a view over its bytes. Opcodes: Bitcoin Core's `script.h`.

use std::fmt;

use bitcoin_hashes::hash160;
use hex_conservative::DisplayHex;

const OP_PUSHDATA1: u8 = 0x4c;
const OP_PUSHDATA2: u8 = 0x4d;
const OP_PUSHDATA4: u8 = 0x4e;
const OP_RETURN: u8 = 0x6a;
const OP_EQUAL: u8 = 0x87;
const OP_HASH160: u8 = 0xa9;

/// A script over the bytes of its transaction. Any bytes are one; scripts are not run here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Script<'a>(pub &'a [u8]);

/// One step of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// The opcode.
    pub opcode: u8,
    /// What it pushes, if it is one of those that carry data.
    pub data: &'a [u8],
}

/// A push that reaches past the end of its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the push at byte {offset} reaches past the end of the script")]
pub struct ScriptError {
    /// Where in the script, in bytes.
    pub offset: usize,
}

impl<'a> Script<'a> {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The steps in order, to the end or to the first push that has no end.
    #[must_use]
    pub fn instructions(self) -> Instructions<'a> {
        Instructions { script: self.0, at: 0 }
    }

    /// The data that it pushes, without empty data, up to the first push that has no end.
    pub fn pushes(self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let instructions = self.instructions().map_while(Result::ok);
        instructions.map(|instruction| instruction.data).filter(|data| !data.is_empty())
    }

    /// Whether it starts with `OP_RETURN`: an output that carries data. On BSV a leading `OP_FALSE` makes it so as well;
    /// see [`Script::is_false_return`].
    #[must_use]
    pub fn is_op_return(self) -> bool {
        self.0.first() == Some(&OP_RETURN)
    }

    /// The output script that pays to the hash of this script (BIP 16).
    #[must_use]
    pub fn to_p2sh(self) -> [u8; 23] {
        let mut output = [0; 23];
        (output[0], output[1], output[22]) = (OP_HASH160, 20, OP_EQUAL);
        output[2..22].copy_from_slice(&hash160::Hash::hash(self.0).to_byte_array());
        output
    }

    /// Whether it starts with `OP_FALSE OP_RETURN`: BSV's form of an output that carries data.
    #[must_use]
    pub fn is_false_return(self) -> bool {
        self.0.starts_with(&[0, OP_RETURN])
    }
}

impl fmt::Display for Script<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hex(), f)
    }
}

impl fmt::Debug for Script<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.0.as_hex())
    }
}

/// The steps of a script.
#[derive(Debug, Clone)]
pub struct Instructions<'a> {
    script: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Instructions<'a> {
    type Item = Result<Instruction<'a>, ScriptError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let rest = &self.script[offset..];
        let (&opcode, after) = rest.split_first()?;
        let width = match opcode {
            0..OP_PUSHDATA1 => 0,
            OP_PUSHDATA1 => 1,
            OP_PUSHDATA2 => 2,
            OP_PUSHDATA4 => 4,
            _ => {
                self.at += 1;
                return Some(Ok(Instruction { opcode, data: &[] }));
            }
        };
        let pushed = after.get(..width).and_then(|digits| {
            let length = if width == 0 {
                usize::from(opcode)
            } else {
                let mut bytes = [0; 8];
                bytes[..width].copy_from_slice(digits);
                usize::try_from(u64::from_le_bytes(bytes)).ok()?
            };
            after[width..].get(..length)
        });
        match pushed {
            Some(data) => {
                self.at += 1 + width + data.len();
                Some(Ok(Instruction { opcode, data }))
            }
            None => {
                self.at = self.script.len();
                Some(Err(ScriptError { offset }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_conservative::FromHex;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        Vec::from_hex(text).unwrap()
    }

    #[test]
    fn every_kind_of_push() {
        let mut script = vec![0x00, 0x02, 7, 8, OP_PUSHDATA1, 1, 9, OP_PUSHDATA2, 2, 0, 5, 6];
        script.extend_from_slice(&[OP_PUSHDATA4, 1, 0, 0, 0, 4, 0x51, 0xac]);
        let steps: Result<Vec<Instruction<'_>>, _> = Script(&script).instructions().collect();
        let step = |opcode, data| Instruction { opcode, data };
        let expected = [
            step(0, &[][..]),
            step(2, &[7, 8]),
            step(OP_PUSHDATA1, &[9]),
            step(OP_PUSHDATA2, &[5, 6]),
            step(OP_PUSHDATA4, &[4]),
            step(0x51, &[]),
            step(0xac, &[]),
        ];
        assert_eq!(steps.unwrap(), expected);
        let pushes: Vec<&[u8]> = Script(&script).pushes().collect();
        assert_eq!(pushes, [&[7, 8][..], &[9], &[5, 6], &[4]]);
    }

    #[test]
    fn a_push_without_end_ends_the_script() {
        for script in [&[0x51, 2, 1][..], &[0x51, OP_PUSHDATA1], &[0x51, OP_PUSHDATA4, 255, 255, 255, 255, 1]]
        {
            let steps: Vec<_> = Script(script).instructions().collect();
            let first = Instruction { opcode: 0x51, data: &[] };
            assert_eq!(steps, [Ok(first), Err(ScriptError { offset: 1 })]);
            assert_eq!(Script(script).pushes().count(), 0);
        }
    }

    /// BIP 16's example has no full keys; this is the one of BIP 49: key, redeem script, output.
    #[test]
    fn pays_to_the_hash_of_a_script() {
        let redeem = hex("001438971f73930f6c141d977ac4fd4a727c854935b3");
        let output = hex("a914336caa13e08b96080a32b5d818d59b4ab3b3674287");
        assert_eq!(Script(&redeem).to_p2sh()[..], output);
    }

    #[test]
    fn data_carriers() {
        assert!(Script(&[0x6a, 1, 2]).is_op_return() && !Script(&[0x6a]).is_false_return());
        assert!(Script(&[0, 0x6a]).is_false_return() && !Script(&[]).is_op_return());
    }
}
