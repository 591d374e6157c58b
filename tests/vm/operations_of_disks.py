# SPDX-License-Identifier: Apache-2.0
"""Of driver_operations.py: what is done to a tracked disk and to what lies below it."""
import driver
from driver_full import WRITTEN_SECTORS
from operation import DM, SECTORS, WATCHDOG_SECONDS, Operation, linear, make, swap


def group(it: Operation) -> None:
    nodes = [driver.create(it.machine, f"tracked{number}", node) for number, node in enumerate((it.origin, it.other))]
    print(it.machine.run(f"vm_cbt_group {' '.join(nodes)}"), flush=True)
    for number in range(2):
        driver.remove(it.machine, f"tracked{number}")


def hung(it: Operation) -> None:
    low = make(it.machine, "low", linear(it.origin))
    it.track(low, "-", "unresolved_ms", "300")
    # Those that hang turn unresolved, and their ranges are told again when they end at last.
    said = it.exact("writes that hung", f"""
        {{ {DM} suspend low; {it.replica.load()} & load=$!; sleep 3; dmsetup status tracked >/run/hung
        {DM} resume low; wait $load; }}""")
    before = it.machine.run("cat /run/hung")
    if " unresolved 0" in before or not said["reread_slots"]:
        raise AssertionError(f"nothing hung, or was not told again: {before}; {said}")
    it.untrack()
    it.untrack("low")


def errors(it: Operation) -> None:
    at = WRITTEN_SECTORS + 1024
    rest = SECTORS - at - 1
    low = make(it.machine, "low", f"0 {at} linear {it.origin} 0\\n{at} 1 error\\n{at + 1} {rest} linear {it.origin} {at + 1}")
    it.replica.node = driver.create(it.machine, "tracked", low)
    # The replica cannot read the sector that cannot be read; what failed is told, and goes no further.
    status, said = it.machine.attempt("dd if=/dev/zero of=/dev/mapper/tracked bs=4k count=1 conv=notrunc,fsync "
                                      f"seek={at // 8} 2>&1")
    if status == 0:
        raise AssertionError(f"written where nothing can be: {said}")
    it.machine.run(it.replica.load(), timeout=300)
    it.says("aborted 1")
    it.untrack()
    it.untrack("low")


def resize(it: Operation) -> None:
    small = WRITTEN_SECTORS + 72
    table = "0 {sectors} cbt {origin} -"
    make(it.machine, "tracked", table.format(sectors=small, origin=it.origin))
    it.replica.node = "/dev/mapper/tracked"
    it.machine.run("rm -f /run/replica")
    it.replica.follow("--copy")
    swaps = "; ".join(f"{DM} reload tracked --table '{table.format(sectors=sectors, origin=it.origin)}' && "
                      f"{DM} suspend tracked && {DM} resume --noudevsync tracked || exit 1; sleep 0.3"
                      for sectors in (SECTORS, small, SECTORS))
    it.replica.follow("", f"{{ {it.replica.load()} & load=$!; {swaps}; wait $load; }}")
    # What the disk grew by was dirty as a whole.
    it.same("a disk that shrank and grew")
    it.untrack()


def flaky(it: Operation) -> None:
    """A disk that refuses writes every other second. What failed may be there in part: it is read again."""
    low = make(it.machine, "low", f"0 {SECTORS} flakey {it.origin} 0 1 1 1 error_writes")
    it.track(low)
    blocks = WRITTEN_SECTORS // 128
    it.exact("a disk that refuses writes at times", f"""{{
        rm -f /run/refused
        end=$(($(cut -d. -f1 /proc/uptime) + 5))
        while test $(cut -d. -f1 /proc/uptime) -lt $end; do
            dd if=/dev/urandom of={it.replica.node} bs=64k count=1 oflag=direct conv=notrunc,fsync \\
                seek=$((RANDOM % {blocks})) 2>/dev/null || echo >>/run/refused
        done; }}""")
    if " aborted 0 " in driver.status(it.machine, "tracked") + " " or it.machine.attempt("test -s /run/refused")[0]:
        raise AssertionError(f"no write was refused: {driver.status(it.machine, 'tracked')}")
    it.untrack()
    it.untrack("low")


def slow(it: Operation) -> None:
    table = f"0 {SECTORS} delay {it.origin} 0 0 {it.origin} 0 {{}}"
    low = make(it.machine, "low", table.format(20))
    it.track(low, "-", "unresolved_ms", "300")
    it.exact("a slow disk", it.replica.load())
    # So slow that each write turns unresolved before it ends.
    swap(it.machine, "low", table.format(900))
    said = it.exact("a disk that is too slow to wait for", "; ".join(
        f"dd if=/dev/urandom of={it.replica.node} bs=64k count=1 oflag=direct conv=notrunc seek={number} 2>/dev/null"
        for number in range(4)))
    if not said["reread_slots"]:
        raise AssertionError(f"no write took too long: {said}")
    it.untrack()
    it.untrack("low")


def suspended(it: Operation) -> None:
    it.track(it.origin)
    it.exact("suspended five times", f"""{{ {it.replica.load()} & load=$!
        for number in 1 2 3 4 5; do
            {DM} suspend tracked && sleep 0.2 && {DM} resume --noudevsync tracked || exit 1
        done; wait $load; }}""")
    it.untrack()


def vanished(it: Operation) -> None:
    """The disk below is taken out while it is written to and read, and put in again."""
    machine, disk = it.machine, it.machine.disks[0]
    it.track(it.origin)
    machine.run(f"""
        rm -f /run/stop /run/refused
        vm_cbt_replica {it.replica.node} /run/replica --until /run/stop >/run/said 2>&1 &
        ( while dd if=/dev/urandom of={it.replica.node} bs=64k count=1 oflag=direct conv=notrunc \\
            seek=$((RANDOM % 64)) 2>/dev/null; do :; done; touch /run/refused ) >/dev/null 2>&1 &
        sleep 0.5; ! test -e /run/refused""")
    machine.unplug(disk)
    machine.wait("test -e /run/refused", seconds=WATCHDOG_SECONDS)
    machine.run("touch /run/stop; kill -9 $(pidof vm_cbt_replica) 2>/dev/null; sleep 0.3")
    if " aborted 0 " in driver.status(machine, "tracked") + " ":
        raise AssertionError("no write failed when the disk was taken out")
    it.untrack()
    machine.plug(disk)
    it.origin = machine.node(disk)
    it.track(it.origin)
    it.exact("the disk that was put in again", it.replica.load())
    it.untrack()


def gone(it: Operation) -> None:
    """The table goes, or is exchanged, under a reader: it ends with an error of the call, and nothing else."""
    it.track(it.origin)
    table = it.machine.run("dmsetup table tracked")
    status, said = it.machine.attempt(f"""
        rm -f /run/stop
        vm_cbt_replica /dev/mapper/tracked /run/replica --until /run/stop >/run/said 2>&1 & reader=$!
        sleep 0.5
        {DM} reload tracked --table '{linear(it.origin)}' && {DM} suspend tracked && {DM} resume --noudevsync tracked || exit 99
        wait $reader; status=$?; cat /run/said; exit $status""")
    if status in (0, 99) or "No such device" not in said:
        raise AssertionError(f"status {status} after the table went: {said}")
    it.poke("/dev/mapper/tracked", 1)
    swap(it.machine, "tracked", table)
    it.machine.run("rm -f /run/replica")
    it.replica.follow("--copy")
    it.exact("tracked again", it.replica.load())
    it.untrack()


ALL = (group, hung, errors, flaky, slow, suspended, resize, gone, vanished)
