//! How silence becomes a status, and after which times.

use std::time::Duration;

/// The shortest interval that may be set; below it the checks alone would keep a processor busy.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// How a member is, judged by how long nothing was received from it. One that is silent for longer than
/// [`Timings::remove`] has no status: it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Heard of lately.
    Healthy,
    /// Silent for longer than [`Timings::slow`].
    Slow,
    /// Silent for longer than [`Timings::warn`].
    Warning,
    /// Silent for longer than [`Timings::dead`]; no candidate for master.
    Dead,
}

/// How often to send and to look, and what silence means. Valid if `1 ms <= send_alive`, `1 ms <= check`, and
/// `check <= slow < warn < dead < remove`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// How often to send a heartbeat.
    pub send_alive: Duration,
    /// How often to look at the others' silence; a status is late by this at most.
    pub check: Duration,
    /// A member that is silent for longer is [`Status::Slow`].
    pub slow: Duration,
    /// A member that is silent for longer is in [`Status::Warning`].
    pub warn: Duration,
    /// A member that is silent for longer is [`Status::Dead`].
    pub dead: Duration,
    /// A member that is silent for longer is removed.
    pub remove: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self::lan()
    }
}

impl Timings {
    /// For processes on one local network: heartbeats every 500 ms, checks every 250 ms, slow after 1 s, warning after
    /// 2 s, dead after 5 s, removed after 10 s.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            send_alive: Duration::from_millis(500),
            check: Duration::from_millis(250),
            slow: Duration::from_secs(1),
            warn: Duration::from_secs(2),
            dead: Duration::from_secs(5),
            remove: Duration::from_secs(10),
        }
    }

    /// For the nodes of a block chain: pings every 120 s, checks every 10 s, slow after 3 min, warning after 10 min, dead
    /// after 20 min, removed after 30 min.
    #[must_use]
    pub const fn chain() -> Self {
        Self {
            send_alive: Duration::from_secs(120),
            check: Duration::from_secs(10),
            slow: Duration::from_secs(3 * 60),
            warn: Duration::from_secs(10 * 60),
            dead: Duration::from_secs(20 * 60),
            remove: Duration::from_secs(30 * 60),
        }
    }

    /// The status after so much silence; `None` if the member is to be removed.
    #[must_use]
    pub fn status(&self, silence: Duration) -> Option<Status> {
        match silence {
            d if d <= self.slow => Some(Status::Healthy),
            d if d <= self.warn => Some(Status::Slow),
            d if d <= self.dead => Some(Status::Warning),
            d if d <= self.remove => Some(Status::Dead),
            _ => None,
        }
    }

    /// These timings with the given fields changed.
    ///
    /// # Errors
    /// The result would break a rule.
    pub fn with(self, change: TimingsChange) -> Result<Self, InvalidTimings> {
        let timings = Self {
            send_alive: change.send_alive.unwrap_or(self.send_alive),
            check: change.check.unwrap_or(self.check),
            slow: change.slow.unwrap_or(self.slow),
            warn: change.warn.unwrap_or(self.warn),
            dead: change.dead.unwrap_or(self.dead),
            remove: change.remove.unwrap_or(self.remove),
        };
        timings.validate()?;
        Ok(timings)
    }

    /// Checks the rules.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidTimings> {
        let Self { send_alive, check, slow, warn, dead, remove } = *self;
        if send_alive < MIN_INTERVAL {
            Err(InvalidTimings::SendAliveTooShort { send_alive })
        } else if check < MIN_INTERVAL {
            Err(InvalidTimings::CheckTooShort { check })
        } else if check > slow {
            Err(InvalidTimings::CheckAboveSlow { check, slow })
        } else if slow >= warn {
            Err(InvalidTimings::SlowNotBelowWarn { slow, warn })
        } else if warn >= dead {
            Err(InvalidTimings::WarnNotBelowDead { warn, dead })
        } else if dead >= remove {
            Err(InvalidTimings::DeadNotBelowRemove { dead, remove })
        } else {
            Ok(())
        }
    }
}

/// What to change of [`Timings`]; fields that are `None` stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TimingsChange {
    /// A new [`Timings::send_alive`].
    pub send_alive: Option<Duration>,
    /// A new [`Timings::check`].
    pub check: Option<Duration>,
    /// A new [`Timings::slow`].
    pub slow: Option<Duration>,
    /// A new [`Timings::warn`].
    pub warn: Option<Duration>,
    /// A new [`Timings::dead`].
    pub dead: Option<Duration>,
    /// A new [`Timings::remove`].
    pub remove: Option<Duration>,
}

/// The rule that timings break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTimings {
    /// `1 ms <= send_alive` does not hold.
    #[error("send_alive must be at least 1ms, not {send_alive:?}")]
    SendAliveTooShort {
        /// What was given.
        send_alive: Duration,
    },
    /// `1 ms <= check` does not hold.
    #[error("check must be at least 1ms, not {check:?}")]
    CheckTooShort {
        /// What was given.
        check: Duration,
    },
    /// `check <= slow` does not hold.
    #[error("check <= slow does not hold: check is {check:?}, slow is {slow:?}")]
    CheckAboveSlow {
        /// The check interval.
        check: Duration,
        /// Where slow begins.
        slow: Duration,
    },
    /// `slow < warn` does not hold.
    #[error("slow < warn does not hold: slow is {slow:?}, warn is {warn:?}")]
    SlowNotBelowWarn {
        /// Where slow begins.
        slow: Duration,
        /// Where the warning begins.
        warn: Duration,
    },
    /// `warn < dead` does not hold.
    #[error("warn < dead does not hold: warn is {warn:?}, dead is {dead:?}")]
    WarnNotBelowDead {
        /// Where the warning begins.
        warn: Duration,
        /// Where dead begins.
        dead: Duration,
    },
    /// `dead < remove` does not hold.
    #[error("dead < remove does not hold: dead is {dead:?}, remove is {remove:?}")]
    DeadNotBelowRemove {
        /// Where dead begins.
        dead: Duration,
        /// When a member is removed.
        remove: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn limits_belong_to_the_better_status() {
        let timings = Timings::lan();
        let at = |silence| timings.status(silence);
        assert_eq!((at(timings.slow), at(timings.slow + MS)), (Some(Status::Healthy), Some(Status::Slow)));
        assert_eq!((at(timings.warn), at(timings.warn + MS)), (Some(Status::Slow), Some(Status::Warning)));
        assert_eq!((at(timings.dead), at(timings.dead + MS)), (Some(Status::Warning), Some(Status::Dead)));
        assert_eq!((at(timings.remove), at(timings.remove + MS)), (Some(Status::Dead), None));
    }

    #[test]
    fn defaults_keep_the_rules() {
        assert_eq!((Timings::lan().validate(), Timings::chain().validate()), (Ok(()), Ok(())));
    }

    #[test]
    fn the_error_names_the_broken_rule() {
        let broken = |change: fn(&mut TimingsChange)| {
            let mut changes = TimingsChange::default();
            change(&mut changes);
            Timings::lan().with(changes).unwrap_err().to_string()
        };
        assert!(broken(|c| c.send_alive = Some(Duration::ZERO)).starts_with("send_alive must be"));
        assert!(broken(|c| c.check = Some(Duration::ZERO)).starts_with("check must be"));
        let text = broken(|c| c.check = Some(1001 * MS));
        assert_eq!(text, "check <= slow does not hold: check is 1.001s, slow is 1s");
        assert!(broken(|c| c.slow = Some(2000 * MS)).starts_with("slow < warn does not hold"));
        assert!(broken(|c| c.warn = Some(5000 * MS)).starts_with("warn < dead does not hold"));
        assert!(broken(|c| c.remove = Some(5000 * MS)).starts_with("dead < remove does not hold"));
    }

    #[test]
    fn only_the_given_fields_change() {
        let change =
            TimingsChange { check: Some(1000 * MS), dead: Some(6000 * MS), ..TimingsChange::default() };
        let expected = Timings { check: 1000 * MS, dead: 6000 * MS, ..Timings::lan() };
        assert_eq!(Timings::lan().with(change), Ok(expected), "check may equal slow");
    }
}
