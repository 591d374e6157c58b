#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/README.md links every page of docs, and no link of any page in the tree leads nowhere."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


def links(page: pathlib.Path):
    """The files that a page links to; not what is on the web."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.S | re.M)
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:"):
            yield target, (page.parent / target).resolve()


def main() -> int:
    wrong = []
    pages = sorted(DOCS.rglob("*.md"))
    index = DOCS / "README.md"
    linked = {path for _, path in links(index)}
    wrong += [f"docs/README.md does not link {page.relative_to(DOCS)}" for page in pages
              if page != index and page not in linked]
    checked = [ROOT / "README.md", *pages] + [page for top in ("user", "kernel", "tools", "tests")
                                              for page in sorted((ROOT / top).rglob("*.md"))]
    count = 0
    for page in checked:
        for target, path in links(page):
            count += 1
            if not path.exists():
                wrong.append(f"{page.relative_to(ROOT)}: {target} is not there")
    if count < 30 or index not in {path for _, path in links(ROOT / "README.md")}:
        wrong.append("README.md does not link docs/README.md, or hardly anything was found")
    for line in wrong:
        print(line)
    print(f"{len(pages)} pages, {count} links, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
