//! How the nodes of a simulated network behave.

use fastrand::Rng;

/// What a node is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Character {
    /// Answers within its latency.
    Honest,
    /// Honest behind a slow line: seconds each way, and answers that trickle.
    Slow,
    /// Honest, and away every few minutes.
    Flapping,
    /// Honest, in its first download: it serves nothing.
    FirstDownload,
    /// Answers as honest nodes do, and gets no more blocks.
    Stale,
    /// Refuses every connection.
    Refusing,
    /// Nothing ever answers a dial.
    BlackHole,
    /// Takes connections and says nothing.
    Mute,
    /// Shakes hands, then vanishes without closing.
    HalfOpen,
    /// Shakes hands, asks and never reads the answers.
    Deaf,
    /// Closes or resets the connection at one stage of it.
    Resetting(Stage),
    /// Says too much of something.
    Flooding(Flood),
    /// Claims a height that nobody has, announces blocks that nobody has, tells of nodes that nobody has.
    Lying,
    /// Is on another chain, and answers with its own block, or not at all.
    WrongChain { answers: bool },
    /// Speaks another protocol.
    Garbage,
    /// Speaks a protocol from before pings were answered.
    TooOld,
    /// Serves no blocks.
    NoBlocks,
    /// Greets twice.
    GreetsTwice,
    /// Pings before hands are shaken.
    Early,
    /// Sends a block that nobody asked for.
    Pushing,
}

/// How far a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Opened,
    HalfAVersion,
    Version,
    Verack,
    Proof,
    Ready,
    FirstQuestion,
    SomeMinutes,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flood {
    Pings,
    Malformed,
    Addresses,
    NoHeaders,
}

impl Character {
    /// About half are honest.
    pub(crate) fn draw(random: &mut Rng) -> Self {
        const STAGES: [Stage; 8] = [
            Stage::Opened,
            Stage::HalfAVersion,
            Stage::Version,
            Stage::Verack,
            Stage::Proof,
            Stage::Ready,
            Stage::FirstQuestion,
            Stage::SomeMinutes,
        ];
        const FLOODS: [Flood; 4] = [Flood::Pings, Flood::Malformed, Flood::Addresses, Flood::NoHeaders];
        match random.u8(..100) {
            0..30 => Self::Honest,
            30..38 => Self::Slow,
            38..48 => Self::Flapping,
            48..50 => Self::FirstDownload,
            50..54 => Self::Stale,
            54..57 => Self::Refusing,
            57..61 => Self::BlackHole,
            61..64 => Self::Mute,
            64..67 => Self::HalfOpen,
            67..69 => Self::Deaf,
            69..79 => Self::Resetting(STAGES[random.usize(..STAGES.len())]),
            79..84 => Self::Flooding(FLOODS[random.usize(..FLOODS.len())]),
            84..88 => Self::Lying,
            88..92 => Self::WrongChain { answers: random.bool() },
            92..94 => Self::Garbage,
            94..95 => Self::TooOld,
            95..96 => Self::NoBlocks,
            96..97 => Self::GreetsTwice,
            97..98 => Self::Early,
            _ => Self::Pushing,
        }
    }

    /// Whether it means well: it must never be banned.
    pub(crate) fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::Slow | Self::Flapping | Self::FirstDownload)
    }

    /// Whether it has and serves the latest blocks.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Honest | Self::Slow | Self::Flapping)
    }

    /// Whether every connection that it brings to its end breaks the protocol, so that it must be banned.
    pub(crate) fn must_be_banned(self) -> bool {
        match self {
            Self::Flooding(_)
            | Self::WrongChain { .. }
            | Self::Garbage
            | Self::TooOld
            | Self::NoBlocks
            | Self::GreetsTwice
            | Self::Early
            | Self::Pushing => true,
            Self::Honest
            | Self::Slow
            | Self::Flapping
            | Self::FirstDownload
            | Self::Stale
            | Self::Refusing
            | Self::BlackHole
            | Self::Mute
            | Self::HalfOpen
            | Self::Deaf
            | Self::Resetting(_)
            | Self::Lying => false,
        }
    }
}
