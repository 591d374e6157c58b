#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Dependencies point one way: every #include and every DEPS line obeys the table below."""
import pathlib
import re
import sys

# folder -> folders it may include from (besides itself and include/)
BASE = {"user/base"}
LEAVES = {"user/seal", "user/hrl", "user/wire", "user/store", "user/tracker", "user/agent"}
ALLOWED = {
    "include": set(),
    "kernel/core": set(),
    "kernel/ebpf_tracker": set(),
    "kernel/linux_cbt": {"kernel/core"},
    "user/base": set(),
    "user/seal": BASE,
    "user/hrl": BASE | {"user/seal"},
    "user/hrl_library": BASE | {"user/seal", "user/hrl"},
    "user/wire": BASE,
    "user/store": BASE,
    "user/tracker": BASE | {"kernel/core", "kernel/ebpf_tracker"},
    "user/agent": BASE,
    "user/vault": BASE | {"user/seal", "user/hrl", "user/wire", "user/store"},
    "user/replicator": BASE | LEAVES,
    "user/process_server": BASE | {"user/seal", "user/hrl", "user/wire", "user/store", "user/vault"},
    "tools/hrl": BASE | {"user/hrl", "user/seal"},
    "tools/cbtctl": BASE | {"user/agent", "user/tracker", "user/wire", "kernel/core"},
    "tools/herald": BASE | {"user/seal", "user/hrl", "user/wire", "user/vault", "user/store"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)


def folder_of(path: str):
    for folder in ALLOWED:
        if path == folder or path.startswith(folder + "/"):
            return folder
    return None


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    wrong = []
    checked = 0
    for top in ("include", "kernel", "user", "tools"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in (".h", ".hpp", ".c", ".cpp"):
                continue
            name = file.relative_to(root).as_posix()
            own = folder_of(name)
            if own is None:
                wrong.append(f"{name}: its folder is not in the table of {__file__}")
                continue
            checked += 1
            for included in INCLUDE.findall(file.read_text()):
                if included.startswith("herald/"):
                    continue
                if included.startswith("../"):
                    # As kernel code names what is outside its folder.
                    included = (file.parent / included).resolve().relative_to(root).as_posix()
                target = folder_of(included)
                if target is None:
                    # Generated headers, and private headers beside the file.
                    if (file.parent / included).exists() or included.endswith((".skel.h", "vmlinux.h", "probed.h")):
                        continue
                    wrong.append(f"{name}: includes {included}, which is in no known folder")
                elif target not in (own, "include") and target not in ALLOWED[own]:
                    wrong.append(f"{name}: {own} may not include {included}")
    print(f"{checked} files checked, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    return 1 if wrong or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
