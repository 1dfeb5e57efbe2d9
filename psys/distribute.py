"""How training is spread over parameter servers: the options of a cluster's data plane.

Given as ``RunConfig(train_distribute=ParameterServerStrategy(...))``. Without it training is
asynchronous with fresh parameters, as with tf.estimator's parameter servers.
"""

from __future__ import annotations

from dataclasses import dataclass

from psys.errors import ConfigError
from psys.sharding.partitioner import Partitioner
from psys.sharding.strategies import (
    GreedyLoadBalancingStrategy,
    Part,
    Placement,
    RoundRobinStrategy,
    byte_size_load_fn,
)

__all__ = [
    "GreedyLoadBalancingStrategy",
    "ParameterServerStrategy",
    "Part",
    "Partitioner",
    "Placement",
    "RoundRobinStrategy",
    "byte_size_load_fn",
]

CONSISTENCIES = ("async", "bounded", "sync")
PUSH_DTYPES = (None, "float16", "bfloat16")


@dataclass(frozen=True)
class ParameterServerStrategy:
    """What trainers and ps promise each other.

    Attributes:
        consistency: "async": a gradient is applied as soon as it comes, never dropped;
            "bounded": and no trainer is more than ``staleness`` steps ahead of the slowest
            (stale synchronous parallel, Ho et al., 2013; with ``pipeline_depth=1`` a step is
            computed from values that may lack one step more of it);
            "sync": gradients of ``replicas_to_aggregate`` trainers, or more where more are there
            when an update is made, are averaged into one update.
        staleness: for "bounded", in steps.
        replicas_to_aggregate: for "sync"; None for all trainers. With fewer than there are
            trainers, the slowest are backups: what comes late is dropped, and they are told.
        pipeline_depth: 0: a step is computed with what all earlier ones of this trainer made of
            the parameters; 1: a step is computed while the one before is being sent, with
            parameters one step older.
        push_dtype: None sends gradients as they are, "float16" or "bfloat16" half as many bytes,
            with less precision. The parameters stay as they are.
        variable_partitioner: into how many parts each variable is cut, as
            ``psys.fixed_size_partitioner(num_ps)`` or another of tf's says. None: as few as bring
            every ps within 15 % of the mean in bytes; with a ``placement``, none is cut.
        placement: which ps gets which part. None: so that it is even in bytes. Every trainer must
            come to the same plan; one that does not is refused.

    Raises:
        ConfigError: if a value is not legal, or does not go with another.
    """

    consistency: str = "async"
    staleness: int | None = None
    replicas_to_aggregate: int | None = None
    pipeline_depth: int = 0
    push_dtype: str | None = None
    variable_partitioner: Partitioner | None = None
    placement: Placement | None = None

    def __post_init__(self) -> None:
        if self.consistency not in CONSISTENCIES:
            raise ConfigError(
                f"consistency must be one of {', '.join(CONSISTENCIES)}, got {self.consistency!r}."
            )
        if self.pipeline_depth not in (0, 1):
            raise ConfigError(f"pipeline_depth must be 0 or 1, got {self.pipeline_depth!r}.")
        if self.push_dtype not in PUSH_DTYPES:
            raise ConfigError(
                f"push_dtype must be None, 'float16' or 'bfloat16', got {self.push_dtype!r}."
            )
        if self.variable_partitioner is not None and not callable(self.variable_partitioner):
            raise ConfigError(
                "variable_partitioner must be a function of shape and dtype, as "
                "psys.fixed_size_partitioner(2) returns one, or None, got "
                f"{self.variable_partitioner!r}."
            )
        if not isinstance(self.placement, Placement | None):
            raise ConfigError(
                "placement must be a psys.distribute.Placement, such as RoundRobinStrategy(), or "
                f"None, got {self.placement!r}."
            )
        self._check_count("staleness", self.staleness, "bounded", least=0)
        self._check_count("replicas_to_aggregate", self.replicas_to_aggregate, "sync", least=1)
        if self.consistency == "bounded" and self.staleness is None:
            raise ConfigError('consistency="bounded" needs staleness=, the steps allowed ahead.')
        if self.pipeline_depth and self.consistency == "sync":
            raise ConfigError(
                'pipeline_depth=1 computes with parameters one step old, which consistency="sync" '
                "excludes: use pipeline_depth=0."
            )
        if self.pipeline_depth and self.staleness == 0:
            raise ConfigError("pipeline_depth=1 is one step ahead: it needs staleness=1 or more.")

    def _check_count(self, name: str, value: int | None, consistency: str, least: int) -> None:
        if value is None:
            return
        if self.consistency != consistency:
            raise ConfigError(
                f'{name} is for consistency="{consistency}"; consistency is {self.consistency!r}.'
            )
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be an integer of {least} or more, got {value!r}.")
