//! How connections are made: arguments that several commands share.

use std::sync::Arc;

use clap::Args;
use tipward_chain::sync::peer::{
    Encrypt, ManagerOptions, PeerAddress, Protocol, Proxy, ProxyAuthentication, Tcp, TcpOptions,
    bitcoin::Bitcoin, wire::bitcoin::Network,
};

use crate::Failure;

/// The port that Tor listens on for those who want a proxy.
const PROXY_PORT: u16 = 9050;

#[derive(Debug, Args)]
pub(crate) struct TransportArguments {
    /// Connect through this SOCKS5 proxy, which also looks up all names; port 9050 unless given.
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// What to tell the proxy. Other users of this machine can see it.
    #[arg(long, value_name = "USER:PASSWORD", requires = "proxy")]
    proxy_auth: Option<String>,
    /// Connect to nothing that does not encrypt (BIP 324).
    #[arg(long, conflicts_with = "no_encryption")]
    require_encryption: bool,
    /// Do not encrypt, even where the peer would.
    #[arg(long)]
    no_encryption: bool,
}

impl TransportArguments {
    /// Carries the arguments over to the options.
    pub(crate) fn apply(
        &self,
        network: &'static Network,
        options: &mut ManagerOptions,
    ) -> Result<(), Failure> {
        if let Some(proxy) = &self.proxy {
            let address = PeerAddress::parse(proxy, PROXY_PORT)
                .map_err(|error| Failure::Usage(format!("--proxy: {error}")))?;
            let mut proxy = Proxy::new(address);
            if let Some(credentials) = &self.proxy_auth {
                proxy.authentication = authentication(credentials)?;
            }
            let mut tcp = TcpOptions::default();
            tcp.proxy = Some(proxy);
            options.dialer = Arc::new(Tcp::new(tcp));
        }
        if self.no_encryption {
            options.link.encrypt = Encrypt::Off;
        }
        if self.require_encryption {
            if !Bitcoin::new(network).can_encrypt() {
                let name = network.name;
                return Err(Failure::Usage(format!("--require-encryption: nodes of {name} do not encrypt")));
            }
            options.link.encrypt = Encrypt::Require;
        }
        Ok(())
    }
}

fn authentication(credentials: &str) -> Result<ProxyAuthentication, Failure> {
    credentials
        .split_once(':')
        .filter(|(user, password)| [user, password].iter().all(|part| (1..=255).contains(&part.len())))
        .map(|(user, password)| ProxyAuthentication::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
        // What was given is not repeated: it may hold a password.
        .ok_or_else(|| Failure::Usage("--proxy-auth: not USER:PASSWORD, of 1 to 255 bytes each".to_owned()))
}

/// The nodes to connect to.
pub(crate) fn addresses(given: &[String], network: &Network) -> Result<Vec<PeerAddress>, Failure> {
    given
        .iter()
        .map(|text| PeerAddress::parse(text, network.default_port))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Usage(format!("--connect: {error}")))
}
