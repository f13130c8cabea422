//! JSON over HTTP, as the real nodes speak it.

use hex_conservative::{DisplayHex, decode_to_vec};
use serde_json::{Value, json};
use tipward_chain::sync::peer::wire::BlockHash;

/// What a node answers to a request.
pub(crate) fn answer(request: minreq::Request) -> Result<Value, String> {
    let response = request.with_timeout(120).send().map_err(|error| error.to_string())?;
    let text = response.as_str().map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}

/// Calls a method by JSON-RPC; the request says where, and who asks.
pub(crate) fn call(request: minreq::Request, method: &str, parameters: &Value) -> Result<Value, String> {
    let body = json!({"jsonrpc": "1.0", "id": 1, "method": method, "params": parameters}).to_string();
    let mut answer = answer(request.with_header("Content-Type", "application/json").with_body(body))?;
    match answer["error"].take() {
        Value::Null => Ok(answer["result"].take()),
        error => Err(error.to_string()),
    }
}

/// Calls a method once for each of these parameters, in one request.
pub(crate) fn batch(
    request: minreq::Request,
    method: &str,
    parameters: impl Iterator<Item = Value>,
) -> Result<Vec<Value>, String> {
    let calls: Vec<Value> = (0..)
        .zip(parameters)
        .map(|(id, parameters): (u64, Value)| {
            json!({"jsonrpc": "1.0", "id": id, "method": method, "params": parameters})
        })
        .collect();
    let request = request.with_header("Content-Type", "application/json");
    let answers = answer(request.with_body(json!(calls).to_string()))?;
    let answers = answers.as_array().filter(|answers| answers.len() == calls.len());
    let answers = answers.ok_or_else(|| "not as many answers as calls".to_owned())?;
    let result = |(id, answer): (u64, &Value)| match (&answer["error"], &answer["id"]) {
        (Value::Null, at) if *at == id => Ok(answer["result"].clone()),
        (error, at) => Err(format!("call {at}: {error}")),
    };
    (0..).zip(answers).map(result).collect()
}

/// A call in few words: a block is long.
pub(crate) fn brief(method: &str, parameters: &Value) -> String {
    format!("{method}{parameters}").chars().take(300).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    decode_to_vec(hex).expect("hexadecimal text")
}

pub(crate) fn hash(hex: &str) -> BlockHash {
    hex.parse().expect("a hash")
}
