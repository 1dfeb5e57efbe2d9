"""Spread: what of a step goes to which shard, and what its answers are joined to.

The tables of a stack travel under the stack's name. Whoever pulls or pushes one of them by its own
name is understood all the same. Nothing here talks to a shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from psys.arrays import DTYPES, Array, Gradient, IndexedSlices, VariableSpec, all_finite, values_of
from psys.errors import ModelError
from psys.sharding import ShardMap
from psys.sharding.shard_map import Positions
from psys.sharding.stack_map import StackMap
from psys.stacks import TableStack, stacks_of


class Wanted(NamedTuple):
    """Rows of a table that a pull asks for.

    Attributes:
        name: under which they travel.
        size: how many there are.
        parts: shard → where among them its own are, and their numbers there.
    """

    name: str
    size: int
    parts: Mapping[int, tuple[Positions, Array]]


class Spread:
    """A model over shards."""

    def __init__(self, specs: Mapping[str, VariableSpec], shard_map: ShardMap) -> None:
        """Note where everything is.

        Args:
            specs: the model, by variable name.
            shard_map: where its rows are.

        Raises:
            ModelError: if tables do not fit the stack they say they are in.
        """
        self._map = shard_map
        self._stacks = stacks_of(specs.values())
        self._stack_maps = {one.name: StackMap(one, shard_map) for one in self._stacks.values()}
        self._variables = dict(specs)
        self._stack_with = {
            name: self._stacks[spec.stack] for name, spec in specs.items() if spec.stack
        }
        """Of each table that is in a stack, that one."""
        self.specs = {**specs, **{one.name: one.spec for one in self._stacks.values()}}
        """Variables and stacks, by the names they may travel under."""
        self.measured = frozenset(name for name, spec in specs.items() if _is_measured(spec))
        """Variables that no gradient changes: what steps measured is pushed for them."""
        self._dense = {
            name: (spec.shape, [one.shard for one in shard_map.of(name)])
            for name, spec in specs.items()
            if not spec.sparse
        }
        """Shape and shards of each dense variable."""
        self._whole_on = {
            one.variable: one.shard
            for one in shard_map.slices
            if one.variable in self._dense and one.rows == specs[one.variable].rows
        }
        """The shard of each dense variable that is on one alone, as small ones are."""

    def dense_slices(self, shard: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each slice that one shard holds of a dense variable."""
        return {
            one.variable: (one.rows, *spec.row_shape)
            for one in self._map.on(shard)
            if not (spec := self._variables[one.variable]).sparse
        }

    # ------------------------------------------------------------ rows

    def want(self, name: str, ids: Array) -> Wanted:
        """Return how rows ``ids`` ``[n]`` of a table or stack, sorted and unique, are asked for.

        Raises:
            ModelError: if there is no such table, or no such row.
        """
        stack = self._stack_with.get(name)
        if stack is None:
            return Wanted(name, len(ids), self._split(name, ids))
        return Wanted(stack.name, len(ids), self._split(stack.name, _in_stack(stack, name, ids)))

    def join_rows(self, wanted: Wanted, parts: Sequence[Mapping[str, Array]]) -> Array:
        """Return rows as they were asked for, of what each shard gave."""
        if len(wanted.parts) == 1:
            return next(parts[shard][wanted.name] for shard in wanted.parts)
        spec = self.specs[wanted.name]
        rows = np.empty((wanted.size, *spec.row_shape), DTYPES[spec.dtype])
        for shard, (at, _) in wanted.parts.items():
            rows[at] = parts[shard][wanted.name]
        return rows

    def _split(self, name: str, ids: Array) -> Mapping[int, tuple[Positions, Array]]:
        whole = self._stack_maps.get(name)
        return self._map.split_rows(name, ids) if whole is None else whole.split(ids)

    # ------------------------------------------------------------ dense variables

    def join_dense(self, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """Return every dense variable, whole, of what each shard has of it."""
        return {
            name: parts[shards[0]][name].reshape(shape)
            if name in self._whole_on
            else self._map.join(name, {shard: parts[shard][name] for shard in shards}, shape)
            for name, (shape, shards) in self._dense.items()
        }

    # ------------------------------------------------------------ gradients

    def split_gradients(self, gradients: Mapping[str, Gradient]) -> list[dict[str, Gradient]]:
        """Check every gradient, then cut it by shard.

        Args:
            gradients: by variable or stack.

        Returns:
            For each shard its parts, by the names they travel under.

        Raises:
            ModelError: if one does not fit its variable, or is not finite.
        """
        parts: list[dict[str, Gradient]] = [{} for _ in range(self._map.num_shards)]
        stacked = self._stacked(gradients)
        if not all_finite(*map(values_of, stacked.values())):
            self._refuse_not_finite(stacked)
        for name, gradient in stacked.items():
            if isinstance(gradient, IndexedSlices):
                summed = gradient.summed()
                for shard, (at, local) in self._split(name, summed.indices).items():
                    parts[shard][name] = IndexedSlices(local, _taken(summed.values, at))
            elif name in self._whole_on:
                # A scalar travels as one row.
                parts[self._whole_on[name]][name] = gradient if gradient.ndim else gradient[None]
            else:
                for shard, part in self._map.split_dense(name, gradient).items():
                    parts[shard][name] = part
        return parts

    def _stacked(self, gradients: Mapping[str, Gradient]) -> Mapping[str, Gradient]:
        """Check what fits; return the gradients with those of tables in a stack as one."""
        result: dict[str, Gradient] = {}
        pieces: dict[str, list[IndexedSlices]] = {}
        for name, gradient in gradients.items():
            self._check(name, gradient)
            stack = self._stack_with.get(name)
            if stack is None and name not in self._stacks:
                result[name] = gradient
                continue
            if not isinstance(gradient, IndexedSlices):
                gradient = IndexedSlices(np.arange(len(gradient)), gradient)
            if stack is not None:
                rows = _in_stack(stack, name, gradient.indices)
                name, gradient = stack.name, IndexedSlices(rows, gradient.values)
            pieces.setdefault(name, []).append(gradient)
        for name, found in pieces.items():
            result[name] = found[0] if len(found) == 1 else _joined(found)
        return result

    def _check(self, name: str, gradient: Gradient) -> None:
        if name not in self.specs:
            raise ModelError(f"Gradient of unknown variable {name!r}.")
        spec, values = self.specs[name], values_of(gradient)
        if values.dtype != DTYPES[spec.dtype]:
            raise ModelError(f"Gradient of {name!r}: expected {spec.dtype}, got {values.dtype}.")
        if spec.optimizer is None:
            raise ModelError(f"Variable {name!r} is not trained by gradients.")
        if values is not gradient:  # those of some rows
            if values.shape[1:] != spec.row_shape:
                raise ModelError(
                    f"Gradient of {name!r}: expected rows of {spec.row_shape}, "
                    f"got {values.shape[1:]}."
                )
        elif values.shape != spec.shape:
            raise ModelError(
                f"Gradient of {name!r}: expected shape {spec.shape}, got {values.shape}."
            )

    def _refuse_not_finite(self, gradients: Mapping[str, Gradient]) -> None:
        name, gradient = next(
            (name, one) for name, one in gradients.items() if not all_finite(values_of(one))
        )
        spec = self.specs[name]
        if name in self._stacks and isinstance(gradient, IndexedSlices):
            values = gradient.values
            wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            row = int(gradient.indices[wrong][0])
            if 0 <= row < spec.rows:
                name = self._stacks[name].table_of(row)
        raise ModelError(f"{_what(spec)} {name!r} is not finite (NaN or infinite).")


def _joined(parts: Sequence[IndexedSlices]) -> IndexedSlices:
    return IndexedSlices(
        np.concatenate([one.indices for one in parts]),
        np.concatenate([one.values for one in parts]),
    )


def _in_stack(stack: TableStack, table: str, ids: Array) -> Array:
    """Return the rows of a stack that a table's rows are.

    Raises:
        ModelError: if one lies outside the table: in the stack it would be another table's.
    """
    start, stop = stack.rows_of(table)
    if len(ids) and not (ids.min() >= 0 and ids.max() < stop - start):
        raise ModelError(
            f"Ids of {table!r} must lie in [0, {stop - start}), got {ids.min()} to {ids.max()}."
        )
    return ids + start


def _taken(values: Array, at: Positions) -> Array:
    return values[at] if isinstance(at, slice) else values.take(at, axis=0)


def _what(spec: VariableSpec) -> str:
    """Return what a step pushes for a variable."""
    return "What was measured for" if _is_measured(spec) else "The gradient of"


def _is_measured(spec: VariableSpec) -> bool:
    return (spec.optimizer or {}).get("kind") in ("MovingAverage", "Sum")
