//! Messages to payloads.

use bytes::{BufMut, BytesMut};

use super::{Inventory, Locator, Message, NetworkAddress, Protoconf, Reject, Version, encode_compact_size};

/// Appends the payload of `message`.
pub(super) fn payload(message: &Message, output: &mut BytesMut) {
    match message {
        Message::Version(version) => self::version(version, output),
        Message::Verack | Message::SendHeaders => {}
        Message::Ping(nonce) | Message::Pong(nonce) => output.put_u64_le(*nonce),
        Message::GetHeaders(locator) | Message::GetBlocks(locator) => self::locator(locator, output),
        Message::Headers(headers) => {
            encode_compact_size(headers.len() as u64, output);
            for header in headers {
                output.put_slice(&header.to_bytes());
                output.put_u8(0); // the number of transactions that follow
            }
        }
        Message::Inv(entries) | Message::GetData(entries) | Message::NotFound(entries) => {
            inventory(entries, output);
        }
        Message::Protoconf(protoconf) => self::protoconf(protoconf, output),
        Message::Reject(reject) => self::reject(reject, output),
        Message::Block(payload) | Message::Other { payload, .. } => output.put_slice(payload),
    }
}

fn version(version: &Version, output: &mut BytesMut) {
    output.put_i32_le(version.protocol);
    output.put_u64_le(version.services.0);
    output.put_i64_le(version.time);
    address(&version.receiver, output);
    address(&version.sender, output);
    output.put_u64_le(version.nonce);
    string(&version.user_agent, output);
    output.put_i32_le(version.start_height);
    output.put_u8(u8::from(version.relay));
}

fn address(address: &NetworkAddress, output: &mut BytesMut) {
    output.put_u64_le(address.services.0);
    output.put_slice(&address.ip.octets());
    output.put_u16(address.port);
}

fn locator(locator: &Locator, output: &mut BytesMut) {
    output.put_u32_le(locator.protocol);
    encode_compact_size(locator.hashes.len() as u64, output);
    for hash in &locator.hashes {
        output.put_slice(hash.as_bytes());
    }
    output.put_slice(locator.stop.as_bytes());
}

fn inventory(entries: &[Inventory], output: &mut BytesMut) {
    encode_compact_size(entries.len() as u64, output);
    for entry in entries {
        output.put_u32_le(entry.kind.to_u32());
        output.put_slice(&entry.hash);
    }
}

fn protoconf(protoconf: &Protoconf, output: &mut BytesMut) {
    encode_compact_size(1 + u64::from(protoconf.stream_policies.is_some()), output);
    output.put_u32_le(protoconf.max_receive_payload);
    if let Some(policies) = &protoconf.stream_policies {
        string(policies, output);
    }
}

fn reject(reject: &Reject, output: &mut BytesMut) {
    string(&reject.message, output);
    output.put_u8(reject.code);
    string(&reject.reason, output);
    if let Some(hash) = &reject.hash {
        output.put_slice(hash);
    }
}

fn string(text: &str, output: &mut BytesMut) {
    encode_compact_size(text.len() as u64, output);
    output.put_slice(text.as_bytes());
}
