//! The flow against simulated peers in virtual time.

mod fair;
mod guesses;
mod lies;
mod lists;
mod loss;
mod oracle;
mod orphans;
mod sim;
mod through;
mod tree;

use super::*;
use sim::*;
use tree::*;
