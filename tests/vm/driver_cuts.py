#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Power cuts of the driver: of what origin, meta device and replica had not flushed, each write is kept,
dropped or torn, on each of them independently (cut_log.py), in every mode, amid suspends, sizes that
change, readers that die, writes to the watched ranges, and bits that are being cleared.

After each cut (1) the driver says what the document says of that meta device (dirty_map.py): gap and dirty
blocks, neither more nor less; (2) every block in which origin and replica differ is dirty; (3) what is
dirty beyond the activity log's regions was written since it was last known to be stored; (4) a gap is
named where there is one, and nowhere else; (5) a reader makes the replica the origin by reading dirty
blocks and no other, but after a gap.

Every write is on record, so the power is cut after the fact, at as many instants of a run as one likes. Many are held
against (2) to (4) by the document's rule alone; the cuts among them are booted, those first that fail. The
run ends by a kill, and the next one begins from what that left.

Each of BREAKS turns it red (--broken); at night all of them are tried. A hot region hides a bit that went too early, so
one disk has more regions than are hot: some retire while the flush that their bits wait for is held up. What
a write to a cold region waits for is the flush *after* the activity block (FUA). The one before it (PREFLUSH)
guards the bitmap blocks of what retires, which are written through themselves: one of the two may go, both must not.

Usage: driver_cuts.py [--broken NAME...] [--part NUMBER/COUNT] [--seed SEED] (default: HERALD_SEED, or a new one,
which is printed)"""
import argparse
import os
import pathlib
import random
import sys
import tempfile

import cut_rounds
import driver
from initramfs import Initramfs
from machine import BUILD, scaled

META_IO, CLEARING = "kernel/linux_cbt/meta_io.c", "kernel/linux_cbt/clearing.c"
FLUSHED = "CBT_META_BLOCK_BYTES, REQ_OP_WRITE | REQ_SYNC | REQ_PREFLUSH | REQ_FUA);"
BREAKS = {
    # An activity block is not durable when the writes that it lets through are submitted.
    "log-not-flushed": ((META_IO, FLUSHED, "CBT_META_BLOCK_BYTES, REQ_OP_WRITE | REQ_SYNC | (place / 2 == "
                         "CBT_META_PAIR_ACTIVITY ? 0 : (REQ_PREFLUSH | REQ_FUA)));"),),
    # A region leaves the log before its bitmap block is durable.
    "no-flush-before-log": ((META_IO, FLUSHED, "CBT_META_BLOCK_BYTES, REQ_OP_WRITE | REQ_SYNC | (place / 2 == "
                             "CBT_META_PAIR_ACTIVITY ? REQ_FUA : place / 2 >= CBT_META_PAIR_BITMAP ? 0 : "
                             "(REQ_PREFLUSH | REQ_FUA)));"),),
    # Bits go before the flush of the origin.
    "cleared-before-flush": ((CLEARING, "\t\terror = cbt_issue_flush(disk->target->origin->bdev);\n",
                              "\t\tcbt_bitmap_clear(cbt_sealed_map(disk));\n"
                              "\t\terror = cbt_issue_flush(disk->target->origin->bdev);\n"),),
}
PROGRAMS = ("cbt_replica", "cbt_map", "cbt_format", "cut_load")


def cuts(seed: int, rounds: int, per_round: int, edits=(), name="cuts") -> None:
    kernel = driver.kernel_or_skip("6.1")
    initramfs: Initramfs = driver.with_driver(kernel, edits=edits)
    initramfs.program(*(BUILD / f"tests/vm_{program}" for program in PROGRAMS))
    # In memory where there is room: the disks' thread must not wait for the host's.
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="herald-vm-", dir=memory if memory.is_dir() else None) as folder:
        cut_rounds.run(initramfs, pathlib.Path(folder), random.Random(seed), rounds, per_round,
                       f"driver-{name}-{kernel.line}")


def is_noticed(name: str, seed: int) -> None:
    try:
        cuts(seed, 3, 10, BREAKS[name], f"cuts-{name}")
    except cut_rounds.Uncovered as found:
        print(f"{name}: noticed: {found}", flush=True)
        return
    raise AssertionError(f"{name}: not noticed")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", nargs="+", choices=BREAKS, default=[], metavar="NAME",
                        help=f"that the test notices a driver that is broken so: {', '.join(BREAKS)}")
    parser.add_argument("--part", default="1/1", help="the NUMBER-th of COUNT equal parts of the cuts")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HERALD_SEED") or random.randrange(1 << 31)))
    words = parser.parse_args()
    number, count = map(int, words.part.split("/"))
    seed = words.seed + number - 1
    print(f"seed {seed} (repeat with --seed {seed})", flush=True)
    for name in words.broken:
        is_noticed(name, seed)
    if not words.broken:
        # 10 or 500 cuts, each of five disks.
        rounds, per_round = scaled((1, 10), (1, 10), (25, 20))
        cuts(seed, max(1, rounds // count), per_round)
    return 0


if __name__ == "__main__":
    sys.exit(main())
