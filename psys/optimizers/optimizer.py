"""The optimizer interface: how a gradient changes a slice of a variable and its slots.

An optimizer is its arguments only. All state, slots shaped like the slice and a few
scalars, belongs to the shard, which hands it in; so one optimizer serves any number of
slices, and travels to the ps as a dict. An optimizer of one's own writes ``update`` in plain
numpy; psys's own are compiled (``psys.optimizers.compiled``). Nothing here does I/O, keeps time
or takes a lock: the shard applies one update of a slice at a time.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from psys import running
from psys.arrays import Array, Gradient
from psys.errors import ConfigError, ModelError
from psys.optimizers import schedules
from psys.optimizers.rows import check_rows, check_same_shape, gather, is_run, row_blocks, scatter
from psys.optimizers.schedules import LearningRateSchedule, checked_learning_rate
from psys.optimizers.train_op import Minimization, TrainOp, Transform, group

__all__ = ["Minimization", "Optimizer", "TrainOp", "from_config", "get", "group"]

OptimizerT = TypeVar("OptimizerT", bound="Optimizer")


class Optimizer(ABC):
    """How one gradient changes a value and its slots, in place.

    A subclass sets ``kind`` and ``arguments``, says which ``slots`` and ``scalars`` a slice
    starts with, and writes ``update``, in plain numpy. It must be defined wherever the program
    runs, on every ps too: there it is found again by its kind. float32 stays float32.

    Attributes:
        kind: the name it is registered and saved under.
        arguments: the attributes that make up its configuration.
        averaged: whether, in synchronous training, the gradients of several trainers are averaged;
            False if they are only summed.
        moves_all_rows: whether ``apply_sparse`` changes rows that have no gradient, too; True
            for a class that writes its own and does not say.
        learning_rate: the step size: a number, or a schedule; inside ``update`` always a number.
        use_locking: accepted for tf programs; updates of a slice never overlap here.
        name: accepted for tf programs; slots are saved under ``kind``.
        transform: what the trainer does to a step's gradients before it sends them; it is not
            part of the configuration. See ``transforming``.
    """

    kind: ClassVar[str] = ""
    arguments: ClassVar[tuple[str, ...]] = ("learning_rate",)
    averaged: ClassVar[bool] = True
    moves_all_rows: ClassVar[bool] = False

    def __init__(
        self, learning_rate: float | LearningRateSchedule, use_locking: bool, name: str
    ) -> None:
        self.learning_rate: Any = checked_learning_rate(self, learning_rate)
        self.use_locking = use_locking
        self.name = name
        self.transform: Transform | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "apply_sparse" in vars(cls) and "moves_all_rows" not in vars(cls):
            cls.moves_all_rows = True  # who knows; a checkpoint is whole in any case
        if cls.kind:
            _register(cls)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.arguments)
        return f"{type(self).__name__}({given})"

    @property
    def slots(self) -> Mapping[str, float]:
        """Slot name → the number a new slot is filled with."""
        return {}

    @property
    def scalars(self) -> Mapping[str, float]:
        """Name → first value of each number kept once a slice."""
        return {}

    @property
    def by_row(self) -> bool:
        """Whether tables may be updated as one, each row as in the table it is of.

        True where what becomes of a row depends on its own gradient, value and slots alone, and
        on numbers that are the same for all tables. That cannot be seen of an ``update`` of one's
        own: it is False unless the class says otherwise.
        """
        return False

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; ``from_config`` reads it back."""
        config = {"kind": self.kind, **{name: getattr(self, name) for name in self.arguments}}
        if isinstance(self.learning_rate, LearningRateSchedule):
            config["learning_rate"] = self.learning_rate.to_config()
        return config

    def rate(self, global_step: int) -> float:
        """Return the learning rate of the update that starts from ``global_step``.

        Raises:
            ModelError: if a schedule gives something that is not a finite number, or overflows.
        """
        given = self.learning_rate
        # First what it nearly always is: asking an abstract class takes far longer.
        if type(given) is float:
            return given
        if not isinstance(given, LearningRateSchedule):
            return float(given)
        try:
            rate = given(global_step)
        except ArithmeticError as error:
            raise ModelError(
                f"{self.learning_rate} gives no learning rate at global step {global_step}: {error}"
            ) from error
        if not isinstance(rate, (int, float, np.number)) or not math.isfinite(rate):
            raise ModelError(
                f"{self.learning_rate} gives the learning rate {rate!r} at global step "
                f"{global_step}; expected a finite number."
            )
        return float(rate)

    def at(self: OptimizerT, global_step: int) -> OptimizerT:
        """Return this optimizer with the learning rate of ``global_step``, a number."""
        if not isinstance(self.learning_rate, LearningRateSchedule):
            return self
        resolved = copy.copy(self)
        resolved.learning_rate = self.rate(global_step)
        return resolved

    def prepare(self, dtype: str) -> None:  # noqa: B027 - numpy needs no preparation
        """Do what the first update of variables of ``dtype`` would take long for."""

    @abstractmethod
    def update(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        gradient: Array,
    ) -> None:
        """Change ``value`` and ``slots`` in place, element by element.

        Args:
            value: ``[rows, ...]`` any rows of the slice.
            slots: the same rows of each slot.
            scalars: the slice's scalars, not to be changed here.
            gradient: ``[rows, ...]``, not to be changed.
        """

    def advance(self, scalars: MutableMapping[str, float]) -> None:  # noqa: B027 - few have any
        """Change the slice's scalars, once after each update; does nothing by default."""

    def apply_dense(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: MutableMapping[str, float],
        gradient: Array,
        *,
        global_step: int = 0,
    ) -> None:
        """Apply the gradient of every row of a slice, in place.

        Args:
            value: ``[rows, ...]`` the slice.
            slots: one array of that shape for each of ``self.slots``.
            scalars: one number for each of ``self.scalars``.
            gradient: ``[rows, ...]``; only read.
            global_step: what the trainer had read when it computed the gradient.

        Raises:
            ModelError: if the gradient has another shape than the value.
        """
        check_same_shape(value, gradient)
        value, gradient = np.atleast_1d(value), np.atleast_1d(gradient)
        slots = {name: np.atleast_1d(slot) for name, slot in slots.items()}
        now = self.at(global_step)
        for block in row_blocks(value):
            here = {name: slot[block] for name, slot in slots.items()}
            now.update(value[block], here, scalars, gradient[block])
        self.advance(scalars)

    def apply_sparse(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: MutableMapping[str, float],
        indices: Array,
        rows: Array,
        *,
        global_step: int = 0,
    ) -> None:
        """Apply the gradient of some rows of a slice, in place; other rows stay as they are.

        Args:
            value: ``[n, ...]`` the slice.
            slots: one array of that shape for each of ``self.slots``.
            scalars: one number for each of ``self.scalars``.
            indices: ``[m]`` int64 rows of the slice, sorted and unique; may be empty.
            rows: ``[m, ...]`` their gradients; only read.
            global_step: what the trainer had read when it computed the gradient.

        Raises:
            ModelError: if an index is out of order or of range, or the rows have another shape.
        """
        check_rows(value, indices, rows)
        now = self.at(global_step)
        for block in row_blocks(rows):
            now._update_rows(value, slots, scalars, indices[block], rows[block])
        self.advance(scalars)

    def _update_rows(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        indices: Array,
        rows: Array,
    ) -> None:
        """Update the rows ``indices``; where they lie side by side, without a copy."""
        if is_run(indices):
            run = slice(int(indices[0]), int(indices[-1]) + 1)
            here = {name: slot[run] for name, slot in slots.items()}
            self.update(value[run], here, scalars, rows)
            return
        taken = gather(value, indices)
        taken_slots = {name: gather(slot, indices) for name, slot in slots.items()}
        self.update(taken, taken_slots, scalars, rows)
        scatter(value, indices, taken)
        for name, slot in taken_slots.items():
            scatter(slots[name], indices, slot)

    def minimize(
        self,
        loss: Any,
        global_step: Any = None,
        var_list: Sequence[str] | None = None,
    ) -> TrainOp:
        """Return the train op that lowers ``loss`` with this optimizer.

        Args:
            loss: the scalar loss of this batch.
            global_step: ignored; every applied step counts.
            var_list: names of the variables to change, or scope prefixes ending in ``/``
                (``"dnn/"``); None means all trainable variables not claimed by another
                minimization.

        Raises:
            ModelError: if there is no loss, or ``var_list`` is empty or holds no names.
        """
        if loss is None:
            raise ModelError(f"{type(self).__name__}.minimize: loss must be a value, got None.")
        return TrainOp((Minimization(self, loss, _names(var_list), self.transform),))

    def transforming(self: OptimizerT, transform: Transform) -> OptimizerT:
        """Return this optimizer so that ``transform`` sees each step's gradients first.

        It runs in the trainer, after those that are there already; clipping is one.

        Args:
            transform: gradients by variable name → the same variables' gradients to send.
        """
        before, changed = self.transform, copy.copy(self)
        changed.transform = transform if before is None else lambda g: transform(before(g))
        return changed

    def compute_gradients(
        self, loss: Any, var_list: Sequence[str] | None = None
    ) -> list[tuple[Gradient | None, str]]:
        """Return ``(gradient, variable name)`` for each variable, inside a model_fn.

        The gradient is an array, IndexedSlices for a table, or None if the loss does not
        depend on the variable. In a run that is not trained on, such as the first one, which
        finds the variables, all gradients are zeros.

        Args:
            loss: the scalar loss of this batch.
            var_list: names of variables, or scope prefixes ending in ``/``; None means all
                trainable ones.

        Raises:
            ModelError: outside a model_fn; if the loss is not a scalar, or depends on no
                trainable variable; if ``var_list`` is empty or holds no names.
        """
        names = _names(var_list)
        found = {
            name: gradient
            for name, gradient in running.current().gradients(loss).items()
            if names is None or is_listed(name, names)
        }
        if self.transform is not None:
            known = {name: one for name, one in found.items() if one is not None}
            found.update(self.transform(known))
        return [(gradient, name) for name, gradient in found.items()]

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Gradient | None, str]],
        global_step: Any = None,
        name: str | None = None,
    ) -> TrainOp:
        """Return the train op that applies these gradients; pairs without one are left out.

        Args:
            grads_and_vars: as ``compute_gradients`` returns them, changed at will; the same
                variables at every step.
            global_step: ignored; every applied step counts.
            name: accepted for tf programs, changes nothing.

        Raises:
            ModelError: if there is no gradient, or something else than such pairs.
        """
        gradients: dict[str, Gradient] = {}
        for pair in grads_and_vars:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], str)):
                raise ModelError(
                    "apply_gradients takes pairs (gradient, variable name) as compute_gradients "
                    f"returns them, got {pair!r}."
                )
            gradient, variable = pair
            if variable in gradients:
                raise ModelError(f"apply_gradients: variable {variable!r} is there twice.")
            if gradient is not None:
                gradients[variable] = gradient
        if not gradients:
            raise ModelError("No gradients provided for any variable: apply_gradients got none.")
        return TrainOp((Minimization(self, None, tuple(gradients), gradients=gradients),))


def is_listed(name: str, var_list: Sequence[str]) -> bool:
    """Return whether a variable is in a list of names and of scope prefixes ending in ``/``."""
    return any(name == one or (one.endswith("/") and name.startswith(one)) for one in var_list)


def _names(var_list: Sequence[str] | None) -> tuple[str, ...] | None:
    if var_list is None:
        return None
    if isinstance(var_list, str) or not all(isinstance(name, str) for name in var_list):
        raise ModelError(
            "minimize: var_list must be a list of variable names or scope prefixes "
            f"ending in '/', got {var_list!r}."
        )
    if not var_list:
        raise ModelError("minimize: no variables to optimize, var_list is empty.")
    return tuple(var_list)


_KINDS: dict[str, type[Optimizer]] = {}


def _register(cls: type[Optimizer]) -> None:
    known = _KINDS.get(cls.kind, cls)
    # A notebook cell that is run again defines its class again: that is the same one.
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(
            f"Optimizer kind {cls.kind!r} is {known.__module__}.{known.__qualname__} already; "
            f"{cls.__module__}.{cls.__qualname__} needs another."
        )
    _KINDS[cls.kind] = cls


def unknown_in(config: Mapping[str, Any]) -> str:
    """Return which optimizer or schedule of a description this process lacks, '' for neither.

    Only names are looked at, among the classes that are defined here already.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return f"optimizer {kind!r}"
    rate = config.get("learning_rate")
    if isinstance(rate, Mapping) and not schedules.knows(rate):
        return f"learning rate schedule {rate.get('schedule')!r}"
    return ""


def goes_on_from(config: Mapping[str, Any] | None, before: Mapping[str, Any] | None) -> bool:
    """Return whether the slots of one description mean to another what their names say.

    They do for optimizers of one kind, whatever their arguments, and for one derived from the
    other, as LazyAdam is from Adam. Slots of Momentum and RMSProp have a name in common only.
    """
    if config is None or before is None:
        return False
    kind, other = config.get("kind"), before.get("kind")
    here, there = _KINDS.get(str(kind)), _KINDS.get(str(other))
    if here is None or there is None:
        return kind == other
    return issubclass(here, there) or issubclass(there, here)


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that ``to_config`` described.

    Raises:
        ModelError: if the kind is not one this process knows, or an argument is not its own.
        ConfigError: if an argument's value is refused.
    """
    given = dict(config)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ModelError(
            f"Unknown optimizer {kind!r}; known: {sorted(_KINDS)}. An optimizer of one's own must "
            "be defined where every ps of the job can see it: in the script all of them run."
        )
    foreign = sorted(set(given) - set(_KINDS[kind].arguments))
    if foreign:
        raise ModelError(f"Optimizer {kind!r} has no argument {', '.join(foreign)}.")
    if isinstance(given.get("learning_rate"), Mapping):
        given["learning_rate"] = schedules.from_config(given["learning_rate"])
    try:
        return _KINDS[kind](**given)
    except (TypeError, OverflowError) as error:
        raise ModelError(f"Optimizer {kind!r}: {error}.") from error


_STRINGS = ("Adagrad", "Adam", "Ftrl", "RMSProp", "SGD")


def get(
    optimizer: str | Optimizer | Callable[[], Optimizer], learning_rate: float | None = None
) -> Optimizer:
    """Return the optimizer a canned estimator was given, in any of tf.estimator's forms.

    Args:
        optimizer: an instance; a callable without arguments that returns one; or one of
            ``'Adagrad'``, ``'Adam'``, ``'Ftrl'``, ``'RMSProp'``, ``'SGD'``.
        learning_rate: used with a string only.

    Raises:
        ConfigError: if the string is not one of these, comes without a learning rate, or the
            object is no optimizer.
    """
    if isinstance(optimizer, str):
        return _from_string(optimizer, learning_rate)
    made = optimizer
    if callable(optimizer) and not isinstance(optimizer, Optimizer):
        made = optimizer()
    if not isinstance(made, Optimizer):
        raise ConfigError(f"The given object is not an Optimizer instance, got {made!r}.")
    return made


def _from_string(name: str, learning_rate: float | None) -> Optimizer:
    if name not in _STRINGS:
        raise ConfigError(f"Unsupported optimizer name: {name!r}. Supported names: {_STRINGS}.")
    if learning_rate is None:
        raise ConfigError(f"Optimizer {name!r} given as a string needs a learning_rate.")
    return from_config({"kind": name, "learning_rate": learning_rate})
