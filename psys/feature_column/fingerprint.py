r"""FarmHash Fingerprint64 of many byte strings at once, as TF's string hashing computes it.

Strings come as a fixed-width array (dtype ``S<width>``) and are hashed in groups by length
class, each group by whole-array arithmetic; only strings over 64 bytes loop, once for each
64-byte block. numpy drops trailing NUL bytes of such arrays, so ``b"a\0"`` hashes as ``b"a"``.
Nothing here knows about columns or missing values.

Source: Google FarmHash, ``farmhashna::Hash64`` (its frozen ``Fingerprint64``).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from psys.arrays import Array

Words = npt.NDArray[np.uint64]

_K0 = np.uint64(0xC3A5C85C97CB3127)
_K1 = np.uint64(0xB492B66FBE98F273)
_K2 = np.uint64(0x9AE16A3B2F90404F)
_1, _2, _3, _8, _9 = (np.uint64(number) for number in (1, 2, 3, 8, 9))
_47, _63, _64, _113 = (np.uint64(number) for number in (47, 63, 64, 113))


def fingerprint64(strings: Array) -> Words:
    """Return the Fingerprint64 of each string, uint64, in the shape of ``strings``.

    Args:
        strings: byte strings of any shape, dtype ``S<width>``.
    """
    flat = np.ascontiguousarray(strings).reshape(-1)
    reader = _Reader(flat)
    lengths = np.char.str_len(flat).astype(np.int64)
    if not len(flat):
        return np.empty(strings.shape, np.uint64)
    shortest, longest = int(lengths.min()), int(lengths.max())
    with np.errstate(over="ignore"):
        for first, last, hash_group in _GROUPS:
            if first <= shortest and longest <= last:
                everything = np.arange(len(flat)) * reader.width
                return hash_group(reader, everything, lengths).reshape(strings.shape)
        result = np.empty(len(flat), np.uint64)
        for first, last, hash_group in _GROUPS:
            if first > longest or last < shortest:
                continue
            (members,) = np.nonzero((lengths >= first) & (lengths <= last))
            if len(members):
                result[members] = hash_group(reader, members * reader.width, lengths[members])
    return result.reshape(strings.shape)


class _Reader:
    """Reads little-endian numbers at any byte position of a fixed-width array.

    FarmHash reads only inside a string, so no position leaves the array.
    """

    def __init__(self, strings: Array) -> None:
        self.width = strings.dtype.itemsize
        self._bytes = strings.view(np.uint8)
        self._longs = self._overlapping("<u8")
        self._ints = self._overlapping("<u4")

    def _overlapping(self, dtype: str) -> Array:
        count = max(0, len(self._bytes) - np.dtype(dtype).itemsize + 1)
        return np.ndarray((count,), dtype, self._bytes, strides=(1,))

    def longs(self, positions: Array) -> Words:
        """Return the 8 bytes at each position as uint64."""
        return cast(Words, self._longs[positions])

    def ints(self, positions: Array) -> Words:
        """Return the 4 bytes at each position as uint64."""
        return cast(Words, self._ints[positions].astype(np.uint64))

    def bytes(self, positions: Array) -> Words:
        """Return the byte at each position as uint64."""
        return cast(Words, self._bytes[positions].astype(np.uint64))


def _rotate(words: Words, bits: int) -> Words:
    """Return each word rotated right."""
    return (words >> np.uint64(bits)) | (words << np.uint64(64 - bits))


def _shift_mix(words: Words) -> Words:
    return words ^ (words >> _47)


def _hash_16(low: Words, high: Words, mul: Words) -> Words:
    """Return the hash of two words (``HashLen16``)."""
    a = _shift_mix((low ^ high) * mul)
    return _shift_mix((high ^ a) * mul) * mul


def _hash_0(reader: _Reader, starts: Array, lengths: Array) -> Words:  # noqa: ARG001
    return np.full(len(starts), _K2)


def _hash_1_to_3(reader: _Reader, starts: Array, lengths: Array) -> Words:
    first = reader.bytes(starts)
    middle = reader.bytes(starts + (lengths >> 1))
    last = reader.bytes(starts + lengths - 1)
    y = first + (middle << _8)
    z = lengths.astype(np.uint64) + (last << _2)
    return _shift_mix((y * _K2) ^ (z * _K0)) * _K2


def _hash_4_to_7(reader: _Reader, starts: Array, lengths: Array) -> Words:
    length = lengths.astype(np.uint64)
    low = length + (reader.ints(starts) << _3)
    return _hash_16(low, reader.ints(starts + lengths - 4), _K2 + length * _2)


def _hash_8_to_16(reader: _Reader, starts: Array, lengths: Array) -> Words:
    mul = _K2 + lengths.astype(np.uint64) * _2
    a = reader.longs(starts) + _K2
    b = reader.longs(starts + lengths - 8)
    return _hash_16(_rotate(b, 37) * mul + a, (_rotate(a, 25) + b) * mul, mul)


def _hash_17_to_32(reader: _Reader, starts: Array, lengths: Array) -> Words:
    mul = _K2 + lengths.astype(np.uint64) * _2
    ends = starts + lengths
    a = reader.longs(starts) * _K1
    b = reader.longs(starts + 8)
    c = reader.longs(ends - 8) * mul
    d = reader.longs(ends - 16) * _K2
    return _hash_16(
        _rotate(a + b, 43) + _rotate(c, 30) + d,
        a + _rotate(b + _K2, 18) + c,
        mul,
    )


def _hash_33_to_64(reader: _Reader, starts: Array, lengths: Array) -> Words:
    mul = _K2 + lengths.astype(np.uint64) * _2
    ends = starts + lengths
    a = reader.longs(starts) * _K2
    b = reader.longs(starts + 8)
    c = reader.longs(ends - 8) * mul
    d = reader.longs(ends - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _hash_16(y, a + _rotate(b + _K2, 18) + c, mul)
    e = reader.longs(starts + 16) * mul
    f = reader.longs(starts + 24)
    g = (y + reader.longs(ends - 32)) * mul
    h = (z + reader.longs(ends - 24)) * mul
    return _hash_16(
        _rotate(e + f, 43) + _rotate(g, 30) + h,
        e + _rotate(f + a, 18) + g,
        mul,
    )


def _weak_hash_32(reader: _Reader, at: Array, a: Words, b: Words) -> tuple[Words, Words]:
    """Return two words from 32 bytes and two seeds (``WeakHashLen32WithSeeds``)."""
    first, second, third, fourth = (reader.longs(at + offset) for offset in (0, 8, 16, 24))
    a = a + first
    b = _rotate(b + a + fourth, 21)
    c = a
    a = a + second + third
    return a + fourth, b + _rotate(a, 44) + c


class _LongState:
    """The state of the hash of strings over 64 bytes, between two blocks of 64 bytes."""

    def __init__(self, first: Words) -> None:
        seed = np.full(len(first), 81, np.uint64)
        self.x = seed * _K2 + first
        self.y = seed * _K1 + _113
        self.z = _shift_mix(self.y * _K2 + _113) * _K2
        self.v = self.w = (np.zeros_like(seed), np.zeros_like(seed))

    def block(self, reader: _Reader, at: Array, mul: Words | np.uint64, times: np.uint64) -> None:
        """Mix in the 64 bytes at ``at``; the last block is mixed with another ``times``."""
        x, y, z, v, w = self.x, self.y, self.z, self.v, self.w
        x = _rotate(x + y + v[0] + reader.longs(at + 8), 37) * mul
        y = _rotate(y + v[1] + reader.longs(at + 48), 42) * mul
        x = x ^ (w[1] * times)
        y = y + v[0] * times + reader.longs(at + 40)
        z = _rotate(z + w[0], 33) * mul
        self.v = _weak_hash_32(reader, at, v[1] * mul, x + w[0])
        self.w = _weak_hash_32(reader, at + 32, z + w[1], y + reader.longs(at + 16))
        self.x, self.y, self.z = z, y, x

    def only(self, running: Array) -> _LongState:
        """Return the state of the strings that ``running`` (a mask) keeps."""
        part = object.__new__(_LongState)
        part.x, part.y, part.z = self.x[running], self.y[running], self.z[running]
        part.v = (self.v[0][running], self.v[1][running])
        part.w = (self.w[0][running], self.w[1][running])
        return part

    def put(self, running: Array, part: _LongState) -> None:
        """Write back what ``only`` took out."""
        self.x[running], self.y[running], self.z[running] = part.x, part.y, part.z
        for mine, theirs in zip(self.v + self.w, part.v + part.w, strict=True):
            mine[running] = theirs


def _hash_over_64(reader: _Reader, starts: Array, lengths: Array) -> Words:
    state = _LongState(reader.longs(starts))
    blocks = (lengths - 1) // 64
    for number in range(int(blocks.max())):
        running = blocks > number
        if running.all():
            state.block(reader, starts + 64 * number, _K1, _1)
        else:
            part = state.only(running)
            part.block(reader, starts[running] + 64 * number, _K1, _1)
            state.put(running, part)
    mul = _K1 + ((state.z & np.uint64(0xFF)) << _1)
    w = state.w[0] + ((lengths - 1) & 63).astype(np.uint64)
    v = state.v[0] + w
    state.v, state.w = (v, state.v[1]), (w + v, state.w[1])
    state.block(reader, starts + lengths - 64, mul, _9)
    return _hash_16(
        _hash_16(state.v[0], state.w[0], mul) + _shift_mix(state.y) * _K0 + state.z,
        _hash_16(state.v[1], state.w[1], mul) + state.x,
        mul,
    )


_GROUPS = (
    (0, 0, _hash_0),
    (1, 3, _hash_1_to_3),
    (4, 7, _hash_4_to_7),
    (8, 16, _hash_8_to_16),
    (17, 32, _hash_17_to_32),
    (33, 64, _hash_33_to_64),
    (65, 1 << 62, _hash_over_64),
)
"""Length classes: shortest, longest, hash of a group (positions and lengths in bytes)."""
