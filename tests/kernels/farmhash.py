"""FarmHash as published, with Python integers: the oracle of tests and benchmarks."""

from __future__ import annotations

MASK = (1 << 64) - 1
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def one_by_one(s: bytes) -> int:
    """Return ``farmhashna::Hash64`` of one string."""

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
