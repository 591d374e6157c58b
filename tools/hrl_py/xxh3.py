# SPDX-License-Identifier: Apache-2.0
"""XXH3-64 with seed 0, after the description of the algorithm that comes with xxHash.

Promise: xxh3_64(data) is the number that XXH3_64bits() returns, for every length.
"""
import struct

_MASK = (1 << 64) - 1
_PRIME32_1, _PRIME32_2, _PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_PRIME64_1, _PRIME64_2, _PRIME64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_PRIME64_4, _PRIME64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_MIX_SHORT, _MIX_FINAL = 0x9FB21C651E98DF25, 0x165667919E3779F9

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")

_STRIPE, _STRIPES_PER_BLOCK = 64, (len(_SECRET) - 64) // 8
_BLOCK = _STRIPE * _STRIPES_PER_BLOCK
_STRIPE_KEYS = [struct.unpack_from("<8Q", _SECRET, 8 * n) for n in range(_STRIPES_PER_BLOCK)]
_SCRAMBLE_KEYS = struct.unpack_from("<8Q", _SECRET, len(_SECRET) - 64)
_LAST_KEYS = struct.unpack_from("<8Q", _SECRET, len(_SECRET) - 64 - 7)


def _r32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def _r64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def _fold(a, b):
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def _avalanche(h):
    h ^= h >> 37
    h = h * _MIX_FINAL & _MASK
    return h ^ h >> 32


def _avalanche_64(h):
    h ^= h >> 33
    h = h * _PRIME64_2 & _MASK
    h ^= h >> 29
    h = h * _PRIME64_3 & _MASK
    return h ^ h >> 32


def _rotate(h, bits):
    return (h << bits | h >> 64 - bits) & _MASK


def _mix16(data, at, secret_at):
    return _fold(_r64(data, at) ^ _r64(_SECRET, secret_at),
                 _r64(data, at + 8) ^ _r64(_SECRET, secret_at + 8))


def _short(data, size):
    if size == 0:
        return _avalanche_64(_r64(_SECRET, 56) ^ _r64(_SECRET, 64))
    if size <= 3:
        combined = data[0] << 16 | data[size >> 1] << 24 | data[size - 1] | size << 8
        return _avalanche_64(combined ^ _r32(_SECRET, 0) ^ _r32(_SECRET, 4))
    if size <= 8:
        h = (_r32(data, size - 4) + (_r32(data, 0) << 32)) ^ _r64(_SECRET, 8) ^ _r64(_SECRET, 16)
        h ^= _rotate(h, 49) ^ _rotate(h, 24)
        h = h * _MIX_SHORT & _MASK
        h ^= (h >> 35) + size
        h = h * _MIX_SHORT & _MASK
        return h ^ h >> 28
    low = _r64(data, 0) ^ _r64(_SECRET, 24) ^ _r64(_SECRET, 32)
    high = _r64(data, size - 8) ^ _r64(_SECRET, 40) ^ _r64(_SECRET, 48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return _avalanche((size + swapped + high + _fold(low, high)) & _MASK)


def _middle(data, size):
    h = size * _PRIME64_1
    if size <= 128:
        for i in range((size - 1) // 32 + 1):
            h += _mix16(data, 16 * i, 32 * i) + _mix16(data, size - 16 * (i + 1), 32 * i + 16)
        return _avalanche(h & _MASK)
    for i in range(8):
        h += _mix16(data, 16 * i, 16 * i)
    h = _avalanche(h & _MASK)
    for i in range(8, size // 16):
        h += _mix16(data, 16 * i, 16 * (i - 8) + 3)
    return _avalanche(h + _mix16(data, size - 16, 136 - 17) & _MASK)


def _accumulate(lanes, data, at, keys):
    words = struct.unpack_from("<8Q", data, at)
    for i in range(8):
        keyed = words[i] ^ keys[i]
        lanes[i ^ 1] += words[i]
        lanes[i] += (keyed & 0xFFFFFFFF) * (keyed >> 32)
    for i in range(8):
        lanes[i] &= _MASK


def _long(data, size):
    lanes = [_PRIME32_3, _PRIME64_1, _PRIME64_2, _PRIME64_3, _PRIME64_4, _PRIME32_2, _PRIME64_5,
             _PRIME32_1]
    blocks = (size - 1) // _BLOCK
    for block in range(blocks):
        for stripe in range(_STRIPES_PER_BLOCK):
            _accumulate(lanes, data, block * _BLOCK + stripe * _STRIPE, _STRIPE_KEYS[stripe])
        for i in range(8):
            lane = lanes[i]
            lanes[i] = (lane ^ lane >> 47 ^ _SCRAMBLE_KEYS[i]) * _PRIME32_1 & _MASK
    for stripe in range((size - 1 - blocks * _BLOCK) // _STRIPE):
        _accumulate(lanes, data, blocks * _BLOCK + stripe * _STRIPE, _STRIPE_KEYS[stripe])
    _accumulate(lanes, data, size - _STRIPE, _LAST_KEYS)
    h = size * _PRIME64_1
    for i in range(4):
        h += _fold(lanes[2 * i] ^ _r64(_SECRET, 11 + 16 * i),
                   lanes[2 * i + 1] ^ _r64(_SECRET, 19 + 16 * i))
    return _avalanche(h & _MASK)


def xxh3_64(data):
    """The checksum of a bytes-like object, as a number below 2^64."""
    size = len(data)
    if size <= 16:
        return _short(data, size)
    return _middle(data, size) if size <= 240 else _long(data, size)
