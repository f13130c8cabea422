//! What users get wrong: one line that says what and where, an exit code, and nothing lost.

use std::fs;

use crate::{Wallet, finish, text};

/// Two keys of no value.
const PRIVATE: &str = "wpkh(tprv8ZgxMBicQKsPdy6LMhUtFHAgpocR8GC6QmwMSFpZs7h6Eziw3SpThFfczTDh5rW2krkqffa11UpX3XkeTTB2FvzZKWXqPY54Y6Rq4AQ5R8L/84h/1h/0h/0/*)";
/// Another one, by itself.
const WIF: &str = "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1";
const SOMEBODY: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

fn assert_refused(wallet: &Wallet, arguments: &[&str], code: i32, part: &str) {
    let output = finish(wallet.command(arguments));
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(told.starts_with("error: ") && told.contains(part), "{arguments:?}: {told}");
    assert!(!told.contains("tprv8Z") && !told.contains(WIF), "a private key is shown: {told}");
}

#[test]
fn bad_input_is_refused_in_a_line() {
    let wallet = Wallet::create("btc-regtest", &[], "blocks");
    let secret = wallet.secret();
    let secret = secret.to_str().unwrap();
    let [short, open, absent] = ["short", "open", "absent"].map(|name| wallet.dir.path().join(name));
    fs::write(&short, "wpkh(tprv8Z").unwrap();
    fs::write(&open, PRIVATE).unwrap();
    for (file, mode) in [(&short, 0o600), (&open, 0o644)] {
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let [short, open, absent] = [&short, &open, &absent].map(|path| path.to_str().unwrap());
    let before = wallet.answer(&["balance"]);
    for (arguments, code, part) in [
        (&["init", "--network", "btc-regtest", "--descriptor", PRIVATE][..], 2, "private keys"),
        (&["init", "--network", "btc-regtest", "--descriptor", "wpkh(nonsense)"], 2, "descriptor"),
        (&["init", "--network", "btc-regtest"], 1, "there is a wallet already"),
        (&["init"], 2, "--network"),
        (&["--network", "btc", "balance"], 2, "is of btc-regtest"),
        (&["watch", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"], 2, "not of btc-regtest"),
        (&["watch", "nonsense"], 2, "'nonsense'"),
        (&["watch", PRIVATE], 2, "private keys"),
        (&["watch", WIF], 2, "private keys"),
        (&["watch", &format!("pkh({WIF}")], 2, "private keys"),
        (&["send", SOMEBODY, "5", "--secret", secret], 2, "10000sat"),
        (&["send", SOMEBODY, "0.000000001btc", "--secret", secret], 2, "amount"),
        (&["send", "nowhere", "5sat", "--secret", secret], 2, "'nowhere'"),
        (&["send", SOMEBODY, "5000sat", "--secret", absent], 1, "absent"),
        (&["send", SOMEBODY, "5000sat", "--secret", short], 1, "short"),
        (&["send", SOMEBODY, "5000sat", "--secret", open], 1, "chmod 600"),
        (&["send", SOMEBODY, "5000sat", "--secret", secret, "--connect", "a b"], 2, "--connect"),
        (&["verify-proof", "00"], 2, "proof"),
        (&["verify-proof", absent], 2, "absent"),
        (&["proof", &"11".repeat(32)], 1, "no transaction"),
        (&["abandon", &"11".repeat(32)], 1, "no transaction"),
        (&["checkpoint", "5", absent], 1, "headers.redb"),
    ] {
        assert_refused(&wallet, arguments, code, part);
    }
    assert_eq!(wallet.answer(&["balance"]), before);
    fs::remove_dir_all(wallet.dir.path().join("data")).unwrap();
    assert_refused(&wallet, &["balance"], 1, "there is no wallet");
}

/// A file that says nothing is a wallet is told by its name.
#[test]
fn a_damaged_file_is_named() {
    let wallet = Wallet::create("btc-regtest", &[], "blocks");
    let file = wallet.dir.path().join("data/wallet.redb");
    fs::write(&file, "nothing").unwrap();
    assert_refused(&wallet, &["balance"], 1, "wallet.redb");
}
