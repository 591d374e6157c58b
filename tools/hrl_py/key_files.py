# SPDX-License-Identifier: Apache-2.0
"""Root keys and machine keys (docs/formats/keys.md). Tokens are not read here: they need their module."""
import hashlib
import hmac
import os
import re
import stat
import uuid

from sealing import NoCryptography, hkdf_sha256

FILE_BYTES_MIN, FILE_BYTES_MAX = 72, 4096  # the line of the digest alone; docs/formats/keys.md
PASSPHRASE_BYTES_MAX = 1024


class KeyTrouble(Exception):
    """A key file that cannot be used; says which and why."""


class NewerKeyFile(KeyTrouble):
    """One of a version that this reader does not know."""


def _fields(path, first_line):
    with open(path, "rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if not FILE_BYTES_MIN <= len(data) <= FILE_BYTES_MAX:
        raise KeyTrouble(f"{path}: no key file has this size")
    if re.search(rb"[^\n -~]", data):
        raise KeyTrouble(f"{path}: not a key file")
    # The version first: what a newer one's digest covers is its own business.
    name, _, version = first_line.rpartition(" ")
    first = data.split(b"\n", 1)[0].decode("ascii")
    if first != first_line:
        if first.startswith(name + " ") and len(first) > len(name) + 1:
            raise NewerKeyFile(f"{path}: {name} version {first[len(name) + 1:]}, not {version}")
        raise KeyTrouble(f"{path}: not a {name} file")
    match = re.fullmatch(rb"(.*\n)sha256 ([0-9a-f]{64})\n", data, re.DOTALL)
    if not match or hashlib.sha256(match[1]).hexdigest().encode() != match[2]:
        raise KeyTrouble(f"{path}: damaged (its sha256 line does not fit)")
    lines = match[1].decode("ascii").split("\n")[:-1]
    return [tuple(line.split(" ", 1)) if " " in line else (line, "") for line in lines[1:]]


def _expect(path, fields, names):
    if [name for name, _ in fields] != names:
        raise KeyTrouble(f"{path}: its fields are not {', '.join(names)}")
    return [value for _, value in fields]


def _id(path, value):
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != value or parsed.int == 0:
        raise KeyTrouble(f"{path}: '{value}' is no id")
    return parsed.bytes


def _hex(path, value, size):
    if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
        raise KeyTrouble(f"{path}: {size} bytes in hex are wanted")
    return bytes.fromhex(value)


def _private(path):
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o177:
        raise KeyTrouble(f"{path}: must be a regular file that is yours alone (chmod 600)")


def read_secret(path):
    """The first line of a file that is nobody else's: a passphrase, as bytes."""
    _private(path)
    with open(path, "rb") as file:
        data = file.read(PASSPHRASE_BYTES_MAX + 2)
    line = data.split(b"\n", 1)[0]
    if len(data) > PASSPHRASE_BYTES_MAX + 1 or not 1 <= len(line) <= PASSPHRASE_BYTES_MAX:
        raise KeyTrouble(f"{path}: its first line is empty or too long")
    return line


def _scrypt(path, value, passphrase, salt):
    match = re.fullmatch(r"([1-9][0-9]*) 8 1", value)
    cost = int(match[1]) if match else 0
    if not 16384 <= cost <= 1048576 or cost & (cost - 1):
        raise KeyTrouble(f"{path}: scrypt {value} is out of bounds")
    return hashlib.scrypt(passphrase, salt=salt, n=cost, r=8, p=1, dklen=32,
                          maxmem=(cost + 1024) * 1024 + (1 << 20))


def read_root_key(path, passphrase=None):
    """(root id, 32 bytes of root key). passphrase: bytes, for a root key that needs one."""
    fields = _fields(path, "herald-root-key 1")
    source = dict(fields).get("source")
    if source == "file":
        _private(path)
        root, _, key, check = _expect(path, fields, ["root", "source", "key", "check"])
        key = _hex(path, key, 32)
    elif source == "passphrase":
        root, _, cost, salt, check = _expect(path, fields,
                                             ["root", "source", "scrypt", "salt", "check"])
        if passphrase is None:
            raise KeyTrouble(f"{path}: needs its passphrase")
        key = _scrypt(path, cost, passphrase, _hex(path, salt, 16))
    elif source == "token":
        raise KeyTrouble(f"{path}: its root key is on a PKCS#11 token, which this reader does not use: "
                         "read the file with hrl, or --blind")
    else:
        raise KeyTrouble(f"{path}: no root key comes from '{source}'")
    root = _id(path, root)
    wanted = hkdf_sha256(key, root, b"herald root key check", 16)
    if not hmac.compare_digest(wanted, _hex(path, check, 16)):
        raise KeyTrouble(f"{path}: the wrong passphrase or a mistyped key")
    return root, key


def read_machine_key(path, root):
    """(machine, key id, 32 bytes of machine key), unwrapped by root = (root id, root key)."""
    try:
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
    except ImportError:
        raise NoCryptography("keys need Python's cryptography package") from None
    values = _expect(path, _fields(path, "herald-machine-key 1"),
                     ["machine", "key", "root", "wrapped"])
    machine, key_id, root_id = (_id(path, value) for value in values[:3])
    if root_id != root[0]:
        raise KeyTrouble(f"{path}: wrapped by another root key, {values[2]}")
    try:
        plain = aes_key_unwrap(root[1], _hex(path, values[3], 72))
    except InvalidUnwrap:
        raise KeyTrouble(f"{path}: does not unwrap: damaged, or the wrong root key") from None
    if plain[:16] != machine or plain[16:32] != key_id:
        raise KeyTrouble(f"{path}: its ids are not those of the key in it")
    return machine, key_id, plain[32:]
