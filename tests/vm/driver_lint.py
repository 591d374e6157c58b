#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sparse and checkpatch.pl have nothing to say of the driver. And they would: a source with a fault for
each is given to them first."""
import pathlib
import sys
import tempfile

import driver
import module

FAULTY = r"""// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/uaccess.h>
int undeclared;
static int __init lint_init(void)
{
    return *(int __user *)0x1000;
}
module_init(lint_init);
MODULE_DESCRIPTION("Faults for sparse and checkpatch");
MODULE_LICENSE("GPL");
"""


def is_noticed(kernel) -> None:
    with tempfile.TemporaryDirectory(dir=module.CACHE, prefix="building-") as work:
        folder = pathlib.Path(work)
        (folder / "lint.c").write_text(FAULTY)
        (folder / "Kbuild").write_text("obj-m := lint.o\n")
        found = {"sparse": module.sparse(kernel, folder), "checkpatch": module.checkpatch(folder)}
    for tool, words in (("sparse", "was not declared"), ("sparse", "dereference of noderef"),
                        ("checkpatch", "LEADING_SPACE")):
        if not any(words in row for row in found[tool]):
            raise AssertionError(f"{tool} did not notice '{words}': {found[tool]}")
    print("faults for sparse and checkpatch: noticed", flush=True)


def main() -> int:
    kernel = driver.kernel_or_skip("6.1")
    is_noticed(kernel)
    found = module.sparse(kernel) + module.checkpatch()
    print("\n".join(found) or "sparse and checkpatch: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
