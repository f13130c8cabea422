//! Paying: coins are chosen, and the transaction is made and signed, by `bdk_wallet`; then peers get it, and what they do with it
//! tells what became of it.

use bdk_wallet::{
    KeychainKind, SignOptions, Wallet as Signer,
    bitcoin::{Address, Amount, FeeRate, Transaction},
    chain::{ConfirmationBlockTime, Indexer as _},
};
use tipward_chain::sync::{SinkError, peer::wire::bitcoin::Chain};

use crate::{
    address::bitcoin_network,
    keys::Secret,
    ledger::{CHANGE, GAP, Ledger, RECEIVE},
    show::now,
    wallet::Wallet,
};

/// Makes a transaction of confirmed coins, signs it, and stores it before anybody else sees it.
pub(crate) fn pay(
    wallet: &mut Wallet,
    secret: &Secret,
    to: &Address,
    amount: Amount,
    rate: FeeRate,
) -> Result<Transaction, SinkError> {
    wallet.save()?;
    let mut signer = signer(&wallet.ledger, secret)?;
    let mut builder = signer.build_tx();
    builder.add_recipient(to.script_pubkey(), amount).fee_rate(rate).exclude_unconfirmed();
    let mut psbt = builder.finish()?;
    for key in &secret.keys {
        // One key knows nothing of the other's inputs, which is no failure: finalizing tells whether all were signed.
        psbt.sign(key, signer.secp_ctx()).ok();
    }
    if !signer.finalize_psbt(&mut psbt, SignOptions::default())? {
        return Err("the keys do not suffice to sign".into());
    }
    let transaction = psbt.extract_tx()?;
    if let Some(changes) = signer.take_staged() {
        wallet.ledger.reveal(changes.indexer);
    }
    wallet.ledger.insert_unconfirmed(transaction.clone(), now());
    wallet.save()?;
    Ok(transaction)
}

/// The ledger as `bdk_wallet` sees it.
fn signer(ledger: &Ledger, secret: &Secret) -> Result<Signer, SinkError> {
    if ledger.network.chain == Chain::Bsv {
        return Err(format!(
            "{} signs otherwise than bdk_wallet does: only watching works",
            ledger.network.name
        )
        .into());
    }
    let descriptor = |number| ledger.keychains.get_descriptor(number).cloned();
    let ours = [RECEIVE, CHANGE].into_iter().filter_map(descriptor).collect::<Vec<_>>();
    if ours != secret.descriptors {
        return Err("the private descriptors are not those of this wallet".into());
    }
    let changes = bdk_wallet::ChangeSet {
        descriptor: descriptor(RECEIVE),
        change_descriptor: descriptor(CHANGE),
        network: Some(bitcoin_network(ledger.network)),
        local_chain: ledger.chain.initial_changeset(),
        tx_graph: ledger.graph.initial_changeset().map_anchors(|found| ConfirmationBlockTime {
            block_id: found.block,
            confirmation_time: found.time.into(),
        }),
        indexer: ledger.keychains.initial_changeset(),
        ..bdk_wallet::ChangeSet::default()
    };
    let signer = Signer::load().lookahead(GAP).load_wallet_no_persist(changes)?;
    let signer = signer.ok_or("the wallet has no descriptors to pay from")?;
    debug_assert!(
        signer.derivation_index(KeychainKind::External) == ledger.keychains.last_revealed_index(RECEIVE)
    );
    Ok(signer)
}
