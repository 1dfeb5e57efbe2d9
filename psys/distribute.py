"""How training is spread over parameter servers: the options of a cluster's data plane.

Given as ``RunConfig(train_distribute=ParameterServerStrategy(...))``. Without it training is
asynchronous with fresh parameters, as with tf.estimator's parameter servers.
"""

from __future__ import annotations

from dataclasses import dataclass

from psys.errors import ConfigError

__all__ = ["ParameterServerStrategy"]

CONSISTENCIES = ("async", "bounded", "sync")
PUSH_DTYPES = (None, "float16", "bfloat16")


@dataclass(frozen=True)
class ParameterServerStrategy:
    """What trainers and ps promise each other.

    Attributes:
        consistency: "async": a gradient is applied as soon as it comes, never dropped;
            "bounded": and no trainer is more than ``staleness`` steps ahead of the slowest;
            "sync": gradients of ``replicas_to_aggregate`` trainers are averaged into one update.
        staleness: for "bounded", in steps.
        replicas_to_aggregate: for "sync"; None for all trainers. With fewer than there are
            trainers, the slowest are backups: what comes late is dropped, and they are told.
        pipeline_depth: 0: a step is computed with what all earlier ones of this trainer made of
            the parameters; 1: a step is computed while the one before is being sent, with
            parameters one step older.
        push_dtype: None sends gradients as they are, "float16" or "bfloat16" half as many bytes,
            with less precision. The parameters stay as they are.

    Raises:
        ConfigError: if a value is not legal, or does not go with another.
    """

    consistency: str = "async"
    staleness: int | None = None
    replicas_to_aggregate: int | None = None
    pipeline_depth: int = 0
    push_dtype: str | None = None

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
