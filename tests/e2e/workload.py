#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A workload that can be checked afterwards.

run DIR [--seconds S] [--seed N]   SQLite transfers between accounts (their sum never changes), files
                                   written under the name of their own SHA-256, copies and deletes,
                                   until --seconds pass or SIGTERM.
verify DIR                         the database is intact and sums up; every file is what its name says.
                                   DIR may be mounted read-only.
"""
import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time

ACCOUNTS = 1000
BALANCE = 1000
FILES_MAX = 60
FILE_BYTES_MAX = 3 << 20

stopping = False


def stop(_signal, _frame):
    global stopping
    stopping = True


def write_file(folder: pathlib.Path, rng: random.Random) -> None:
    size = rng.randrange(1, FILE_BYTES_MAX)
    # Half text-like, half random: about what a file server holds.
    if rng.random() < 0.5:
        line = b"%d the quick brown fox jumps over the lazy dog %d\n" % (rng.getrandbits(64), size)
        data = (line * (size // len(line) + 1))[:size]
    else:
        data = rng.randbytes(size)
    temporary = folder / f"writing-{rng.getrandbits(32):08x}"
    temporary.write_bytes(data)
    temporary.rename(folder / (hashlib.sha256(data).hexdigest() + ".file"))


def run(root: pathlib.Path, seconds: float, seed: int) -> int:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    rng = random.Random(seed)
    files = root / "files"
    files.mkdir(exist_ok=True)
    database = sqlite3.connect(root / "bank.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
    if database.execute("SELECT count(*) FROM account").fetchone()[0] == 0:
        database.execute("BEGIN")
        database.executemany("INSERT INTO account VALUES (?, ?)", [(i, BALANCE) for i in range(ACCOUNTS)])
        database.execute("CREATE TABLE IF NOT EXISTS transfer (source INTEGER, target INTEGER, amount INTEGER)")
        database.execute("COMMIT")
    ends = time.monotonic() + seconds
    transfers = written = 0
    while not stopping and time.monotonic() < ends:
        database.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            source, target, amount = rng.randrange(ACCOUNTS), rng.randrange(ACCOUNTS), rng.randrange(100)
            database.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, source))
            database.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
            database.execute("INSERT INTO transfer VALUES (?, ?, ?)", (source, target, amount))
            transfers += 1
        database.execute("COMMIT")
        there = sorted(files.glob("*.file"))
        action = rng.random()
        if len(there) >= FILES_MAX or (action < 0.25 and there):
            rng.choice(there).unlink()
        elif action < 0.4 and there:
            shutil.copy(rng.choice(there), files / f"copy-{rng.getrandbits(32):08x}.copy")
            for old in sorted(files.glob("*.copy"))[:-5]:
                old.unlink()
        else:
            write_file(files, rng)
            written += 1
        time.sleep(0.02)
    database.close()
    print(f"{transfers} transfers, {written} files written")
    return 0


def verify(root: pathlib.Path) -> int:
    wrong = []
    # SQLite must be able to replay its log, so it gets a copy it may write to.
    with tempfile.TemporaryDirectory(prefix="herald-verify-") as copies:
        for name in ("bank.sqlite", "bank.sqlite-wal"):
            if (root / name).exists():
                shutil.copy(root / name, copies)
        path = pathlib.Path(copies) / "bank.sqlite"
        transfers = -1
        if path.exists():
            database = sqlite3.connect(path)
            state = database.execute("PRAGMA integrity_check").fetchone()[0]
            if state != "ok":
                wrong.append(f"SQLite integrity check: {state}")
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            if "account" in tables:
                count, total = database.execute("SELECT count(*), coalesce(sum(balance), 0) FROM account").fetchone()
                if count not in (0, ACCOUNTS) or total != count * BALANCE:
                    wrong.append(f"{count} accounts sum up to {total}")
            if "transfer" in tables:
                transfers = database.execute("SELECT count(*) FROM transfer").fetchone()[0]
                if transfers % 20 != 0:
                    wrong.append(f"{transfers} transfers: a transaction is there in part")
            database.close()
        else:
            wrong.append("the database is not there")
    checked = 0
    for file in sorted((root / "files").glob("*.file")):
        checked += 1
        if hashlib.sha256(file.read_bytes()).hexdigest() != file.stem:
            wrong.append(f"{file.name}: its content is not what its name says")
    print(f"{transfers} transfers, {checked} files checked, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("run", "verify"))
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    args = parser.parse_args()
    if args.verb == "run":
        print(f"seed {args.seed}", flush=True)
        return run(args.root, args.seconds, args.seed)
    return verify(args.root)


if __name__ == "__main__":
    sys.exit(main())
