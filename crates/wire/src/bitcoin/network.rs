//! The networks as values. A custom network is one more value of [`Network`], not code.

use std::fmt;

use bytes::Bytes;
use hex_conservative::hex;

use super::{BlockHeader, CompactTarget, Work};
use crate::BlockHash;

/// Which chain's rules of conversation hold. Decide features by this and never by the protocol version: 70016 means
/// `wtxidrelay` on BTC and `extmsg` on BSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Bitcoin as of Bitcoin Core: segregated witness, messages of at most 4,000,000 bytes.
    Btc,
    /// Bitcoin SV: no witnesses, `protoconf` and `extmsg`, blocks beyond 4 GiB.
    Bsv,
}

/// How the target of a header follows from the headers before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difficulty {
    /// Every header has its parent's target: regression test networks.
    Fixed,
    /// A new target every 2016 blocks.
    Retarget {
        /// A block more than 20 minutes after its parent takes the easiest target: test networks.
        easy_when_late: bool,
        /// A new target is made from the period's first and not from its last, and a period must not begin more than ten
        /// minutes before its parent (BIP 94).
        bip94: bool,
    },
    /// The former, made easier after six blocks that took twelve hours; later a new target with each block, from the 144
    /// blocks before (Bitcoin Cash's EDA of August 2017 and DAA of November 2017).
    Daa {
        /// Children of blocks at this height or above are subject to the DAA.
        height: u64,
        /// As for [`Retarget`](Self::Retarget).
        easy_when_late: bool,
    },
}

/// A network's parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct Network {
    /// The name used on the command line and in data directories.
    pub name: &'static str,
    /// Whose rules of conversation hold.
    pub chain: Chain,
    /// The four bytes that start every frame and every record of a block file.
    pub magic: [u8; 4],
    /// The port that nodes listen on.
    pub default_port: u16,
    /// Host names that resolve to addresses of nodes.
    pub dns_seeds: &'static [&'static str],
    /// The header of block 0.
    pub genesis_header: [u8; 80],
    /// The rest of block 0: the count of its transactions, and the transactions.
    pub genesis_body: &'static [u8],
    /// The easiest target that a header may claim.
    pub pow_limit: CompactTarget,
    /// A block that this chain has and its sisters have not, with its height. BTC, BCH and BSV share their past, and some
    /// of them their magic and port: only blocks tell them apart.
    pub chain_block: Option<(u64, BlockHash)>,
    /// How hard a block must be.
    pub difficulty: Difficulty,
    /// Blocks of the chain, with their heights, which ascend. Nothing that forks off below one is taken once it is there.
    pub checkpoints: &'static [(u64, BlockHash)],
    /// From what height on blocks have the witnesses that their coinbase commits to (BIP 141); `None` if never.
    pub segwit_height: Option<u64>,
    /// The most that a block may weigh (BIP 141), in weight units; `None` without a limit.
    pub max_weight: Option<u64>,
    /// Work that the chain is known to have. Once a chain with that much is there, branches with less are not looked at.
    pub min_work: Work,
}

impl Network {
    /// Every network known by name.
    pub const ALL: [&'static Self; 10] = [
        Self::BTC,
        Self::BTC_TESTNET3,
        Self::BTC_TESTNET4,
        Self::BTC_SIGNET,
        Self::BTC_REGTEST,
        Self::BSV,
        Self::BSV_TESTNET,
        Self::BSV_STN,
        Self::BSV_REGTEST,
        Self::DEMO,
    ];

    /// BTC's main network.
    pub const BTC: &'static Self = &Self {
        name: "btc",
        chain: Chain::Btc,
        magic: hex!("f9beb4d9"),
        default_port: 8333,
        dns_seeds: &[
            "seed.bitcoin.sipa.be",
            "dnsseed.bluematt.me",
            "seed.bitcoin.jonasschnelli.ch",
            "seed.btc.petertodd.net",
            "seed.bitcoin.sprovoost.nl",
            "dnsseed.emzy.de",
            "seed.bitcoin.wiz.biz",
            "seed.mainnet.achownodes.xyz",
        ],
        genesis_header: MAIN_HEADER,
        genesis_body: &BODY,
        pow_limit: CompactTarget(0x1d00_ffff),
        chain_block: Some((478_559, BlockHash::from_bytes(BTC_478559))),
        difficulty: Difficulty::Retarget { easy_when_late: false, bip94: false },
        checkpoints: &[
            (201_600, BlockHash::from_bytes(BOTH_201600)),
            (401_184, BlockHash::from_bytes(BOTH_401184)),
            (600_768, BlockHash::from_bytes(BTC_600768)),
            (830_592, BlockHash::from_bytes(BTC_830592)),
        ],
        segwit_height: Some(481_824),
        max_weight: Some(4_000_000),
        // At height 830,592.
        min_work: work(0x6a70_fe70_f287_3330_c752_9db0),
    };

    /// BTC's third test network.
    pub const BTC_TESTNET3: &'static Self = &Self {
        name: "btc-testnet3",
        magic: hex!("0b110907"),
        default_port: 18333,
        dns_seeds: &["testnet-seed.bitcoin.jonasschnelli.ch", "seed.tbtc.petertodd.net"],
        genesis_header: TESTNET3_HEADER,
        chain_block: None,
        difficulty: Difficulty::Retarget { easy_when_late: true, bip94: false },
        checkpoints: &[(546, BlockHash::from_bytes(TESTNET3_546))],
        segwit_height: Some(834_624),
        // Bitcoin Core, at height 2,550,000.
        min_work: work(0x0c59_b14e_264b_a6c1_5db9),
        ..*Self::BTC
    };

    /// BTC's fourth test network (BIP 94).
    pub const BTC_TESTNET4: &'static Self = &Self {
        name: "btc-testnet4",
        magic: hex!("1c163f28"),
        default_port: 48333,
        dns_seeds: &["seed.testnet4.bitcoin.sprovoost.nl", "seed.testnet4.wiz.biz"],
        genesis_header: TESTNET4_HEADER,
        genesis_body: &TESTNET4_BODY,
        chain_block: None,
        difficulty: Difficulty::Retarget { easy_when_late: true, bip94: true },
        checkpoints: &[],
        segwit_height: Some(1),
        // Bitcoin Core, at height 123,613.
        min_work: work(0x09a0_fe15_d017_7d08_6304),
        ..*Self::BTC
    };

    /// BTC's default signet (BIP 325).
    pub const BTC_SIGNET: &'static Self = &Self {
        name: "btc-signet",
        magic: hex!("0a03cf40"),
        default_port: 38333,
        dns_seeds: &["seed.signet.bitcoin.sprovoost.nl", "seed.signet.achownodes.xyz"],
        genesis_header: SIGNET_HEADER,
        pow_limit: CompactTarget(0x1e03_77ae),
        chain_block: None,
        checkpoints: &[],
        segwit_height: Some(1),
        // Bitcoin Core, at height 293,175.
        min_work: work(0x0b46_3ea0_a4b8),
        ..*Self::BTC
    };

    /// A private BTC network.
    pub const BTC_REGTEST: &'static Self = &Self {
        name: "btc-regtest",
        magic: hex!("fabfb5da"),
        default_port: 18444,
        dns_seeds: &[],
        genesis_header: REGTEST_HEADER,
        pow_limit: CompactTarget(0x207f_ffff),
        chain_block: None,
        difficulty: Difficulty::Fixed,
        checkpoints: &[],
        // At the latest; Bitcoin Core's from the start.
        segwit_height: Some(432),
        min_work: Work::ZERO,
        ..*Self::BTC
    };

    /// BSV's main network.
    pub const BSV: &'static Self = &Self {
        name: "bsv",
        chain: Chain::Bsv,
        magic: hex!("e3e1f3e8"),
        chain_block: Some((556_767, BlockHash::from_bytes(BSV_556767))),
        dns_seeds: &["seed.bitcoinsv.io", "seed.satoshisvision.network", "seed.bitcoinseed.directory"],
        difficulty: Difficulty::Daa { height: 504_031, easy_when_late: false },
        checkpoints: &[
            (201_600, BlockHash::from_bytes(BOTH_201600)),
            (401_184, BlockHash::from_bytes(BOTH_401184)),
            (888_000, BlockHash::from_bytes(BSV_888000)),
        ],
        segwit_height: None,
        max_weight: None,
        // Bitcoin SV node 1.0.
        min_work: work(0x00a0_f306_4330_647e_2f6c_4828),
        ..*Self::BTC
    };

    /// BSV's test network.
    pub const BSV_TESTNET: &'static Self = &Self {
        name: "bsv-testnet",
        magic: hex!("f4e5f3f4"),
        default_port: 18333,
        dns_seeds: &[
            "testnet-seed.bitcoinsv.io",
            "testnet-seed.bitcoincloud.net",
            "testnet-seed.bitcoinseed.directory",
        ],
        genesis_header: TESTNET3_HEADER,
        chain_block: None,
        difficulty: Difficulty::Daa { height: 1_188_697, easy_when_late: true },
        checkpoints: &[(546, BlockHash::from_bytes(TESTNET3_546))],
        // Bitcoin SV node 1.0.
        min_work: work(0x002a_650f_6ff7_6494_85da),
        ..*Self::BSV
    };

    /// BSV's scaling test network.
    pub const BSV_STN: &'static Self = &Self {
        name: "bsv-stn",
        magic: hex!("fbcec4f9"),
        default_port: 9333,
        dns_seeds: &["stn-seed.bitcoinsv.io", "stn-seed.bitcoinseed.directory"],
        difficulty: Difficulty::Daa { height: 2200, easy_when_late: false },
        checkpoints: &[],
        min_work: Work::ZERO,
        ..*Self::BSV_TESTNET
    };

    /// A private BSV network.
    pub const BSV_REGTEST: &'static Self = &Self {
        name: "bsv-regtest",
        magic: hex!("dab5bffa"),
        default_port: 18444,
        dns_seeds: &[],
        genesis_header: REGTEST_HEADER,
        pow_limit: CompactTarget(0x207f_ffff),
        chain_block: None,
        difficulty: Difficulty::Fixed,
        checkpoints: &[],
        min_work: Work::ZERO,
        ..*Self::BSV
    };

    /// The simulated network of the demo: regtest's rules under a magic of its own.
    pub const DEMO: &'static Self =
        &Self { name: "demo", magic: *b"tipw", default_port: 28444, ..*Self::BTC_REGTEST };

    /// The network of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|network| network.name == name)
    }

    /// The network whose frames and block files start with `magic`.
    #[must_use]
    pub fn by_magic(magic: [u8; 4]) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|network| network.magic == magic)
    }

    /// The header of block 0.
    #[must_use]
    pub fn genesis(&self) -> BlockHeader {
        BlockHeader::from_bytes(&self.genesis_header)
    }

    /// The hash of block 0.
    #[must_use]
    pub fn genesis_hash(&self) -> BlockHash {
        self.genesis().hash()
    }

    /// Block 0 as it would travel.
    #[must_use]
    pub fn genesis_block(&self) -> Bytes {
        Bytes::from([&self.genesis_header[..], self.genesis_body].concat())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(&self.name).finish()
    }
}

const MAIN_HEADER: [u8; 80] = hex!(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
);
const TESTNET3_HEADER: [u8; 80] = hex!(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff001d1aa4ae18"
);
const TESTNET4_HEADER: [u8; 80] = hex!(
    "0100000000000000000000000000000000000000000000000000000000000000000000004e7b2b9128fe0291db0693af2ae418b767e657cd407e80cb1434221eaea7a07a046f3566ffff001dbb0c7817"
);
const SIGNET_HEADER: [u8; 80] = hex!(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a008f4d5fae77031e8ad22203"
);
const REGTEST_HEADER: [u8; 80] = hex!(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"
);
/// In the order in which it travels; shown, 00000000000000000019f112ec0a9982926f1258cdcc558dd7c3b7e5dc7fa148.
const BTC_478559: [u8; 32] = hex!("48a17fdce5b7c3d78d55cccd58126f9282990aec12f119000000000000000000");
/// In the order in which it travels; shown, 000000000000000001d956714215d96ffc00e0afda4cd0a96c96f8d802b1662b.
const BSV_556767: [u8; 32] = hex!("2b66b102d8f8966ca9d04cdaafe000fc6fd915427156d9010000000000000000");
/// In the order in which it travels; shown, 00000000000003a5e28bef30ad31f1f9be706e91ae9dda54179a95c9f9cd9ad0.
const BOTH_201600: [u8; 32] = hex!("d09acdf9c9959a1754da9dae916e70bef9f131ad30ef8be2a503000000000000");
/// In the order in which it travels; shown, 000000000000000002e9533a4fe03bb251b3fdb30ffaa384aad133b7fae594cf.
const BOTH_401184: [u8; 32] = hex!("cf94e5fab733d1aa84a3fa0fb3fdb351b23be04f3a53e9020000000000000000");
/// In the order in which it travels; shown, 0000000000000000000983a15a2735b4f37861c4019d97200820cd190f28dba5.
const BTC_600768: [u8; 32] = hex!("a5db280f19cd200820979d01c46178f3b435275aa18309000000000000000000");
/// In the order in which it travels; shown, 00000000000000000000506183a8b30fa3224b85e82a70416e1d594bdb632fdb.
const BTC_830592: [u8; 32] = hex!("db2f63db4b591d6e41702ae8854b22a30fb3a883615000000000000000000000");
/// In the order in which it travels; shown, 000000000000000004026d10802cf1132fc67cc7a0c340eb4686869edaf48f38.
const BSV_888000: [u8; 32] = hex!("388ff4da9e868646eb40c3a0c77cc62f13f12c80106d02040000000000000000");
/// In the order in which it travels; shown, 000000002a936ca763904c3c35fce2f3556c559c0214345d31b1bcebf76acb70.
const TESTNET3_546: [u8; 32] = hex!("70cb6af7ebbcb1315d3414029c556c55f3e2fc353c4c9063a76c932a00000000");

/// Work from a number of up to 128 bits.
const fn work(number: u128) -> Work {
    let (mut bytes, low) = ([0; 32], number.to_be_bytes());
    let mut at = 0;
    while at < low.len() {
        bytes[16 + at] = low[at];
        at += 1;
    }
    Work::from_be_bytes(bytes)
}

/// One transaction, the first ever; every network but testnet4 starts with it.
const BODY: [u8; 205] = hex!(
    "0101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
);
const TESTNET4_BODY: [u8; 181] = hex!(
    "0101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff5504ffff001d01044c4c30332f4d61792f323032342030303030303030303030303030303030303030303165626435386332343439373062336161396437383362623030313031316662653865613865393865303065ffffffff0100f2052a010000002321000000000000000000000000000000000000000000000000000000000000000000ac00000000"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256d;

    #[test]
    fn genesis_blocks_have_their_published_hashes() {
        let main = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
        let testnet = "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943";
        let regtest = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
        for (network, hash) in [
            (Network::BTC, main),
            (Network::BTC_TESTNET3, testnet),
            (Network::BTC_TESTNET4, "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
            (Network::BTC_SIGNET, "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
            (Network::BTC_REGTEST, regtest),
            (Network::BSV, main),
            (Network::BSV_TESTNET, testnet),
            (Network::BSV_STN, testnet),
            (Network::BSV_REGTEST, regtest),
            (Network::DEMO, regtest),
        ] {
            assert_eq!(network.genesis_hash().to_string(), hash, "{}", network.name);
            assert_eq!(
                network.genesis().merkle_root,
                sha256d(&network.genesis_body[1..]),
                "{}",
                network.name
            );
            assert!(network.genesis().meets_target(network.pow_limit), "{}", network.name);
        }
    }

    #[test]
    fn sister_chains_are_told_apart() {
        let shown = |network: &Network| network.chain_block.map(|(height, hash)| (height, hash.to_string()));
        let btc = "00000000000000000019f112ec0a9982926f1258cdcc558dd7c3b7e5dc7fa148".to_owned();
        let bsv = "000000000000000001d956714215d96ffc00e0afda4cd0a96c96f8d802b1662b".to_owned();
        assert_eq!(shown(Network::BTC), Some((478_559, btc)));
        assert_eq!(shown(Network::BSV), Some((556_767, bsv)));
        for network in
            Network::ALL.into_iter().filter(|network| ![Network::BTC, Network::BSV].contains(network))
        {
            assert_eq!(shown(network), None, "{}", network.name);
        }
    }

    #[test]
    fn names_and_magics_are_unique() {
        for network in Network::ALL {
            assert_eq!(Network::by_name(network.name), Some(network));
            assert_eq!(Network::by_magic(network.magic), Some(network));
        }
    }
}
