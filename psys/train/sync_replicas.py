"""SyncReplicasOptimizer: synchronous training as tf.train asks for it, and the policy it makes.

It says the same as ``ParameterServerStrategy(consistency="sync")``: a mode of the job, not a
wrapper that does something. What the ps apply is the optimizer inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psys.arrays import Array
from psys.distribute import ParameterServerStrategy
from psys.errors import ConfigError, ModelError
from psys.optimizers.optimizer import Optimizer
from psys.ps.messages import Consistency, Policy
from psys.train.hooks import SessionRunHook


class SyncReplicasOptimizer(Optimizer):
    """Average the gradients of several trainers into one update by the optimizer inside.

    A gradient that comes after its update is dropped, and its trainer goes on with the next
    batch. Rows of a table that only some of the trainers touched are divided by the number of
    all (TF divides by those that touched the row). Where fewer trainers are live than asked for,
    an update is made of those.

    Source: tf.compat.v1.train.SyncReplicasOptimizer; Chen et al., "Revisiting Distributed
    Synchronous SGD", 2016, for backup workers.
    """

    def __init__(
        self,
        opt: Optimizer,
        replicas_to_aggregate: int,
        total_num_replicas: int | None = None,
        variable_averages: None = None,
        variables_to_average: None = None,
        use_locking: bool = False,
        name: str = "sync_replicas",
    ) -> None:
        """Wrap ``opt``.

        Args:
            opt: makes the update.
            replicas_to_aggregate: how many trainers' gradients make an update.
            total_num_replicas: accepted for tf programs: the lead counts the trainers.
            variable_averages: must be None; see ``psys.moving_average``.
            variables_to_average: must be None.
            use_locking: accepted for tf programs; updates of a slice never overlap here.
            name: accepted for tf programs; slots are saved under the kind of ``opt``.

        Raises:
            ConfigError: if an argument cannot be used.
        """
        if not isinstance(opt, Optimizer) or isinstance(opt, SyncReplicasOptimizer):
            raise ConfigError(f"SyncReplicasOptimizer: opt must be an optimizer, got {opt!r}.")
        for what, value in (
            ("replicas_to_aggregate", replicas_to_aggregate),
            ("total_num_replicas", 1 if total_num_replicas is None else total_num_replicas),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{what} must be an integer of 1 or more, got {value!r}.")
        if variable_averages is not None or variables_to_average is not None:
            raise ConfigError(
                "SyncReplicasOptimizer: variable_averages and variables_to_average must be None; "
                "average a value in model_fn with psys.moving_average."
            )
        super().__init__(opt.learning_rate, use_locking, name)
        self.opt = opt
        self.replicas_to_aggregate = replicas_to_aggregate
        self.transform = opt.transform

    def __repr__(self) -> str:
        return f"SyncReplicasOptimizer({self.opt!r}, {self.replicas_to_aggregate})"

    def to_config(self) -> dict[str, Any]:
        """Return the description of the optimizer inside: that is what a ps runs."""
        return self.opt.to_config()

    @property
    def slots(self) -> Mapping[str, float]:
        """The slots of the optimizer inside."""
        return self.opt.slots

    @property
    def scalars(self) -> Mapping[str, float]:
        """The scalars of the optimizer inside."""
        return self.opt.scalars

    @property
    def by_row(self) -> bool:
        """Whether the optimizer inside works by row: it is what a ps runs."""
        return self.opt.by_row

    def update(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        gradient: Array,
    ) -> None:
        """Let the optimizer inside change ``value`` and ``slots`` in place."""
        self.opt.update(value, slots, scalars, gradient)

    def make_session_run_hook(self, is_chief: bool, num_tokens: int = -1) -> SessionRunHook:
        """Return a hook that does nothing: psys needs none to train synchronously."""
        return SessionRunHook()


def replicas_of(optimizers: Iterable[Optimizer]) -> int | None:
    """Return how many replicas a model's optimizers want aggregated; None if none says.

    Raises:
        ModelError: if they say different things: there is one policy for all variables.
    """
    said = {
        one.replicas_to_aggregate if isinstance(one, SyncReplicasOptimizer) else None
        for one in optimizers
    }
    if len(said) > 1:
        raise ModelError(
            "Either all optimizers of a model are a SyncReplicasOptimizer, with the same "
            f"replicas_to_aggregate, or none is; got {sorted(said, key=str)}."
        )
    return said.pop() if said else None


def policy_of(strategy: ParameterServerStrategy, replicas: int | None) -> Policy:
    """Return the policy that a strategy and a model's optimizers make together.

    Args:
        strategy: of the RunConfig.
        replicas: what a SyncReplicasOptimizer asks for; None without one.

    Raises:
        ConfigError: if the two contradict each other.
    """
    asked = strategy.replicas_to_aggregate
    if replicas is not None:
        if strategy.consistency == "bounded" or asked not in (None, replicas):
            raise ConfigError(
                f"SyncReplicasOptimizer(replicas_to_aggregate={replicas}) contradicts {strategy}: "
                'leave out one of the two, or say consistency="sync" with the same number.'
            )
        if strategy.pipeline_depth:
            raise ConfigError(
                "pipeline_depth=1 computes with parameters one step old, which "
                "SyncReplicasOptimizer excludes: use pipeline_depth=0."
            )
        return Policy(Consistency.SYNC, replicas=replicas)
    if strategy.consistency == "sync":
        return Policy(Consistency.SYNC, replicas=asked or 0)
    if strategy.consistency == "bounded":
        return Policy(Consistency.BOUNDED, staleness=strategy.staleness or 0)
    return Policy()
