"""Loops over the bits of floating-point numbers: 16 bits for 32, and back.

float32 comes as uint32 and the 16-bit forms as uint16, bit for bit. Narrowing rounds to the
nearest, a tie to the even; a NaN stays a NaN, too large a number becomes infinite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from psys.kernels.compiling import changes, kernel, reads

if TYPE_CHECKING:
    from psys.arrays import Array


@kernel(reads(1, "uint32"), changes(1, "uint16"))
def to_bfloat16(bits: Array, halves: Array) -> None:
    """Keep the upper half of each float32, rounded."""
    for i in range(len(bits)):
        b = bits[i]
        if b & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
            halves[i] = np.uint16(b >> np.uint32(16)) | np.uint16(0x40)
        else:
            odd = (b >> np.uint32(16)) & np.uint32(1)
            halves[i] = np.uint16(np.uint32(b + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@kernel(reads(1, "uint16"), changes(1, "uint32"))
def from_bfloat16(halves: Array, bits: Array) -> None:
    """Write zeros below each bfloat16."""
    for i in range(len(halves)):
        bits[i] = np.uint32(halves[i]) << np.uint32(16)


@kernel(reads(1, "uint32"), changes(1, "uint16"))
def to_float16(bits: Array, halves: Array) -> None:
    """Move exponent and mantissa; what is below 2⁻¹⁴ is rounded by an addition of floats."""
    smallest_normal = np.uint32(113 << 23)
    too_large = np.uint32(143 << 23)
    infinity = np.uint32(255 << 23)
    magic = np.uint32(126 << 23)  # 0.5: its last bit is worth 2⁻²⁴, the least float16
    for i in range(len(bits)):
        sign = bits[i] & np.uint32(0x80000000)
        b = np.uint32(bits[i] ^ sign)
        odd = (b >> np.uint32(13)) & np.uint32(1)
        normal = np.uint32(b + odd + np.uint32(0xFFF) - np.uint32(112 << 23)) >> np.uint32(13)
        rounded = np.float32(b.view(np.float32) + magic.view(np.float32))
        small = np.uint32(rounded.view(np.uint32) - magic)
        half = small if b < smallest_normal else normal
        if b >= too_large:
            half = np.uint32(0x7E00) if b > infinity else np.uint32(0x7C00)
        halves[i] = np.uint16(half | (sign >> np.uint32(16)))


@kernel(reads(1, "uint16"), changes(1, "uint32"))
def from_float16(halves: Array, bits: Array) -> None:
    """Move exponent and mantissa, and scale: exact, below 2⁻¹⁴ too."""
    scale = np.uint32((254 - 15) << 23)  # 2¹¹²
    for i in range(len(halves)):
        h = np.uint32(halves[i])
        moved = np.uint32((h & np.uint32(0x7FFF)) << np.uint32(13))
        scaled = np.float32(moved.view(np.float32) * scale.view(np.float32))
        b = scaled.view(np.uint32)
        if h & np.uint32(0x7C00) == np.uint32(0x7C00):  # infinite or NaN: all ones again
            b = moved | np.uint32(0x7F800000)
        bits[i] = b | ((h & np.uint32(0x8000)) << np.uint32(16))
