"""A run of a model_fn in evaluation or prediction: values are read, nothing is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psys.arrays import Array
from psys.compute.store import VariableStore, check_ids, unique_ids
from psys.errors import ModelError
from psys.initializers import Initializer


class ReadStore(VariableStore):
    """Reads each variable once a run, and of a table only the rows that are looked up."""

    def __init__(
        self,
        read_value: Callable[[str], Array],
        read_rows: Callable[[str, Array], Array],
        *,
        global_step: int = 0,
        seed: int = 0,
    ) -> None:
        """Read through the given functions.

        Args:
            read_value: name -> the whole value of a dense variable.
            read_rows: name, sorted unique ids ``[n]`` -> those rows of a table, ``[n, ...]``.
            global_step: the step of the checkpoint the values are from.
            seed: the job's seed.
        """
        super().__init__(global_step=global_step, seed=seed)
        self._read_value = read_value
        self._read_rows = read_rows
        self._values: dict[str, Array] = {}

    def get_variable(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        initializer: Initializer,
        trainable: bool,
    ) -> Array:
        """Return the value of the dense variable ``name``."""
        if not self.check_use(name, shape, sparse=False):
            value = self._read_value(name)
            if value.shape != shape:
                raise ModelError(
                    f"Variable {name!r}: the model asks for shape {shape}, its stored value "
                    f"has shape {value.shape}."
                )
            self._values[name] = value
        return self._values[name]

    def lookup(
        self,
        name: str,
        shape: tuple[int, ...],
        ids: Array,
        initializer: Initializer,
        trainable: bool,
        column: Any,
        features: Any,
    ) -> tuple[Array, Array]:
        """Return the rows of ``ids``, each read once."""
        self.check_use(name, shape, sparse=True)
        unique, inverse = unique_ids(ids)
        check_ids(name, shape[0], unique)
        rows = self._read_rows(name, unique)
        if rows.shape != (len(unique), *shape[1:]):
            raise ModelError(
                f"Table {name!r}: the model asks for rows of shape {shape[1:]}, the stored ones "
                f"have shape {rows.shape[1:]}."
            )
        return rows, inverse
