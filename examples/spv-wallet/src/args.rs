//! The arguments.

use std::path::PathBuf;

use bdk_wallet::bitcoin::{Amount, Txid};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tipward_chain::wire::bitcoin::{Chain, Network};

use crate::address::parse_amount;

/// A wallet that needs no server: it checks headers, finds its transactions itself and tells nobody what it looks for.
///
/// Without a command, and with `--network demo`, it shows what it does on a simulated network.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = false, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// btc, btc-testnet3, btc-testnet4, btc-signet, btc-regtest, bsv, bsv-testnet, bsv-stn, bsv-regtest or demo. Needed to make a
    /// wallet, which then knows it.
    #[arg(long, value_name = "NAME", value_parser = network, global = true)]
    pub(crate) network: Option<&'static Network>,
    /// Where the wallet and its headers are kept.
    #[arg(long, value_name = "DIR", default_value = "spv-wallet-data", global = true)]
    pub(crate) data_dir: PathBuf,
    /// Print JSON lines; amounts are in satoshi.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a wallet: of public descriptors, of private ones in a file, of new keys, or of nothing but what 'watch' adds.
    Init(InitArguments),
    /// Watches one more descriptor, address or script (in hexadecimal digits).
    Watch {
        #[arg(value_name = "DESCRIPTOR|ADDRESS|SCRIPT")]
        what: String,
        /// Look through the blocks from this height on once more; otherwise it is looked for in those to come.
        #[arg(long, value_name = "HEIGHT")]
        from: Option<u64>,
    },
    /// Follows the chain, until Ctrl-C.
    Sync {
        #[command(flatten)]
        connection: Connection,
        /// End when everything that the connected peers have is there.
        #[arg(long)]
        until_synced: bool,
    },
    /// Shows what there is, in BTC.
    Balance,
    /// Shows all transactions, and what became of each.
    History,
    /// Shows an address that nobody has paid to yet.
    Address {
        /// One that was not shown before either. Who restores the wallet elsewhere finds no more than 25 unpaid ones in a row.
        #[arg(long)]
        new: bool,
    },
    /// Pays to an address, after a sync.
    Send(SendArguments),
    /// Hands a transaction of the wallet that is in no block to peers once more.
    Broadcast {
        txid: Txid,
        #[command(flatten)]
        connection: Connection,
    },
    /// Gives up a transaction that is in no block, so that its coins can be spent again. Peers may confirm it all the same.
    Abandon { txid: Txid },
    /// Prints the proof that a transaction of the wallet is in its block, as 'gettxoutproof' of a node does.
    Proof { txid: Txid },
    /// Verifies such a proof, of any transaction, against the headers of this wallet.
    VerifyProof {
        /// The proof in hexadecimal digits, or a file of them or of its bytes.
        #[arg(value_name = "HEX|FILE")]
        proof: String,
    },
    /// Has the next sync look through the blocks from a height on once more. What was found there counts again when it is
    /// come by.
    Rescan { height: u64 },
    /// Writes the header at a height to a file, with what it takes to start another wallet from there.
    Checkpoint { height: u64, file: PathBuf },
    /// Says how many bytes and seconds a new wallet needs for a chain of a simulated network.
    Measure {
        /// How long the chain is; a year by default.
        #[arg(long, default_value_t = 52_560, value_parser = clap::value_parser!(u32).range(200..=1_000_000))]
        blocks: u32,
        /// How many payments to the wallet are in it.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        payments: u32,
        /// How the wallet finds them.
        #[arg(long, value_enum, value_name = "HOW", default_value = "filters")]
        mode: Mode,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// A public descriptor, with two paths (<0;1>) or with --change-descriptor beside it.
    #[arg(long, value_name = "DESCRIPTOR", conflicts_with_all = ["secret", "new_secret"])]
    pub(crate) descriptor: Option<String>,
    /// The public descriptor of change.
    #[arg(long, value_name = "DESCRIPTOR", requires = "descriptor")]
    pub(crate) change_descriptor: Option<String>,
    /// A file with the private descriptors, of receiving and of change, a line each. What is stored is public.
    #[arg(long, value_name = "FILE", conflicts_with = "new_secret")]
    pub(crate) secret: Option<PathBuf>,
    /// Make new keys, and write their descriptors to this new file, in clear.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_secret: Option<PathBuf>,
    /// Look at no block below this height.
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) birthday: Option<u64>,
    /// Start with the header of this file (see 'checkpoint') instead of genesis, and look at the blocks above it.
    #[arg(long, value_name = "FILE", conflicts_with = "birthday")]
    pub(crate) checkpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    pub(crate) address: String,
    /// With its unit: 10000sat, 0.0001btc.
    #[arg(value_parser = parse_amount)]
    pub(crate) amount: Amount,
    /// The file with the private descriptors.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: PathBuf,
    /// In satoshi per virtual byte.
    #[arg(long, value_name = "RATE", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) fee_rate: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Whom to ask, and how.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// A node to connect to, instead of those that DNS seeds name; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Vec<String>,
    /// How to find transactions; by filters where the network and a peer have them.
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) mode: Option<Mode>,
}

/// How transactions are found. No peer is told what is looked for in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// By the blocks' filters (BIP 157), and in those blocks whose filters match.
    Filters,
    /// In whole blocks, all of them.
    Blocks,
}

impl Mode {
    /// What is best on a network.
    pub(crate) fn best(network: &Network) -> Self {
        match network.chain {
            Chain::Btc => Self::Filters,
            Chain::Bsv => Self::Blocks,
        }
    }
}

fn network(name: &str) -> Result<&'static Network, String> {
    Network::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = Network::ALL.iter().map(|network| network.name).collect();
        format!("the networks are {}", names.join(", "))
    })
}
