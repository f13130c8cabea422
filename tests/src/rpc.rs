//! JSON over HTTP, as the real nodes speak it.

use serde_json::{Value, json};

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
