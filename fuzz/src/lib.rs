//! What the targets share.

use bytes::{Bytes, BytesMut};
use tipward_wire::bitcoin::{Command, Message, Transaction};

/// Parses `data` as a payload: its first byte chooses the command. What parses must be written and parsed again as the same.
pub fn message(commands: &[&str], data: &[u8]) -> Option<Message> {
    let (&which, payload) = data.split_first()?;
    let name = commands[usize::from(which) % commands.len()];
    assert!(Message::COMMANDS.contains(&name), "{name} is no command");
    let command = Command::new(name)?;
    let (message, trailing) = Message::parse(command, Bytes::copy_from_slice(payload)).ok()?;
    let mut again = BytesMut::new();
    message.serialize(&mut again);
    again.extend_from_slice(&trailing);
    let parsed = Message::parse(command, again.freeze()).expect("what was written parses");
    assert_eq!(parsed, (message, trailing));
    Some(parsed.0)
}

/// Looks at every field of a transaction.
pub fn walk(transaction: &Transaction) {
    let bytes = transaction.as_bytes();
    let mut seen = 0;
    for input in transaction.inputs() {
        assert_eq!(bytes[input.offset..input.offset + 36], *input.outpoint_bytes());
        seen += 41 + input.script().as_bytes().len();
        input.script().instructions().for_each(|step| seen += usize::from(step.is_err()));
    }
    for output in transaction.outputs() {
        seen += 9 + output.script().as_bytes().len();
        output.script().pushes().for_each(|data| assert!(!data.is_empty()));
    }
    let items: usize = transaction.witnesses().flat_map(|witness| witness.items()).map(<[u8]>::len).sum();
    assert!(items <= bytes.len() && transaction.weight() <= 4 * bytes.len());
    if !transaction.has_witnesses() {
        assert_eq!(transaction.txid().as_bytes(), transaction.wtxid().as_bytes());
        assert!(seen <= bytes.len() + transaction.inputs().len() + transaction.outputs().len());
    }
}
