"""Compile every kernel now: ``python -m psys.kernels``, when an image is built for example."""

from __future__ import annotations

import time

import numpy as np

from psys.kernels.compiling import cache_directory
from psys.kernels.updates import UPDATES


def main() -> None:
    """Compile what is not in the cache yet, and say where that is."""
    begun = time.perf_counter()
    for update in UPDATES.values():
        for dtype in ("float32", "float64"):
            update[np.dtype(dtype)]
    print(f"{len(UPDATES)} kernels in {cache_directory()}, {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
