"""Compile every kernel now: ``python -m psys.kernels``, when an image is built for example."""

from __future__ import annotations

import time

import numpy as np

from psys.kernels import floats, rows, strings, updates
from psys.kernels.compiling import Kernel, cache_directory


def main() -> None:
    """Compile what is not kept yet, and say where that is."""
    begun = time.perf_counter()
    found = [one for module in (floats, rows, strings, updates) for one in vars(module).values()]
    kernels = [one for one in found if isinstance(one, Kernel)]
    for one in kernels:
        one.prepare(np.dtype(np.float32))
        one.prepare(np.dtype(np.float64))
    seconds = time.perf_counter() - begun
    print(f"{len(kernels)} kernels are kept in {cache_directory()}; this took {seconds:.1f} s.")


if __name__ == "__main__":
    main()
