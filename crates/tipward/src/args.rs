//! The arguments.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use etcetera::BaseStrategy;
use tipward_chain::sync::peer::wire::{Txid, bitcoin::Network};

use crate::{Failure, transport::TransportArguments};

/// Brings a machine to the tip of a block chain over the peer-to-peer network.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Downloads headers and blocks to the tip; without arguments, from a simulated network.
    Sync(SyncArguments),
    /// Connects and shows the peers, live; without arguments, those of a simulated network.
    Peers(PeersArguments),
    /// Shows a block of the archive.
    Block(BlockArguments),
    /// Lists or verifies the headers of a data directory, also while `sync` writes to it.
    Headers(HeadersArguments),
    /// Proves that transactions are in a block of the archive.
    Proof(ProofArguments),
    /// Reads the whole archive again, or forgets what is broken in it.
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Serves a simulated node until it is interrupted.
    Simnet(SimnetArguments),
    /// Lists what is in a block file: heights, hashes, transactions, sizes.
    Inspect {
        /// The file, as nodes write it: magic, length, block, repeated.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SyncArguments {
    /// btc, btc-testnet3, btc-testnet4, btc-signet, btc-regtest, bsv, bsv-testnet, bsv-stn, bsv-regtest or demo.
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = network)]
    pub(crate) network: &'static Network,
    /// A node to connect to, instead of those that DNS seeds name; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Vec<String>,
    /// Where to keep headers and blocks; by default a directory of the user's, by network. The demo takes a new temporary
    /// one.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// End when the block at this height is stored.
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) stop_at: Option<u64>,
    /// End when everything that the connected nodes have is stored.
    #[arg(long)]
    pub(crate) until_synced: bool,
    /// Download headers and no blocks.
    #[arg(long)]
    pub(crate) headers_only: bool,
    /// How to find blocks: by headers first, or by lists of blocks (`getblocks`), for nodes that serve no headers.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = FindBlocks::HeadersFirst)]
    pub(crate) strategy: FindBlocks,
    /// How many blocks behind the tip to stay, so that fewer reorgs reach the archive.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stay_behind: u64,
    /// How many blocks may be asked for or wait ahead of what is stored [default: 1024].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) window: Option<u32>,
    /// How much memory blocks may take that arrive or wait, such as 64MiB or 1GiB [default: 256MiB].
    #[arg(long, value_name = "BYTES", value_parser = budget)]
    pub(crate) budget: Option<u64>,
    /// Keep the last so many blocks and delete older ones, by whole files; the last 288 stay in any case.
    #[arg(long, value_name = "BLOCKS")]
    pub(crate) prune_depth: Option<u64>,
    /// Delete the oldest blocks when they take more on disk, such as 10GiB, by whole files; the last 288 blocks stay in any
    /// case.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) prune_size: Option<u64>,
    #[command(flatten)]
    pub(crate) transport: TransportArguments,
    /// Print JSON lines, the last one a summary.
    #[arg(long)]
    pub(crate) json: bool,
    /// Log to stderr; twice for more.
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The strategies that nodes of Bitcoin's protocol answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FindBlocks {
    HeadersFirst,
    Inventory,
}

#[derive(Debug, Args)]
pub(crate) struct PeersArguments {
    /// The network; see `tipward sync --help`.
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = network)]
    pub(crate) network: &'static Network,
    /// A node to connect to, instead of those that DNS seeds name; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Vec<String>,
    /// The most connections to open.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) max_peers: u16,
    /// Take connections of others here; may be given several times.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Keep the address book in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) book: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) transport: TransportArguments,
    /// How often to show the peers.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// End after this time.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// End when the peers were shown so many times.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Print a JSON object each time, on a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Log to stderr; twice for more.
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Which data directory to look into.
#[derive(Debug, Args)]
pub(crate) struct DataArguments {
    /// The data directory that `sync` has filled.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The network, if the data directory is the default one.
    #[arg(long, value_name = "NAME", value_parser = network)]
    pub(crate) network: Option<&'static Network>,
}

impl DataArguments {
    /// The directory.
    pub(crate) fn dir(&self) -> Result<PathBuf, Failure> {
        match (&self.data_dir, self.network) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, Some(network)) => default_data_dir(network),
            (None, None) => {
                Err(Failure::Usage("whose data? Give --data-dir DIR or --network NAME".to_owned()))
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Reads every block and says what is wrong, a line for each; exit code 1 if anything is. May run during a sync.
    Verify(CheckArguments),
    /// Reads every block and forgets those that are broken, and all above the first of them, so that `sync` fetches them again.
    Repair(CheckArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Print JSON lines, the last one a summary.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BlockArguments {
    /// A block hash of 64 hexadecimal digits, or a height of the best chain.
    #[arg(value_name = "HASH|HEIGHT")]
    pub(crate) block: String,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Write the block's own bytes to stdout.
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HeadersArguments {
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Check all headers by the full rules and tell where they lead, instead of listing them.
    #[arg(long, conflicts_with_all = ["from", "count"])]
    pub(crate) verify: bool,
    /// Write the best chain's headers to a new file, one after the other as they travel: 80 bytes each.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "count", "verify", "import"])]
    pub(crate) export: Option<PathBuf>,
    /// Take headers from such a file, checked by the full rules, into the data directory; needs --network for a new one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "count", "verify"])]
    pub(crate) import: Option<PathBuf>,
    /// The height to list from [default: so that the list ends with the tip].
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) from: Option<u64>,
    /// How many headers to list.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) count: u64,
    /// Print JSON, a line for each header.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProofArguments {
    /// The transactions, all of one block.
    #[arg(value_name = "TXID", required = true)]
    pub(crate) transactions: Vec<Txid>,
    /// The block: a hash of 64 hexadecimal digits, or a height of the best chain.
    #[arg(long, value_name = "HASH|HEIGHT")]
    pub(crate) block: String,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Print the proof alone, in hexadecimal digits, as `gettxoutproof` of a node does.
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Print one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SimnetArguments {
    /// Where to listen; by default the network's own port on loopback.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// How many blocks to generate.
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "from")]
    pub(crate) blocks: u32,
    /// What the blocks are drawn from: the same seed gives the same chain.
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "from")]
    pub(crate) seed: u64,
    /// Serve the blocks of this file instead.
    #[arg(long, value_name = "FILE.blk")]
    pub(crate) from: Option<PathBuf>,
    /// The network; generated blocks need one without real work: btc-regtest, bsv-regtest or demo.
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = network)]
    pub(crate) network: &'static Network,
    /// Log to stderr; twice for more.
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

fn network(name: &str) -> Result<&'static Network, String> {
    Network::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = Network::ALL.iter().map(|network| network.name).collect();
        format!("no such network; there are {}", names.join(", "))
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.1..=1e7).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds from 0.1 to 10000000 is needed".to_owned())
}

/// The least that blocks may take in memory: a few parts of one.
const MIN_BUDGET: u64 = 8 << 20;

fn budget(text: &str) -> Result<u64, String> {
    let bytes = bytes(text).ok().filter(|bytes| *bytes >= MIN_BUDGET);
    bytes.ok_or_else(|| "a number of bytes from 8MiB is needed, such as 268435456, 256MiB or 1GiB".to_owned())
}

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes = number.trim_end().parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a number of bytes is needed, such as 10000000, 500MiB or 10GiB".to_owned())
}

/// The directory that a network's data is kept in unless another is asked for.
pub(crate) fn default_data_dir(network: &Network) -> Result<PathBuf, Failure> {
    let base = etcetera::choose_base_strategy().map_err(|error| {
        Failure::Usage(format!("no default data directory ({error}): give --data-dir DIR"))
    })?;
    Ok(base.data_dir().join("tipward").join(network.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_number_with_or_without_a_unit() {
        for (text, bytes) in [
            ("8388608", 8 << 20),
            ("8MiB", 8 << 20),
            ("65536KiB", 64 << 20),
            ("3GiB", 3 << 30),
            ("256 MiB", 256 << 20),
        ] {
            assert_eq!(budget(text), Ok(bytes), "{text}");
        }
        assert_eq!((bytes("0"), bytes("2TiB")), (Ok(0), Ok(2 << 40)));
        for text in ["", "MiB", "-1GiB", "1.5GiB", "256MB", "99999999999GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["", "MiB", "7MiB", "8388607", "-1GiB", "1.5GiB", "256MB", "1gib", "99999999999GiB"] {
            assert!(budget(text).is_err(), "{text}");
        }
    }
}
