//! Which database: the same work in redb, fjall and SQLite, with the keys and values that real blocks give the index.
//!
//! `cargo bench -p indexer --bench databases`; `MIB=256` is how many MiB of blocks (see `repeated`), `CACHE=64` how many MiB each
//! database may keep in memory.

#![allow(clippy::unwrap_used, reason = "a bench that fails is to end")]

mod repeated;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};
use tipward_chain::sync::{
    Block,
    peer::wire::{Txid, bitcoin::Transaction},
};

const TABLES: [&str; 5] = ["txs", "txids", "outputs", "unspent", "history"];
/// What is committed at once, in bytes of blocks.
const BATCH: u64 = 64 << 20;

/// The last write of each key in a batch, by table and key.
type Batch = BTreeMap<(usize, Vec<u8>), Option<Vec<u8>>>;
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

trait Store {
    fn commit(&mut self, batch: Batch);
    fn get(&self, table: usize, key: &[u8]) -> Option<Vec<u8>>;
    /// At most a hundred pairs whose keys begin like this.
    fn scan(&self, table: usize, prefix: &[u8]) -> Pairs;
}

struct Redb(redb::Database);
const REDB: [TableDefinition<'static, &[u8], &[u8]>; 5] = [
    TableDefinition::new(TABLES[0]),
    TableDefinition::new(TABLES[1]),
    TableDefinition::new(TABLES[2]),
    TableDefinition::new(TABLES[3]),
    TableDefinition::new(TABLES[4]),
];

impl Redb {
    fn open(dir: &Path, cache: usize) -> Box<dyn Store> {
        let database = redb::Builder::new().set_cache_size(cache).create(dir.join("redb")).unwrap();
        let mut store = Self(database);
        store.commit(Batch::new());
        Box::new(store)
    }
}

impl Store for Redb {
    fn commit(&mut self, batch: Batch) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut tables = REDB.map(|table| transaction.open_table(table).unwrap());
            for ((table, key), value) in batch {
                match value {
                    Some(value) => drop(tables[table].insert(&key[..], &value[..]).unwrap()),
                    None => drop(tables[table].remove(&key[..]).unwrap()),
                }
            }
        }
        transaction.commit().unwrap();
    }

    fn get(&self, table: usize, key: &[u8]) -> Option<Vec<u8>> {
        let table = self.0.begin_read().unwrap().open_table(REDB[table]).unwrap();
        table.get(key).unwrap().map(|value| value.value().to_vec())
    }

    fn scan(&self, table: usize, prefix: &[u8]) -> Pairs {
        let table = self.0.begin_read().unwrap().open_table(REDB[table]).unwrap();
        let pairs = table.range(prefix..).unwrap().map(Result::unwrap);
        let pairs = pairs.map(|(key, value)| (key.value().to_vec(), value.value().to_vec()));
        pairs.take_while(|(key, _)| key.starts_with(prefix)).take(100).collect()
    }
}

struct Fjall(Database, Vec<Keyspace>);

impl Fjall {
    fn open(dir: &Path, cache: usize) -> Box<dyn Store> {
        let database = Database::builder(dir.join("fjall")).cache_size(cache as u64).open().unwrap();
        let options = KeyspaceCreateOptions::default;
        let keyspaces = TABLES.map(|name| database.keyspace(name, options).unwrap());
        Box::new(Self(database, keyspaces.to_vec()))
    }
}

impl Store for Fjall {
    fn commit(&mut self, batch: Batch) {
        let mut write = self.0.batch().durability(Some(PersistMode::SyncData));
        for ((table, key), value) in batch {
            match value {
                Some(value) => write.insert(&self.1[table], key, value),
                None => write.remove(&self.1[table], key),
            }
        }
        write.commit().unwrap();
    }

    fn get(&self, table: usize, key: &[u8]) -> Option<Vec<u8>> {
        self.0.snapshot().get(&self.1[table], key).unwrap().map(|value| value.to_vec())
    }

    fn scan(&self, table: usize, prefix: &[u8]) -> Pairs {
        let pairs = self.0.snapshot().prefix(&self.1[table], prefix).take(100);
        pairs
            .map(|pair| pair.into_inner().unwrap())
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }
}

struct Sqlite(Connection);

impl Sqlite {
    fn open(dir: &Path, cache: usize) -> Box<dyn Store> {
        let connection = Connection::open(dir.join("sqlite")).unwrap();
        let kib = cache >> 10;
        let pragmas = format!("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-{kib};");
        connection.execute_batch(&pragmas).unwrap();
        for table in TABLES {
            let create = format!("CREATE TABLE {table} (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID");
            connection.execute_batch(&create).unwrap();
        }
        Box::new(Self(connection))
    }
}

impl Store for Sqlite {
    fn commit(&mut self, batch: Batch) {
        let transaction = self.0.transaction().unwrap();
        for ((table, key), value) in batch {
            let name = TABLES[table];
            match value {
                Some(value) => {
                    let insert = format!("INSERT OR REPLACE INTO {name} VALUES (?, ?)");
                    transaction.prepare_cached(&insert).unwrap().execute((key, value)).unwrap();
                }
                None => {
                    let delete = format!("DELETE FROM {name} WHERE k = ?");
                    transaction.prepare_cached(&delete).unwrap().execute((key,)).unwrap();
                }
            }
        }
        transaction.commit().unwrap();
    }

    fn get(&self, table: usize, key: &[u8]) -> Option<Vec<u8>> {
        let select = format!("SELECT v FROM {} WHERE k = ?", TABLES[table]);
        self.0.prepare_cached(&select).unwrap().query_row((key,), |row| row.get(0)).optional().unwrap()
    }

    fn scan(&self, table: usize, prefix: &[u8]) -> Pairs {
        let select = format!("SELECT k, v FROM {} WHERE k >= ? ORDER BY k LIMIT 100", TABLES[table]);
        let mut select = self.0.prepare_cached(&select).unwrap();
        let pairs = select.query_map((prefix,), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        pairs.map(Result::unwrap).take_while(|(key, _): &(Vec<u8>, _)| key.starts_with(prefix)).collect()
    }
}

fn number(number: u64) -> [u8; 5] {
    let [_, _, _, number @ ..] = number.to_be_bytes();
    number
}

/// An output: its transaction's number, its script, its value.
type Output = (u64, Vec<u8>, u64);

/// Makes the index's writes of blocks, and the questions that come before them.
#[derive(Default)]
struct Pattern {
    next: u64,
    /// Those of the batch.
    created: HashMap<(Txid, u32), Output>,
    scripts: Vec<Vec<u8>>,
    txids: Vec<Txid>,
}

impl Pattern {
    fn add(&mut self, block: &Block, store: &dyn Store, batch: &mut Batch) {
        let part = &block.parts[0];
        for &start in &part.transactions {
            let transaction = Transaction::in_part(part, start).expect("it is whole");
            let (txid, this) = (transaction.txid(), number(self.next));
            let place = [&txid.as_bytes()[..], &[0; 12]].concat();
            batch.insert((0, this.to_vec()), Some(place));
            batch.insert((1, [&txid.as_bytes()[..8], &this].concat()), Some(Vec::new()));
            for (index, input) in (0_u32..).zip(transaction.inputs()) {
                let spent = input.outpoint();
                if !spent.is_null() {
                    let (from, script, value) = self.spend(spent.txid, spent.index, store, batch);
                    let key = [&script[..], &this, &[1], &index.to_be_bytes()].concat();
                    let spent =
                        [&value.to_be_bytes()[..], &number(from), &spent.index.to_be_bytes()].concat();
                    batch.insert((4, key), Some(spent));
                }
            }
            for (index, output) in (0_u32..).zip(transaction.outputs()) {
                let script = Sha256::digest(output.script().as_bytes())[..20].to_vec();
                let (value, index_bytes) = (output.value().to_be_bytes(), index.to_be_bytes());
                batch.insert((4, [&script[..], &this, &[0], &index_bytes].concat()), Some(value.to_vec()));
                let key = [&this[..], &index_bytes].concat();
                batch.insert((2, key), Some([&script[..], &value].concat()));
                batch.insert((3, [&script[..], &this, &index_bytes].concat()), Some(value.to_vec()));
                if self.next.is_multiple_of(97) {
                    self.scripts.push(script.clone());
                }
                self.created.insert((txid, index), (self.next, script, output.value()));
            }
            if self.next.is_multiple_of(97) {
                self.txids.push(txid);
            }
            self.next += 1;
        }
    }

    fn spend(&mut self, txid: Txid, index: u32, store: &dyn Store, batch: &mut Batch) -> Output {
        if let Some(output) = self.created.remove(&(txid, index)) {
            // Neither comes nor goes, as far as the database can tell.
            let this = number(output.0);
            batch.remove(&(2, [&this[..], &index.to_be_bytes()].concat()));
            batch.remove(&(3, [&output.1[..], &this, &index.to_be_bytes()].concat()));
            return output;
        }
        let (key, _) = store.scan(1, &txid.as_bytes()[..8]).pop().expect("a transaction is there");
        let this = &key[8..];
        let key = [this, &index.to_be_bytes()].concat();
        let output = store.get(2, &key).expect("an output is there");
        let (script, value) = output.split_at(20);
        batch.insert((3, [script, this, &index.to_be_bytes()].concat()), None);
        batch.insert((2, key), None);
        let from = this.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        (from, script.to_vec(), u64::from_be_bytes(value.try_into().expect("eight bytes")))
    }
}

/// How long it takes to make the writes and to commit them.
fn write(store: &mut dyn Store, most: u64) -> (Pattern, u64, Duration, Duration) {
    let (mut pattern, mut batch, mut waiting) = (Pattern::default(), Batch::new(), 0);
    let (mut bytes, mut making, mut committing) = (0, Duration::ZERO, Duration::ZERO);
    let mut blocks = repeated::Repeated::load().expect("the benches need the test data");
    while bytes < most {
        let block = blocks.next().expect("they do not end");
        let begun = Instant::now();
        pattern.add(&block, store, &mut batch);
        making += begun.elapsed();
        (bytes, waiting) = (bytes + block.size, waiting + block.size);
        if waiting >= BATCH || bytes >= most {
            let begun = Instant::now();
            store.commit(std::mem::take(&mut batch));
            committing += begun.elapsed();
            (pattern.created, waiting) = (HashMap::new(), 0);
        }
    }
    (pattern, bytes, making, committing)
}

fn disk_usage(path: &Path) -> u64 {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries.map(|entry| disk_usage(&entry.unwrap().path())).sum();
    }
    path.metadata().unwrap().len()
}

fn main() {
    let read = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (mib, cache) = (read("MIB", 256_u64), read("CACHE", 64) as usize);
    println!("{mib} MiB of blocks, commits of {} MiB, caches of {cache} MiB", BATCH >> 20);
    for (name, open) in [
        ("redb", Redb::open as fn(&Path, usize) -> Box<dyn Store>),
        ("fjall", Fjall::open),
        ("sqlite", Sqlite::open),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), cache << 20);
        let (pattern, bytes, making, committing) = write(&mut *store, mib << 20);
        let rate = bytes as f64 / 1e6 / (making + committing).as_secs_f64();
        let begun = Instant::now();
        for txid in &pattern.txids {
            let found = store.scan(1, &txid.as_bytes()[..8]);
            assert!(
                found.iter().any(|(key, _)| store
                    .get(0, &key[8..])
                    .is_some_and(|tx| tx.starts_with(txid.as_bytes())))
            );
        }
        let points = begun.elapsed() / pattern.txids.len() as u32;
        let begun = Instant::now();
        let found: usize = pattern.scripts.iter().map(|script| store.scan(4, script).len()).sum();
        assert!(found >= pattern.scripts.len());
        let scans = begun.elapsed() / pattern.scripts.len() as u32;
        drop(store);
        println!(
            "{name:7} {rate:6.1} MB/s of blocks, {:8.0} transactions/s (blocks and lookups {making:.1?}, commits {committing:.1?}); \
             a transaction by its id {points:.1?}, a page of history {scans:.1?}; {:5.0} MB on disk",
            pattern.next as f64 / (making + committing).as_secs_f64(),
            disk_usage(dir.path()) as f64 / 1e6,
        );
    }
}
