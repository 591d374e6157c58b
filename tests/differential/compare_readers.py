#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the C++ and the Python reader of .hrl to the same answers, over golden, random and damaged
files. Usage: compare_readers.py READER_PEER. HERALD_SEED, HERALD_TIER."""
import hashlib
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/hrl_py"))

from journal import BlockDamaged, Journal, Refused  # noqa: E402
from key_files import KeyTrouble, read_machine_key, read_root_key, read_secret  # noqa: E402
from xxh3 import xxh3_64  # noqa: E402

# The key of the specification's example, as in reader_peer.cpp.
KEYS = {(b"\x11" * 16, b"\x77" * 16): bytes(range(32))}
MODES = {"key": {"keys": KEYS}, "blind": {"blind": True}, "none": {},
         "sealed": {"keys": KEYS, "sealed_only": True}}
ROUNDS = {"check": 1, "ci": 4, "nightly": 100}
ZERO_OFFSET = "a match with offset zero"
FILES, DAMAGED_PER_FILE = 60, 12


def python_says(path, options):
    lines = []
    try:
        with Journal(path, **options) as journal:
            last = journal.header.first_position - 1
            try:
                for record in journal.records():
                    last = record.position
                    data = "sealed" if record.data is None else f"{xxh3_64(record.data):016x}"
                    lines.append(f"{record.kind} {record.position} {record.offset} "
                                 f"{record.length} {record.time_ns} {data}")
            except BlockDamaged:
                return lines + [f"END damaged {last}"]
            return lines + [f"END {'whole' if journal.whole else 'torn'} {last}"]
    except Refused as refusal:
        return [f"END refused {refusal.case}"]


def peer_says(peer, paths, mode):
    """What the C++ reader says: a list of lines for each path."""
    run = subprocess.run([peer, "read", mode], input="".join(f"{p}\n" for p in paths),
                         capture_output=True, text=True, check=True)
    answers, lines = {}, None
    for line in run.stdout.splitlines():
        if line.startswith("FILE "):
            lines = answers[line[5:]] = []
        else:
            lines.append(line)
    return [answers[str(p)] for p in paths]


def checksum(data):
    return struct.pack("<Q", xxh3_64(data))


def mend(data):
    """Makes header, block, index and footer checksums and the chain right again, as far as the
    sizes in the file lead to them."""
    if len(data) < 256 + 64:
        return data
    data = bytearray(data)
    data[248:256] = checksum(data[:248])
    chain, at, entries = data[248:256], 256, []
    while data[at:at + 4] == b"HBLK" and at + 48 <= len(data):
        stored = struct.unpack_from("<I", data, at + 24)[0]
        end = at + 40 + stored
        if end + 8 > len(data):
            break
        data[at + 32:at + 40] = chain
        chain = data[end:end + 8] = checksum(data[at:end])
        entries.append(at)
        at = end + 8
    if data[at:at + 4] == b"HIDX" and at + 16 <= len(data):
        end = at + 16 + 64 * struct.unpack_from("<I", data, at + 4)[0]
        if end + 8 <= len(data):
            data[at + 8:at + 16] = chain
            data[end:end + 8] = checksum(data[at:end])
            if len(data) - 88 >= end + 8:
                data[-72:-64] = checksum(data[-88:-72])
    data[-24:-16] = chain
    data[-8:] = checksum(data[-64:-8])
    return bytes(data)


def tables(data):
    """(where, count) of every table of record headers that is not compressed."""
    at, found, sealed = 256, [], data[27] != 0
    while data[at:at + 4] == b"HBLK" and at + 48 <= len(data):
        count, _, stored, codec = struct.unpack_from("<IIIB", data, at + 16)
        end = at + 40 + stored - (16 if sealed else 0)
        if (sealed or codec == 0) and at + 40 <= end - 40 * count and end <= len(data):
            found.append((end - 40 * count, count))
        at += 48 + stored
    return found


def damage_record(draw, data):
    """A field of a record, or two records in each other's place; sometimes with the tail torn off,
    so that no index contradicts it first."""
    found = tables(data)
    if not found:
        return
    at, count = draw.choice(found)
    one, other = at + 40 * draw.randrange(count), at + 40 * draw.randrange(count)
    if one != other and draw.random() < 0.5:
        data[one:one + 40], data[other:other + 40] = data[other:other + 40], data[one:one + 40]
    else:
        field, size = draw.choice([(0, 1), (1, 1), (2, 2), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8)])
        old = int.from_bytes(data[one + field:one + field + size], "little")
        value = draw.choice([0, 1, draw.randrange(12), 12, 512, 1 << 46, old + 1, old - 1, old + 512, old - 512,
                             draw.getrandbits(64)]) & ((1 << 8 * size) - 1)
        data[one + field:one + field + size] = value.to_bytes(size, "little")
    if draw.random() < 0.5:
        del data[data.rfind(b"HIDX"):]


def damage(draw, data, others):
    """One damaged version of a file, and what was done."""
    data = bytearray(data)
    at = draw.randrange(len(data))
    what = draw.choice(["flip", "flip", "field", "field", "field", "cut", "grow", "splice", "zero",
                        "swap", "newer", "record", "record", "record"])
    if what == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif what == "field":
        # Near a structure's begin, where the fields are.
        begins = [0, len(data) - 64, len(data) - 88]
        for magic in (b"HBLK", b"HIDX", b"HFTR"):
            found = data.find(magic)
            while found >= 0:
                begins += [found] * 3
                found = data.find(magic, found + 1)
        at = max(0, min(len(data) - 9, draw.choice(begins) + draw.randrange(64)))
        size = draw.choice([1, 1, 2, 4, 8])
        value = draw.choice([0, 1, 2, 3, 255, 512, 513, 1 << 31, (1 << 64) - 1, draw.getrandbits(64)])
        old = int.from_bytes(data[at:at + size], "little")
        value = draw.choice([value, old + 1, old - 1]) & ((1 << 8 * size) - 1)
        data[at:at + size] = value.to_bytes(size, "little")
    elif what == "cut":
        del data[at:]
    elif what == "grow":
        data += draw.randbytes(draw.randrange(1, 100))
    elif what == "splice":
        other = draw.choice(others)
        data[at:] = other[min(at, len(other)):]
    elif what == "zero":
        end = min(len(data), at + draw.randrange(1, 600))
        data[at:end] = bytes(end - at)
    elif what == "record":
        damage_record(draw, data)
    elif what == "newer":
        data[draw.choice([8, 9, 16, 17, 18, 19])] |= 1 << draw.randrange(8)
    elif what == "swap":
        size = draw.choice([1, 8, 40, 64])
        other = draw.randrange(len(data))
        data[at:at + size], data[other:other + size] = data[other:other + size], data[at:at + size]
    data = bytes(data)
    if what in ("newer", "record") or draw.random() < 0.6:
        return mend(data), what + ", mended"
    return data, what


def zero_offset(path, options):
    """Whether the file holds the one thing of which the two may say different things."""
    try:
        with Journal(path, **options) as journal:
            for _ in journal.records():
                pass
            return journal.loss() is not None and ZERO_OFFSET in journal.loss().why
    except BlockDamaged as damage:
        return ZERO_OFFSET in str(damage)
    except Refused:
        return False


def compare(peer, paths, notes):
    """The first difference as text, or None; counts of how the files ended."""
    ends = {}
    for mode, options in MODES.items():
        for path, theirs in zip(paths, peer_says(peer, paths, mode)):
            ours = python_says(path, options)
            end = ours[-1].rsplit(" ", 1)[0] if "refused" not in ours[-1] else ours[-1]
            ends[end] = ends.get(end, 0) + 1
            if ours != theirs and not zero_offset(path, options):
                return f"{path} ({notes.get(path, 'as written')}), key {mode}:\n  Python: " \
                       f"{len(ours) - 1} records, {ours[-1]}\n  C++:    {len(theirs) - 1} records, " \
                       f"{theirs[-1]}", ends
    return None, ends


def mend_key_file(data):
    """Makes the last line right again."""
    body = data[:data.rfind(b"sha256 ")] if b"sha256 " in data else data
    return body + b"sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n"


def damage_key_file(draw, data):
    data = bytearray(data)
    at = draw.randrange(len(data))
    what = draw.choice(["flip", "cut", "char", "line"])
    if what == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif what == "cut":
        del data[at:]
    elif what == "char":
        data[at] = draw.choice(b"0123456789abcdefF \n-")
    else:
        lines = bytes(data).split(b"\n")
        line = draw.randrange(len(lines))
        lines[line:line + 1] = draw.choice([[], [lines[line]] * 2, [lines[line] + b" "]])
        data = b"\n".join(lines)
    return mend_key_file(bytes(data)) if draw.random() < 0.7 else bytes(data)


def python_unwraps(root, key, secret):
    try:
        # As the other asks: the passphrase is read when the root key needs it.
        needs_secret = b"\nsource passphrase\n" in pathlib.Path(root).read_bytes()
        passphrase = read_secret(secret) if needs_secret else None
        machine, key_id, plain = read_machine_key(key, read_root_key(root, passphrase))
        return f"{uuid.UUID(bytes=machine)} {uuid.UUID(bytes=key_id)} {plain.hex()}"
    except (KeyTrouble, OSError) as trouble:
        return f"refused ({trouble})"


def compare_keys(peer, draw, folder):
    """Keys by file and by passphrase, whole and damaged; the first difference as text, or None."""
    phrase = draw.choice(["correct horse battery staple", "gr\u00fc\u00df  dich ", "x" * 1024]).encode()
    secrets = {"phrase": phrase + draw.choice([b"", b"\n", b"\n" if len(phrase) == 1024 else b"\nmore\n"]),
               "wrong": phrase[:-1] + b"?", "empty": b"\n", "long": b"y" * 1025, "open": phrase}
    for name, text in secrets.items():
        path = folder / f"{name}.secret"
        path.write_bytes(text)
        path.chmod(0o644 if name == "open" else 0o600)
    subprocess.run([peer, "keys", folder], check=True)
    cases = [(root, key, secret) for root in ("phrase", "file", "token") for key in ("phrase", "file")
             for secret in ("phrase", "wrong")]
    cases += [("phrase", "phrase", secret) for secret in ("empty", "long", "open", "missing")]
    (folder / "loose.root").write_bytes((folder / "file.root").read_bytes())
    (folder / "loose.root").chmod(0o640)
    cases.append(("loose", "file", "phrase"))
    for number in range(60):
        kind = draw.choice(["phrase", "file", "file"])
        for suffix in draw.choice([["root"], ["key"], ["key"], ["root", "key"]]):
            damaged = damage_key_file(draw, (folder / f"{kind}.{suffix}").read_bytes())
            path = folder / f"{number}.{suffix}"
            path.write_bytes(damaged)
            path.chmod(0o600)
        root, key = (number if (folder / f"{number}.{end}").exists() else kind for end in ("root", "key"))
        cases.append((root, key, "phrase"))
    paths = [(f"{folder}/{r}.root", f"{folder}/{k}.key", f"{folder}/{s}.secret") for r, k, s in cases]
    run = subprocess.run([peer, "unwrap"], input="".join("|".join(case) + "\n" for case in paths),
                         capture_output=True, text=True, check=True)
    opened = 0
    for case, theirs in zip(paths, run.stdout.splitlines(), strict=True):
        ours = python_unwraps(*case)
        opened += theirs != "refused"
        if ours.split(" (")[0] != theirs:
            return f"keys {' '.join(case)}:\n  Python: {ours}\n  C++:    {theirs}"
        if "token.root" in case[0] and "PKCS#11 token" not in ours:
            return f"keys {' '.join(case)}: a token is not refused by name: {ours}"
    # Each root key opens its own machine key; the one in a file needs no passphrase.
    return None if opened >= 3 else f"only {opened} keys opened in {folder}"


def main():
    try:
        import cryptography  # noqa: F401
    except ImportError:
        print("SKIPPED: Python's cryptography package is not there (python3-cryptography)")
        return 77
    peer = sys.argv[1]
    seed = int(os.environ.get("HERALD_SEED", random.randrange(1 << 32)))
    rounds = ROUNDS[os.environ.get("HERALD_TIER") or "check"]
    print(f"seed {seed} (HERALD_SEED), {rounds} rounds of {FILES * (1 + DAMAGED_PER_FILE)} files")
    draw = random.Random(seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="herald-differential-"))
    golden = sorted((ROOT / "tests/golden/hrl").glob("*.hrl"))
    sums = {}
    for number in range(rounds):
        keys_folder = folder / f"keys{number}"
        keys_folder.mkdir(mode=0o700)
        difference = compare_keys(peer, draw, keys_folder)
        if difference:
            print(f"the readers differ: {difference}\nagain: HERALD_SEED={seed}")
            return 1
        for path in keys_folder.iterdir():
            path.unlink()
        keys_folder.rmdir()
        subprocess.run([peer, "write", folder, str(draw.getrandbits(63)), str(FILES)], check=True)
        paths = [folder / f"{i}.hrl" for i in range(FILES)] + (golden if number == 0 else [])
        files = [path.read_bytes() for path in paths]
        notes = {}
        for i, data in enumerate(files):
            for j in range(DAMAGED_PER_FILE):
                path = folder / f"{i}_{j}.hrl"
                damaged, notes[path] = damage(draw, data, files)
                path.write_bytes(damaged)
                paths.append(path)
        difference, ends = compare(peer, paths, notes)
        for end, count in ends.items():
            sums[end] = sums.get(end, 0) + count
        if difference:
            print(f"the readers differ: {difference}\nagain: HERALD_SEED={seed}")
            return 1
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    for end, count in sorted(sums.items()):
        print(f"{count:8d}  {end}")
    # A comparison in which nothing was damaged, or everything refused, would prove little.
    wanted = {"END whole", "END torn", "END damaged", "END refused damaged", "END refused locked",
              "END refused newer", "END refused unsealed"}
    missing = wanted - set(sums)
    if missing:
        print(f"never seen: {', '.join(sorted(missing))}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
