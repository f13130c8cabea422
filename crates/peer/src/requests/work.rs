//! What one request asks for and has gathered so far; recognises its answer by content.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use tipward_wire::{BlockEnd, BlockHash, BlockPart, DownloadId, Header, Txid};

use super::{Answer, AskError, SubmitError};
use crate::{PeerId, Reply, Want};

/// The most hashes or transactions that one request names.
pub(super) const MAX_NAMED: usize = 1000;

/// The content of a request.
#[derive(Debug)]
pub(super) enum Work {
    Headers {
        locator: Vec<BlockHash>,
    },
    Block {
        hash: BlockHash,
        /// One per peer, the one that moved last at the end. Together they hold no more than the answer may have.
        downloads: Vec<Download>,
    },
    Transactions {
        /// In the order asked, each once.
        ids: Vec<Txid>,
        /// What was found of each.
        found: BTreeMap<Txid, Option<Bytes>>,
        /// What the peer that is being asked has not denied and nobody has sent.
        open: BTreeSet<Txid>,
    },
    Addresses,
}

/// A block on its way from one peer.
#[derive(Debug)]
pub(super) struct Download {
    peer: PeerId,
    id: DownloadId,
    parts: Vec<Bytes>,
    size: u64,
    transactions: Vec<u64>,
}

/// What a reply means for a request.
pub(super) enum Effect {
    /// Nothing: it is about something else.
    Foreign,
    /// It is about what is asked, and of no use.
    Useless,
    /// It brings the answer nearer.
    Progress,
    /// Nothing more is to be expected of this peer.
    Failed(AskError),
    /// It completes the answer.
    Done(Answer),
}

impl Work {
    pub(super) fn new(want: Want) -> Result<Self, SubmitError> {
        let check = |asked, max| match asked {
            0 => Err(SubmitError::Empty),
            _ if asked > max => Err(SubmitError::TooMany { asked, max }),
            _ => Ok(()),
        };
        match want {
            Want::HeadersAfter(locator) => {
                check(locator.len(), MAX_NAMED)?;
                Ok(Self::Headers { locator })
            }
            Want::Blocks(blocks) => {
                check(blocks.len(), 1)?;
                let downloads = Vec::new();
                blocks.first().map(|&hash| Self::Block { hash, downloads }).ok_or(SubmitError::Empty)
            }
            Want::Transactions(mut ids) => {
                check(ids.len(), MAX_NAMED)?;
                let mut found = BTreeMap::new();
                ids.retain(|id| found.insert(*id, None).is_none());
                Ok(Self::Transactions { ids, found, open: BTreeSet::new() })
            }
            Want::Addresses => Ok(Self::Addresses),
            // Streams of many blocks are for who talks to the peer itself.
            Want::Offer { .. }
            | Want::BlocksAfter { .. }
            | Want::Range { .. }
            | Want::SlotRange { .. }
            | Want::Ancestors { .. }
            | Want::FilterHashes { .. }
            | Want::Filters { .. } => Err(SubmitError::NoAnswer),
        }
    }

    /// What is still to be asked.
    pub(super) fn want(&self) -> Want {
        match self {
            Self::Headers { locator } => Want::HeadersAfter(locator.clone()),
            Self::Block { hash, .. } => Want::Blocks(vec![*hash]),
            Self::Transactions { ids, found, .. } => Want::Transactions(missing(ids, found).collect()),
            Self::Addresses => Want::Addresses,
        }
    }

    /// A peer is asked what is still to be asked.
    pub(super) fn begin(&mut self) {
        if let Self::Transactions { ids, found, open } = self {
            *open = missing(ids, found).collect();
        }
    }

    /// Whether the answer takes memory worth counting.
    pub(super) fn is_bulky(&self) -> bool {
        matches!(self, Self::Block { .. } | Self::Transactions { .. })
    }

    /// Whether one reply answers one request only, and the order of the questions tells which.
    pub(super) fn is_exclusive(reply: &Reply) -> bool {
        matches!(reply, Reply::Headers { .. } | Reply::Addresses(_))
    }

    /// Takes what a peer said that was asked this, now (`is_current`) or before.
    pub(super) fn take(&mut self, peer: PeerId, is_current: bool, reply: &Reply, max_bytes: u64) -> Effect {
        match (self, reply) {
            (Self::Headers { locator }, Reply::Headers { headers, more }) => {
                if links(locator, headers) {
                    Effect::Done(Answer::Headers { headers: headers.clone(), more: *more })
                } else {
                    Effect::Foreign
                }
            }
            // A single address is a node's own, told unasked.
            (Self::Addresses, Reply::Addresses(addresses)) if addresses.len() > 1 => {
                Effect::Done(Answer::Addresses(addresses.clone()))
            }
            (Self::Block { hash, downloads }, Reply::Part(part)) if part.block == *hash => {
                take_part(downloads, peer, part, max_bytes)
            }
            (Self::Block { hash, downloads }, Reply::BlockEnd(end)) if end.block == *hash => {
                finish_block(downloads, peer, end)
            }
            (Self::Block { hash, downloads }, Reply::BlockAborted { block, download }) => {
                let before = downloads.len();
                downloads.retain(|it| (it.peer, it.id) != (peer, *download));
                if downloads.len() < before || block == hash {
                    Effect::Failed(AskError::Aborted)
                } else {
                    Effect::Foreign
                }
            }
            (Self::Block { hash, .. }, Reply::Missing(blocks)) if blocks.contains(hash) => {
                Effect::Failed(AskError::Missing)
            }
            (Self::Transactions { ids, found, open }, Reply::Transaction { id, bytes })
                if found.contains_key(id) =>
            {
                open.remove(id);
                take_transaction(ids, found, *id, bytes, max_bytes)
            }
            (Self::Transactions { found, open, .. }, Reply::MissingTransactions(missing))
                if missing.iter().any(|id| found.contains_key(id)) =>
            {
                let before = open.len();
                if is_current {
                    missing.iter().for_each(|id| _ = open.remove(id));
                }
                if open.len() < before { Effect::Progress } else { Effect::Useless }
            }
            _ => Effect::Foreign,
        }
    }

    /// Whether something of the answer is on its way from the peer.
    pub(super) fn is_coming_from(&self, peer: PeerId) -> bool {
        matches!(self, Self::Block { downloads, .. } if downloads.iter().any(|it| it.peer == peer))
    }

    /// Whether the peer that is being asked has denied or sent everything.
    pub(super) fn is_exhausted(&self) -> bool {
        matches!(self, Self::Transactions { open, .. } if open.is_empty())
    }

    /// What an unfinished download of the peer has brought is void.
    pub(super) fn peer_lost(&mut self, peer: PeerId) {
        if let Self::Block { downloads, .. } = self {
            downloads.retain(|it| it.peer != peer);
        }
    }

    /// The part of the answer that is of use without the rest.
    pub(super) fn partial(self) -> Option<Answer> {
        match self {
            Self::Transactions { ids, found, .. } if found.values().any(Option::is_some) => {
                Some(transactions(&ids, found))
            }
            _ => None,
        }
    }
}

fn links(locator: &[BlockHash], headers: &[Header]) -> bool {
    let Some(first) = headers.first() else { return true };
    (locator.contains(&first.parent) || locator.contains(&first.hash))
        && headers.windows(2).all(|pair| pair[1].parent == pair[0].hash)
}

fn take_part(downloads: &mut Vec<Download>, peer: PeerId, part: &BlockPart, max_bytes: u64) -> Effect {
    if part.index == 0 {
        downloads.retain(|it| it.peer != peer);
        let id = part.download;
        downloads.push(Download { peer, id, parts: Vec::new(), size: 0, transactions: Vec::new() });
    }
    let position = downloads.iter().position(|it| (it.peer, it.id) == (peer, part.download));
    let Some(position) = position else { return Effect::Useless };
    let mut download = downloads.remove(position);
    if (download.parts.len(), download.size) != (part.index as usize, part.offset) {
        return Effect::Failed(AskError::Aborted);
    }
    download.size = download.size.saturating_add(part.bytes.len() as u64);
    if download.size > max_bytes {
        return Effect::Failed(AskError::TooLarge { max_bytes });
    }
    download.parts.push(part.bytes.clone());
    download.transactions.extend(part.transaction_offsets());
    downloads.push(download);
    // Room is made at the cost of those that have not moved for longest; this one has room alone.
    while downloads.iter().map(|it| it.size).sum::<u64>() > max_bytes {
        downloads.remove(0);
    }
    Effect::Progress
}

fn finish_block(downloads: &mut Vec<Download>, peer: PeerId, end: &BlockEnd) -> Effect {
    let position = downloads.iter().position(|it| (it.peer, it.id) == (peer, end.download));
    let Some(position) = position else { return Effect::Useless };
    let Download { mut parts, size, transactions, .. } = downloads.remove(position);
    if (size, transactions.len() as u64) != (end.size, end.transactions) {
        return Effect::Failed(AskError::Aborted);
    }
    let bytes = if parts.len() == 1 {
        parts.remove(0)
    } else {
        let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.into_iter().for_each(|part| whole.extend_from_slice(&part));
        whole.freeze()
    };
    Effect::Done(Answer::Block { hash: end.block, bytes, transactions })
}

fn take_transaction(
    ids: &[Txid],
    found: &mut BTreeMap<Txid, Option<Bytes>>,
    id: Txid,
    bytes: &Bytes,
    max_bytes: u64,
) -> Effect {
    let held: u64 = found.values().flatten().map(|bytes| bytes.len() as u64).sum();
    let is_new = found.get(&id).is_some_and(Option::is_none);
    if !is_new {
        return Effect::Useless;
    }
    if held.saturating_add(bytes.len() as u64) > max_bytes {
        return Effect::Failed(AskError::TooLarge { max_bytes });
    }
    found.insert(id, Some(bytes.clone()));
    if found.values().all(Option::is_some) {
        return Effect::Done(transactions(ids, std::mem::take(found)));
    }
    Effect::Progress
}

fn missing(ids: &[Txid], found: &BTreeMap<Txid, Option<Bytes>>) -> impl Iterator<Item = Txid> {
    ids.iter().filter(|id| !matches!(found.get(id), Some(Some(_)))).copied()
}

fn transactions(ids: &[Txid], mut found: BTreeMap<Txid, Option<Bytes>>) -> Answer {
    let missing = missing(ids, &found).collect();
    let found = ids.iter().filter_map(|id| found.remove(id).flatten().map(|bytes| (*id, bytes))).collect();
    Answer::Transactions { found, missing }
}
