//! What members tell each other.

use std::time::Duration;

use super::Status;

/// The longest text kept of what a member tells about itself, in bytes; the rest is cut off.
const MAX_TEXT: usize = 256;

/// A member, as it tells about itself in every heartbeat, with the status that the holder of the table gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo<Id> {
    /// Names the member among all; the same after a reconnect.
    pub id: Id,
    /// The environment the member belongs to, such as `production`; 256 bytes at most.
    pub env: String,
    /// The version of its program; 256 bytes at most.
    pub version: String,
    /// Whether it takes itself for the master.
    pub is_master: bool,
    /// Whether its part in elections is forced.
    pub force: Force,
    /// The machine it runs on.
    pub host: Host,
    /// Its process.
    pub pid: u32,
    /// When this was said: the member's clock, in ms since the Unix epoch. Never goes back while the process lives;
    /// 0 if the member never told.
    pub timestamp: u64,
    /// The seniority that elections go by, in ms since the Unix epoch: when the member started by its own clock, moved
    /// behind every older member that it heard of. Of a member that never told, when we first heard of it.
    pub connected_since: u64,
    /// For how long it had been running at [`timestamp`](Self::timestamp).
    pub up_time: Duration,
    /// What we think of it; what the sender writes here is ignored.
    pub status: Status,
}

impl<Id> MemberInfo<Id> {
    /// A member of which nothing but its name is known.
    #[must_use]
    pub fn new(id: Id) -> Self {
        Self {
            id,
            env: String::new(),
            version: String::new(),
            is_master: false,
            force: Force::None,
            host: Host::default(),
            pid: 0,
            timestamp: 0,
            connected_since: 0,
            up_time: Duration::ZERO,
            status: Status::Healthy,
        }
    }

    /// Whether the member's part in elections is forced, to be master or not to be.
    #[must_use]
    pub fn is_master_forced(&self) -> bool {
        self.force != Force::None
    }

    pub(crate) fn cut(&mut self) {
        for text in [&mut self.env, &mut self.version, &mut self.host.cpu, &mut self.host.os] {
            let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
            text.truncate(end.unwrap_or(0));
            text.shrink_to_fit();
        }
    }
}

/// Whether a member's part in elections is forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Force {
    /// It takes part by seniority.
    #[default]
    None,
    /// It is master, unless another one was forced later.
    Master {
        /// When it was forced, in ms since the Unix epoch; later than every force known to the member then.
        at: u64,
    },
    /// It is not master.
    NotMaster,
}

/// A member's machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Host {
    /// How many cores it has.
    pub cores: u32,
    /// The name of its processor; 256 bytes at most.
    pub cpu: String,
    /// Its operating system; 256 bytes at most.
    pub os: String,
    /// Its memory, in bytes.
    pub ram: u64,
}

/// What members send to each other. Every member gets every message; a sender's own messages may come back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<Id> {
    /// A member has started; the others answer with their status at once.
    Hello {
        /// Who.
        id: Id,
    },
    /// The heartbeat.
    Status(Box<MemberInfo<Id>>),
    /// A member goes; it is removed at once.
    Bye {
        /// Who.
        id: Id,
        /// When, by its clock, in ms since the Unix epoch. What it said until then counts no more.
        timestamp: u64,
    },
}

/// What became different in the table of members. The local member is always there and never told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<Id> {
    /// Who is new; healthy unless listed in `status` too. Sorted.
    pub added: Vec<Id>,
    /// Who is gone, by time-out too. Sorted.
    pub removed: Vec<Id>,
    /// Whose status is another one now. Sorted.
    pub status: Vec<(Id, Status)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut info = MemberInfo::new(1);
        (info.env, info.version) = ("é".repeat(1000), format!("a{}", "é".repeat(1000)));
        info.host.os = "linux".to_owned();
        info.cut();
        assert_eq!((info.env.len(), info.version.len(), &*info.host.os), (256, 255, "linux"));
    }
}
