//! Who brings what.

use tipward_peer::PeerId;

/// What one peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerShare {
    /// The peer.
    pub peer: PeerId,
    /// Blocks that it has brought, needed or not.
    pub blocks: u64,
    /// Bytes of blocks that it has brought.
    pub bytes: u64,
    /// How fast it brings them, in bytes a second, measured while something is asked of it; 0 until it was measured.
    pub rate: u64,
    /// Blocks asked of it that have not come.
    pub in_flight: usize,
}
