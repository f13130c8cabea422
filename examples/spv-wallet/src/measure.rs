//! What a new wallet costs: bytes and seconds for a chain that two simulated nodes serve on loopback, with payments spread over
//! it. The chain is made before the clock starts.

use std::{sync::Arc, time::Instant};

use bdk_wallet::bitcoin::ScriptBuf;
use serde_json::json;
use tipward_simnet::{Behaviour, ChainSpec, SimBlock, SimChain, SimNode};

use crate::{
    Failure,
    args::Mode,
    demo::{self, NETWORK},
    node::{self, Way},
    print, show,
    wallet::Shared,
};

/// What a payment pays, in satoshi.
const PAYMENT: u64 = 10_000;
/// The block that may pay for the first time.
const FIRST: u32 = 101;

pub(crate) async fn run(blocks: u32, payments: u32, mode: Mode, is_json: bool) -> Result<(), Failure> {
    let chain = Arc::new(chain(blocks, &scripts(payments)?)?);
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let node = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await;
        nodes.push(node.map_err(Failure::failed)?);
    }
    let dir = tempfile::tempdir().map_err(Failure::failed)?;
    let wallet = Shared::new(demo::wallet(dir.path())?.0);
    let connect = nodes.iter().map(|node| node.address().into()).collect();
    let way = Way { connect, mode, ..Way::default() };
    let began = Instant::now();
    let mut node = node::start(&wallet, &way, |_| {}).await?;
    node::until_synced(&mut node).await?;
    let seconds = began.elapsed().as_secs_f64();
    let progress = node.shutdown().await.map_err(Failure::failed)?;
    let found = show::balance(&wallet.lock().ledger).confirmed.to_sat();
    let paid = u64::from(payments) * PAYMENT;
    if found != paid {
        return Err(Failure::Failed(format!("{found} satoshi were found of {paid}")));
    }
    let stats: Vec<_> = nodes.iter().map(SimNode::stats).collect();
    let received: u64 = stats.iter().map(|stats| stats.bytes_sent).sum();
    let sent: u64 = stats.iter().map(|stats| stats.bytes_received).sum();
    let chain_bytes: u64 = chain.blocks().iter().map(SimBlock::size).sum();
    if is_json {
        return print(json!({
            "blocks": blocks,
            "payments": payments,
            "chain_bytes": chain_bytes,
            "received_bytes": received,
            "sent_bytes": sent,
            "blocks_read": progress.blocks,
            "seconds": seconds,
        }));
    }
    print(format_args!("{blocks} blocks of {chain_bytes} bytes, {payments} payments to the wallet"))?;
    print(format_args!("{received} bytes received, {sent} sent, {} blocks read", progress.blocks))?;
    print(format_args!("{seconds:.1} s"))
}

/// The first scripts of the demo's wallet.
fn scripts(count: u32) -> Result<Vec<ScriptBuf>, Failure> {
    let dir = tempfile::tempdir().map_err(Failure::failed)?;
    let (mut wallet, _) = demo::wallet(dir.path())?;
    let script = |_| wallet.ledger.next_script(true).ok_or_else(|| Failure::failed("no address"));
    (0..count).map(script).collect()
}

/// A chain in which each script is paid to once, at even distances.
fn chain(blocks: u32, scripts: &[ScriptBuf]) -> Result<SimChain, Failure> {
    let mut chain = SimChain::generate(NETWORK, ChainSpec::new(FIRST - 1, 1));
    // Each spends the one before, so they may be in any blocks in this order.
    let payments = chain.payments(scripts.iter().map(|script| script.as_bytes()));
    if payments.len() < scripts.len() {
        return Err(Failure::Usage(format!("--payments: at most {} can be paid", payments.len())));
    }
    let mut next = payments.as_slice();
    for height in FIRST..=blocks {
        let done = u64::from(height - FIRST + 1) * payments.len() as u64 / u64::from(blocks - FIRST + 1);
        let due = done as usize - (payments.len() - next.len());
        let (now, later) = next.split_at(due);
        match now {
            [] => chain.extend(ChainSpec::new(1, height.into())),
            now => chain.extend_with(now, height.into()),
        }
        next = later;
    }
    Ok(chain)
}
