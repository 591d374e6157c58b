#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page for two real hosts, typed as it stands, on hosts with their own systemd, network and files; then what
happens to real ones: a link that loses and delays, one that is cut, a replicator killed while it holds a
freeze, and restarts of the units."""
import json
import sys
import time

from docs import run_page
from hosts import Hosts, skip_without_hosts
from rig import seeded, wait_until

NFTABLES = """flush ruleset
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
    }
}
"""


class Site:
    """web1 protected by backup, seen from desk."""

    def __init__(self, hosts: Hosts):
        self.hosts = hosts
        self.backup, self.web1, self.desk = hosts["backup"], hosts["web1"], hosts["desk"]
        self.disk, self.spare = hosts.add_disk(256), hosts.add_disk(256)

    def prepare(self):
        """What the page's reader has before it begins."""
        self.web1.run(f"mkfs.ext4 -q {self.disk}; mkdir /data; mount {self.disk} /data; echo kept >/data/a-file-of-web1")
        self.backup.file("/etc/nftables.conf").write_text(NFTABLES)
        self.backup.run("nft -f /etc/nftables.conf")

    def status(self) -> dict:
        return json.loads(self.web1.run(f"cbtctl status {self.disk} --json").stdout)

    def write(self, name: str, mib: int):
        self.web1.run(f"head -c {mib}M /dev/urandom >/data/{name}; sync /data/{name}")

    def tag(self, name: str) -> tuple[str, str]:
        """A point's id, and what an independent program saw while the disk was frozen."""
        out = self.web1.run(f"cbtctl tag {self.disk} --name {name} --json --while-frozen "
                            f"'dd if={self.disk} iflag=direct bs=4M status=none | sha256sum >/root/{name}.sum'")
        return json.loads(out.stdout)["point"]["id"], self.web1.run(f"cat /root/{name}.sum").stdout.split()[0]

    def check(self, name: str):
        point, was = self.tag(name)
        out = self.desk.run(f"herald restore {self.disk} --point {point} --to /srv/{name}.img --sha256 --json; rm /srv/{name}.img")
        got = json.loads(out.stdout)["sha256"]
        assert got == was, f"point {name}: restored {got}, the source was {was}"

    def wait_protected(self, seconds=120):
        wait_until(lambda: self.status()["state"] == "protected", seconds, "protected", poll=0.3)


def bad_network(site: Site):
    wire = site.hosts.wire
    wire.loss, wire.delay_s = 0.02, 0.03
    began, lost = time.monotonic(), wire.lost
    site.write("through-a-bad-network", 8)
    site.check("bad-network")
    wire.loss = wire.delay_s = 0
    assert wire.lost > lost, "the wire lost nothing"
    print(f"2 % of the packets lost, 60 ms there and back: point exact after {time.monotonic() - began:.1f} s, "
          f"{wire.lost - lost} packets lost", flush=True)


def cut_link(site: Site):
    site.hosts.cut("web1")
    site.write("written-while-cut", 4)  # the protected disk does not wait
    said = wait_until(lambda: (s := site.status())["state"] != "protected" and s["cause"] and s, 90,
                      "the status says that the server is away", poll=0.5)
    assert said["remedy"], f"no remedy: {said}"
    assert said["todo_blocks"] + said["in_flight_blocks"] + said["live_blocks"] > 0, f"nothing is marked dirty: {said}"
    print(f"cut: {said['state']}: {said['cause']}", flush=True)
    refused = site.web1.run(f"cbtctl tag {site.disk} --name never --timeout 15", check=False)
    assert refused.returncode != 0 and refused.stderr, f"a point while cut: {refused.stdout}{refused.stderr}"
    site.write("written-after-the-refusal", 1)  # it is thawed
    later = site.status()
    assert later["backlog_age_s"] > said["backlog_age_s"], f"the backlog does not age: {later}"
    site.hosts.mend()
    site.wait_protected()
    site.check("after-cut")
    print("mended: protected again by itself, point exact", flush=True)


def killed_while_frozen(site: Site):
    refused = site.web1.run(f"cbtctl tag {site.disk} --while-frozen 'systemctl kill --signal KILL herald-replicator; sleep 1'",
                            check=False)
    assert refused.returncode != 0, f"a point of a killed replicator: {refused.stdout}"
    site.write("after-the-guardian", 1)  # would wait for the thaw
    said = site.web1.run("journalctl --no-pager -o cat -u herald-guardian").stdout
    assert "thaw" in said, f"the guardian does not say that it thawed: {said}"
    wait_until(lambda: site.web1.run("cbtctl list --json", check=False).returncode == 0, 30, "systemd starts it again")
    site.wait_protected()
    site.check("after-kill")
    print("replicator killed in a freeze: thawed by the guardian's unit, started again, point exact", flush=True)


def restarted_units(site: Site):
    site.web1.run("systemctl restart herald-guardian herald-replicator")
    site.write("while-it-starts", 1)
    site.backup.run("systemctl restart herald-process-server")
    site.wait_protected()
    site.check("after-restarts")
    said = site.web1.run("journalctl --no-pager -o cat -u herald-replicator").stdout
    for words in ("digest compare", "were removed"):
        assert words not in said, f"a restart of the unit lost the tracker's pins:\n{said}"
    site.web1.run("systemctl stop herald-replicator herald-guardian")
    site.backup.run("systemctl stop herald-process-server")
    for host, unit in (("web1", "herald-replicator"), ("web1", "herald-guardian"), ("backup", "herald-process-server")):
        result = site.hosts[host].run(f"systemctl show --property Result --value {unit}").stdout.strip()
        assert result == "success", f"{unit} on {host} ended with {result}"
    print("units restarted without a gap, and stopped cleanly", flush=True)


def main() -> int:
    skip_without_hosts()
    random = seeded()
    with Hosts({"backup": "192.0.2.10", "web1": "198.51.100.7"}, people={"desk": "198.51.100.20"},
               names={"backup": "backup.example.net"}, seed=random.getrandbits(32)) as hosts:
        site = Site(hosts)
        site.prepare()
        disks = {"/dev/sda": site.disk, "/dev/sdb": site.spare}
        run_page("docs/operating/two_hosts.md", hosts, "desk", disks)
        printed = run_page("docs/operating/restore.md", hosts, "desk", disks)
        assert "a-file-of-web1" in printed, "the restored image does not show what was on the disk:\n" + printed
        hosts["desk"].run(f"mount -o ro,noload {site.spare} /mnt; test -e /mnt/a-file-of-web1; umount /mnt")
        bad_network(site)
        cut_link(site)
        killed_while_frozen(site)
        restarted_units(site)
        hosts["web1"].run("umount /data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
