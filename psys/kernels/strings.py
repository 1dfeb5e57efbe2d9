"""FarmHash Fingerprint64 of byte strings, one after another.

Source: Google FarmHash, ``farmhashna::Hash64`` (its frozen ``Fingerprint64``); the functions are
named after its own. All arithmetic is modulo 2**64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from psys.kernels.compiling import changes, inner, kernel, reads
from psys.kernels.memory import load_number
from psys.kernels.rows import unique_into

if TYPE_CHECKING:
    from psys.arrays import Array

_K0 = np.uint64(0xC3A5C85C97CB3127)
_K1 = np.uint64(0xB492B66FBE98F273)
_K2 = np.uint64(0x9AE16A3B2F90404F)


@inner
def _fetch64(s: Array, at: int) -> Any:
    return load_number(s, at, np.uint64(0))


@inner
def _fetch32(s: Array, at: int) -> Any:
    return np.uint64(load_number(s, at, np.uint32(0)))


@inner
def _rotate(word: Any, bits: int) -> Any:
    """Return the word rotated right."""
    return (word >> np.uint64(bits)) | (word << np.uint64(64 - bits))


@inner
def _shift_mix(word: Any) -> Any:
    return word ^ (word >> np.uint64(47))


@inner
def _hash_len_16(low: Any, high: Any, mul: Any) -> Any:
    a = _shift_mix((low ^ high) * mul)
    return _shift_mix((high ^ a) * mul) * mul


@inner
def _hash_len_0_to_16(s: Array, at: int, n: int) -> Any:
    length = np.uint64(n)
    mul = _K2 + length * np.uint64(2)
    if n >= 8:
        a, b = _fetch64(s, at) + _K2, _fetch64(s, at + n - 8)
        return _hash_len_16(_rotate(b, 37) * mul + a, (_rotate(a, 25) + b) * mul, mul)
    if n >= 4:
        low = length + (_fetch32(s, at) << np.uint64(3))
        return _hash_len_16(low, _fetch32(s, at + n - 4), mul)
    if n > 0:
        y = np.uint64(s[at]) + (np.uint64(s[at + (n >> 1)]) << np.uint64(8))
        z = length + (np.uint64(s[at + n - 1]) << np.uint64(2))
        return _shift_mix((y * _K2) ^ (z * _K0)) * _K2
    return _K2


@inner
def _hash_len_17_to_32(s: Array, at: int, n: int) -> Any:
    mul = _K2 + np.uint64(n) * np.uint64(2)
    end = at + n
    a, b = _fetch64(s, at) * _K1, _fetch64(s, at + 8)
    c, d = _fetch64(s, end - 8) * mul, _fetch64(s, end - 16) * _K2
    return _hash_len_16(_rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + _K2, 18) + c, mul)


@inner
def _hash_len_33_to_64(s: Array, at: int, n: int) -> Any:
    mul = _K2 + np.uint64(n) * np.uint64(2)
    end = at + n
    a, b = _fetch64(s, at) * _K2, _fetch64(s, at + 8)
    c, d = _fetch64(s, end - 8) * mul, _fetch64(s, end - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _hash_len_16(y, a + _rotate(b + _K2, 18) + c, mul)
    e, f = _fetch64(s, at + 16) * mul, _fetch64(s, at + 24)
    g = (y + _fetch64(s, end - 32)) * mul
    h = (z + _fetch64(s, end - 24)) * mul
    return _hash_len_16(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, mul)


@inner
def _weak_hash_32(s: Array, at: int, a: Any, b: Any) -> Any:
    """Return two words from 32 bytes and two seeds (``WeakHashLen32WithSeeds``)."""
    w, x, y, z = _fetch64(s, at), _fetch64(s, at + 8), _fetch64(s, at + 16), _fetch64(s, at + 24)
    a += w
    b = _rotate(b + a + z, 21)
    c = a
    a += x + y
    return a + z, b + _rotate(a, 44) + c


@inner
def _hash_over_64(s: Array, at: int, n: int) -> Any:
    seed = np.uint64(81)
    x = seed * _K2 + _fetch64(s, at)
    y = seed * _K1 + np.uint64(113)
    z = _shift_mix(y * _K2 + np.uint64(113)) * _K2
    v0, v1, w0, w1 = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    mul, times, end = _K1, np.uint64(1), at + n
    last = at + (n - 1) // 64 * 64
    while True:
        x = _rotate(x + y + v0 + _fetch64(s, at + 8), 37) * mul
        y = _rotate(y + v1 + _fetch64(s, at + 48), 42) * mul
        x ^= w1 * times
        y += v0 * times + _fetch64(s, at + 40)
        z = _rotate(z + w0, 33) * mul
        v0, v1 = _weak_hash_32(s, at, v1 * mul, x + w0)
        w0, w1 = _weak_hash_32(s, at + 32, z + w1, y + _fetch64(s, at + 16))
        z, x = x, z
        if times == np.uint64(9):
            break
        at += 64
        if at == last:
            # The last 64 bytes, which may overlap the block before, are mixed another way.
            at, times = end - 64, np.uint64(9)
            mul = _K1 + ((z & np.uint64(0xFF)) << np.uint64(1))
            w0 += np.uint64((n - 1) & 63)
            v0 += w0
            w0 += v0
    return _hash_len_16(
        _hash_len_16(v0, w0, mul) + _shift_mix(y) * _K0 + z, _hash_len_16(v1, w1, mul) + x, mul
    )


@inner
def _bytes_in(word: Any) -> Any:
    """Return how many bytes a word has without the NULs that come last."""
    n = np.uint64(0)
    for k in range(8):
        n += np.uint64(word >> np.uint64(8 * k) != 0)
    return n


@inner
def _byte(word: Any, number: Any) -> Any:
    # Shifted by less than 64, whatever the number: what else comes out is never used.
    return (word >> (number * np.uint64(8) & np.uint64(63))) & np.uint64(0xFF)


@inner
def _hash_word(word: Any) -> Any:
    """Return what ``_hash_len_0_to_16`` does of a string of at most 8 bytes, given as one word.

    Each case is computed and one chosen: nobody can guess how long the next string will be, and
    where a processor guesses wrong it could have computed all of them.
    """
    n, eight = _bytes_in(word), np.uint64(8)
    mul = _K2 + n * np.uint64(2)
    a = word + _K2
    of_8 = _hash_len_16(_rotate(word, 37) * mul + a, (_rotate(a, 25) + word) * mul, mul)
    low = n + ((word & np.uint64(0xFFFFFFFF)) << np.uint64(3))
    last_4 = (word >> ((n - np.uint64(4)) * eight & np.uint64(63))) & np.uint64(0xFFFFFFFF)
    of_4_to_7 = _hash_len_16(low, last_4, mul)
    y = (word & np.uint64(0xFF)) + (_byte(word, n >> np.uint64(1)) << eight)
    z = n + (_byte(word, n - np.uint64(1)) << np.uint64(2))
    of_1_to_3 = _shift_mix((y * _K2) ^ (z * _K0)) * _K2
    longer = of_8 if n == eight else of_4_to_7
    any_length = longer if n >= np.uint64(4) else of_1_to_3
    return any_length if n > np.uint64(0) else _K2


@inner
def _length(s: Array, at: int, width: int) -> int:
    """Return the length of the string at ``at``: up to its last byte that is not NUL."""
    n = width
    while n >= 8:
        word = _fetch64(s, at + n - 8)
        if word != 0:
            return n - 8 + int(_bytes_in(word))
        n -= 8
    while n > 0 and s[at + n - 1] == 0:
        n -= 1
    return n


@inner
def _hash(s: Array, at: int, n: int) -> Any:
    if n <= 16:
        return _hash_len_0_to_16(s, at, n)
    if n <= 32:
        return _hash_len_17_to_32(s, at, n)
    if n <= 64:
        return _hash_len_33_to_64(s, at, n)
    return _hash_over_64(s, at, n)


@inner
def _hash_all(strings: Array, at: int, width: int, hashes: Array) -> int:
    """Hash strings of ``width`` bytes from ``at`` on; return how many are empty.

    By their place: a view of each string would cost more than its hash.
    """
    empty = 0
    if width == 8:
        for i in range(len(hashes)):
            word = _fetch64(strings, at + 8 * i)
            empty += word == 0
            hashes[i] = _hash_word(word)
    elif width < 8:
        for i in range(len(hashes)):
            word = np.uint64(0)
            for k in range(width):
                word |= np.uint64(strings[at + i * width + k]) << np.uint64(8 * k)
            empty += word == 0
            hashes[i] = _hash_word(word)
    else:
        for i in range(len(hashes)):
            n = _length(strings, at + i * width, width)
            empty += n == 0
            hashes[i] = _hash(strings, at + i * width, n)
    return empty


@kernel(reads(1, "uint8"), reads(0, "int64"), changes(1, "uint64"))
def fingerprint64(strings: Array, width: int, hashes: Array) -> None:
    """Hash strings of ``width`` bytes, which lie one after another."""
    _hash_all(strings, 0, width, hashes)


@kernel(reads(1, "uint8"), reads(0, "int64"), reads(0, "uint64"), changes(1, "int64"))
def hash_buckets(strings: Array, width: int, buckets: int, ids: Array) -> int:
    """Write ``fingerprint64 mod buckets`` of each string; return how many are empty."""
    hashes = np.empty(len(ids), np.uint64)
    empty = _hash_all(strings, 0, width, hashes)
    for i in range(len(ids)):
        ids[i] = np.int64(hashes[i] % buckets)
    return empty


@kernel(
    reads(1, "uint8"),
    reads(0, "int64"),
    reads(1, "uint64"),
    changes(2, "int64"),
    changes(1, "int64"),
    changes(2, "int64"),
    changes(2, "int64"),
    changes(1, "int64"),
)
def hash_columns(
    strings: Array,
    width: int,
    buckets: Array,
    ids: Array,
    empty: Array,
    found: Array,
    inverse: Array,
    counts: Array,
) -> None:
    """Do for each row of ``ids`` what ``hash_buckets`` does, and then what ``unique`` does.

    Its strings lie one after another.
    """
    rows = ids.shape[1]
    hashes = np.empty(rows, np.uint64)
    for column in range(len(ids)):
        own, modulus = ids[column], buckets[column]
        empty[column] = _hash_all(strings, column * rows * width, width, hashes)
        for i in range(rows):
            own[i] = np.int64(hashes[i] % modulus)
        counts[column] = unique_into(own, found[column], inverse[column])
