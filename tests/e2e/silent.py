#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An idle disk whose machine is cut off does not stay `protected` at the server: it turns silent, by name, and
back by itself. The same after the server's own restart: what was not heard since is not vouched for.
And a disk that is gone while its replicator runs and reaches the server is not `protected`, here or there."""
import json
import os
import signal
import sys
import time

from rig import Rig, run, seeded, skip_unless_possible, wait_until

# The least that may be configured: one look of an idle replicator, and a second.
SILENT_AFTER_S = 31


def main() -> int:
    skip_unless_possible()
    seeded()
    with Rig(size_mib=64, mounted=False, server_config=f"[limits]\nsilent_after_seconds = {SILENT_AFTER_S}") as rig:
        def disk() -> dict:
            return json.loads(rig.herald("disks", "--json").stdout)["disks"][0]

        def turns(state: str, seconds: int) -> dict:
            return wait_until(lambda: (lambda d: d if d["state"] == state else None)(disk()), seconds,
                              f"the disk is {state} at the server")

        rig.start()
        rig.protect()
        turns("protected", 10)
        replicator = rig.processes["replicator"]
        replicator.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            silent = turns("silent", SILENT_AFTER_S + 20)
            print(f"silent {time.monotonic() - began:.0f} s after the stop: {silent['cause']}")
            if silent["unheard_ms"] < SILENT_AFTER_S * 1000 or not silent["last_heard"]:
                raise AssertionError(f"not so long unheard: {silent}")
            if "nothing was heard" not in silent["cause"] or "protected" not in silent["cause"]:
                raise AssertionError("the cause does not say what is and what was")
            table = rig.herald("disks").stdout
            if "silent" not in table or "LAST HEARD" not in table or silent["cause"][:30] not in table:
                raise AssertionError(f"people do not see it:\n{table}")
            # Not known is not protected: a restarted server has heard nobody yet.
            rig.kill("server", signal.SIGTERM)
            rig.start_server()
            fresh = disk()
            if fresh["state"] != "silent" or fresh["last_heard"] is not None:
                raise AssertionError(f"a server that just started vouches for a disk: {fresh}")
            print(f"after the server's restart: {fresh['cause']}")
        finally:
            replicator.send_signal(signal.SIGCONT)
        began = time.monotonic()
        back = turns("protected", 60)
        print(f"protected {time.monotonic() - began:.1f} s after it goes on, last heard {back['unheard_ms']} ms ago")

        # Its medium goes, as of a disk that is pulled out.
        os.truncate(rig.source, 0)
        run("losetup", "-c", rig.loop)
        began = time.monotonic()
        mine = wait_until(lambda: (lambda s: s if s["state"] == "degraded" else None)(rig.status()), 30,
                          "the replicator says that the disk is gone")
        gone = turns("silent", SILENT_AFTER_S + 20)
        print(f"gone: {mine['cause']}; silent at the server {time.monotonic() - began:.0f} s later, {gone['cause']}")
        if "no medium" not in mine["cause"] or not mine["remedy"]:
            raise AssertionError(f"the cause does not say what is wrong: {mine}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
