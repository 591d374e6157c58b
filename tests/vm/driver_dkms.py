#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What DKMS is given builds as DKMS would: the installed sources alone, by the words of dkms.conf, make the
module for the kernel that is named, where dkms.conf says it is, and are as before when cleaned."""
import pathlib
import re
import subprocess
import sys
import tempfile

import driver
import kernels
import toolchain
from machine import BUILD


def main() -> int:
    kernel = driver.kernel_or_skip("6.1")
    headers = kernels.headers(kernel)
    with tempfile.TemporaryDirectory(prefix="herald-dkms-") as work:
        subprocess.run(["cmake", "--install", str(BUILD), "--component", "driver_source", "--prefix", work], check=True,
                       stdout=subprocess.DEVNULL)
        (source,) = pathlib.Path(work).glob("src/*")
        said = dict(re.findall(r'^([A-Z_]+)(?:\[0\])?="(.*)"$', (source / "dkms.conf").read_text(), re.M))
        if source.name != f"{said['PACKAGE_NAME']}-{said['PACKAGE_VERSION']}":
            raise AssertionError(f"{source.name} is not the name and version that dkms.conf has: {said}")
        before = sorted(source.rglob("*"))
        built = source / said["BUILT_MODULE_LOCATION"] / f"{said['BUILT_MODULE_NAME']}.ko"
        tools = toolchain.of(kernel)
        for words in (said["MAKE"], said["CLEAN"]):
            done = tools.run(["sh", "-c", f"cd {source} && kernel_source_dir={headers} && {words}"],
                             (kernels.root_of(headers), pathlib.Path(work)))
            if done.returncode != 0:
                raise AssertionError(f"{words}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
            if words == said["MAKE"] and kernel.release.encode() not in built.read_bytes():
                raise AssertionError(f"{built} is not for {kernel.release}")
        if sorted(source.rglob("*")) != before:
            raise AssertionError(f"not clean: {set(source.rglob('*')) ^ set(before)}")
        print(f"{source.name}: {built.name} for {kernel.release}, and clean again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
