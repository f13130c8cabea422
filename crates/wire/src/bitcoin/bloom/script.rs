//! The two templates of scripts that pay to public keys, as Bitcoin Core's `Solver` knows them.

use crate::bitcoin::{Instruction, Script};

const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKMULTISIG: u8 = 0xae;

/// The most public keys of a multisig script.
const MAX_MULTISIG_KEYS: u8 = 20;

/// Whether an output with this script pays to one public key or, by a bare multisig script, to several.
pub(super) fn is_pubkey_or_multisig(script: &[u8]) -> bool {
    is_pubkey(script) || is_multisig(script)
}

fn is_pubkey(script: &[u8]) -> bool {
    match script {
        [33, key @ .., OP_CHECKSIG] => key.len() == 33 && is_key(key),
        [65, key @ .., OP_CHECKSIG] => key.len() == 65 && is_key(key),
        _ => false,
    }
}

/// Whether the script is "m keys n OP_CHECKMULTISIG" with n keys, and 1 <= m <= n.
fn is_multisig(script: &[u8]) -> bool {
    let [instructions @ .., OP_CHECKMULTISIG] = script else { return false };
    let mut instructions = Script(instructions).instructions().map_while(Result::ok);
    let Some(required) = instructions.next().and_then(number) else { return false };
    let mut keys = 0_usize;
    while let Some(instruction) = instructions.next() {
        if is_key(instruction.data) {
            keys += 1;
            continue;
        }
        let complete = instructions.next().is_none();
        return complete
            && number(instruction).is_some_and(|count| required <= count && keys == usize::from(count));
    }
    false
}

/// Whether the length is right for a public key of the kind that the first byte tells.
fn is_key(data: &[u8]) -> bool {
    match data.first() {
        Some(2 | 3) => data.len() == 33,
        Some(4 | 6 | 7) => data.len() == 65,
        _ => false,
    }
}

/// The number pushed, in its shortest form, if it can be a number of signatures or keys.
fn number(instruction: Instruction<'_>) -> Option<u8> {
    match (instruction.opcode, instruction.data) {
        (OP_1..=OP_16, _) => Some(instruction.opcode - OP_1 + 1),
        (1, [number @ 17..=MAX_MULTISIG_KEYS]) => Some(*number),
        _ => None,
    }
}
