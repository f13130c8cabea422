//! What a node says, against what the index says.

use std::collections::{BTreeMap, BTreeSet};

use hex_conservative::{DisplayHex, decode_to_vec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tipward_tests::Bitcoind;

use crate::program::Program;

/// An entry of a history: height, position, transaction, whether it was spent, the number of the input or output, value.
type Entry = (u64, u64, String, bool, u64, u64);

/// What the node's blocks say about scripts.
#[derive(Default)]
struct Model {
    /// By script, in hexadecimal digits.
    histories: BTreeMap<String, Vec<Entry>>,
    /// By transaction and output: script and value.
    outputs: BTreeMap<(String, u64), (String, u64)>,
}

impl Model {
    fn block(&mut self, height: u64, transactions: &[Value]) {
        for (position, transaction) in (0..).zip(transactions) {
            let txid = text(&transaction["txid"]);
            for (index, input) in (0..).zip(list(&transaction["vin"])) {
                let Some(spent) = input["txid"].as_str() else { continue };
                let spent = (spent.to_owned(), input["vout"].as_u64().unwrap());
                let (script, value) = self.outputs[&spent].clone();
                self.histories.get_mut(&script).unwrap().push((
                    height,
                    position,
                    txid.clone(),
                    true,
                    index,
                    value,
                ));
            }
            for output in list(&transaction["vout"]) {
                let (script, index) = (text(&output["scriptPubKey"]["hex"]), output["n"].as_u64().unwrap());
                let value = satoshi(&output["value"]);
                self.outputs.insert((txid.clone(), index), (script.clone(), value));
                self.histories.entry(script).or_default().push((
                    height,
                    position,
                    txid.clone(),
                    false,
                    index,
                    value,
                ));
            }
        }
    }
}

/// Waits until the index is where the node is, and compares all that it knows.
pub(crate) fn compare(node: &Bitcoind, program: &Program, left: &[String]) {
    let tip = node.height();
    program.wait_for(&node.hash(tip));
    let mut model = Model::default();
    for height in 0..=tip {
        let hash = node.hash(height);
        let block = node.rpc("getblock", &json!([hash, 2]));
        model.block(height, list(&block["tx"]));
        let found = program.get(&format!("/block/{height}"));
        assert_eq!(found, program.get(&format!("/block/{hash}")));
        let of_node =
            [&block["hash"], &block["nTx"], &block["size"], &block["time"], &block["confirmations"]];
        let names = ["hash", "transactions", "size", "time", "confirmations"];
        assert_eq!(names.map(|name| &found[name]), of_node);
        assert_eq!(found["unknown_inputs"], 0);
        for (position, transaction) in list(&block["tx"]).iter().enumerate() {
            assert_eq!(found["txids"][position], transaction["txid"]);
            transaction_is_there(node, program, transaction, &hash, position, height);
        }
    }
    for hash in left.iter().filter(|hash| node.rpc("getblockheader", &json!([hash]))["confirmations"] == -1) {
        assert_eq!(program.status(&format!("/block/{hash}")), 404);
        let coinbase = node.rpc("getblock", &json!([hash]))["tx"][0].clone();
        assert_eq!(program.status(&format!("/tx/{}", text(&coinbase))), 404);
    }
    for (script, expected) in &mut model.histories {
        expected
            .sort_by_key(|(height, position, _, is_spent, index, _)| (*height, *position, *is_spent, *index));
        assert_eq!(history(program, script), *expected, "{script}");
    }
    unspent(node, program, &model);
}

fn transaction_is_there(
    node: &Bitcoind,
    program: &Program,
    transaction: &Value,
    hash: &str,
    position: usize,
    height: u64,
) {
    let txid = text(&transaction["txid"]);
    let found = program.get(&format!("/tx/{txid}"));
    assert_eq!(
        (&found["block"], &found["height"], &found["position"]),
        (&json!(hash), &json!(height), &json!(position))
    );
    assert_eq!((&found["size"], &found["weight"]), (&transaction["size"], &transaction["weight"]));
    // The transaction of genesis is none to the node.
    let hex = match height {
        0 => transaction["hex"].clone(),
        _ => node.rpc("getrawtransaction", &json!([txid])),
    };
    assert_eq!(program.text(&format!("/tx/{txid}?hex")), text(&hex));
    if !height.is_multiple_of(4) {
        return;
    }
    assert_eq!(program.bytes(&format!("/tx/{txid}?raw")), decode_to_vec(&text(&hex)).unwrap());
    let proof = program.get(&format!("/tx/{txid}/proof"));
    assert_eq!(node.rpc("verifytxoutproof", &json!([proof["proof"]])), json!([txid]));
}

/// All pages of a script's history.
fn history(program: &Program, script: &str) -> Vec<Entry> {
    let entry = |entry: &Value| {
        let is_spent = !entry["spent"].is_null();
        let (index, value) = if is_spent { ("input", "spent") } else { ("output", "received") };
        let number = |name: &str| entry[name].as_u64().unwrap();
        (number("height"), number("position"), text(&entry["txid"]), is_spent, number(index), number(value))
    };
    pages(program, script, "history").iter().map(entry).collect()
}

fn pages(program: &Program, script: &str, what: &str) -> Vec<Value> {
    let hash: [u8; 32] = Sha256::digest(decode_to_vec(script).unwrap()).into();
    let route = format!("/script/{}/{what}?limit=7", hash.to_lower_hex_string());
    let (mut entries, mut page) = (Vec::new(), program.get(&route));
    loop {
        let found = list(&page["entries"]);
        assert!(found.len() <= 7);
        entries.extend(found.iter().cloned());
        let Some(next) = page["next"].as_str() else { return entries };
        assert_eq!(found.len(), 7);
        page = program.get(&format!("{route}&from={next}"));
    }
}

/// What nobody has spent, of every script there is.
fn unspent(node: &Bitcoind, program: &Program, model: &Model) {
    let scripts: Vec<Value> = model.histories.keys().map(|script| json!(format!("raw({script})"))).collect();
    let scanned = node.rpc("scantxoutset", &json!(["start", scripts]));
    let of_node: BTreeSet<_> = list(&scanned["unspents"])
        .iter()
        .map(|output| {
            let number = |name: &str| output[name].as_u64().unwrap();
            let script = text(&output["scriptPubKey"]);
            (script, number("height"), text(&output["txid"]), number("vout"), satoshi(&output["amount"]))
        })
        .collect();
    let mut of_index = BTreeSet::new();
    for script in model.histories.keys() {
        for output in pages(program, script, "utxos") {
            let number = |name: &str| output[name].as_u64().unwrap();
            let found =
                (script.clone(), number("height"), text(&output["txid"]), number("output"), number("value"));
            assert!(of_index.insert(found));
        }
    }
    assert_eq!(of_index, of_node);
    // No script was left out.
    assert_eq!(node.rpc("gettxoutsetinfo", &json!([]))["txouts"], of_node.len());
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// Coins to satoshi.
fn satoshi(coins: &Value) -> u64 {
    (coins.as_f64().unwrap() * 1e8).round() as u64
}
