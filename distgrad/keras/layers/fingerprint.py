"""Hashes of texts that give the numbers of TensorFlow's, on every machine.

``murmur`` is Appleby's MurmurHash64A (tf.strings.to_hash_bucket), ``farmhash`` is Fingerprint64 of
Google's FarmHash (to_hash_bucket_fast), ``siphash`` is SipHash-2-4 of Aumasson and Bernstein
(to_hash_bucket_strong).
"""

from __future__ import annotations

from collections.abc import Sequence

_WORD = 2**64 - 1
_MURMUR = 0xC6A4A7935BD1E995
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def _turned(value: int, right: int) -> int:
    value &= _WORD
    return (value >> right) | (value << (64 - right)) & _WORD


def _shifted(value: int) -> int:
    value &= _WORD
    return value ^ (value >> 47)


def _word(text: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(text[at : at + size], "little")


def _joined(u: int, v: int, times: int) -> int:
    a = _shifted((u ^ v) * times)
    b = _shifted((v ^ a) * times)
    return b * times & _WORD


def farmhash(text: bytes) -> int:
    """The fingerprint of a text, a number of 64 bits."""
    n = len(text)
    if n > 64:
        return _long(text)
    times = _K2 + n * 2
    if n > 16:
        a, b = _word(text, 0) * (_K2 if n > 32 else _K1), _word(text, 8)
        c, d = _word(text, n - 8) * times, _word(text, n - 16) * _K2
        y = _turned(a + b, 43) + _turned(c, 30) + d
        if n <= 32:
            return _joined(y & _WORD, (a + _turned(b + _K2, 18) + c) & _WORD, times)
        z = _joined(y & _WORD, (a + _turned(b + _K2, 18) + c) & _WORD, times)
        e, f = _word(text, 16) * times, _word(text, 24)
        g, h = (y + _word(text, n - 32)) * times, (z + _word(text, n - 24)) * times
        first = _turned(e + f, 43) + _turned(g, 30) + h
        return _joined(first & _WORD, (e + _turned(f + a, 18) + g) & _WORD, times)
    if n >= 8:
        a, b = _word(text, 0) + _K2, _word(text, n - 8)
        c, d = _turned(b, 37) * times + a, (_turned(a, 25) + b) * times
        return _joined(c & _WORD, d & _WORD, times)
    if n >= 4:
        return _joined(n + (_word(text, 0, 4) << 3), _word(text, n - 4, 4), times)
    if n:
        y, z = text[0] + (text[n >> 1] << 8), n + (text[n - 1] << 2)
        return _shifted(y * _K2 ^ z * _K0) * _K2 & _WORD
    return _K2


def _weak(text: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_word(text, at + 8 * i) for i in range(4))
    a += w
    b = _turned(b + a + z, 21)
    c = a
    a += x + y
    b += _turned(a, 44)
    return (a + z) & _WORD, (b + c) & _WORD


def _long(text: bytes) -> int:
    n = len(text)
    y = 81 * _K1 + 113
    z = _shifted(y * _K2 + 113) * _K2
    v, w = (0, 0), (0, 0)
    x = 81 * _K2 + _word(text, 0)

    def mixed(at: int, times: int, more: int) -> None:
        nonlocal x, y, z, v, w
        x = _turned(x + y + v[0] + _word(text, at + 8), 37) * times & _WORD
        y = _turned(y + v[1] + _word(text, at + 48), 42) * times
        x ^= w[1] * more & _WORD
        y = (y + v[0] * more + _word(text, at + 40)) & _WORD
        z = _turned(z + w[0], 33) * times & _WORD
        v = _weak(text, at, v[1] * times, x + w[0])
        w = _weak(text, at + 32, z + w[1], y + _word(text, at + 16))
        z, x = x, z

    for at in range(0, (n - 1) // 64 * 64, 64):
        mixed(at, _K1, 1)
    times = _K1 + ((z & 0xFF) << 1)
    w = (w[0] + ((n - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    mixed(n - 64, times, 9)
    first = _joined(v[0], w[0], times) + _shifted(y) * _K0 + z
    return _joined(first & _WORD, (_joined(v[1], w[1], times) + x) & _WORD, times)


def siphash(text: bytes, key: Sequence[int]) -> int:
    """The hash of a text under a key of two numbers, a number of 64 bits."""
    low, high = (word & _WORD for word in key)
    a, b = low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D
    c, d = low ^ 0x6C7967656E657261, high ^ 0x7465646279746573

    def rounds(count: int) -> None:
        nonlocal a, b, c, d
        for _ in range(count):
            a, c = (a + b) & _WORD, (c + d) & _WORD
            b, d = _turned(b, 51) ^ a, _turned(d, 48) ^ c
            a = _turned(a, 32)
            a, c = (a + d) & _WORD, (c + b) & _WORD
            b, d = _turned(b, 47) ^ c, _turned(d, 43) ^ a
            c = _turned(c, 32)

    whole = len(text) // 8 * 8
    last = _word(text, whole) | (len(text) & 0xFF) << 56
    for word in (*(_word(text, at) for at in range(0, whole, 8)), last):
        d ^= word
        rounds(2)
        a ^= word
    c ^= 0xFF
    rounds(4)
    return a ^ b ^ c ^ d


def murmur(text: bytes) -> int:
    """The hash of a text that TensorFlow calls Hash64, a number of 64 bits."""
    found = 0xDECAFCAFFE ^ len(text) * _MURMUR & _WORD
    for at in range(0, len(text), 8):
        word = _word(text, at)  # the last of fewer bytes
        whole = at + 8 <= len(text)
        found = (found ^ (_shifted(word * _MURMUR) * _MURMUR if whole else word)) * _MURMUR & _WORD
    return _shifted(_shifted(found) * _MURMUR)


def joined(first: int, second: int) -> int:
    """One fingerprint of two numbers of 64 bits, in this order: TensorFlow's FingerprintCat64."""
    mixed = _shifted((second & _WORD) * _MURMUR) * _MURMUR
    number = ((first ^ _MURMUR) ^ mixed) & _WORD
    return _shifted(_shifted(number * _MURMUR) * _MURMUR)
