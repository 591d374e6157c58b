#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the C++ and the Python reader of .hrl to the same answers, over golden, random and damaged
files. Usage: compare_readers.py READER_PEER [fuzz]. HERALD_SEED, HERALD_TIER; with "fuzz" it goes on for
HERALD_FUZZ_SECONDS."""
import hashlib
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/hrl_py"))

import lz4_streams  # noqa: E402
from damage import damage  # noqa: E402
from golden_keys import compare_golden_keys  # noqa: E402
from journal import BlockDamaged, Journal, Refused  # noqa: E402
from key_files import KeyTrouble, NewerKeyFile, read_machine_key, read_root_key, read_secret  # noqa: E402
from layout import text_of_id  # noqa: E402
from lz4_block import Lz4Error, ZeroOffset, decompress  # noqa: E402
from sealing import hkdf_sha256  # noqa: E402
from xxh3 import xxh3_64  # noqa: E402

# The key of the specification's example, as in reader_peer.cpp.
KEY = bytes(range(32))
KEYS = {(b"\x11" * 16, b"\x77" * 16): KEY}
MODES = {"key": {"keys": KEYS}, "blind": {"blind": True}, "none": {},
         "sealed": {"keys": KEYS, "sealed_only": True}}
ROUNDS = {"check": 1, "ci": 4, "nightly": 100}
ZERO_OFFSET = "a match with offset zero"
FILES, DAMAGED_PER_FILE, LZ4_STREAMS = 60, 12, 2000
CORPORA = ["differential/corpus", "fuzz/corpus/segment_reader", "fuzz/corpus/segment_forged",
           "fuzz/corpus/segment_sealed"]


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


def header_lines(journal):
    """What tests/unit/hrl/golden_test.cpp says of a header, too."""
    h = journal.header
    yield (f"HEADER contents={h.contents} order={h.record_order} granule_log2={h.granule_log2} "
           f"sealed_by={h.sealed_by} optional={h.features_optional} block_bytes={h.block_bytes}")
    ids = [text_of_id(i) for i in (h.machine, h.disk, h.segment, h.previous_segment, h.key_id, h.seal)]
    yield "IDS machine={} disk={} segment={} previous={} key_id={} seal={}".format(*ids)
    yield (f"STREAM epoch={h.epoch} first_position={h.first_position} disk_bytes={h.disk_bytes} "
           f"created_ns={h.created_ns}")
    if journal.whole:
        yield f"TAIL last_position={journal.footer.last_position} blocks={journal.footer.block_count}"
    for kind, data in journal.sections:
        yield f"SECTION {kind} {len(data)}"


def compare_golden(golden):
    """The golden files against the text beside each; the first difference as text, or None."""
    for path in golden:
        lines = []
        try:
            with Journal(path, **MODES["key"]) as journal:
                lines += header_lines(journal)
        except Refused:
            pass
        lines += python_says(path, MODES["key"])
        expected = path.with_name(path.name + ".txt").read_text().splitlines()
        if lines != expected:
            return f"{path} and the text beside it: " + next(
                (f"line {i + 1}: {a} / {b}" for i, (a, b) in enumerate(zip(lines, expected)) if a != b),
                f"{len(lines)} lines, not {len(expected)}")
    return None


def decompressed(raw_bytes, block):
    try:
        return f"{xxh3_64(decompress(block, raw_bytes)):016x}"
    except ZeroOffset:
        return None
    except Lz4Error:
        return "refused"


def compare_lz4(peer, streams):
    """LZ4 blocks, as (raw size, block); the first difference as text, or None. How many were taken."""
    streams = [(raw_bytes, block) for raw_bytes, block in streams if raw_bytes <= lz4_streams.RAW_BYTES_MAX]
    run = subprocess.run([peer, "lz4"], input="".join(f"{r} {b.hex()}\n" for r, b in streams),
                         capture_output=True, text=True, check=True)
    taken = 0
    for (raw_bytes, block), theirs in zip(streams, run.stdout.splitlines(), strict=True):
        ours = decompressed(raw_bytes, block)
        taken += theirs != "refused"
        if ours not in (None, theirs):
            return f"LZ4 block of {raw_bytes} bytes {block.hex()}:\n  Python: {ours}\n  C++:    {theirs}", taken
    return None, taken


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
    except NewerKeyFile as newer:
        return f"refused newer ({newer})"
    except (KeyTrouble, OSError) as trouble:
        return f"refused ({trouble})"


def write_odd_keys(folder):
    """Key files that are right but for one rule: ids that are nil, and versions to come. By name."""
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap
    some, nil, root_key = bytes(range(1, 17)), bytes(16), bytes(range(32, 64))

    def root_text(root):
        check = hkdf_sha256(root_key, root, b"herald root key check", 16)
        return (f"herald-root-key 1\nroot {text_of_id(root)}\nsource file\nkey {root_key.hex()}\n"
                f"check {check.hex()}\n").encode()

    def key_text(machine, key_id, root):
        wrapped = aes_key_wrap(root_key, machine + key_id + KEY)
        return (f"herald-machine-key 1\nmachine {text_of_id(machine)}\nkey {text_of_id(key_id)}\n"
                f"root {text_of_id(root)}\nwrapped {wrapped.hex()}\n").encode()

    files = {"some.root": root_text(some), "nil.root": root_text(nil), "some.key": key_text(some, some, some),
             "nil_machine.key": key_text(nil, some, some), "nil_id.key": key_text(some, nil, some),
             "nil_root.key": key_text(some, some, nil)}
    for name, text in files.items():
        (folder / name).write_bytes(mend_key_file(text))
    for name in ("some.root", "some.key"):
        whole = (folder / name).read_bytes()
        (folder / f"newer_{name}").write_bytes(whole.replace(b"-key 1\n", b"-key 2\n", 1))
    for path in folder.iterdir():
        if path.suffix == ".root":
            path.chmod(0o600)
    return {("some", "some"): "opens", ("nil", "nil_root"): "refused", ("some", "nil_machine"): "refused",
            ("some", "nil_id"): "refused", ("newer_some", "some"): "refused newer",
            ("some", "newer_some"): "refused newer"}


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
    odd = write_odd_keys(folder)
    cases += [(root, key, "phrase") for root, key in odd]
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
    for names, case, theirs in zip(cases, paths, run.stdout.splitlines(), strict=True):
        ours = python_unwraps(*case)
        opened += not theirs.startswith("refused")
        wanted = odd.get(names[:2], theirs)
        if wanted != (theirs if theirs.startswith("refused") else "opens") and wanted != theirs:
            return f"keys {' '.join(case)}: C++ says {theirs}, not {wanted}"
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
    rounds, seconds = ROUNDS[os.environ.get("HERALD_TIER") or "check"], None
    if sys.argv[2:] == ["fuzz"]:
        # Not from where the same seed begins elsewhere.
        seed += 1 << 32
        seconds = int(os.environ.get("HERALD_FUZZ_SECONDS") or 5)
    said = f"{rounds} rounds" if seconds is None else f"{seconds} s"
    print(f"seed {seed & 0xffffffff} (HERALD_SEED), {said} of {FILES * (1 + DAMAGED_PER_FILE)} files a round")
    draw = random.Random(seed)
    began = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="herald-differential-"))
    golden = sorted((ROOT / "tests/golden/hrl").glob("*.hrl"))
    kept = [path for corpus in CORPORA for path in sorted((ROOT / "tests" / corpus).iterdir())]
    streams = [path.read_bytes() for path in sorted((ROOT / "tests/fuzz/corpus/lz4_framing").iterdir())]
    streams = [(struct.unpack_from("<I", data)[0], data[4:]) for data in streams if len(data) >= 4]
    golden_folder = folder / "golden_keys"
    golden_folder.mkdir(mode=0o700)
    difference = compare_golden_keys(peer, golden_folder) or compare_golden(golden)
    if not difference:
        for path in golden_folder.iterdir():
            path.unlink()
        golden_folder.rmdir()
        difference, taken = compare_lz4(peer, streams + list(lz4_streams.hostile_streams()))
    if not difference and lz4_streams.cost_of(1 << 18) > 1 << 19:
        difference = "Python copies more of a hostile LZ4 block than twice what it holds"
    if difference:
        print(f"the readers differ: {difference}")
        return 1
    sums = {}
    number = 0
    while number < rounds if seconds is None else number == 0 or time.monotonic() < began + seconds:
        keys_folder = folder / f"keys{number}"
        keys_folder.mkdir(mode=0o700)
        difference = compare_keys(peer, draw, keys_folder)
        if difference:
            print(f"the readers differ: {difference}\nagain: HERALD_SEED={seed & 0xffffffff}")
            return 1
        for path in keys_folder.iterdir():
            path.unlink()
        keys_folder.rmdir()
        subprocess.run([peer, "write", folder, str(draw.getrandbits(63)), str(FILES)], check=True)
        paths = [folder / f"{i}.hrl" for i in range(FILES)] + (golden if number == 0 else [])
        # Of the largest record Python makes no dozen versions within a test's time.
        files = [path.read_bytes() for path in paths if path.name != "largest_record.hrl"]
        if number == 0:
            paths += kept
        notes = {}
        for i, data in enumerate(files):
            for j in range(DAMAGED_PER_FILE):
                path = folder / f"{i}_{j}.hrl"
                damaged, notes[path] = damage(draw, data, files, KEY)
                path.write_bytes(damaged)
                paths.append(path)
        difference, ends = compare(peer, paths, notes)
        for end, count in ends.items():
            sums[end] = sums.get(end, 0) + count
        number += 1
        if not difference:
            difference, taken = compare_lz4(peer, [lz4_streams.random_stream(draw) for _ in range(LZ4_STREAMS)])
            if not difference and not LZ4_STREAMS // 10 < taken < LZ4_STREAMS * 9 // 10:
                difference = f"of {LZ4_STREAMS} LZ4 blocks {taken} were taken: too few or too many to prove much"
        if difference:
            print(f"the readers differ: {difference}\nagain: HERALD_SEED={seed & 0xffffffff}")
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
