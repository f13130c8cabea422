//! The commands.

use std::{fmt, future::Future, path::Path};

use bdk_wallet::bitcoin::{FeeRate, Transaction, Txid, consensus::encode::serialize, hex::FromHex as _};
use serde_json::json;
use tipward_chain::{
    HeaderReader,
    sync::peer::{
        BroadcastOutcome, HostRejection,
        wire::bitcoin::{MerkleBlock, Network},
    },
};

use crate::{
    Failure,
    address::{parse_address, parse_script, show_script},
    args::{Arguments, Command, Connection, InitArguments, SendArguments},
    checkpoint, demo,
    keys::{Secret, parse_public, shows_private_keys},
    ledger::Found,
    measure,
    node::{self, Way},
    pay, print,
    show::{self, State},
    wallet::{Shared, Wallet},
};

/// The largest proof that is read, in bytes; one of a single transaction has some hundred.
const MAX_PROOF: u64 = 64 << 20;

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { network, data_dir, json, command } = arguments;
    let open = || open(&data_dir, network);
    match command {
        None if network == Some(Network::DEMO) => block_on(demo::run()),
        None => Err(Failure::Usage("which command? See --help".to_owned())),
        Some(Command::Init(arguments)) => init(&arguments, network, &data_dir),
        Some(Command::Watch { what, from }) => watch(open()?, &what, from),
        Some(Command::Sync { connection, until_synced }) => {
            let wallet = open()?;
            let way = Way { until_synced, ..Way::of(&connection, wallet.network())? };
            block_on(node::sync(Shared::new(wallet), way, json))
        }
        Some(Command::Balance) => {
            let ledger = &open()?.ledger;
            let balance = show::balance(ledger);
            print_as(json, show::balance_json(&balance, ledger), show::balance_text(&balance, ledger))
        }
        Some(Command::History) => {
            show::history(&open()?.ledger).iter().try_for_each(|entry| print_as(json, entry.json(), entry))
        }
        Some(Command::Address { new }) => address(open()?, new, json),
        Some(Command::Send(arguments)) => block_on(send(open()?, arguments, json)),
        Some(Command::Broadcast { txid, connection }) => {
            block_on(hand_over(open()?, &connection, json, |wallet| again(wallet, txid)))
        }
        Some(Command::Abandon { txid }) => abandon(open()?, txid),
        Some(Command::Proof { txid }) => proof(&open()?, txid, json),
        Some(Command::VerifyProof { proof }) => verify_proof(&open()?, &proof, json),
        Some(Command::Rescan { height }) => open()?.scan_from(height).map_err(Failure::failed),
        Some(Command::Checkpoint { height, file }) => {
            let wallet = open()?;
            let made = checkpoint::make(&headers(&wallet)?, wallet.network(), height);
            checkpoint::write(&file, &made.map_err(Failure::failed)?).map_err(Failure::failed)
        }
        Some(Command::Measure { blocks, payments, mode }) => {
            block_on(measure::run(blocks, payments, mode, json))
        }
    }
}

/// Prints one or the other.
fn print_as(is_json: bool, json: impl fmt::Display, text: impl fmt::Display) -> Result<(), Failure> {
    if is_json { print(json) } else { print(text) }
}

fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(task)
}

fn open(dir: &Path, network: Option<&'static Network>) -> Result<Wallet, Failure> {
    let wallet = Wallet::open(dir).map_err(Failure::failed)?;
    match network.filter(|network| *network != wallet.network()) {
        None => Ok(wallet),
        Some(other) => Err(Failure::Usage(format!(
            "--network: the wallet in {} is of {}, not {}",
            dir.display(),
            wallet.network().name,
            other.name
        ))),
    }
}

fn init(arguments: &InitArguments, network: Option<&'static Network>, dir: &Path) -> Result<(), Failure> {
    let network =
        network.ok_or_else(|| Failure::Usage("of which network? Give --network NAME".to_owned()))?;
    let checkpoint = arguments.checkpoint.as_deref().map(checkpoint::read).transpose();
    let checkpoint = checkpoint.map_err(Failure::failed)?;
    let mut descriptors = Vec::new();
    for text in [&arguments.descriptor, &arguments.change_descriptor].into_iter().flatten() {
        descriptors.extend(parse_public(text, network).map_err(Failure::usage)?);
    }
    if descriptors.len() > 2 {
        return Err(Failure::Usage(
            "--change-descriptor: the other one has a path of change already".to_owned(),
        ));
    }
    if Wallet::exists(dir) {
        return Err(Failure::Failed(format!("there is a wallet already in {}", dir.display())));
    }
    if let Some(file) = &arguments.new_secret {
        Secret::create(file, network).map_err(Failure::failed)?;
        eprintln!(
            "warning: the private keys lie in clear in {}: who can read it can spend, and without it nobody can",
            file.display()
        );
    }
    if let Some(file) = arguments.secret.as_ref().or(arguments.new_secret.as_ref()) {
        descriptors = Secret::read(file, network).map_err(Failure::failed)?.descriptors;
    }
    let created = Wallet::create(dir, network, descriptors, checkpoint.as_ref(), arguments.birthday);
    created.map(drop).map_err(Failure::failed)
}

fn watch(mut wallet: Wallet, what: &str, from: Option<u64>) -> Result<(), Failure> {
    // A descriptor has parentheses, which nothing else has; keys alone are refused as if they were in one.
    if what.contains('(') || shows_private_keys(what) {
        for descriptor in parse_public(what, wallet.network()).map_err(Failure::usage)? {
            wallet.ledger.watch_descriptor(descriptor).map_err(Failure::failed)?;
        }
    } else {
        let script = parse_script(what, wallet.network()).map_err(Failure::usage)?;
        wallet.ledger.watch_script(script).map_err(Failure::failed)?;
    }
    match from.into_iter().chain(wallet.ledger.index_known()).min() {
        Some(height) => wallet.scan_from(height).map_err(Failure::failed),
        None => wallet.save().map_err(Failure::failed),
    }
}

fn address(mut wallet: Wallet, is_new: bool, is_json: bool) -> Result<(), Failure> {
    let script = wallet.ledger.next_script(is_new);
    let script =
        script.ok_or_else(|| Failure::Failed("the wallet has no descriptor of its own".to_owned()))?;
    wallet.save().map_err(Failure::failed)?;
    let address = show_script(&script, wallet.network());
    print_as(is_json, json!({"address": address}), address)
}

async fn send(wallet: Wallet, arguments: SendArguments, is_json: bool) -> Result<(), Failure> {
    let network = wallet.network();
    let to = parse_address(&arguments.address, network).map_err(Failure::usage)?;
    let secret = Secret::read(&arguments.secret, network).map_err(Failure::failed)?;
    let rate = FeeRate::from_sat_per_vb_u32(arguments.fee_rate);
    let make = |wallet: &mut Wallet| pay::pay(wallet, &secret, &to, arguments.amount, rate);
    hand_over(wallet, &arguments.connection, is_json, |wallet| make(wallet).map_err(Failure::failed)).await
}

/// Syncs, takes the transaction that is made then, and hands it to the peers.
async fn hand_over(
    wallet: Wallet,
    connection: &Connection,
    is_json: bool,
    make: impl FnOnce(&mut Wallet) -> Result<Transaction, Failure>,
) -> Result<(), Failure> {
    let way = Way { relay: true, ..Way::of(connection, wallet.network())? };
    let wallet = Shared::new(wallet);
    let mut node = node::start(&wallet, &way, |_| {}).await?;
    node::until_synced(&mut node).await?;
    let transaction = make(&mut wallet.lock())?;
    let outcome = node::broadcast(&node, serialize(&transaction)).await;
    let told = conclude(&wallet, &transaction, outcome, is_json);
    node.shutdown().await.map_err(Failure::failed)?;
    told
}

/// A transaction of the wallet that is in no block.
fn waiting(wallet: &Wallet, txid: Txid) -> Result<Transaction, Failure> {
    let entry = show::history(&wallet.ledger).into_iter().find(|entry| entry.txid == txid);
    let entry = entry.ok_or_else(|| Failure::Failed(format!("the wallet has no transaction {txid}")))?;
    if let State::Confirmed(found, _) = &entry.state {
        return Err(Failure::Failed(format!(
            "{txid} is in block {}:{}",
            found.block.height, found.block.hash
        )));
    }
    let transaction = wallet.ledger.graph.get_tx(txid).expect("the history is of what is there");
    if transaction.is_coinbase() {
        return Err(Failure::Failed(format!("{txid} is the coinbase of a block that was left")));
    }
    Ok(Transaction::clone(&transaction))
}

/// The same, which is waited for from now on, even if it was given up.
fn again(wallet: &mut Wallet, txid: Txid) -> Result<Transaction, Failure> {
    let transaction = waiting(wallet, txid)?;
    wallet.ledger.insert_unconfirmed(transaction.clone(), show::now());
    wallet.save().map_err(Failure::failed)?;
    Ok(transaction)
}

/// Tells what became of a broadcast. What everybody rejects is given up.
fn conclude(
    wallet: &Shared,
    transaction: &Transaction,
    outcome: Result<BroadcastOutcome, Failure>,
    is_json: bool,
) -> Result<(), Failure> {
    let txid = transaction.compute_txid();
    let (name, hosts, rejections) = match outcome? {
        BroadcastOutcome::SeenBack { hosts } => ("relayed", hosts, Vec::new()),
        BroadcastOutcome::Fetched { hosts, rejections } => ("fetched", hosts, rejections),
        BroadcastOutcome::Rejected { rejections } => ("rejected", Vec::new(), rejections),
        BroadcastOutcome::Undecided { offered_to, rejections } => ("offered", offered_to, rejections),
        other => return Err(Failure::Failed(format!("{txid}: {other:?}"))),
    };
    if is_json {
        let rejected = |it: &HostRejection| json!({"host": it.host, "code": it.code, "reason": it.reason});
        let rejections: Vec<_> = rejections.iter().map(rejected).collect();
        print(json!({"txid": txid.to_string(), "outcome": name, "hosts": hosts, "rejections": rejections}))?;
    } else {
        print(txid)?;
        let hosts = hosts.join(", ");
        match name {
            "relayed" => print(format_args!("relayed: {hosts} announced it without having got it from us"))?,
            "fetched" => print(format_args!("fetched by {hosts}; nobody else has announced it yet"))?,
            "offered" => print(format_args!(
                "offered to {hosts}, who did not fetch it: they have it, or do not want it"
            ))?,
            _ => {}
        }
        for HostRejection { host, reason, .. } in &rejections {
            print(format_args!("rejected by {host}: {reason:?}"))?;
        }
    }
    if name != "rejected" {
        return Ok(());
    }
    let mut wallet = wallet.lock();
    wallet.ledger.abandon(txid, show::now());
    wallet.save().map_err(Failure::failed)?;
    Err(Failure::Failed(format!("{txid} was rejected by all; its coins are free again")))
}

fn abandon(mut wallet: Wallet, txid: Txid) -> Result<(), Failure> {
    waiting(&wallet, txid)?;
    wallet.ledger.abandon(txid, show::now());
    wallet.save().map_err(Failure::failed)
}

fn proof(wallet: &Wallet, txid: Txid, is_json: bool) -> Result<(), Failure> {
    let entry = show::history(&wallet.ledger).into_iter().find(|entry| entry.txid == txid);
    match entry.map(|entry| entry.state) {
        Some(State::Confirmed(Found { block, proof, .. }, _)) => {
            let json = json!({"txid": txid.to_string(), "height": block.height, "block": block.hash.to_string(), "proof": proof});
            print_as(is_json, json, proof)
        }
        Some(_) => Err(Failure::Failed(format!("{txid} is in no block of the best chain"))),
        None => Err(Failure::Failed(format!("the wallet has no transaction {txid}"))),
    }
}

fn headers(wallet: &Wallet) -> Result<HeaderReader, Failure> {
    let file = node::headers_file(wallet.dir());
    HeaderReader::open(&file, &wallet.network(), wallet.checkpoint()).map_err(Failure::failed)
}

fn verify_proof(wallet: &Wallet, text: &str, is_json: bool) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("proof: {error}"));
    let bytes = match Vec::from_hex(text) {
        Ok(bytes) => bytes,
        Err(_) => read_proof(Path::new(text)).map_err(|error| wrong(&error))?,
    };
    let proof = MerkleBlock::from_bytes(bytes.into()).map_err(|error| wrong(&error))?;
    let proven = headers(wallet)?.verify_inclusion(&proof).map_err(Failure::failed)?;
    let (height, hash) = (proven.block.height, proven.block.hash);
    if is_json {
        let transaction = |(position, txid): &(u32, tipward_chain::wire::Txid)| json!({"txid": txid.to_string(), "position": position});
        return print(json!({
            "height": height,
            "block": hash.to_string(),
            "confirmations": proven.confirmations,
            "transactions": proven.transactions.iter().map(transaction).collect::<Vec<_>>(),
        }));
    }
    for (position, txid) in &proven.transactions {
        print(format_args!(
            "{txid} is transaction {position} of block {height}:{hash}, {} deep",
            proven.confirmations
        ))?;
    }
    Ok(())
}

/// A file of a proof's bytes, or of their digits.
fn read_proof(file: &Path) -> Result<Vec<u8>, String> {
    let shown = file.display();
    let size = std::fs::metadata(file)
        .map_err(|error| format!("neither hexadecimal digits nor a file: {shown}: {error}"));
    if size?.len() > MAX_PROOF {
        return Err(format!("{shown} is too large"));
    }
    let bytes = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
    let digits = str::from_utf8(&bytes).ok().and_then(|text| Vec::from_hex(text.trim()).ok());
    Ok(digits.unwrap_or(bytes))
}
