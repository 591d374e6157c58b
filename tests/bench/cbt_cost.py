#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Instructions that a write costs through dm_cbt, beside dm-linear and other targets that capture writes,
on one kernel in one machine, all on RAM disks. Counted exactly, as QEMU can make a nanosecond of the
guest's an instruction: path length, neither contention nor cache misses. tests/vm/guest/write_cost.cpp
writes; what runs on the side meanwhile, the reader of dm_cbt too, is counted with it."""
import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import driver  # noqa: E402
from machine import BIN, Machine  # noqa: E402

ORIGIN, BESIDE, META = "/dev/ram0", "/dev/ram1", "/dev/ram2"
ORIGIN_MIB = 32
# What the others keep beside the disk: a log of every write, which takes 4 KiB and the data; copies of chunks.
BESIDE_MIB = 512
SECTORS = ORIGIN_MIB << 11
SIZES = (4096, 65536, 1 << 20)


class Bench:
    def __init__(self, machine: Machine, count: int):
        self.machine, self.count = machine, count
        self.figures: dict[str, float] = {}

    def instructions(self, node: str, size: int, count: int, how="random") -> float:
        return int(self.machine.run(f"vm_write_cost {node} {size} {count} {ORIGIN_MIB} {how}", timeout=900)) / count

    def measure(self, name: str, node: str, size=4096) -> None:
        count = max(64, self.count * 4096 // size)
        self.instructions(node, size, max(64, count // 4))  # memory that the path needs is there, its code has run
        self.show(name, self.instructions(node, size, count), size)

    def show(self, name: str, figure: float, size=4096) -> None:
        label = name if size == 4096 else f"{name}, {size >> 10} KiB"
        self.figures[label] = round(figure, 1)
        linear = self.figures.get("dm-linear" if size == 4096 else f"dm-linear, {size >> 10} KiB")
        print(f"{label:44} {figure:10.0f}" + (f" {figure - linear:+10.0f}" if linear and name != "dm-linear" else ""),
              flush=True)

    def create(self, name: str, table: str) -> str:
        self.machine.run(f"DM_DISABLE_UDEV=1 dmsetup create --noudevsync {name} --table '0 {table}'")
        return f"/dev/mapper/{name}"

    def target(self, name: str, table: str, sizes=(4096,)) -> None:
        """One table over the whole of the origin, measured and taken out again."""
        node = self.create("measured", f"{SECTORS} {table}")
        for size in sizes:
            self.measure(name, node, size)
        driver.remove(self.machine, "measured")


def fill(machine: Machine, node: str, mib: int) -> None:
    """A RAM disk takes a page at the first write to it; that is not to be measured."""
    machine.run(f"dd if=/dev/zero of={node} bs=1M count={mib} oflag=direct 2>/dev/null", timeout=600)


def snapshot(bench: Bench) -> None:
    """The origin of a snapshot: each chunk is copied before its first change, and then no more."""
    fill(bench.machine, BESIDE, 1)
    bench.create("copy", f"{SECTORS} snapshot {ORIGIN} {BESIDE} P 8")
    node = bench.create("measured", f"{SECTORS} snapshot-origin {ORIGIN}")
    bench.show("dm-snapshot origin, first touch", bench.instructions(node, 4096, 512, "sequential"))
    fill(bench.machine, node, ORIGIN_MIB)
    bench.measure("dm-snapshot origin, copied before", node)
    driver.remove(bench.machine, "measured")
    driver.remove(bench.machine, "copy")


def driver_in_each_mode(bench: Bench) -> None:
    """With the reader's part, where there is one; the activity log's regions are hot by the second run."""
    machine = bench.machine
    for name, meta, options, reads in (
            ("dm_cbt map", "-", (), False), ("dm_cbt extents", "-", ("payload_bytes", "0"), True),
            ("dm_cbt ordered, nobounce", "-", ("nobounce",), True), ("dm_cbt ordered", "-", (), True),
            ("dm_cbt map, meta", META, (), False), ("dm_cbt extents, meta", META, ("payload_bytes", "0"), True),
            ("dm_cbt ordered, meta", META, (), True)):
        if meta != "-":
            machine.run(f"vm_cbt_format {meta} {SECTORS}")
        words = f" {len(options)} {' '.join(options)}" if options else ""
        node = bench.create("measured", f"{SECTORS} cbt {ORIGIN} {meta}{words}")
        if reads:
            machine.run(f"rm -f /run/ready; vm_cbt_drain {node} /run/ready >/run/drain 2>&1 & echo $! >/run/drain.pid")
            machine.wait("test -e /run/ready")
        for size in SIZES:
            bench.measure(name, node, size)
        said = driver.status(machine, "measured")
        wanted = name.split(" ")[1].rstrip(",")
        if f" cbt {wanted} " not in said or meta != "-" and " persistence active " not in said:
            raise AssertionError(f"{name}: measured something else: {said}")
        if reads:
            machine.run("kill $(cat /run/drain.pid); while kill -0 $(cat /run/drain.pid) 2>/dev/null; do sleep 0.1; done")
        driver.remove(machine, "measured")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--kernel", default="6.1", help="a line of tests/vm/kernels.py (default: 6.1)")
    args = parser.parse_args()
    kernel = driver.kernel_or_skip(args.kernel)
    initramfs = driver.with_driver(kernel).modules("dm_snapshot", "dm_log_writes", "dm_era").modules("brd", load=False)
    initramfs.program(*(BIN.parent / f"tests/vm_{name}" for name in ("write_cost", "cbt_drain", "cbt_format")))
    with Machine("cbt-cost", initramfs, processors=1, memory_mib=1536, counted=True,
                 command_line="init_on_alloc=0") as machine:
        machine.boot()
        # All RAM disks have one size; of the origin, the first ORIGIN_MIB are used.
        machine.run(f"insmod /modules/brd.ko rd_nr=3 rd_size={BESIDE_MIB << 10}")
        driver.load(machine)
        fill(machine, ORIGIN, ORIGIN_MIB)
        fill(machine, BESIDE, BESIDE_MIB)
        fill(machine, META, 1)
        bench = Bench(machine, 4096 if args.quick else 32768)
        print(f"{kernel.release}: instructions per write (of 4 KiB where no size is named), and the difference to dm-linear")
        bench.target("dm-linear", f"linear {ORIGIN} 0", SIZES)
        bench.measure("raw", ORIGIN)
        driver_in_each_mode(bench)
        fill(machine, BESIDE, 1)
        bench.target("dm-era, 64 KiB", f"era {BESIDE} {ORIGIN} 128")
        snapshot(bench)
        bench.target("dm-log-writes", f"log-writes {ORIGIN} {BESIDE}")
        again = bench.figures["dm-linear"]
        bench.target("dm-linear", f"linear {ORIGIN} 0")
        print(f"dm-linear again: {bench.figures['dm-linear'] - again:+.1f}")
        machine.shut_down()
    if args.json:
        args.json.write_text(json.dumps({"kernel": kernel.release, "instructions_per_write": bench.figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
