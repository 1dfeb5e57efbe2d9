"""The model as its variables: found by running model_fn once, then run once a step.

``build`` discovers variables, optimizers and prefetches; ``loss_and_gradients`` is one step's
computing. Nothing here talks to a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec
from psys.compute.backward import untraced
from psys.compute.build_store import BuildStore
from psys.compute.train_store import TrainStore
from psys.errors import ModelError
from psys.optimizers.optimizer import is_listed
from psys.optimizers.train_op import TrainOp
from psys.stacks import stacks_of
from psys.train.foreseen import Lookups
from psys.train.sync_replicas import replicas_of


class ModelSpec(Protocol):
    """What a run of model_fn returns, as far as training cares: an EstimatorSpec."""

    @property
    def loss(self) -> Any:
        """The scalar loss, traced in training."""

    @property
    def train_op(self) -> Any:
        """How the loss is minimized: a TrainOp."""

    @property
    def predictions(self) -> Any:
        """What the model predicts."""


CallModel = Callable[[Any, Any], ModelSpec]
"""Runs model_fn on one batch: (features, labels) → spec."""


@dataclass(frozen=True)
class Model:
    """What the first run of model_fn found.

    Attributes:
        specs: every variable with its optimizer, by name.
        lookups: those the input pipeline can prepare.
        optimized: the variables of each minimization, in its order.
        optimizers: the configuration of each minimization's optimizer.
        replicas_to_aggregate: what a SyncReplicasOptimizer asks for; None without one.
    """

    specs: Mapping[str, VariableSpec]
    lookups: Lookups
    optimized: tuple[frozenset[str], ...]
    optimizers: tuple[Mapping[str, Any], ...]
    replicas_to_aggregate: int | None = None

    @property
    def digest(self) -> str:
        """A hash of names, shapes, dtypes and stacks: equal on all tasks that run one program."""
        text = json.dumps(
            sorted(
                [name, list(one.shape), one.dtype, one.stack] for name, one in self.specs.items()
            )
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def is_stack_of(self, name: str, tables: frozenset[str]) -> bool:
        """Return whether ``name`` is a stack of tables that are among these."""
        stack = self.lookups.stacks.get(name)
        return stack is not None and stack.tables[0] in tables

    def describe(self) -> str:
        """Return the model's size in one line."""
        parameters = sum(int(np.prod(spec.shape)) for spec in self.specs.values())
        size = sum(spec.nbytes for spec in self.specs.values())
        return f"{len(self.specs)} variables, {parameters:,} parameters, {size / 2**20:.2f} MiB"


def build(call_model: CallModel, features: Any, labels: Any, seed: int) -> tuple[Model, ModelSpec]:
    """Run model_fn once on a batch to find its variables and who optimizes them.

    Returns:
        The model, and the hooks-bearing spec of this run (its loss is not to be trained on).

    Raises:
        ModelError: if the spec has no usable train_op, or two optimizers claim one variable.
    """
    store = BuildStore(seed)
    with store:
        spec = call_model(_own(features), _own(labels))
    train_op = spec.train_op
    if not isinstance(train_op, TrainOp):
        raise ModelError(
            "EstimatorSpec.train_op must be what optimizer.minimize(loss) returns, "
            f"got {type(train_op).__name__}."
        )
    optimized = _assign(train_op, store)
    optimizers = tuple(one.optimizer.to_config() for one in train_op.minimizations)
    specs = dict(store.specs)
    for config, names in zip(optimizers, optimized, strict=True):
        for name in names:
            specs[name] = replace(specs[name], optimizer=config)
    for one, names in zip(train_op.minimizations, optimized, strict=True):
        if one.optimizer.by_row:
            specs.update(_stacked([specs[name] for name in sorted(names)], specs))
    replicas = replicas_of(one.optimizer for one in train_op.minimizations)
    lookups = Lookups(tuple(store.prefetches), stacks_of(specs.values()))
    return Model(specs, lookups, tuple(optimized), optimizers, replicas), spec


def _stacked(
    mine: Sequence[VariableSpec], specs: Mapping[str, VariableSpec]
) -> dict[str, VariableSpec]:
    """Return those tables of one minimization that are in a stack, by name.

    Of each row shape and dtype those make a stack that are two or more.
    """
    groups: dict[Any, list[VariableSpec]] = {}
    for one in mine:
        if one.sparse:
            groups.setdefault((one.row_shape, one.dtype), []).append(one)
    found: dict[str, VariableSpec] = {}
    for tables in groups.values():
        if len(tables) > 1:
            # Colons are not for names of variables in tf programs; here somebody may use one.
            name = f"stack:{tables[0].name}"
            while name in specs:
                name += ":"
            found.update({one.name: replace(one, stack=name) for one in tables})
    return found


def _assign(train_op: TrainOp, store: BuildStore) -> list[frozenset[str]]:
    """Return the variables of each minimization: those it lists, or all nobody lists."""
    claims: list[frozenset[str] | None] = []
    for minimization in train_op.minimizations:
        if minimization.var_list is None:
            claims.append(None)
            continue
        names = frozenset(
            name for name in store.trainable if is_listed(name, minimization.var_list)
        )
        if not names:
            raise ModelError(
                f"No variables to optimize: none of {sorted(store.trainable)} is in "
                f"{list(minimization.var_list)}."
            )
        claims.append(names)
    claimed: set[str] = set()
    for claim in claims:
        names = claim or frozenset()
        twice = claimed & names
        if twice:
            raise ModelError(f"Two optimizers claim {sorted(twice)}.")
        claimed |= names
    rest = frozenset(store.trainable - claimed)
    if claims.count(None) > 1:
        raise ModelError(f"Two optimizers claim all of {sorted(rest)}: give them a var_list.")
    if not store.trainable:
        raise ModelError("No variables to optimize: model_fn made no trainable variable.")
    return [rest if names is None else names for names in claims]


def loss_and_gradients(
    model: Model, call_model: CallModel, features: Any, labels: Any, store: TrainStore
) -> tuple[float, dict[str, Gradient], ModelSpec]:
    """Run model_fn on one batch; return loss, gradients by variable or stack, and the spec.

    Among the gradients is what the step measured for averages and counters.

    Raises:
        ModelError: if no trainable variable takes part in the loss, or an optimizer is not the
            one the first run had.
    """
    # A loss that is not finite is told in one line by who checks it.
    with store, np.errstate(over="ignore", invalid="ignore"):
        spec = call_model(_own(features), _own(labels))
        train_op = spec.train_op
        _check_optimizers(model, train_op, store.global_step)
        gradients: dict[str, Gradient] = {}
        by_loss: dict[tuple[int, bool], Mapping[str, Gradient | None]] = {}
        for minimization, names in zip(train_op.minimizations, model.optimized, strict=True):
            if minimization.gradients is not None:
                mine = _as_given(minimization.gradients, names, model.specs)
            else:
                # Whoever changes gradients gets them by variable; others travel with their stack.
                by_variable = minimization.transform is not None
                differentiate = store.gradients if by_variable else store.stacked_gradients
                key = id(minimization.loss), by_variable
                if key not in by_loss:
                    by_loss[key] = differentiate(minimization.loss)
                mine = {
                    name: one
                    for name, one in by_loss[key].items()
                    if one is not None and (name in names or model.is_stack_of(name, names))
                }
            gradients.update(
                mine if minimization.transform is None else minimization.transform(mine)
            )
    gradients.update(store.updates)
    return float(np.asarray(untraced(spec.loss)).reshape(())), gradients, spec


def _own(given: Any) -> Any:
    """Return a dict that model_fn may assign to: the batch may be trained on again."""
    return given.copy() if isinstance(given, dict) else given


def _as_given(
    gradients: Mapping[str, Gradient], names: frozenset[str], specs: Mapping[str, VariableSpec]
) -> dict[str, Gradient]:
    """Return what model_fn gave to apply_gradients, in the variables' dtypes.

    Raises:
        ModelError: if it did not give a gradient for one of them in its first run.
    """
    if new := sorted(gradients.keys() - names):
        raise ModelError(
            f"apply_gradients got a gradient for {new}, which it did not get when model_fn ran "
            "first; give it the same variables on every batch (None for no gradient)."
        )
    result: dict[str, Gradient] = {}
    for name, one in gradients.items():
        dtype = specs[name].dtype
        if isinstance(one, IndexedSlices):
            result[name] = IndexedSlices(one.indices, np.asarray(untraced(one.values), dtype))
        else:
            result[name] = np.asarray(untraced(one), dtype)
    return result


def _check_optimizers(model: Model, train_op: TrainOp, global_step: int) -> None:
    """Raise a ModelError if they changed, or a learning rate is unusable at this step.

    Each ps goes on with the optimizers of the first run, and evaluates their schedules itself.
    """
    now = [one.optimizer.to_config() for one in train_op.minimizations]
    if now != list(model.optimizers):
        raise ModelError(
            "Optimizers and their arguments are fixed when training begins. A learning rate that "
            "follows the global step is a schedule: psys.train.exponential_decay(rate, "
            "psys.train.get_global_step(), ...), another decay function, or a subclass of "
            f"psys.train.LearningRateSchedule. First: {list(model.optimizers)}, now: {now}."
        )
    for one in train_op.minimizations:
        one.optimizer.rate(global_step)


class InitialModel:
    """The values a model starts with, read like a checkpoint's."""

    def __init__(self, specs: Mapping[str, VariableSpec], seed: int) -> None:
        self.variables = dict(specs)
        self.global_step = 0
        self.path = ""
        self._seed = seed
        self._values: dict[str, Array] = {}

    def read(self, name: str) -> Array:
        """Return a variable's initial value in its shape."""
        if name not in self._values:
            spec = self.variables[name]
            rows = spec.initializer.rows(name, spec.shape, spec.dtype, 0, spec.rows, self._seed)
            self._values[name] = rows.reshape(spec.shape)
        return self._values[name]

    def read_rows(self, name: str, ids: Array) -> Array:
        """Return rows ``ids`` ``[n]``, ``[n, *row_shape]``."""
        return np.asarray(self.read(name)[ids])
