//! How both sides get to know each other.
//!
//! The chains shake hands in the same order and differ in what may be said in between, and BTC, BSV and BCH are told apart by
//! a block that only one of them has.

use std::time::{SystemTime, UNIX_EPOCH};

use tipward_wire::bitcoin::{Chain, Locator, Message, NetworkAddress, Protoconf, Services, Version};

use super::session::{BitcoinSession, PROTOCOL_VERSION, State};
use crate::{Direction, Needs, Outbox, PeerInfo, SessionEvent, Violation};

/// The oldest protocol version whose pings are answered (BIP 31).
const MIN_PROTOCOL_VERSION: i32 = 60001;
/// What we tell BSV nodes that we accept, in bytes: the least allowed, so that no `inv` gets longer than on BTC.
const MAX_RECEIVE_PAYLOAD: u32 = 1 << 20;
/// How many blocks a node with NETWORK_LIMITED serves (BIP 159).
const LIMITED_BLOCKS: u64 = 288;

impl BitcoinSession {
    pub(super) fn our_version(&self) -> Version {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Version {
            protocol: PROTOCOL_VERSION,
            services: Services(self.options.services),
            time: now.as_secs() as i64,
            receiver: NetworkAddress::UNSPECIFIED,
            sender: NetworkAddress::UNSPECIFIED,
            nonce: self.nonce,
            user_agent: self.options.user_agent.as_str().into(),
            start_height: i32::try_from(self.local.height()).unwrap_or(i32::MAX),
            relay: self.options.relay_transactions,
            association_id: None,
        }
    }

    fn judge(&self, version: &Version) -> Result<PeerInfo, Violation> {
        if self.local.is_own(version.nonce) {
            return Err(Violation::OwnNonce);
        }
        if version.protocol < MIN_PROTOCOL_VERSION {
            return Err(Violation::TooOld { found: version.protocol, needed: MIN_PROTOCOL_VERSION });
        }
        let services = version.services;
        let serves = services.has(Services::NETWORK) || services.has(Services::NETWORK_LIMITED);
        let with_witnesses = self.network.chain == Chain::Bsv || services.has(Services::WITNESS);
        let needs = self.options.needs;
        if needs != Needs::Nothing && !(serves && with_witnesses) {
            return Err(Violation::NoBlocks { services: services.0 });
        }
        if needs == Needs::Filters && !services.has(Services::COMPACT_FILTERS) {
            return Err(Violation::NoFilters { services: services.0 });
        }
        let mut info =
            PeerInfo::new(version.user_agent.to_string(), u64::try_from(version.start_height).unwrap_or(0));
        info.recent_only = (!services.has(Services::NETWORK)).then_some(LIMITED_BLOCKS);
        info.protocol_version = version.protocol.unsigned_abs();
        info.services = services.0;
        info.clock = u64::try_from(version.time).ok();
        info.relays_transactions = version.relay;
        Ok(info)
    }

    pub(super) fn shake_hands(
        &mut self,
        message: &Message,
        out: &mut Outbox<Message>,
    ) -> Result<(), Violation> {
        match (&self.state, message) {
            (State::AwaitVersion, Message::Version(version)) => {
                let info = self.judge(version)?;
                if self.direction == Direction::Inbound {
                    out.messages.push(Message::Version(self.our_version()));
                }
                if self.network.chain == Chain::Btc {
                    out.messages.push(Message::SendAddrV2);
                }
                out.messages.push(Message::Verack);
                if self.network.chain == Chain::Bsv {
                    out.messages.push(Message::Protoconf(Protoconf {
                        max_receive_payload: MAX_RECEIVE_PAYLOAD,
                        stream_policies: None,
                    }));
                }
                self.state = State::AwaitVerack(info);
            }
            (State::AwaitVerack(info), Message::Verack) => {
                let info = info.clone();
                out.events.push(SessionEvent::Greeted);
                self.greeted(info, out);
            }
            (State::AwaitVerack(_), Message::Version(_)) => return Err(Violation::SecondVersion),
            // Features are negotiated between `version` and `verack` by messages of their own; who does not know them
            // declines them by silence.
            (
                _,
                Message::Verack
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::GetHeaders(_)
                | Message::GetBlocks(_)
                | Message::Headers(_)
                | Message::Inv(_)
                | Message::GetData(_)
                | Message::NotFound(_)
                | Message::SendHeaders,
            ) => return Err(Violation::TooEarly { command: message.command().as_str().to_owned() }),
            _ => {}
        }
        Ok(())
    }

    /// BTC, BSV and BCH share ports, and two of them their magic: only blocks tell them apart. Who claims to have the block
    /// that our chain has and its sisters have not shows its header when asked for nothing else.
    ///
    /// Who does not know the block says nothing. A ping after the question tells that from a line that went dead: nodes
    /// answer in order.
    fn greeted(&mut self, info: PeerInfo, out: &mut Outbox<Message>) {
        match self.network.chain_block {
            Some((height, block))
                if self.options.needs != Needs::Nothing && info.claimed_height >= height =>
            {
                let locator = Locator { protocol: PROTOCOL_VERSION as u32, hashes: Vec::new(), stop: block };
                out.messages.extend([Message::GetHeaders(locator), Message::Ping(self.nonce)]);
                self.state = State::AwaitProof { info, block, has_read: false };
            }
            _ => self.ready(info, out),
        }
    }

    fn ready(&mut self, info: PeerInfo, out: &mut Outbox<Message>) {
        self.filters.greeted(info.services);
        out.events.push(SessionEvent::Ready(info));
        out.messages.push(Message::SendHeaders);
        self.state = State::Ready;
    }

    /// Listens for the proof, and otherwise to what needs an answer only.
    pub(super) fn prove(&mut self, message: Message, out: &mut Outbox<Message>) -> Result<(), Violation> {
        let nonce = self.nonce;
        let State::AwaitProof { info, block, has_read } = &mut self.state else { return Ok(()) };
        match message {
            Message::Version(_) => return Err(Violation::SecondVersion),
            Message::Ping(nonce) => out.messages.push(Message::Pong(nonce)),
            Message::Pong(answered) => *has_read |= answered == nonce,
            Message::Headers(headers) => match &headers[..] {
                // Nodes in their first download answer so.
                [] => return Err(Violation::Behind),
                [header] if header.hash() == *block => {
                    let info = info.clone();
                    self.ready(info, out);
                }
                // An announcement.
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}
