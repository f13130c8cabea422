//! The demo: two simulated nodes, a wallet of fixed keys in a temporary directory, and what may happen to a payment.

use std::{fmt::Display, path::Path, time::Duration};

use bdk_wallet::bitcoin::{Amount, FeeRate, Txid, consensus::encode::serialize};
use tipward_chain::{
    Node,
    sync::peer::{
        BroadcastOutcome,
        wire::bitcoin::{Network, Transaction},
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

use crate::{
    Failure,
    address::{parse_address, show_script},
    keys::{Secret, text_of},
    ledger::{CHANGE, RECEIVE},
    node::{self, Way},
    pay, print,
    show::{self, Entry, State},
    wallet::{Shared, Wallet},
};

pub(crate) const NETWORK: &Network = Network::DEMO;
/// So many blocks there are at first; the next one may be the first to spend.
const BLOCKS: u32 = 110;
/// Whom the wallet pays.
const SHOP: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const PRICE: Amount = Amount::from_sat(4_000);
const RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
/// How long a step may take, which takes moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys of wallets on simulated networks, where there is nothing to lose.
const SEED: [u8; 32] = [7; 32];

/// Two nodes that tell each other of transactions and have the same chain.
struct World {
    chain: SimChain,
    nodes: [SimNode; 2],
}

impl World {
    async fn start() -> Result<Self, Failure> {
        let chain = SimChain::generate(NETWORK, ChainSpec::new(BLOCKS, 1));
        let spawn = async |address| SimNode::spawn(chain.clone(), Behaviour::Honest, address).await;
        let one = spawn("127.0.0.1:0").await.map_err(Failure::failed)?;
        // Another host, where the system has one: what the one was given comes back from the other.
        let other = match spawn("127.0.0.2:0").await {
            Ok(node) => node,
            Err(_) => spawn("127.0.0.1:0").await.map_err(Failure::failed)?,
        };
        one.relay_to(&other);
        other.relay_to(&one);
        let nodes = [one, other];
        Ok(Self { chain, nodes })
    }

    fn mine(&mut self, transactions: &[Transaction]) {
        self.chain.extend_with(transactions, 1);
        self.nodes.iter().for_each(|node| node.set_chain(self.chain.clone()));
    }
}

/// A wallet of these keys, which nobody else must have.
pub(crate) fn wallet(dir: &Path) -> Result<(Wallet, Secret), Failure> {
    let secret = Secret::parse(&text_of(&SEED, NETWORK), NETWORK).map_err(Failure::failed)?;
    let mut wallet = Wallet::create(dir, NETWORK, None, None).map_err(Failure::failed)?;
    for (number, descriptor) in [RECEIVE, CHANGE].into_iter().zip(secret.descriptors.clone()) {
        let added = wallet.ledger.add_descriptor(number, descriptor);
        added.map_err(|refused| Failure::Failed(format!("{refused:?}")))?;
    }
    wallet.save().map_err(Failure::failed)?;
    Ok((wallet, secret))
}

pub(crate) async fn run() -> Result<(), Failure> {
    let dir = tempfile::tempdir().map_err(Failure::failed)?;
    let mut world = World::start().await?;
    let (wallet, secret) = wallet(dir.path())?;
    let wallet = Shared::new(wallet);
    let connect = world.nodes.iter().map(|node| node.address().into()).collect();
    let way = Way { connect, relay: true, ..Way::default() };
    step("sync", "headers and blocks of two simulated nodes")?;
    let mut node = node::start(&wallet, &way, |news| drop(print(show::news(news, false)))).await?;
    node::until_synced(&mut node).await?;
    show_balance(&wallet)?;
    let received = receive(&mut world, &wallet).await?;
    let paid = spend(&mut world, &node, &wallet, &secret).await?;
    reorganize(&mut world, &wallet, received, paid).await?;
    node.shutdown().await.map_err(Failure::failed)?;
    print("\nThat is all. Nobody was told what the wallet looks for; its own payment is all that it sent.")
}

/// Somebody pays to the wallet, and blocks confirm it.
async fn receive(world: &mut World, wallet: &Shared) -> Result<Txid, Failure> {
    let script = wallet.lock().ledger.next_script(false).ok_or_else(|| Failure::failed("no address"))?;
    wallet.lock().save().map_err(Failure::failed)?;
    step("receive", format_args!("somebody pays 10,000 satoshi to {}", show_script(&script, NETWORK)))?;
    let payment = world.chain.payments([script.as_bytes()]);
    let txid = payment.first().map(|payment| payment.txid().into());
    let txid: Txid = txid.ok_or_else(|| Failure::failed("nobody can pay"))?;
    world.mine(&payment);
    let is_there = |entry: &Entry| matches!(entry.state, State::Confirmed(_, 1));
    print(until(wallet, txid, "its block", is_there).await?)?;
    step("confirmation", "five more blocks are found")?;
    for _ in 0..5 {
        world.mine(&[]);
    }
    print(
        until(wallet, txid, "its confirmations", |entry| matches!(entry.state, State::Confirmed(_, 6)))
            .await?,
    )?;
    show_balance(wallet)?;
    Ok(txid)
}

/// The wallet pays, with evidence, and a block has it.
async fn spend(world: &mut World, node: &Node, wallet: &Shared, secret: &Secret) -> Result<Txid, Failure> {
    step("spend", format_args!("{PRICE} to {SHOP}, at 2 satoshi per virtual byte"))?;
    let to = parse_address(SHOP, NETWORK).map_err(Failure::failed)?;
    let paid = pay::pay(&mut wallet.lock(), secret, &to, PRICE, RATE).map_err(Failure::failed)?;
    let txid = paid.compute_txid();
    match node::broadcast(node, serialize(&paid)).await? {
        BroadcastOutcome::SeenBack { hosts } => {
            print(format_args!("{txid} was announced by {}, who did not have it from us", hosts.join(", ")))?;
        }
        BroadcastOutcome::Fetched { hosts, .. } => {
            print(format_args!("{txid} was fetched by {}; there is no other host", hosts.join(", ")))?;
        }
        other => return Err(Failure::Failed(format!("nobody took the payment: {other:?}"))),
    }
    print(until(wallet, txid, "it in the wallet", |entry| entry.state == State::Unconfirmed).await?)?;
    let mempool = world.nodes[0].mempool();
    world.mine(&mempool);
    print(until(wallet, txid, "its block", |entry| matches!(entry.state, State::Confirmed(_, 1))).await?)?;
    show_balance(wallet)?;
    Ok(txid)
}

/// A longer branch without the payment wins, and later has it.
async fn reorganize(world: &mut World, wallet: &Shared, received: Txid, paid: Txid) -> Result<(), Failure> {
    step("reorg", "a branch of two blocks without the payment takes the place of its block")?;
    let payment = wallet.lock().ledger.graph.get_tx(paid).ok_or_else(|| Failure::failed("it is lost"))?;
    let payment = Transaction::try_from(&*payment).map_err(Failure::failed)?;
    let fork = world.chain.height() - 1;
    let mut empty = ChainSpec::new(2, 99);
    empty.max_transactions = 0;
    world.chain = world.chain.fork(fork, empty);
    world.nodes.iter().for_each(|node| node.set_chain(world.chain.clone()));
    print(until(wallet, paid, "the reorg", |entry| matches!(entry.state, State::ReorgedOut(_))).await?)?;
    print(until(wallet, received, "the other", |entry| matches!(entry.state, State::Confirmed(..))).await?)?;
    show_balance(wallet)?;
    step("and again", "the next block has the payment")?;
    world.mine(&[payment]);
    print(
        until(wallet, paid, "its new block", |entry| matches!(entry.state, State::Confirmed(_, 1))).await?,
    )?;
    show_balance(wallet)
}

/// Waits until a transaction is as it is to be.
async fn until(
    wallet: &Shared,
    txid: Txid,
    what: &str,
    is_there: impl Fn(&Entry) -> bool,
) -> Result<Entry, Failure> {
    let look = async {
        loop {
            let entry = {
                let mut wallet = wallet.lock();
                wallet.save().map_err(Failure::failed)?;
                show::history(&wallet.ledger).into_iter().find(|entry| entry.txid == txid)
            };
            match entry.filter(|entry| is_there(entry)) {
                Some(entry) => return Ok(entry),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let late = |_| Err(Failure::Failed(format!("waited in vain for {what}: {txid}")));
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(late)
}

fn step(name: &str, what: impl Display) -> Result<(), Failure> {
    print(format_args!("\n== {name}: {what}"))
}

fn show_balance(wallet: &Shared) -> Result<(), Failure> {
    let mut wallet = wallet.lock();
    wallet.save().map_err(Failure::failed)?;
    print(show::balance_text(&show::balance(&wallet.ledger), &wallet.ledger))
}
