//! Filtered blocks and announcements (BIP 37), compact filters (BIP 157).

use tipward_simnet::{Behaviour, ChainSpec, SimChain};
use tipward_wire::{
    BlockHash,
    bitcoin::{
        Block, BloomFilter, BloomUpdate, FilterAdd, FilterHeader, FilterRange, GetFilterCheckpoints,
        Inventory, InventoryKind, MempoolRequest, Message, Network, Transaction,
    },
};

use crate::client::{Client, node};

fn watching(element: &[u8]) -> BloomFilter {
    let mut filter = BloomFilter::new(10, 0.000_001, 3, BloomUpdate::None);
    filter.insert(element);
    filter
}

fn getdata(hash: BlockHash) -> Message {
    Message::GetData(vec![Inventory::block(InventoryKind::FilteredBlock, hash)])
}

#[tokio::test]
async fn a_filtered_block_proves_and_brings_what_matches() {
    for network in [Network::BTC_REGTEST, Network::BSV_REGTEST] {
        let mut chain = SimChain::generate(network, ChainSpec::new(120, 7));
        // Scripts that push some data: the third is watched.
        let scripts = (1..=5u8).map(|n| vec![4, n, n, n, n]);
        let payments = chain.payments(scripts);
        chain.extend_with(&payments, 1);
        let (hash, header) = (chain.tip().hash, chain.tip().header);
        let node = node(&chain, Behaviour::Honest).await;
        let (mut client, _) = Client::ready(&node, &[]).await;
        // Without a filter there is no answer.
        client.send(&getdata(hash)).await;
        client.sync().await;
        client.send(&Message::FilterLoad(watching(&[3; 4]))).await;
        let Message::MerkleBlock(block) = client.ask(&getdata(hash)).await else { panic!("no merkleblock") };
        let proven = block.tree.verify().unwrap();
        assert_eq!((block.header, proven.root), (header, header.merkle_root));
        assert_eq!(proven.matches, [(3, payments[2].txid())]);
        let Message::Tx(matched) = client.next().await else { panic!("no transaction") };
        assert_eq!((matched.txid(), matched.has_witnesses()), (payments[2].txid(), false));
        client.sync().await;
        // One more element, one more match.
        client.send(&Message::FilterAdd(FilterAdd { element: vec![5; 4].into() })).await;
        let Message::MerkleBlock(block) = client.ask(&getdata(hash)).await else { panic!("no merkleblock") };
        assert_eq!(block.tree.verify().unwrap().matches.len(), 2);
        assert!(matches!(client.next().await, Message::Tx(_)));
        assert!(matches!(client.next().await, Message::Tx(_)));
        client.send(&Message::FilterClear).await;
        client.send(&getdata(hash)).await;
        client.sync().await;
    }
}

#[tokio::test]
async fn only_what_matches_is_announced() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(120, 7));
    let payments = chain.payments([[4, 1, 1, 1, 1], [4, 2, 2, 2, 2]]);
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    client.send(&Message::FilterLoad(watching(&[2; 4]))).await;
    client.sync().await;
    for payment in &payments {
        node.add_transaction(payment.clone());
    }
    let inv = |transaction: &Transaction| Inventory {
        kind: InventoryKind::Tx,
        hash: *transaction.txid().as_bytes(),
    };
    let matching = Message::Inv(vec![inv(&payments[1])]);
    assert_eq!(client.next().await, matching);
    let mempool = Message::Mempool(MempoolRequest::default());
    assert_eq!(client.ask(&mempool).await, matching);
    client.send(&Message::FilterClear).await;
    assert_eq!(client.ask(&mempool).await, Message::Inv(payments.iter().map(inv).collect()));
}

#[tokio::test]
async fn compact_filters_and_their_headers_agree() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(2100, 7));
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let hash = |height: usize| chain.blocks()[height].hash;
    let range = |start_height, stop| FilterRange { filter_type: 0, start_height, stop };

    let Message::CFHeaders(first) = client.ask(&Message::GetCFHeaders(range(0, hash(1999)))).await else {
        panic!("no filter headers")
    };
    assert_eq!((first.previous, first.hashes.len()), (FilterHeader::ZERO, 2000));
    let headers: Vec<FilterHeader> = first.headers().collect();
    let Message::CFHeaders(rest) = client.ask(&Message::GetCFHeaders(range(2000, hash(2100)))).await else {
        panic!("no filter headers")
    };
    assert_eq!((rest.previous, rest.hashes.len()), (headers[1999], 101));
    let request = GetFilterCheckpoints { filter_type: 0, stop: hash(2100) };
    let Message::CFCheckpt(checkpoints) = client.ask(&Message::GetCFCheckpt(request)).await else {
        panic!("no checkpoints")
    };
    assert_eq!(checkpoints.headers, [headers[1000], rest.headers().next().unwrap()]);

    client.send(&Message::GetCFilters(range(110, hash(119)))).await;
    for height in 110..120 {
        let Message::CFilter(message) = client.next().await else { panic!("no filter") };
        assert_eq!((message.block, message.filter.hash()), (hash(height), first.hashes[height]));
        let block = Block::new(chain.blocks()[height].raw.clone()).unwrap();
        let paid = block.transactions().next().unwrap();
        let script = paid.outputs().next().unwrap().script();
        assert!(message.filter.match_any(&message.block, [script.as_bytes()]).unwrap());
    }
    // A type that is not known and a block that is not are passed over; too much ends the connection.
    client.send(&Message::GetCFilters(FilterRange { filter_type: 1, ..range(1, hash(2)) })).await;
    client.send(&Message::GetCFilters(range(1, BlockHash::from_bytes([3; 32])))).await;
    client.sync().await;
    client.send(&Message::GetCFilters(range(0, hash(1000)))).await;
    client.try_next().await.unwrap_err();
}
