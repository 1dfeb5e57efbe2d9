"""The three workloads, as numbers and as data; nothing here imports psys or TF.

A: 13 numbers and 26 strings, hashed into 100,000 buckets each and embedded in 16; a network of
[256, 128, 64]. B: one column of 784 numbers; [1024, 512, 256]; 10 classes. C: a linear model of
26 strings hashed into 1,000,000 buckets each. The strings are decimal numbers drawn from Zipf's
law (exponent 1.2), kept as fixed-width bytes: what a program has after it read its data once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ZIPF_EXPONENT = 1.2
LARGEST_ID = 10**7
BATCHES = 64


@dataclass(frozen=True)
class Workload:
    """What a model reads and how large it is."""

    name: str
    batch_size: int
    numbers: int
    number_width: int
    strings: int
    buckets: int
    hidden_units: tuple[int, ...]
    classes: int
    optimizer: str
    learning_rate: float
    dimension: int = 16

    @property
    def is_linear(self) -> bool:
        return not self.hidden_units

    @property
    def number_names(self) -> list[str]:
        return [f"number_{index:02}" for index in range(self.numbers)]

    @property
    def string_names(self) -> list[str]:
        return [f"string_{index:02}" for index in range(self.strings)]


WORKLOADS = {
    one.name: one
    for one in (
        Workload("A", 512, 13, 1, 26, 100_000, (256, 128, 64), 2, "Adagrad", 0.05),
        Workload("B", 128, 1, 784, 0, 0, (1024, 512, 256), 10, "Adagrad", 0.05),
        # 1 / sqrt(26), tf.estimator's own choice for a linear model of 26 columns.
        Workload("C", 512, 0, 0, 26, 1_000_000, (), 2, "Ftrl", 26**-0.5),
    )
}


def make_data(workload: Workload) -> dict[str, Any]:
    """Return ``BATCHES`` batches: numbers ``[n, columns * width]``, strings ``[n, columns]``."""
    generator = np.random.default_rng(7)
    rows = BATCHES * workload.batch_size
    data: dict[str, Any] = {}
    score = generator.standard_normal(rows)
    if workload.numbers:
        width = workload.numbers * workload.number_width
        data["numbers"] = generator.standard_normal((rows, width), np.float32)
        score += data["numbers"][:, 0]
    if workload.strings:
        ids = generator.zipf(ZIPF_EXPONENT, (rows, workload.strings)) % LARGEST_ID
        data["strings"] = ids.astype("S8")
        score += (ids[:, 0] % 7) - 3.0
    order = np.argsort(np.argsort(score))
    data["labels"] = (order * workload.classes // rows).astype(np.int64)
    return data


def load_data(workload: Workload, folder: Path) -> dict[str, Any]:
    """Return the data, made the first time and kept as ``.npz``: all read the same bytes."""
    path = folder / f"{workload.name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{workload.name}.{os.getpid()}.npz"
        np.savez(partial, **make_data(workload))
        partial.rename(path)
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def columns_of(workload: Workload, data: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Return some rows as one array a feature: what a model's feature columns name."""
    width = workload.number_width
    features = {
        name: data["numbers"][rows, i * width : (i + 1) * width]
        for i, name in enumerate(workload.number_names)
    }
    for i, name in enumerate(workload.string_names):
        features[name] = data["strings"][rows, i]
    return features
