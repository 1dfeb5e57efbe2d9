"""How a variable's first value is made: on the shard that holds it, slice by slice.

A value depends on the seed, the variable's name and the row alone, so a model starts the
same on any number of ps. Random rows are drawn in blocks of ``BLOCK_ROWS``, each block from
a generator of its own. Nothing here does I/O.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from psys.errors import ModelError

__all__ = [
    "Constant",
    "GlorotUniform",
    "Initializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
]

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Initializer(ABC):
    """Makes rows ``[start, stop)`` of a variable. Subclasses say how."""

    kind: ClassVar[str] = ""

    @abstractmethod
    def rows(
        self, name: str, shape: tuple[int, ...], dtype: str, start: int, stop: int, seed: int
    ) -> npt.NDArray[Any]:
        """Return rows ``[start, stop)`` of the variable, ``[stop - start, ...]``.

        Args:
            name: the variable's name.
            shape: the whole variable's shape, ``(rows, ...)`` or ``()``.
            dtype: its dtype name.
            start: first row.
            stop: one past the last row.
            seed: the job's seed.
        """

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; ``from_config`` reads it back."""
        return {"kind": self.kind, **self.__dict__}


@dataclass(frozen=True)
class Constant(Initializer):
    """Every element is ``value``."""

    kind: ClassVar[str] = "constant"
    value: float = 0.0

    def rows(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        start: int,
        stop: int,
        seed: int,
    ) -> npt.NDArray[Any]:
        """Return ``[stop - start, ...]`` filled with ``value``."""
        return np.full((stop - start, *shape[1:]), self.value, dtype)


@dataclass(frozen=True)
class Random(Initializer):
    """A distribution drawn block by block; ``draw`` says which."""

    @abstractmethod
    def draw(
        self, generator: np.random.Generator, shape: tuple[int, ...], whole: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """Return ``shape`` numbers; ``whole`` is the whole variable's shape."""

    def rows(
        self, name: str, shape: tuple[int, ...], dtype: str, start: int, stop: int, seed: int
    ) -> npt.NDArray[Any]:
        """Return rows ``[start, stop)``, drawn from the blocks that cover them."""
        result = np.empty((stop - start, *shape[1:]), dtype)
        total = shape[0] if shape else 1
        key = zlib.crc32(name.encode())
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first, last = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, total)
            generator = np.random.Generator(np.random.SFC64([seed & 0xFFFFFFFF, key, block]))
            drawn = self.draw(generator, (last - first, *shape[1:]), shape)
            low, high = max(first, start), min(last, stop)
            result[low - start : high - start] = drawn[low - first : high - first]
        return result


@dataclass(frozen=True)
class RandomUniform(Random):
    """Uniform in ``[minval, maxval)``."""

    kind: ClassVar[str] = "random_uniform"
    minval: float = -0.05
    maxval: float = 0.05

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        whole: tuple[int, ...],
    ) -> npt.NDArray[Any]:
        """Return uniform numbers."""
        unit = generator.random(shape, np.float32)
        return unit * np.float32(self.maxval - self.minval) + np.float32(self.minval)


@dataclass(frozen=True)
class RandomNormal(Random):
    """Normal with ``mean`` and ``stddev``."""

    kind: ClassVar[str] = "random_normal"
    mean: float = 0.0
    stddev: float = 0.05

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        whole: tuple[int, ...],
    ) -> npt.NDArray[Any]:
        """Return normal numbers."""
        return generator.standard_normal(shape, np.float32) * np.float32(self.stddev) + np.float32(
            self.mean
        )


@dataclass(frozen=True)
class TruncatedNormal(Random):
    """Normal, with what falls beyond two standard deviations drawn again (TF's rule)."""

    kind: ClassVar[str] = "truncated_normal"
    mean: float = 0.0
    stddev: float = 1.0

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        whole: tuple[int, ...],
    ) -> npt.NDArray[Any]:
        """Return truncated normal numbers."""
        numbers = generator.standard_normal(shape, np.float32)
        flat = numbers.reshape(-1)
        outside = np.flatnonzero(np.abs(flat) > 2)
        while len(outside):
            flat[outside] = generator.standard_normal(len(outside), np.float32)
            outside = outside[np.abs(flat[outside]) > 2]
        numbers *= np.float32(self.stddev)
        numbers += np.float32(self.mean)
        return numbers


@dataclass(frozen=True)
class GlorotUniform(Random):
    """Uniform in ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""

    kind: ClassVar[str] = "glorot_uniform"

    def draw(
        self, generator: np.random.Generator, shape: tuple[int, ...], whole: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """Return uniform numbers; ``whole[-2]`` is the fan-in, ``whole[-1]`` the fan-out."""
        fan_in = whole[-2] if len(whole) > 1 else (whole[0] if whole else 1)
        fan_out = whole[-1] if whole else 1
        limit = np.float32(np.sqrt(6.0 / max(fan_in + fan_out, 1)))
        return (generator.random(shape, np.float32) * 2 - 1) * limit


_KINDS: dict[str, type[Initializer]] = {
    cls.kind: cls for cls in (Constant, RandomUniform, RandomNormal, TruncatedNormal, GlorotUniform)
}


def from_config(config: Mapping[str, Any]) -> Initializer:
    """Return the initializer that ``to_config`` described.

    Raises:
        ModelError: if the kind is not one this version knows, or an argument is not its own.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ModelError(f"Unknown initializer {kind!r}; known: {sorted(_KINDS)}.")
    try:
        return _KINDS[kind](**arguments)
    except TypeError as error:
        raise ModelError(f"Initializer {kind!r}: {error}.") from error
