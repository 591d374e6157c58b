# SPDX-License-Identifier: Apache-2.0
"""The sealing of a file (docs/formats/hrl.md, "Sealing"): its key and its tags."""
import hashlib
import hmac
import struct

from layout import Damaged

_INFO = b"herald hrl 3 segment key"
_HEADER_USE, _BLOCK_USE, _TAIL_USE = 1, 2, 3


class NoCryptography(Exception):
    """The package `cryptography` is not installed."""


def _gcm(key):
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise NoCryptography(
            "sealed files need Python's cryptography package (Debian: python3-cryptography)"
        ) from None
    return AESGCM(key)


def hkdf_sha256(key, salt, info, size):
    """RFC 5869, extract and expand."""
    pseudo_random_key = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    out, last = b"", b""
    for counter in range(1, (size + 31) // 32 + 1):
        last = hmac.new(pseudo_random_key, last + info + bytes([counter]), hashlib.sha256).digest()
        out += last
    return out[:size]


class Sealing:
    """Opens what the file with this header sealed under this machine key (32 bytes)."""

    def __init__(self, header, machine_key):
        self.header = header
        self.gcm = _gcm(hkdf_sha256(machine_key, header.segment + header.seal,
                                    _INFO + header.machine + header.disk + header.key_id, 32))

    def _open(self, use, number, sealed, associated, what):
        from cryptography.exceptions import InvalidTag
        try:
            return self.gcm.decrypt(struct.pack("<IQ", use, number), sealed, associated)
        except InvalidTag:
            raise Damaged(what) from None

    def check_header(self):
        self._open(_HEADER_USE, 0, self.header.tag, self.header.raw[:232], "header_tag")

    def check_tail(self, tail, tag):
        self._open(_TAIL_USE, 0, tag, tail, "the tail-tag")

    def open_block(self, block_header, seal_header, sealed, plain, tag):
        number = struct.unpack_from("<I", seal_header, 32)[0]
        associated = (b"HBLK" + struct.pack("<I", 3) + self.header.machine + self.header.disk +
                      block_header[8:32] + seal_header + plain)
        return self._open(_BLOCK_USE, number, sealed + tag, associated, "the tag of a block")
