//! Addresses and amounts as the user writes them.

use bdk_wallet::bitcoin::{
    self, Address, Amount, NetworkKind, Script, ScriptBuf, address::NetworkUnchecked, hex::FromHex as _,
};
use tipward_chain::sync::{
    SinkError,
    peer::wire::bitcoin::{Chain, Network},
};

/// The network by the name that addresses and keys know it by.
pub(crate) fn bitcoin_network(network: &Network) -> bitcoin::Network {
    match network.name {
        "btc" | "bsv" => bitcoin::Network::Bitcoin,
        "btc-signet" => bitcoin::Network::Signet,
        "btc-testnet4" => bitcoin::Network::Testnet4,
        "btc-testnet3" | "bsv-testnet" | "bsv-stn" => bitcoin::Network::Testnet,
        _ => bitcoin::Network::Regtest,
    }
}

pub(crate) fn network_kind(network: &Network) -> NetworkKind {
    bitcoin_network(network).into()
}

/// Reads an address of the network.
pub(crate) fn parse_address(text: &str, network: &Network) -> Result<Address, SinkError> {
    let address: Address<NetworkUnchecked> =
        text.parse().map_err(|error| format!("address '{text}': {error}"))?;
    let address = address
        .require_network(bitcoin_network(network))
        .map_err(|_| format!("address '{text}' is not of {}", network.name))?;
    let is_witness = address.script_pubkey().is_witness_program();
    if network.chain == Chain::Bsv && is_witness {
        return Err(format!("address '{text}': {} has no witnesses", network.name).into());
    }
    Ok(address)
}

/// Reads an address, or a script in hexadecimal digits.
pub(crate) fn parse_script(text: &str, network: &Network) -> Result<ScriptBuf, SinkError> {
    if let Ok(bytes) = Vec::from_hex(text)
        && !bytes.is_empty()
    {
        return Ok(ScriptBuf::from_bytes(bytes));
    }
    Ok(parse_address(text, network)?.script_pubkey())
}

/// The address of a script, or the script itself where there is none.
pub(crate) fn show_script(script: &Script, network: &Network) -> String {
    Address::from_script(script, bitcoin_network(network))
        .map_or_else(|_| script.to_hex_string(), |address| address.to_string())
}

/// Reads an amount with its unit. No float comes near it.
pub(crate) fn parse_amount(text: &str) -> Result<Amount, String> {
    let amount: Amount = text
        .parse()
        .map_err(|error| format!("{error}; an amount has a unit, such as 10000sat or 0.0001btc"))?;
    if amount == Amount::ZERO || amount > Amount::MAX_MONEY {
        return Err("from 1 satoshi to 21 million BTC".to_owned());
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_exact_and_has_a_unit() {
        for (text, satoshi) in [
            ("1sat", 1),
            ("0.1btc", 10_000_000),
            ("0.00000001 BTC", 1),
            ("20999999.99999999btc", 2_099_999_999_999_999),
        ] {
            assert_eq!(parse_amount(text).unwrap().to_sat(), satoshi, "{text}");
        }
        for text in ["", "1", "0sat", "-1sat", "1.5sat", "0.000000001btc", "21000000.1btc", "1e3sat", "1 eth"]
        {
            assert!(parse_amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_of_its_network() {
        let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        assert!(parse_address(regtest, Network::BTC_REGTEST).is_ok());
        for network in [Network::BTC, Network::BTC_SIGNET, Network::BSV_REGTEST] {
            assert!(parse_address(regtest, network).is_err(), "{}", network.name);
        }
        assert_eq!(parse_script("51", Network::BTC).unwrap().as_bytes(), [0x51]);
        assert!(parse_script("5", Network::BTC).is_err());
    }
}
