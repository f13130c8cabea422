//! What a wallet could miss or count though it is gone: what is asked for again, what is watched later, what a block makes up.

use std::fs;

use bdk_wallet::bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, absolute::LockTime,
    hashes::Hash as _, transaction::Version,
};
use tipward_chain::sync::peer::wire;
use tipward_simnet::{Behaviour, SimChain};

use crate::{
    Wallet, finish,
    simulated::{MODES, PAYMENT, SOMEBODY, Server, confirmed, pay, script, trunk},
    text,
};

/// A witness program that nobody here has.
const OTHER: &str = "00141111111111111111111111111111111111111111";

fn send(wallet: &Wallet, to: &str, amount: &str) -> Vec<serde_json::Value> {
    let secret = wallet.secret();
    let arguments = ["send", to, amount, "--secret", secret.to_str().unwrap()];
    crate::lines(&finish(wallet.connecting(&arguments)))
}

/// Mines what the node was given last.
fn mine_last(server: &Server, chain: &mut SimChain) {
    let mempool = server.node.mempool();
    chain.extend_with(&mempool[mempool.len() - 1..], 5);
    server.node.set_chain(chain.clone());
}

/// Whatever is asked for again, no block is passed over that was not looked through yet.
#[test]
fn a_second_look_hides_nothing() {
    for mode in MODES {
        let mut chain = trunk();
        let server = Server::start(chain.clone(), Behaviour::Honest);
        let wallet = Wallet::create("btc-regtest", &[server.address()], mode);
        let address = wallet.address(&[]);
        let other = ScriptBuf::from_hex(OTHER).unwrap();
        for paid in [script(&address), script(SOMEBODY), other] {
            pay(&mut chain, &[paid]);
        }
        server.node.set_chain(chain.clone());
        // It has not been anywhere yet.
        wallet.answer(&["watch", SOMEBODY, "--from", "107"]);
        wallet.sync();
        assert_eq!(confirmed(&wallet), 2 * PAYMENT, "by {mode}");
        // The lowest of all that is asked for counts.
        wallet.answer(&["watch", OTHER, "--from", "107"]);
        wallet.answer(&["rescan", "108"]);
        wallet.answer(&["rescan", "109"]);
        for _ in 0..3 {
            pay(&mut chain, &[script(&address)]);
        }
        server.node.set_chain(chain);
        wallet.sync();
        assert_eq!(confirmed(&wallet), 6 * PAYMENT, "by {mode}");
        wallet.answer(&["rescan", "200"]);
        wallet.sync();
        assert_eq!(confirmed(&wallet), 6 * PAYMENT, "by {mode}");
    }
}

/// A known transaction pays to what is watched later, and another one, which nobody has looked for, has spent it.
#[test]
fn what_is_watched_later_was_perhaps_spent() {
    for mode in MODES {
        let mut chain = trunk();
        let server = Server::start(chain.clone(), Behaviour::Honest);
        let [wallet, other] = [(); 2].map(|()| Wallet::create("btc-regtest", &[server.address()], mode));
        pay(&mut chain, &[script(&wallet.address(&[]))]);
        server.node.set_chain(chain.clone());
        let address = other.address(&[]);
        send(&wallet, &address, "5000sat");
        mine_last(&server, &mut chain);
        send(&other, SOMEBODY, "4700sat");
        mine_last(&server, &mut chain);
        wallet.sync();
        let before = confirmed(&wallet);
        assert!(before > 0 && before < PAYMENT - 5000);
        wallet.answer(&["watch", &address]);
        wallet.sync();
        assert_eq!(confirmed(&wallet), before, "by {mode}");
    }
}

/// A checkpoint is of the wallet that was made with it.
#[test]
fn a_checkpoint_that_was_left_behind_does_not_count() {
    let mut chain = trunk();
    pay(&mut chain, &[script(SOMEBODY)]);
    pay(&mut chain, &[script(SOMEBODY)]);
    let server = Server::start(chain, Behaviour::Honest);
    let init = ["init", "--network", "btc-regtest"];
    let first = Wallet::without_keys(&init, &[server.address()], "blocks");
    first.sync();
    let file = first.dir.path().join("checkpoint");
    first.answer(&["checkpoint", "106", file.to_str().unwrap()]);
    let late = [&init[..], &["--checkpoint", file.to_str().unwrap()]].concat();
    let wallet = Wallet::without_keys(&late, &[server.address()], "blocks");
    fs::remove_file(wallet.dir.path().join("data/wallet.redb")).unwrap();
    wallet.answer(&init);
    wallet.answer(&["watch", SOMEBODY]);
    wallet.sync();
    assert_eq!(confirmed(&wallet), 2 * PAYMENT);
}

/// Blocks are not checked for what transactions pay, and whoever makes one can write any number.
#[test]
fn more_money_than_there_is_is_not_counted() {
    let mut chain = trunk();
    let output = |value| TxOut { value: Amount::from_sat(value), script_pubkey: script(SOMEBODY) };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([3; 32]), vout: 0 },
            sequence: Sequence::MAX,
            ..TxIn::default()
        }],
        output: vec![output(u64::MAX), output(u64::MAX)],
    };
    chain.extend_with(&[wire::bitcoin::Transaction::try_from(&transaction).unwrap()], 4);
    pay(&mut chain, &[script(SOMEBODY)]);
    let server = Server::start(chain, Behaviour::Honest);
    let wallet = Wallet::without_keys(&["init", "--network", "btc-regtest"], &[server.address()], "blocks");
    wallet.answer(&["watch", SOMEBODY]);
    wallet.sync();
    assert_eq!((confirmed(&wallet), wallet.answer(&["history"]).len()), (PAYMENT, 1));
}

/// Who pays waits for an end; where there is nobody, it comes.
#[test]
fn nobody_to_send_to_is_told() {
    let wallet = Wallet::at(&["127.0.0.1:1".parse().unwrap()], "blocks");
    let secret = wallet.secret();
    let secret = secret.to_str().unwrap();
    wallet.answer(&["init", "--network", "btc-regtest", "--new-secret", secret]);
    let output = finish(wallet.connecting(&["send", SOMEBODY, "5000sat", "--secret", secret]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: "), "{}", text(&output.stderr));
}
