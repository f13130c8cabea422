//! `tipward headers`.

use std::{fs::File, path::Path, time::Instant};

use serde_json::json;
use tipward_chain::{
    HeaderChain, HeaderFileError, HeaderNode, HeaderOptions, HeaderReader, HeaderStore, Imported,
    sync::peer::wire::{
        BlockHash,
        bitcoin::{BlockHeader, Network},
    },
};

use crate::{Failure, args::HeadersArguments, print};

pub(crate) fn run(arguments: &HeadersArguments) -> Result<(), Failure> {
    let data_dir = arguments.data.dir()?;
    let path = data_dir.join("headers.redb");
    let name = HeaderStore::network_name(&path).map_err(Failure::failed)?;
    let is_import = arguments.import.is_some();
    let network = match (arguments.data.network, name) {
        (Some(network), name) if name.is_some() || is_import => network,
        (_, Some(name)) => Network::by_name(&name)
            .ok_or_else(|| Failure::Failed(format!("{} is of unknown network {name}", path.display())))?,
        (None, None) if is_import => {
            return Err(Failure::Usage("headers of which network? Give --network NAME".to_owned()));
        }
        (_, None) => return Err(Failure::Failed(format!("there are no headers in {}", data_dir.display()))),
    };
    if let Some(file) = &arguments.import {
        std::fs::create_dir_all(&data_dir)
            .map_err(|error| Failure::Failed(format!("{}: {error}", data_dir.display())))?;
        return import(&path, network, file, arguments.json);
    }
    let started = Instant::now();
    let reader = HeaderReader::open(&path, &network, None).map_err(Failure::failed)?;
    if arguments.verify {
        return verified(&reader, started.elapsed().as_secs_f64(), arguments.json);
    }
    if let Some(file) = &arguments.export {
        return export(&reader, file, arguments.json);
    }
    let tip = reader.tree().tip().height;
    let from = arguments.from.unwrap_or((tip + 1).saturating_sub(arguments.count));
    let hashes = (from..=tip).take(usize::try_from(arguments.count).unwrap_or(usize::MAX));
    for hash in hashes.map_while(|height| reader.tree().best_at(height)) {
        list(&reader, hash, arguments.json)?;
    }
    Ok(())
}

/// Takes the headers of a file, which need not be shown twice: nobody else has given them.
fn import(path: &Path, network: &'static Network, file: &Path, as_json: bool) -> Result<(), Failure> {
    let named = |error: HeaderFileError| Failure::Failed(format!("{}: {error}", file.display()));
    let input = File::open(file).map_err(|error| named(error.into()))?;
    let mut options = HeaderOptions::default();
    options.looks_twice = false;
    let mut chain = HeaderChain::open_with(path, &network, options).map_err(Failure::failed)?;
    let Imported { headers, added, torn, .. } = chain.import(&network, input).map_err(named)?;
    let tip = chain.tree().tip();
    if torn > 0 {
        eprintln!("the last {torn} bytes of {} are no whole header and were left out", file.display());
    }
    if as_json {
        return print(json!({
            "headers": headers,
            "added": added,
            "torn_bytes": torn,
            "height": tip.height,
            "hash": tip.hash.to_string(),
        }));
    }
    print(format_args!("{headers} headers, {added} of them new"))?;
    print(format_args!("tip      {} at height {}", tip.hash, tip.height))
}

/// Writes a new file: one that is there is not written over.
fn export(reader: &HeaderReader, file: &Path, as_json: bool) -> Result<(), Failure> {
    let named = |error: HeaderFileError| Failure::Failed(format!("{}: {error}", file.display()));
    let output = File::create_new(file).map_err(|error| named(error.into()))?;
    let count = reader.export(&output).map_err(named)?;
    output.sync_all().map_err(|error| named(error.into()))?;
    if as_json {
        return print(json!({ "headers": count }));
    }
    print(format_args!("{count} headers"))
}

fn list(reader: &HeaderReader, hash: BlockHash, as_json: bool) -> Result<(), Failure> {
    let header = reader.header(hash).map_err(Failure::failed)?;
    let bytes = header.as_ref().and_then(|header| header.raw.first_chunk());
    let (Some(node), Some(bytes)) = (reader.tree().node(hash), bytes) else { return Ok(()) };
    let HeaderNode { id, work, time, .. } = node;
    let header = BlockHeader::from_bytes(bytes);
    if !as_json {
        return print(format_args!("{:>9}  {hash}  {time:>10}  {}", id.height, header.bits));
    }
    print(json!({
        "height": id.height,
        "hash": hash.to_string(),
        "version": header.version,
        "previous": header.parent.to_string(),
        "merkle_root": BlockHash::from_bytes(header.merkle_root).to_string(),
        "time": time,
        "median_time": reader.tree().median_time(hash),
        "bits": header.bits.to_string(),
        "nonce": header.nonce,
        "work": work.to_string(),
    }))
}

/// All is well with the headers: says what they are.
fn verified(reader: &HeaderReader, seconds: f64, as_json: bool) -> Result<(), Failure> {
    let tree = reader.tree();
    let tip = tree.tip();
    let work = tree.work(tip.hash).unwrap_or_default();
    let mut branches = tree.tips();
    branches.retain(|branch| *branch != tip);
    let (count, side) = (tree.len(), tree.side_headers());
    let rate = count as f64 / seconds;
    if as_json {
        let branches: Vec<_> = branches
            .iter()
            .map(|branch| {
                let fork = tree.fork_point(branch.hash).map(|fork| fork.height);
                json!({"height": branch.height, "hash": branch.hash.to_string(), "forks_off_at": fork})
            })
            .collect();
        return print(json!({
            "height": tip.height,
            "hash": tip.hash.to_string(),
            "work": work.to_string(),
            "headers": count,
            "side_headers": side,
            "side_branches": branches,
            "seconds": seconds,
            "headers_per_second": rate,
        }));
    }
    print(format_args!("tip      {} at height {}", tip.hash, tip.height))?;
    print(format_args!("work     {work}"))?;
    print(format_args!("headers  {count}, of which {side} are on {} side branches", branches.len()))?;
    for branch in branches {
        let fork = tree.fork_point(branch.hash).map_or(0, |fork| fork.height);
        print(format_args!("branch   {} at height {}, forks off at {fork}", branch.hash, branch.height))?;
    }
    print(format_args!("all are valid, checked in {seconds:.2} s, {rate:.0} a second"))
}
