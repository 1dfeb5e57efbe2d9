"""Fingerprint64 against FarmHash as published, one string at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psys.errors import ModelError
from psys.kernels import fingerprint64, hash_buckets, hash_columns

MASK = (1 << 64) - 1
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def one_by_one(s: bytes) -> int:
    """FarmHash ``farmhashna::Hash64`` as published, on one string, with Python integers."""

    def fetch(at: int, size: int = 8) -> int:
        assert 0 <= at <= len(s) - size
        return int.from_bytes(s[at : at + size], "little")

    def rotate(x: int, bits: int) -> int:
        x &= MASK
        return ((x >> bits) | (x << (64 - bits))) & MASK

    def mix(x: int) -> int:
        x &= MASK
        return x ^ (x >> 47)

    def hash16(u: int, v: int, mul: int) -> int:
        a = mix((u ^ v) * mul)
        return mix((v ^ a) * mul) * mul & MASK

    def weak(at: int, a: int, b: int) -> tuple[int, int]:
        w, x, y, z = (fetch(at + i) for i in (0, 8, 16, 24))
        a = (a + w) & MASK
        b = rotate(b + a + z, 21)
        c = a
        a = (a + x + y) & MASK
        return (a + z) & MASK, (b + rotate(a, 44) + c) & MASK

    n = len(s)
    mul = (K2 + n * 2) & MASK
    if n == 0:
        return K2
    if n <= 3:
        y, z = s[0] + (s[n >> 1] << 8), n + (s[-1] << 2)
        return mix(y * K2 & MASK ^ z * K0 & MASK) * K2 & MASK
    if n <= 7:
        return hash16((n + (fetch(0, 4) << 3)) & MASK, fetch(n - 4, 4), mul)
    if n <= 16:
        a, b = (fetch(0) + K2) & MASK, fetch(n - 8)
        c, d = (rotate(b, 37) * mul + a) & MASK, (rotate(a, 25) + b) * mul & MASK
        return hash16(c, d, mul)
    if n <= 32:
        a, b = fetch(0) * K1 & MASK, fetch(8)
        c, d = fetch(n - 8) * mul & MASK, fetch(n - 16) * K2 & MASK
        first = (rotate(a + b, 43) + rotate(c, 30) + d) & MASK
        return hash16(first, (a + rotate(b + K2, 18) + c) & MASK, mul)
    if n <= 64:
        a, b = fetch(0) * K2 & MASK, fetch(8)
        c, d = fetch(n - 8) * mul & MASK, fetch(n - 16) * K2 & MASK
        y = (rotate(a + b, 43) + rotate(c, 30) + d) & MASK
        z = hash16(y, (a + rotate(b + K2, 18) + c) & MASK, mul)
        e, f = fetch(16) * mul & MASK, fetch(24)
        g, h = (y + fetch(n - 32)) * mul & MASK, (z + fetch(n - 24)) * mul & MASK
        first = (rotate(e + f, 43) + rotate(g, 30) + h) & MASK
        return hash16(first, (e + rotate(f + a, 18) + g) & MASK, mul)
    x = (81 * K2 + fetch(0)) & MASK
    y = (81 * K1 + 113) & MASK
    z = mix(y * K2 + 113) * K2 & MASK
    v = w = (0, 0)
    for at in range(0, (n - 1) // 64 * 64, 64):
        x = rotate(x + y + v[0] + fetch(at + 8), 37) * K1 & MASK
        y = rotate(y + v[1] + fetch(at + 48), 42) * K1 & MASK
        x ^= w[1]
        y = (y + v[0] + fetch(at + 40)) & MASK
        z = rotate(z + w[0], 33) * K1 & MASK
        v = weak(at, v[1] * K1, x + w[0])
        w = weak(at + 32, z + w[1], y + fetch(at + 16))
        z, x = x, z
    mul = (K1 + ((z & 0xFF) << 1)) & MASK
    at = n - 64
    w = (w[0] + ((n - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    x = rotate(x + y + v[0] + fetch(at + 8), 37) * mul & MASK
    y = rotate(y + v[1] + fetch(at + 48), 42) * mul & MASK
    x ^= w[1] * 9 & MASK
    y = (y + v[0] * 9 + fetch(at + 40)) & MASK
    z = rotate(z + w[0], 33) * mul & MASK
    v = weak(at, v[1] * mul, x + w[0])
    w = weak(at + 32, z + w[1], y + fetch(at + 16))
    z, x = x, z
    first = (hash16(v[0], w[0], mul) + mix(y) * K0 + z) & MASK
    return hash16(first, (hash16(v[1], w[1], mul) + x) & MASK, mul)


# numpy's fixed-width bytes cannot end in NUL.
STRINGS = st.binary(max_size=300).map(lambda s: s.rstrip(b"\0"))


@settings(max_examples=60)
@given(st.lists(STRINGS, max_size=20))
@example([])
@example([b""])
@example([bytes(range(1, n)) for n in range(1, 200)])
def test_whole_arrays_hash_as_one_string_after_the_other(strings: list[bytes]) -> None:
    hashed = fingerprint64(np.array(strings, "S"))
    assert hashed.dtype == np.uint64
    assert hashed.tolist() == [one_by_one(s) for s in strings]


def test_any_shape_and_any_memory_layout() -> None:
    strings = np.array([[b"a", b"hello world", b""], [b"x" * 70, b"b", b"omar"]])
    expected = [[one_by_one(s) for s in row] for row in strings.tolist()]
    assert fingerprint64(strings).tolist() == expected
    assert fingerprint64(strings.T).tolist() == np.array(expected, np.uint64).T.tolist()
    assert fingerprint64(strings[:, ::2]).tolist() == [row[::2] for row in expected]


@settings(max_examples=60)
@given(st.lists(STRINGS, min_size=1, max_size=20), st.integers(1, 2**63 - 1))
def test_buckets_are_hashes_modulo_their_number(strings: list[bytes], buckets: int) -> None:
    array = np.array(strings, "S")
    hashes = [one_by_one(s) for s in strings]
    expected = [n % buckets for n in hashes]
    ids, empty = hash_buckets(array, buckets)
    assert (ids.dtype, ids.tolist(), empty) == (np.int64, expected, strings.count(b""))
    columns = hash_columns(np.stack([array, array]), [buckets, 7])
    assert [one.ids.tolist() for one in columns] == [expected, [n % 7 for n in hashes]]
    for one in columns:
        found, inverse = np.unique(one.ids, return_inverse=True)
        assert (one.unique.tolist(), one.inverse.tolist()) == (found.tolist(), inverse.tolist())
        assert one.empty == empty


@pytest.mark.parametrize("buckets", [0, -1, 2**63])
def test_there_is_no_such_number_of_buckets(buckets: int) -> None:
    with pytest.raises(ModelError, match="1 to 2"):
        hash_buckets(np.array([b"a"]), buckets)
    with pytest.raises(ModelError, match="1 to 2"):
        hash_columns(np.array([[b"a"]]), [buckets])


def test_each_column_has_its_buckets() -> None:
    with pytest.raises(ModelError, match="2 columns, 1"):
        hash_columns(np.array([[b"a"], [b"b"]]), [5])
