#!/usr/bin/env python3
"""Capture real protocol messages from real nodes, as test vectors.

Starts a Bitcoin Core compatible `bitcoind` and a bcoin full node and SPV node on loopback in regtest
mode (and bcoin once more with the parameters of the main network, where it sends `getheaders`), speaks
the P2P protocol with them, and writes the payloads they send to `bitcoind.txt` and `bcoin.txt` next to
this script, one `command payload-hex` line per payload (`-` is an empty payload), sorted by command.
Payloads are written as they came, after their checksum was verified.

Usage:

    capture.py BITCOIND BCOIN_BIN_DIR

BITCOIND is the path of the bitcoind executable; BCOIN_BIN_DIR is the `bin` directory of an installed
bcoin package (`npm i bcoin@1.0.2 --ignore-scripts`; `node` must be in the PATH). Only the Python 3
standard library is needed. Ports are chosen at random, data lives in temporary directories, every
process started is stopped again, and no node connects to anything but this script.

A run takes about a minute. Keys, nonces, times and hashes differ from run to run; to add a message,
provoke it in `capture_bitcoind` or `capture_bcoin`, and if several kinds of one command are worth
keeping, tell them apart in `kind`.
"""

import base64
import hashlib
import http.client
import json
import os
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

REGTEST_MAGIC = bytes.fromhex("fabfb5da")
MAIN_MAGIC = bytes.fromhex("f9beb4d9")
GENESIS = bytes.fromhex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")[::-1]
GENESIS_TIME = 1296688602
REGTEST_BITS = 0x207FFFFF
COIN = 100_000_000

NETWORK, BLOOM, WITNESS = 1, 4, 8
TX, BLOCK, FILTERED_BLOCK, CMPCT_BLOCK, WTX = 1, 2, 3, 4, 5
WITNESS_FLAG = 1 << 30

TIMEOUT = 30
MAX_PAYLOAD = 40_000


# Serialisation.


def compact(n):
    if n < 0xFD:
        return struct.pack("<B", n)
    if n <= 0xFFFF:
        return b"\xfd" + struct.pack("<H", n)
    return b"\xfe" + struct.pack("<I", n)


def read_compact(data, pos=0):
    """The number at `pos`, and the position behind it."""
    first = data[pos]
    if first < 0xFD:
        return first, pos + 1
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
    return int.from_bytes(data[pos + 1 : pos + 1 + size], "little"), pos + 1 + size


def varstr(data):
    return compact(len(data)) + data


def hash256(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def rev(hash_hex):
    """The bytes of a hash that an RPC gave in display order."""
    return bytes.fromhex(hash_hex)[::-1]


def inv(*items):
    return compact(len(items)) + b"".join(struct.pack("<I", kind) + item for kind, item in items)


def inv_items(payload):
    count, pos = read_compact(payload)
    return [
        (struct.unpack_from("<I", payload, pos + 36 * i)[0], payload[pos + 36 * i + 4 : pos + 36 * i + 36])
        for i in range(count)
    ]


def locator(hashes, stop=bytes(32)):
    return struct.pack("<I", 70016) + compact(len(hashes)) + b"".join(hashes) + stop


def version_payload(services=NETWORK | WITNESS | BLOOM, version=70016, height=0):
    address = struct.pack("<Q", services) + bytes(10) + b"\xff\xff\x7f\x00\x00\x01" + struct.pack(">H", 0)
    return (
        struct.pack("<iQq", version, services, int(time.time()))
        + address * 2
        + os.urandom(8)
        + varstr(b"/capture:1.0/")
        + struct.pack("<iB", height, 1)
    )


# Transactions and blocks. All coins are locked with OP_TRUE in P2SH or P2WSH, so there are no keys.


OP_TRUE = b"\x51"


def p2sh_hash():
    # RIPEMD-160 is not always compiled into hashlib; this is HASH160 of the script OP_TRUE.
    return bytes.fromhex("da1745e9b549bd0bfa1a569971c77eba30cd5a4b")


P2SH = b"\xa9\x14" + p2sh_hash() + b"\x87"
P2WSH = b"\x00\x20" + hashlib.sha256(OP_TRUE).digest()


def p2sh_address(prefix):
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    data = bytes([prefix]) + p2sh_hash()
    number = int.from_bytes(data + hash256(data)[:4], "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return text


class Tx:
    """A transaction of inputs (txid, index, P2SH or P2WSH) and outputs (value, script)."""

    def __init__(self, inputs, outputs, coinbase_script=None):
        self.witness = any(script == P2WSH for _, _, script in inputs)
        ins = b""
        for txid, index, script in inputs:
            script_sig = varstr(OP_TRUE) if script == P2SH else b""
            ins += txid + struct.pack("<I", index) + varstr(coinbase_script or script_sig) + b"\xff\xff\xff\xff"
        outs = b"".join(struct.pack("<q", value) + varstr(script) for value, script in outputs)
        body = compact(len(inputs)) + ins + compact(len(outputs)) + outs
        stacks = b"".join(b"\x01" + varstr(OP_TRUE) if s == P2WSH else b"\x00" for _, _, s in inputs)
        self.stripped = struct.pack("<i", 2) + body + bytes(4)
        self.raw = struct.pack("<i", 2) + b"\x00\x01" + body + stacks + bytes(4) if self.witness else self.stripped
        self.txid = hash256(self.stripped)
        self.wtxid = hash256(self.raw)


def coinbase(height, excess=0):
    if height <= 16:
        script = bytes([0x50 + height])
    else:
        number = height.to_bytes(height.bit_length() // 8 + 1, "little")
        script = varstr(number)
    value = (50 * COIN >> height // 150) + excess
    return Tx([(bytes(32), 0xFFFFFFFF, None)], [(value, P2SH)], coinbase_script=script + varstr(os.urandom(4)))


def merkle_root(hashes):
    while len(hashes) > 1:
        if len(hashes) % 2:
            hashes = hashes + hashes[-1:]
        hashes = [hash256(hashes[i] + hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


class Block:
    """A regtest block of `txs` (without witnesses) behind a coinbase."""

    def __init__(self, previous, height, block_time, txs=(), excess=0):
        self.txs = [coinbase(height, excess), *txs]
        root = merkle_root([tx.txid for tx in self.txs])
        nonce = 0
        while True:
            self.header = struct.pack("<i32s32sIII", 0x20000000, previous, root, block_time, REGTEST_BITS, nonce)
            self.hash = hash256(self.header)
            if self.hash[-1] < 0x7F:
                break
            nonce += 1
        self.raw = self.header + compact(len(self.txs)) + b"".join(tx.raw for tx in self.txs)

    def announcement(self):
        return b"\x01" + self.header + b"\x00"

    def as_compact(self):
        """A cmpctblock with the coinbase prefilled; the short ids match no transaction anybody has."""
        ids = b"".join(os.urandom(6) for _ in self.txs[1:])
        prefilled = b"\x01\x00" + self.txs[0].raw
        return self.header + os.urandom(8) + compact(len(self.txs) - 1) + ids + prefilled

    def as_blocktxn(self):
        return self.hash + compact(len(self.txs) - 1) + b"".join(tx.raw for tx in self.txs[1:])


def murmur3(seed, data):
    h = seed
    c1, c2, mask = 0xCC9E2D51, 0x1B873593, 0xFFFFFFFF

    def mix(k):
        k = k * c1 & mask
        return ((k << 15 | k >> 17) & mask) * c2 & mask

    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        h ^= mix(int.from_bytes(data[i : i + 4], "little"))
        h = (((h << 13 | h >> 19) & mask) * 5 + 0xE6546B64) & mask
    if data[whole:]:
        h ^= mix(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    return h ^ h >> 16


def filterload(*elements):
    bits, functions = 64 * 8, 5
    data = bytearray(bits // 8)
    for element in elements:
        for i in range(functions):
            bit = murmur3(i * 0xFBA4C795 & 0xFFFFFFFF, element) % bits
            data[bit // 8] |= 1 << bit % 8
    return varstr(bytes(data)) + struct.pack("<IIB", functions, 0, 0)


# What was captured.


def kind(command, payload):
    """Which kind of `command` this is; one payload of every kind is kept."""
    if command in ("inv", "getdata", "notfound"):
        return sorted({item for item, _ in inv_items(payload)})
    if command == "headers":
        return min(read_compact(payload)[0], 2)
    if command == "addr":
        return read_compact(payload)[0] > 1
    if command in ("getheaders", "getblocks"):
        return read_compact(payload, 4)[0] > 1, payload[-32:] != bytes(32)
    if command == "tx":
        return payload[4] == 0
    if command == "block":
        count, pos = read_compact(payload, 80)
        return count > 1, payload[pos + 4] == 0
    if command == "cmpctblock":
        return payload[88] > 0
    if command == "blocktxn":
        return payload[32] > 0
    if command == "merkleblock":
        return payload[80:84] != b"\x01\x00\x00\x00"
    if command == "version":
        return payload[4:12]
    if command in ("sendcmpct", "feefilter"):
        return payload
    if command == "reject":
        return payload[: 2 + payload[0]]
    return None


class Vectors:
    def __init__(self):
        self.lines = {}
        self.lock = threading.Lock()

    def add(self, command, payload):
        key = (command, repr(kind(command, payload)))
        if len(payload) <= MAX_PAYLOAD:
            with self.lock:
                self.lines.setdefault(key, payload)

    def write(self, path, title):
        lines = [f"# {title}", "# Payloads that this node sent, captured by capture.py; see there for the format."]
        for (command, _), payload in sorted(self.lines.items()):
            lines.append(f"{command} {payload.hex() or '-'}")
        path.write_text("\n".join(lines) + "\n")
        print(f"{path.name}: {len(lines) - 2} payloads, {path.stat().st_size} bytes")


# Peers.


warnings = []


def warn(text):
    """Say what did not come, and for which line of this script."""
    lines = [frame.lineno for frame in traceback.extract_stack() if frame.name.endswith(("bitcoind", "bcoin", "spv"))]
    warnings.append(f"{text} (line {lines[-1]})")
    print(f"warning: {warnings[-1]}", file=sys.stderr)


class Peer:
    """One connection to a node. Payloads received go to `vectors`; pings are answered."""

    def __init__(self, sock, vectors, magic=REGTEST_MAGIC):
        self.sock, self.vectors, self.magic = sock, vectors, magic
        self.inbox = queue.Queue()
        self.kept = []
        self.handlers = {"ping": lambda payload: self.send("pong", payload)}
        threading.Thread(target=self.read_all, daemon=True).start()

    @classmethod
    def connect(cls, port, vectors):
        return cls(socket.create_connection(("127.0.0.1", port), TIMEOUT), vectors)

    def read_exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.sock.recv(min(size - len(data), 1 << 16))
            if not part:
                raise ConnectionError
            data += part
        return data

    def read_all(self):
        self.sock.settimeout(None)
        try:
            while True:
                header = self.read_exactly(24)
                if header[:4] != self.magic:
                    raise ValueError("wrong magic")
                command = header[4:16].rstrip(b"\0").decode("ascii")
                payload = self.read_exactly(struct.unpack_from("<I", header, 16)[0])
                if hash256(payload)[:4] != header[20:]:
                    raise ValueError(f"bad checksum: {command}")
                if self.vectors:
                    self.vectors.add(command, payload)
                if command in self.handlers:
                    self.handlers[command](payload)
                self.inbox.put((command, payload))
        except OSError:
            pass
        finally:
            self.inbox.put((None, b""))

    def send(self, command, payload=b""):
        header = self.magic + command.encode().ljust(12, b"\0") + struct.pack("<I", len(payload))
        self.sock.sendall(header + hash256(payload)[:4] + payload)

    def wait(self, command, accept=lambda payload: True, timeout=TIMEOUT):
        """The next payload of `command`, or an earlier one that nobody waited for yet."""
        for i, (name, payload) in enumerate(self.kept):
            if name == command and accept(payload):
                del self.kept[i]
                return payload
        deadline = time.monotonic() + timeout
        while True:
            try:
                name, payload = self.inbox.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                warn(f"no {command}")
                return None
            if name is None:
                warn(f"connection closed, no {command}")
                self.inbox.put((None, b""))
                return None
            if name == command and accept(payload):
                return payload
            self.kept.append((name, payload))

    def wait_inv(self, command, item):
        """Wait for an inv, getdata or notfound of the hash `item`; its type."""
        payload = self.wait(command, lambda payload: item in [found for _, found in inv_items(payload)])
        return dict((found, item_type) for item_type, found in inv_items(payload or b"\0")).get(item)

    def handshake(self, features=(), **version):
        self.send("version", version_payload(**version))
        self.wait("version")
        for command, payload in features:
            self.send(command, payload)
        self.send("verack")
        self.wait("verack")
        return self

    def sync(self):
        """Wait until everything sent before is processed."""
        nonce = os.urandom(8)
        self.send("ping", nonce)
        self.wait("pong", lambda payload: payload == nonce)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


class Listener:
    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(TIMEOUT)
        self.port = self.sock.getsockname()[1]

    def accept(self, vectors, magic=REGTEST_MAGIC):
        return Peer(self.sock.accept()[0], vectors, magic)


def free_ports(count):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


# Nodes.


class Node:
    """A process with a JSON-RPC server, stopped when the `with` block ends."""

    def __init__(self, command, rpc_port, log, cookie=None, env=None):
        self.command, self.rpc_port, self.log, self.cookie, self.env = command, rpc_port, log, cookie, env

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(self.env or {})}
            )
        for _ in range(600):
            try:
                self.rpc("getblockcount")
                return self
            except (OSError, RuntimeError, ValueError, http.client.HTTPException):
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
            except BaseException:
                self.stop()
                raise
        self.stop()
        raise SystemExit(f"cannot start {self.command[0]}:\n{Path(self.log).read_text(errors='replace')[-2000:]}")

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def rpc(self, method, *params):
        headers = {"Content-Type": "application/json"}
        if self.cookie:
            headers["Authorization"] = "Basic " + base64.b64encode(self.cookie.read_bytes()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=300)
        try:
            body = json.dumps({"id": 1, "method": method, "params": params})
            connection.request("POST", "/", body, headers)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer.get("error"):
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def coinbase_coin(self, height):
        """The P2SH coin that the block at `height` made."""
        return rev(self.rpc("getblock", self.rpc("getblockhash", height), True)["tx"][0]), 0, P2SH

    def tip_announcement(self):
        """A headers payload with the header of the tip."""
        header = self.rpc("getblockheader", self.rpc("getbestblockhash"), False)
        return b"\x01" + bytes.fromhex(header) + b"\0"

    def next_block(self, txs=(), excess=0):
        """A new block on the tip."""
        height = self.rpc("getblockcount")
        tip = self.rpc("getbestblockhash")
        block_time = max(int(time.time()), self.rpc("getblock", tip, True)["time"] + 1)
        return Block(rev(tip), height + 1, block_time, txs, excess)


def spend(coin, value, outputs=((P2SH, 1),)):
    """A transaction that splits `value` of `coin` over the `outputs` (script, share)."""
    total = sum(share for _, share in outputs)
    return Tx([coin], [((value - 20_000) * share // total, script) for script, share in outputs])


def reconciliation():
    return "sendtxrcncl", struct.pack("<I", 1) + os.urandom(8)


MODERN = (("wtxidrelay", b""), ("sendaddrv2", b""))


def capture_bitcoind(bitcoind, out):
    vectors = Vectors()
    version = subprocess.run([bitcoind, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    with tempfile.TemporaryDirectory() as directory:
        port, rpc_port = free_ports(2)
        command = [
            bitcoind,
            "-regtest",
            f"-datadir={directory}",
            "-listen=1",
            f"-bind=127.0.0.1:{port}",
            f"-rpcport={rpc_port}",
            "-connect=0",
            "-dnsseed=0",
            "-fixedseeds=0",
            "-discover=0",
            "-listenonion=0",
            "-cjdnsreachable=1",
            "-v2transport=0",
            "-blockfilterindex=1",
            "-peerblockfilters=1",
            "-peerbloomfilters=1",
            "-txreconciliation=1",
            "-acceptnonstdtxn=1",
            "-disablewallet=1",
            "-whitelist=noban,addr,relay,mempool,bloomfilter@127.0.0.1",
        ]
        cookie = Path(directory, "regtest", ".cookie")
        with Node(command, rpc_port, Path(directory, "log"), cookie) as node:
            talk_to_bitcoind(node, port, vectors)
            answer_bitcoind(node, vectors)
    vectors.write(out, version)


def talk_to_bitcoind(node, port, vectors):
    address = p2sh_address(196)
    newborn = Peer.connect(port, vectors).handshake()
    newborn.wait("feefilter")
    newborn.close()

    node.rpc("generatetoaddress", 1001, address)
    for _ in range(600):
        if all(index["synced"] for index in node.rpc("getindexinfo").values()):
            break
        time.sleep(0.1)
    modern = Peer.connect(port, vectors).handshake((*MODERN, reconciliation()), version=70017)
    plain = Peer.connect(port, vectors).handshake()
    for peer in modern, plain:
        for command in ("sendcmpct", "ping", "getheaders", "feefilter"):
            peer.wait(command)
        # Leaves its question answered, otherwise it asks no other one for a while.
        peer.send("headers", b"\0")
    modern.send("sendcmpct", b"\x00" + struct.pack("<Q", 2))

    # Headers and block hashes.
    first = [rev(node.rpc("getblockhash", height)) for height in range(4)]
    plain.send("getheaders", locator([GENESIS], first[3]))
    plain.wait("headers")
    plain.send("getheaders", locator([GENESIS], first[1]))
    plain.wait("headers")
    plain.send("getheaders", locator([rev(node.rpc("getbestblockhash"))]))
    plain.wait("headers")
    plain.send("getblocks", locator([GENESIS], first[3]))
    plain.wait("inv")
    modern.send("headers", node.tip_announcement())
    modern.wait("sendheaders")

    # Transactions: one without and one with a witness.
    legacy = spend(node.coinbase_coin(1), 50 * COIN, ((P2WSH, 1), (P2SH, 1)))
    half = (50 * COIN - 20_000) // 2
    segwit = spend((legacy.txid, 0, P2WSH), half, ((P2SH, 1), (P2SH, 2)))
    for tx in legacy, segwit:
        node.rpc("sendrawtransaction", tx.raw.hex())
        plain.wait_inv("inv", tx.txid)
        modern.wait_inv("inv", tx.wtxid)
        plain.send("getdata", inv((TX | WITNESS_FLAG, tx.txid)))
        plain.wait("tx")
        modern.send("getdata", inv((WTX, tx.wtxid)))
        modern.wait("tx")
    plain.send("getdata", inv((TX, os.urandom(32))))
    plain.wait("notfound")
    modern.send("getdata", inv((WTX, os.urandom(32)), (TX | WITNESS_FLAG, os.urandom(32))))
    modern.wait("notfound")

    # Blocks in all forms. The compact block is sent unasked once high bandwidth is chosen.
    modern.send("sendcmpct", b"\x01" + struct.pack("<Q", 2))
    modern.sync()
    tip = rev(node.rpc("generatetoaddress", 1, address)[0])
    plain.wait_inv("inv", tip)
    modern.wait("cmpctblock")
    for item in BLOCK, BLOCK | WITNESS_FLAG:
        for block in first[1], tip:
            plain.send("getdata", inv((item, block)))
            plain.wait("block")
    for block in tip, rev(node.rpc("getblockhash", node.rpc("getblockcount") - 1)):
        modern.send("getdata", inv((CMPCT_BLOCK, block)))
        modern.wait("cmpctblock")
    modern.send("getblocktxn", tip + b"\x02\x01\x00")
    modern.wait("blocktxn")
    plain.send("filterload", filterload(legacy.txid))
    for block in first[1], tip:
        plain.send("getdata", inv((FILTERED_BLOCK, block)))
        plain.wait("merkleblock")
    plain.send("filterclear")

    # After `sendheaders`, a block is announced with its header.
    headers = Peer.connect(port, vectors).handshake(MODERN)
    headers.send("sendheaders")
    headers.send("headers", node.tip_announcement())
    headers.sync()
    node.rpc("generatetoaddress", 1, address)
    headers.wait("headers")
    headers.close()

    # Block filters.
    best = rev(node.rpc("getbestblockhash"))
    for command, answer, payload in (
        ("getcfilters", "cfilter", b"\0" + struct.pack("<I", 1002) + tip),
        ("getcfheaders", "cfheaders", b"\0" + struct.pack("<I", 1) + first[3]),
        ("getcfcheckpt", "cfcheckpt", b"\0" + best),
    ):
        plain.send(command, payload)
        plain.wait(answer)

    # What the node asks for when it hears of something new.
    for peer, item in (plain, TX), (modern, WTX):
        unknown = os.urandom(32)
        peer.send("inv", inv((item, unknown)))
        peer.wait_inv("getdata", unknown)
    plain.send("inv", inv((BLOCK, os.urandom(32))))
    plain.wait("getheaders")
    block = node.next_block()
    plain.send("headers", block.announcement())
    plain.wait_inv("getdata", block.hash)
    plain.send("block", block.raw)
    plain.sync()
    block = node.next_block([spend(node.coinbase_coin(2), 50 * COIN), spend(node.coinbase_coin(3), 50 * COIN)])
    modern.send("headers", block.announcement())
    modern.wait_inv("getdata", block.hash)
    modern.send("cmpctblock", block.as_compact())
    modern.wait("getblocktxn")
    modern.send("blocktxn", block.as_blocktxn())
    modern.wait("sendcmpct", lambda payload: payload[0] == 1)
    plain.close()
    modern.close()

    # Addresses: the node answers with a random part of what it knows, so ask until all networks are in.
    for host in example_hosts():
        node.rpc("addpeeraddress", host, 8333)
    for features, command, enough in (
        (MODERN, "addrv2", lambda payload: len(networks(payload)) >= 5),
        ((), "addr", lambda payload: payload[0] > 1),
    ):
        for _ in range(50):
            peer = Peer.connect(port, None).handshake(features)
            peer.send("getaddr")
            payload = peer.wait(command)
            peer.close()
            if payload and enough(payload):
                vectors.add(command, payload)
                break
        else:
            warn(f"no good {command}")


def example_hosts():
    """Addresses of all networks, in different groups so that they land in different buckets."""
    for i in range(1, 17):
        yield f"{i + 20}.{i}.3.4"
        yield f"2a{i:02x}:{i:x}::1"
        key = hashlib.sha256(bytes([i])).digest()
        checksum = hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
        yield base64.b32encode(key + checksum + b"\x03").decode().lower() + ".onion"
        yield base64.b32encode(key).decode().lower().rstrip("=") + ".b32.i2p"
        yield f"fc{i:02x}:{i:x}::1"


def networks(addrv2):
    """The networks that occur in an addrv2 payload."""
    count, pos = read_compact(addrv2)
    found = set()
    for _ in range(count):
        _, pos = read_compact(addrv2, pos + 4)
        found.add(addrv2[pos])
        size, pos = read_compact(addrv2, pos + 1)
        pos += size + 2
    return found


def answer_bitcoind(node, vectors):
    """The node connects to us."""
    listener = Listener()
    node.rpc("addnode", f"127.0.0.1:{listener.port}", "onetry")
    peer = listener.accept(vectors).handshake((*MODERN, reconciliation()))
    peer.wait("getaddr")
    peer.wait("getheaders")
    peer.close()


# bcoin.


def bcoin_command(bin_dir, script, directory, rpc_port, *options):
    return [
        "node",
        str(Path(bin_dir, script)),
        f"--prefix={directory}",
        "--memory=true",
        "--log-file=false",
        "--workers=false",
        "--upnp=false",
        "--discover=false",
        "--seeds=127.0.0.1",
        "--http-host=127.0.0.1",
        f"--http-port={rpc_port}",
        "--no-auth=true",
        *options,
    ]


def capture_bcoin(bin_dir, out):
    vectors = Vectors()
    package = json.loads(Path(bin_dir, "..", "package.json").read_text())
    with tempfile.TemporaryDirectory() as directory:
        listener = Listener()
        port, rpc_port = free_ports(2)
        options = (
            "--network=regtest",
            "--listen=true",
            "--bip37=true",
            "--host=127.0.0.1",
            f"--port={port}",
            "--public-host=127.0.0.1",
            "--no-wallet=true",
            f"--only=127.0.0.1:{listener.port}",
        )
        command = bcoin_command(bin_dir, "node", directory, rpc_port, *options)
        with Node(command, rpc_port, Path(directory, "log"), env={"NODE_BACKEND": "js"}) as node:
            upstream = feed_bcoin(listener, vectors)
            talk_to_bcoin(node, port, vectors)
            reject_by_bcoin(node, upstream)
            upstream.close()
    # The SPV node, and a full node on the main network, where it syncs with headers up to a checkpoint.
    with tempfile.TemporaryDirectory() as directory:
        capture_bcoin_spv(bin_dir, directory, vectors)
    with tempfile.TemporaryDirectory() as directory:
        listener = Listener()
        (rpc_port,) = free_ports(1)
        options = ("--network=main", "--listen=false", "--no-wallet=true", f"--only=127.0.0.1:{listener.port}")
        command = bcoin_command(bin_dir, "node", directory, rpc_port, *options)
        with Node(command, rpc_port, Path(directory, "log"), env={"NODE_BACKEND": "js"}):
            peer = listener.accept(vectors, MAIN_MAGIC).handshake()
            peer.wait("getheaders")
            peer.close()
    vectors.write(out, f"bcoin {package['version']} (full node and SPV node)")


def make_chain(length):
    chain = []
    previous = GENESIS
    for height in range(1, length + 1):
        block = Block(previous, height, GENESIS_TIME + 600 * height)
        chain.append(block)
        previous = block.hash
    return chain


def feed_bcoin(listener, vectors):
    """The full node connects to us and syncs three blocks with getblocks and inv."""
    chain = make_chain(3)
    blocks = {block.hash: block for block in chain}
    peer = listener.accept(vectors).handshake()
    peer.wait("getblocks")
    peer.send("inv", inv(*((BLOCK, block.hash) for block in chain)))
    for item_type, item in inv_items(peer.wait("getdata") or b"\0"):
        peer.send("block", blocks[item].raw)
    peer.sync()
    # An orphan makes it ask from its tip up to the orphan.
    orphan = Block(os.urandom(32), 9, GENESIS_TIME + 6000)
    peer.send("inv", inv((BLOCK, orphan.hash)))
    peer.wait("getdata")
    peer.send("block", orphan.raw)
    peer.wait("getblocks")
    # Its outbound place is taken by this connection, so it dials none of these.
    hosts = [b"\0" * 10 + b"\xff\xff" + bytes([i + 20, i, 3, 4]) for i in range(1, 4)]
    hosts.append(bytes.fromhex("fd87d87eeb43") + os.urandom(10))
    entries = b"".join(struct.pack("<IQ", int(time.time()), 9) + host + struct.pack(">H", 8333) for host in hosts)
    peer.send("addr", compact(len(hosts)) + entries)
    return peer


def talk_to_bcoin(node, port, vectors):
    address = p2sh_address(0x26)
    segwit_height = 432
    while (missing := segwit_height + 5 - node.rpc("getblockcount")) > 0:
        node.rpc("generatetoaddress", min(missing, 50), address)
    peer = Peer.connect(port, vectors).handshake()
    peer.send("sendcmpct", b"\x00" + struct.pack("<Q", 2))
    peer.wait("sendcmpct")
    peer.send("getaddr")
    peer.wait("addr", lambda payload: payload[0] > 1)
    first = [rev(node.rpc("getblockhash", height)) for height in range(4)]
    for command, answer in (("getheaders", "headers"), ("getblocks", "inv")):
        for stop in first[1], first[3]:
            peer.send(command, locator([GENESIS], stop))
            peer.wait(answer)

    legacy = spend(node.coinbase_coin(5), 50 * COIN, ((P2WSH, 1), (P2SH, 1)))
    half = (50 * COIN - 20_000) // 2
    segwit = spend((legacy.txid, 0, P2WSH), half, ((P2SH, 1), (P2SH, 2)))
    for tx in legacy, segwit:
        node.rpc("sendrawtransaction", tx.raw.hex())
        peer.wait_inv("inv", tx.txid)
        peer.send("getdata", inv((TX | WITNESS_FLAG, tx.txid)))
        peer.wait("tx")
    peer.send("getdata", inv((TX, os.urandom(32)), (BLOCK, os.urandom(32))))
    peer.wait("notfound")
    peer.send("mempool")

    tip = rev(node.rpc("generatetoaddress", 1, address)[0])
    peer.wait_inv("inv", tip)
    for item in BLOCK, BLOCK | WITNESS_FLAG:
        for block in first[1], tip:
            peer.send("getdata", inv((item, block)))
            peer.wait("block")
    for block in tip, rev(node.rpc("getblockhash", node.rpc("getblockcount") - 1)):
        peer.send("getdata", inv((CMPCT_BLOCK, block)))
        peer.wait("cmpctblock")
    peer.send("getblocktxn", tip + b"\x02\x01\x00")
    peer.wait("blocktxn")
    peer.send("filterload", filterload(legacy.txid))
    for block in first[1], tip:
        peer.send("getdata", inv((FILTERED_BLOCK, block)))
        peer.wait("merkleblock")
    # It pings only after half a minute.
    peer.wait("ping", timeout=45)
    peer.close()

    # To a peer without witnesses it offers the first version of compact blocks.
    peer = Peer.connect(port, vectors).handshake(services=NETWORK)
    peer.wait("sendcmpct")
    peer.send("sendheaders")
    peer.sync()
    node.rpc("generatetoaddress", 1, address)
    peer.wait("headers")
    peer.close()


def reject_by_bcoin(node, peer):
    """`peer` is where the node syncs from: some of what it asks for is bad."""
    # A compact block with transactions that the node lacks.
    peer.send("sendcmpct", b"\x00" + struct.pack("<Q", 2))
    block = node.next_block([spend(node.coinbase_coin(7), 50 * COIN), spend(node.coinbase_coin(8), 50 * COIN)])
    peer.send("inv", inv((BLOCK, block.hash)))
    peer.wait_inv("getdata", block.hash)
    peer.send("cmpctblock", block.as_compact())
    peer.wait("getblocktxn")
    peer.send("blocktxn", block.as_blocktxn())
    peer.sync()

    # A transaction that spends a coin too early.
    height = node.rpc("getblockcount") - 10
    early = spend(node.coinbase_coin(height), 50 * COIN >> height // 150)
    peer.send("inv", inv((TX, early.txid)))
    peer.wait_inv("getdata", early.txid)
    peer.send("tx", early.raw)
    peer.wait("reject")

    # A malformed message: the `reject` names no message.
    peer.send("inv", b"\x01")
    peer.wait("reject")

    # A block that pays its miner too much; this gets us banned, so it comes last.
    block = node.next_block(excess=1)
    peer.send("inv", inv((BLOCK, block.hash)))
    peer.wait_inv("getdata", block.hash)
    peer.send("block", block.raw)
    peer.wait("reject")


def capture_bcoin_spv(bin_dir, directory, vectors):
    listener = Listener()
    rpc_port, wallet_port = free_ports(2)
    options = ("--network=regtest", f"--wallet-http-port={wallet_port}", f"--only=127.0.0.1:{listener.port}")
    command = bcoin_command(bin_dir, "spvnode", directory, rpc_port, *options)
    with Node(command, rpc_port, Path(directory, "log"), env={"NODE_BACKEND": "js"}) as node:
        peer = listener.accept(vectors).handshake()
        peer.wait("filterload")
        peer.wait("mempool")
        peer.wait("getblocks")
        block = make_chain(1)[0]
        peer.send("inv", inv((BLOCK, block.hash)))
        peer.wait_inv("getdata", block.hash)
        peer.send("merkleblock", block.header + struct.pack("<I", 1) + b"\x01" + block.txs[0].txid + b"\x01\x00")
        peer.sync()
        tx = spend((os.urandom(32), 0, P2SH), 50 * COIN)
        node.rpc("sendrawtransaction", tx.raw.hex())
        peer.wait_inv("inv", tx.txid)
        peer.send("getdata", inv((TX, tx.txid)))
        peer.wait("tx")
        peer.close()


def main():
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {sys.argv[0]} BITCOIND BCOIN_BIN_DIR")
    here = Path(__file__).resolve().parent
    capture_bitcoind(sys.argv[1], here / "bitcoind.txt")
    capture_bcoin(sys.argv[2], here / "bcoin.txt")
    if warnings:
        raise SystemExit("something is missing")


if __name__ == "__main__":
    main()
