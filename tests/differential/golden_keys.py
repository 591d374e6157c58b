# SPDX-License-Identifier: Apache-2.0
"""The golden key files (tests/golden/keys) as both readers open them; docs/formats/keys.md."""
import pathlib
import shutil
import subprocess
import uuid

from key_files import KeyTrouble, read_machine_key, read_root_key

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden/keys"
PHRASE = b"correct horse battery staple"
MACHINE, KEY_ID, KEY = b"\x11" * 16, b"\x77" * 16, bytes(range(32))
# Root id, and the bytes of the root key where the file or a passphrase gives them.
ROOTS = {"file": (b"\x21" * 16, bytes(range(0x20, 0x40))), "passphrase": (b"\x22" * 16, None), "token": (b"\x23" * 16, None)}
TOKEN_KEY = bytes(range(0x60, 0x80))


def compare_golden_keys(peer, folder):
    """The first difference as text, or None. folder: an empty one, for files as they must be: nobody else's."""
    found = sorted(path.name for path in GOLDEN.glob("*.*") if path.suffix != ".md")
    if found != sorted(f"{name}.{end}" for name in ROOTS for end in ("root", "key")):
        return f"{GOLDEN}: these are not the golden key files: {', '.join(found)}"
    secret = folder / "phrase.secret"
    secret.write_bytes(PHRASE + b"\n")
    for name in found:
        shutil.copy(GOLDEN / name, folder / name)
    for path in folder.iterdir():
        path.chmod(0o600)
    for name, (root_id, root_key) in ROOTS.items():
        key_path = folder / f"{name}.key"
        try:
            root = read_root_key(folder / f"{name}.root", PHRASE)
        except KeyTrouble as trouble:
            if name != "token" or "PKCS#11 token" not in str(trouble):
                return f"golden {name}.root: {trouble}"
            root = (root_id, TOKEN_KEY)
        if root[0] != root_id or root_key not in (None, root[1]):
            return f"golden {name}.root: Python reads another root key: {uuid.UUID(bytes=root[0])}"
        try:
            opened = read_machine_key(key_path, root)
        except KeyTrouble as trouble:
            return f"golden {name}.key: {trouble}"
        if opened != (MACHINE, KEY_ID, KEY):
            return f"golden {name}.key: Python reads another machine key"
        if name == "token":
            continue  # the C++ reader wants the token itself: tests/unit/seal/token_test.cpp
        said = subprocess.run([peer, "unwrap"], input=f"{folder}/{name}.root|{key_path}|{secret}\n", capture_output=True,
                              text=True, check=True).stdout.strip()
        if said != f"{uuid.UUID(bytes=MACHINE)} {uuid.UUID(bytes=KEY_ID)} {KEY.hex()}":
            return f"golden {name}.key: C++ says {said}"
    return None
