"""What the chief puts into shards when a model is created or restored."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Mapping

from psys.arrays import VariableSpec
from psys.checkpoint.reader import CheckpointReader
from psys.errors import ModelError
from psys.optimizers.optimizer import goes_on_from
from psys.ps.shard import LoadedSlice

logger = logging.getLogger("psys")


def check_compatible(specs: Mapping[str, VariableSpec], reader: CheckpointReader) -> None:
    """Check that every variable of the model is in the checkpoint, with its shape and dtype.

    Raises:
        ModelError: naming the first that is not.
    """
    for name, spec in specs.items():
        there = reader.variables.get(name)
        if there is None:
            raise ModelError(
                f"{reader.path} has no variable {name!r}: it belongs to another model. Use "
                "another model_dir, or the program that wrote it."
            )
        if (there.shape, there.dtype) != (spec.shape, spec.dtype):
            raise ModelError(
                f"Variable {name!r} is {spec.shape} {spec.dtype} in the model and {there.shape} "
                f"{there.dtype} in {reader.path}. Use another model_dir."
            )


def say_new_optimizers(specs: Mapping[str, VariableSpec], reader: CheckpointReader) -> None:
    """Say, in a line for each, which optimizers begin without the state of another."""
    changed: Counter[tuple[str, str]] = Counter()
    for name, spec in specs.items():
        before = reader.variables[name].optimizer
        if spec.optimizer and before and not goes_on_from(spec.optimizer, before):
            changed[before["kind"], spec.optimizer["kind"]] += 1
    for (old, new), count in changed.items():
        logger.warning(
            "%s was trained by %s, the model is by %s (variables: %d): that begins without "
            "accumulators.",
            reader.path,
            old,
            new,
            count,
        )


def restored(
    reader: CheckpointReader, spec: VariableSpec, start: int, stop: int, seed: int
) -> LoadedSlice:
    """Return rows ``[start, stop)`` of a variable as a checkpoint has them.

    The optimizer is the program's, so a changed learning rate counts; state that the
    checkpoint does not have, or has of another optimizer, begins at the optimizer's default.
    """
    if start == stop:
        return LoadedSlice(spec, start, stop, seed=seed)
    state = reader.slice_state(spec.name, start, stop)
    if not goes_on_from(spec.optimizer, reader.variables[spec.name].optimizer):
        return LoadedSlice(spec, start, stop, seed, state.value)
    return LoadedSlice(spec, start, stop, seed, state.value, state.slots, state.scalars)


def new_seed() -> int:
    """Return a seed for a job whose RunConfig names none."""
    return secrets.randbits(31)
