//! Who is alive, who leads, and what time it is, among members that observe each other by heartbeats.
//!
//! [`Connectivity`] is the machine: it turns silence into a [`Status`], tells every [`Change`] of the table once, and
//! elects a master on which all agree who hear each other. It knows its members by an id of any type and sends nothing
//! itself, so it serves the nodes of a block chain, where any message is a heartbeat
//! ([`heard`](Connectivity::heard), [`Timings::chain`]), as well as a fleet of programs that tell each other
//! [`Message`]s ([`Timings::lan`]); [`Cluster`] runs it for the latter over whatever [`Heartbeat`] sends with.
//! [`NetworkTime`] is the median of others' clocks.
//!
//! Silence is counted from when a message was received, on our monotonic clock; another's clock can't make it look dead.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use tipward_peer::connectivity::{Connectivity, ConnectivityOptions, MemberInfo, Output, Status};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let start = Instant::now();
//! let unix_ms = 1_700_000_000_000;
//! let mut members = Connectivity::new(MemberInfo::new("a"), ConnectivityOptions::default(), unix_ms, start)?;
//! members.heard(&"b", start);
//! assert_eq!(members.status_of(&"b"), Some(Status::Healthy));
//!
//! members.timeout(start + Duration::from_millis(1500));
//! assert_eq!(members.status_of(&"b"), Some(Status::Slow));
//! assert_eq!(members.master(), Some(&"a"));
//! while let Some(output) = members.poll() {
//!     match output {
//!         Output::Send(message) => println!("to all others: {message:?}"),
//!         Output::Changed(change) => println!("{change:?}"),
//!     }
//! }
//! # Ok(()) }
//! ```

mod departed;
mod driver;
mod election;
mod machine;
mod member;
mod status;
mod time;

pub use driver::{Changes, Cluster, Heartbeat, Lagged};
pub use machine::{Connectivity, ConnectivityOptions, Output};
pub use member::{Change, Force, Host, MemberInfo, Message};
pub use status::{InvalidTimings, Status, Timings, TimingsChange};
pub use time::{NetworkTime, clock_offset};
