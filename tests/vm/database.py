# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL in a machine: a cluster made on the host, its data and its log on two volumes, clients that note
each commit after it was acknowledged, and what must be there behind any moment of that.

The rows of a client are numbered, and each is begun after the acknowledgement of the one before was noted. So
at every moment a database holds all that were noted before it, and at most one more."""
import bisect
import os
import pathlib
import shutil
import subprocess
import sys

from initramfs import Initramfs
from machine import SKIPPED, GuestFailed, Machine

PROGRAMS = ("postgres", "pg_ctl", "psql", "pg_amcheck", "pg_checksums")
CLIENTS = (1, 2)
# Enough for some minutes, too few to fill the volume.
ROWS_MAX = 9000
# In the guest; on the host whoever is not root makes the cluster.
UID = 101
# By its path: the shell of busybox takes its own applet first, which knows no users.
AS_USER = f"/usr/bin/setpriv --reuid {UID} --regid {UID} --clear-groups env HOME=/run/pg " \
    "PATH=$(echo /usr/lib/postgresql/*/bin):/usr/bin"
PSQL = f"{AS_USER} psql -X -q -A -t -v ON_ERROR_STOP=1 -h /run/pg -d postgres"
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '/run/pg'
timezone = 'GMT'
log_timezone = 'GMT'
max_connections = 10
# Little memory and frequent checkpoints: the data is written all the time, too.
shared_buffers = 2MB
checkpoint_timeout = 30s
max_wal_size = 6MB
min_wal_size = 4MB
jit = off
"""
SCHEMA = """CREATE EXTENSION amcheck
CREATE TABLE rows (client int, number int, changed int NOT NULL DEFAULT 0, body text, PRIMARY KEY (client, number))
CREATE TABLE sums (client int PRIMARY KEY, total int NOT NULL)
INSERT INTO sums VALUES (1, 0), (2, 0)
"""
BODY = "repeat(md5(client || '/' || number), 1 + number % 40)"
# Each transaction adds a row, changes an older one and the client's sum. Then the clock, once COMMIT was answered.
LOAD = f"""
client=$1 number=0
while ! test -e /run/stop && test $number -lt {ROWS_MAX}; do
    number=$((number + 1))
    echo "BEGIN;
        INSERT INTO rows SELECT client, number, 0, {BODY} FROM (SELECT $client AS client, $number AS number) AS new;
        UPDATE rows SET changed = changed + 1 WHERE client = $client AND number = 1 + $number::bigint * 7919 % $number;
        UPDATE sums SET total = total + 1 WHERE client = $client;
        COMMIT;
        SELECT $number, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;"
done | {PSQL} -F ' ' >/run/acks.$client 2>/run/load-error.$client || touch /run/load-failed
"""


def programs() -> pathlib.Path:
    """Of the newest PostgreSQL of this host; ends the test, loudly, where there is none."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pg_amcheck"), key=lambda path: int(path.parts[4]))
    if not found:
        print("SKIPPED: PostgreSQL is not installed: tools/dev/install")
        sys.exit(SKIPPED)
    return found[-1].parent


def into(initramfs: Initramfs) -> Initramfs:
    bin = programs()
    initramfs.program("setpriv", *(bin / name for name in PROGRAMS))
    initramfs.folder(str(bin).lstrip("/"))
    for name in PROGRAMS:
        # At home: PostgreSQL looks for its libraries beside it.
        initramfs.entries[f"{str(bin).lstrip('/')}/{name}"] = initramfs.entries.pop(f"usr/bin/{name}")
    for name in ("plpgsql", "amcheck"):
        initramfs.file(bin.parent / f"lib/{name}.so")
    for file in pathlib.Path("/usr/share/postgresql", bin.parent.name, "timezonesets").iterdir():
        initramfs.file(file)
    initramfs.text("etc/passwd", f"root:x:0:0:root:/root:/bin/sh\npostgres:x:{UID}:{UID}::/run/pg:/bin/sh\n")
    return initramfs


def make_cluster(folder: pathlib.Path) -> pathlib.Path:
    """A tar file of one with checksums and small log files."""
    bin, home = programs(), folder / "database"
    home.mkdir()
    user = {}
    if os.getuid() == 0:
        shutil.chown(home, "nobody", "nogroup")
        folder.chmod(0o711)
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    cluster = home / "cluster"

    def said(*words, **more) -> None:
        done = subprocess.run(words, capture_output=True, text=True, cwd=home, **user, **more)
        # The single-user mode ends with 0 whatever became of a statement.
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise RuntimeError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")

    said(bin / "initdb", "-D", cluster, "-k", "-N", "--wal-segsize=1", "--locale=C", "--encoding=SQL_ASCII", "-A", "trust",
         "-U", "postgres")
    with open(cluster / "postgresql.conf", "a") as config:
        config.write(SETTINGS)
    said(bin / "postgres", "--single", "-D", cluster, "postgres", input=SCHEMA)
    tar = folder / "cluster.tar"
    subprocess.run(["tar", "-cf", tar, "-C", home, f"--owner={UID}", f"--group={UID}", "--numeric-owner", "cluster"],
                   check=True)
    os.truncate(tar, (tar.stat().st_size + 0xfffff) & ~0xfffff)
    return tar


def unpack(machine: Machine, tar: str, data: str, log: str) -> None:
    machine.run(f"tar -xf {tar} -C {data} && mv {data}/cluster/pg_wal {log}/pg_wal && "
                f"ln -s {log}/pg_wal {data}/cluster/pg_wal && sync")


def start(machine: Machine, data: str) -> None:
    status, said = machine.attempt(
        f"mkdir -p /run/pg && chown {UID}:{UID} /run/pg && "
        f"{AS_USER} pg_ctl -D {data}/cluster -l /run/pg/log -w -t 600 start >/run/pg-said 2>&1", timeout=660)
    if status != 0:
        raise GuestFailed("PostgreSQL does not start: " + machine.attempt("cat /run/pg-said; tail -n 30 /run/pg/log")[1])


def stop(machine: Machine, data: str, how="fast") -> None:
    machine.run(f"{AS_USER} pg_ctl -D {data}/cluster -w -t 300 -m {how} stop", timeout=360)


def query(machine: Machine, statement: str) -> str:
    return machine.run(f"{PSQL} -F ' ' -c \"{statement}\"", timeout=300)


class Load:
    def __init__(self, machine: Machine):
        self.machine = machine
        machine.run(f"cat >/run/load <<'END'\n{LOAD}\nEND")
        self.acks: dict[int, tuple[list[int], list[int]]] = {}

    def start(self) -> None:
        for client in CLIENTS:
            self.machine.run(f"sh /run/load {client} >/dev/null 2>&1 &")
        for client in CLIENTS:
            self.machine.wait(f"test -s /run/acks.{client}", seconds=120)

    def newest_ns(self) -> int:
        """When the newest commit was noted."""
        lines = [self.machine.run(f"tail -n 1 /run/acks.{client}").split() for client in CLIENTS]
        return max(int(line[-1]) for line in lines) * 1000

    def goes_on(self, commits: int) -> None:
        for client in CLIENTS:
            before = int(self.machine.run(f"wc -l </run/acks.{client}"))
            self.machine.wait(f"test -e /run/load-failed || test $(wc -l </run/acks.{client}) -ge {before + commits}",
                              seconds=600, every=2)
        self.well()

    def well(self) -> None:
        status, said = self.machine.attempt("! test -e /run/load-failed || { cat /run/load-error.*; exit 1; }")
        if status != 0:
            raise GuestFailed(f"the load failed: {said}")

    def stop(self) -> None:
        self.machine.run("touch /run/stop")
        self.machine.wait("! grep -qs '/run/[l]oad' /proc/[0-9]*/cmdline", seconds=600, every=1)
        self.well()
        for client in CLIENTS:
            pairs = [list(map(int, line.split())) for line in self.machine.run(f"cat /run/acks.{client}").splitlines()]
            numbers = [number for number, _ in pairs]
            if numbers != list(range(1, len(pairs) + 1)):
                raise GuestFailed(f"client {client}: acknowledgements are missing")
            self.acks[client] = numbers, [time * 1000 for _, time in pairs]

    def acked(self, client: int, time_ns: int) -> int:
        """The newest that was noted at or before that moment."""
        return bisect.bisect_right(self.acks[client][1], time_ns)

    def check(self, machine: Machine, data: str, time_ns: int) -> str:
        """Of a database that runs on what was brought back of that moment; a word on what was there."""
        words = []
        for client in CLIENTS:
            acked = self.acked(client, time_ns)
            count, newest, changed, wrong = map(int, query(machine, f"""
                SELECT count(*), coalesce(max(number), 0), coalesce(sum(changed), 0), count(*) FILTER (WHERE body <> {BODY})
                FROM rows WHERE client = {client}""").split())
            total = int(query(machine, f"SELECT total FROM sums WHERE client = {client}"))
            if newest < acked:
                raise GuestFailed(f"client {client}: row {acked} was committed before the moment, and {newest} is the newest")
            if newest > acked + 1:
                raise GuestFailed(f"client {client}: row {newest} is there, and {acked} was the newest at that moment")
            if not count == newest == changed == total or wrong:
                raise GuestFailed(f"client {client}: newest {newest}, count {count}, changed {changed}, sum {total}, "
                                  f"{wrong} wrong bodies")
            words.append(f"client {client}: {acked} acknowledged, {newest} there")
        status, said = machine.attempt(f"{AS_USER} pg_amcheck -h /run/pg -d postgres --heapallindexed -t rows -t sums", 600)
        if status != 0:
            raise GuestFailed(f"pg_amcheck: {said}")
        stop(machine, data)
        status, said = machine.attempt(f"{AS_USER} pg_checksums --check -D {data}/cluster", 300)
        if status != 0:
            raise GuestFailed(f"pg_checksums: {said}")
        return "; ".join(words)
