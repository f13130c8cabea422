//! `tipward simnet`.

use tipward_chain::sync::peer::wire::bitcoin::Network;
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

use crate::{Failure, args::SimnetArguments, interrupted, runtime, trace};

pub(crate) fn run(arguments: &SimnetArguments) -> Result<(), Failure> {
    let network = arguments.network;
    trace(arguments.verbose);
    let chain = match &arguments.from {
        Some(file) => SimChain::from_blk(file, network).map_err(Failure::failed)?,
        None if network.pow_limit != Network::DEMO.pow_limit => {
            return Err(Failure::Usage(format!(
                "blocks of {} take real work to generate: serve some with --from FILE.blk, or choose btc-regtest, bsv-regtest or demo",
                network.name
            )));
        }
        None => SimChain::generate(network, ChainSpec::new(arguments.blocks, arguments.seed)),
    };
    let listen = arguments.listen.clone().unwrap_or_else(|| format!("127.0.0.1:{}", network.default_port));
    runtime()?.block_on(async {
        let (height, tip) = (chain.height(), chain.tip().hash);
        let node = SimNode::spawn(chain, Behaviour::Honest, &listen)
            .await
            .map_err(|error| Failure::Failed(format!("cannot listen on {listen}: {}", error.kind())))?;
        println!(
            "listening on {}: {}, {height} blocks after the first, tip {tip}",
            node.address(),
            network.name
        );
        interrupted().await;
        node.shutdown().await;
        Ok(())
    })
}
