#!/usr/bin/env python3
"""Writes seeds for all targets into fuzz/corpus, from the payloads in crates/wire/tests/vectors. Run by fuzz/run."""

import hashlib
import pathlib
import re

FUZZ = pathlib.Path(__file__).resolve().parent
VECTORS = FUZZ.parent / "crates/wire/tests/vectors"
MAGIC = {0: bytes.fromhex("f9beb4d9"), 1: bytes.fromhex("e3e1f3e8")}


def put(target, seed):
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def frame(command, payload):
    checksum = hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    return command.encode().ljust(12, b"\0") + len(payload).to_bytes(4, "little") + checksum + payload


vectors = []
for path in sorted(VECTORS.glob("*.txt")):
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            command, payload = line.split(" ")
            vectors.append((command, b"" if payload == "-" else bytes.fromhex(payload)))

for target in sorted((FUZZ / "targets").glob("*.rs")):
    listed = re.search(r"COMMANDS: &\[&str\] = &\[(.*?)\];", target.read_text(), re.S)
    if listed:
        commands = re.findall(r'"(\w+)"', listed[1])
        for command, payload in vectors:
            if command in commands:
                put(target.stem, bytes([commands.index(command)]) + payload)

for command, payload in vectors:
    if len(payload) < 5000:
        for chain in MAGIC:
            # The target puts the first magic itself.
            put("connection", bytes([chain | 1 << 5]) + MAGIC[chain] + frame(command, payload))
            put("frame", bytes([chain | 5 << 2]) + frame(command, payload) + MAGIC[chain] + frame("ping", bytes(8)))
    if command == "block":
        put("block_stream", b"\x00\x00" + payload)
        put("block_stream", b"\x0d\x05" + payload)
    if command == "merkleblock":
        put("proofs", b"\x00" + payload)
    if command == "cfilter":
        put("filters", payload[34:])
