//! Descriptors, public and private. The wallet stores public ones; private ones are in a file of the user's, read to sign and
//! never printed.

use std::{fs, io::Write as _, path::Path};

use bdk_wallet::{
    bitcoin::{NetworkKind, PrivateKey, bip32::Xpriv, secp256k1::Secp256k1},
    miniscript::{
        Descriptor, DescriptorPublicKey, ForEachKey as _,
        descriptor::{DescriptorSecretKey, DescriptorType},
    },
};
use tipward_chain::{
    sync::SinkError,
    wire::bitcoin::{Chain, Network},
};

use crate::address::network_kind;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Reads a public descriptor: one, or with two paths (`<0;1>`) those of receiving and of change.
pub(crate) fn parse_public(
    text: &str,
    network: &Network,
) -> Result<Vec<Descriptor<DescriptorPublicKey>>, SinkError> {
    let parsed = Descriptor::parse_descriptor(&Secp256k1::new(), text);
    let has_private_keys =
        parsed.as_ref().map_or_else(|_| shows_private_keys(text), |(_, keys)| !keys.is_empty());
    if has_private_keys {
        return Err("the descriptor has private keys: put it in a file and give --secret FILE".into());
    }
    let (descriptor, _) = parsed.map_err(|error| format!("descriptor: {error}"))?;
    let descriptors = descriptor.into_single_descriptors().map_err(|error| format!("descriptor: {error}"))?;
    if descriptors.len() > 2 {
        return Err(format!("descriptor: {} paths, and two at most are of use", descriptors.len()).into());
    }
    descriptors.iter().try_for_each(|descriptor| check_network(descriptor, network))?;
    Ok(descriptors)
}

/// The private descriptors of a wallet: of receiving and, if it has another, of change.
pub(crate) struct Secret {
    pub(crate) descriptors: Vec<Descriptor<DescriptorPublicKey>>,
    pub(crate) keys: Vec<DescriptorSecretKey>,
}

impl Secret {
    /// Reads a file of one or two lines. Nobody but its owner may be able to.
    pub(crate) fn read(path: &Path, network: &Network) -> Result<Self, SinkError> {
        let shown = path.display();
        let facts = fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
        if facts.len() > MAX_FILE {
            return Err(format!("{shown}: {} bytes are too many", facts.len()).into());
        }
        #[cfg(unix)]
        if std::os::unix::fs::PermissionsExt::mode(&facts.permissions()) & 0o077 != 0 {
            return Err(format!("{shown}: others can read it; 'chmod 600 {shown}' first").into());
        }
        let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        Self::parse(&text, network).map_err(|problem| format!("{shown}: {problem}").into())
    }

    /// Nothing of the text is in the error.
    pub(crate) fn parse(text: &str, network: &Network) -> Result<Self, SinkError> {
        let mut secret = Self { descriptors: Vec::new(), keys: Vec::new() };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for (number, line) in (1..).zip(lines) {
            let parsed = Descriptor::parse_descriptor(&Secp256k1::new(), line).ok();
            let parsed = parsed.filter(|(descriptor, keys)| !keys.is_empty() && !descriptor.is_multipath());
            let (descriptor, keys) =
                parsed.ok_or_else(|| format!("descriptor {number} is none of one path with private keys"))?;
            check_network(&descriptor, network)?;
            secret.descriptors.push(descriptor);
            secret.keys.extend(keys.into_values());
        }
        match secret.descriptors.len() {
            1 | 2 => Ok(secret),
            count => Err(format!("{count} descriptors instead of one, or two").into()),
        }
    }

    /// Makes new keys and writes them to a new file, in clear, which its owner alone can read.
    pub(crate) fn create(path: &Path, network: &Network) -> Result<(), SinkError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| {
            file.write_all(text_of(&seed, network).as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

/// The descriptors of a seed: as BIP 84 has them on BTC, and BIP 44 elsewhere.
pub(crate) fn text_of(seed: &[u8; 32], network: &Network) -> String {
    let kind = network_kind(network);
    let master = Xpriv::new_master(kind, seed).expect("one seed in 2^127 has no key");
    let coin = if kind == NetworkKind::Main { 0 } else { 1 };
    let path = |change| match network.chain {
        Chain::Btc => format!("wpkh({master}/84h/{coin}h/0h/{change}/*)\n"),
        Chain::Bsv => format!("pkh({master}/44h/{coin}h/0h/{change}/*)\n"),
    };
    path(0) + &path(1)
}

/// Whether there are private keys in what can't be read, which must not be shown then.
pub(crate) fn shows_private_keys(text: &str) -> bool {
    let mut words = text.split(|it: char| !it.is_ascii_alphanumeric());
    words.any(|word| word.contains("prv") || word.parse::<PrivateKey>().is_ok())
}

fn check_network(descriptor: &Descriptor<DescriptorPublicKey>, network: &Network) -> Result<(), SinkError> {
    let kind = network_kind(network);
    let is_right = descriptor.for_each_key(|key| match key {
        DescriptorPublicKey::XPub(key) => key.xkey.network == kind,
        DescriptorPublicKey::MultiXPub(key) => key.xkey.network == kind,
        DescriptorPublicKey::Single(_) => true,
    });
    if !is_right {
        return Err(format!("the descriptor's keys are not of {}", network.name).into());
    }
    let has_witnesses = descriptor.desc_type().segwit_version().is_some()
        || matches!(descriptor.desc_type(), DescriptorType::ShWpkh | DescriptorType::ShWsh);
    if network.chain == Chain::Bsv && has_witnesses {
        return Err(format!("{} has no witnesses, which the descriptor needs", network.name).into());
    }
    Ok(())
}
