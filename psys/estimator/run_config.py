"""RunConfig: how an Estimator runs, and which task of which cluster this process is.

It checks each option when it is built or replaced, and reads TF_CONFIG once, when it is built.
It starts nothing and never changes afterwards.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Final, TypeVar

from psys.cluster import CHIEF, EVALUATOR, MASTER, PS, ClusterConfig, ClusterSpec, read_tf_config
from psys.distribute import ParameterServerStrategy
from psys.errors import ConfigError, ConfigTypeError

_LOGGER = logging.getLogger(__name__)
_UNSET: Final[Any] = object()
_DEFAULT_CHECKPOINTS_SECS = 600
_Config = TypeVar("_Config", bound="RunConfig")

_AT_LEAST_ZERO = (
    "save_summary_steps",
    "save_checkpoints_steps",
    "save_checkpoints_secs",
    "keep_checkpoint_max",
    "linger_secs",
)
_ABOVE_ZERO = (
    "keep_checkpoint_every_n_hours",
    "log_step_count_steps",
    "session_creation_timeout_secs",
    "start_timeout_secs",
    "recover_secs",
)
_NO_DISTRIBUTES = ("eval_distribute", "experimental_distribute")


@dataclass(frozen=True, eq=False)
class RunConfig:
    """The options of a run, as tf.estimator names them, with psys's own after the ``*``.

    Every option is a read-only attribute; ``replace`` makes a copy with other values. None
    always passes the check and means "off" or "no limit", unless said otherwise.

    Attributes:
        model_dir: directory of checkpoints and summaries; TF_CONFIG may name it instead.
        tf_random_seed: seed of initial values and shuffling.
        save_summary_steps: steps between summaries.
        save_checkpoints_steps: steps between checkpoints; excludes ``save_checkpoints_secs``.
        save_checkpoints_secs: seconds between checkpoints; 600 if neither is given.
        session_config: always None: psys has no sessions to configure.
        keep_checkpoint_max: how many recent checkpoints to keep; 0 or None keeps all.
        keep_checkpoint_every_n_hours: also keep one for each so many hours.
        log_step_count_steps: steps between lines telling loss and steps a second.
        train_distribute: a ``psys.distribute.ParameterServerStrategy``; None for its defaults.
        eval_distribute, experimental_distribute: always None: evaluation is one process.
        device_fn: accepted for tf.estimator programs; psys has no devices to place on.
        protocol: None or ``grpc``; ``grpc+verbs`` is accepted and means ``grpc``.
        experimental_max_worker_delay_secs: most seconds a worker waits before it starts.
        session_creation_timeout_secs: accepted for tf.estimator programs; see
            ``start_timeout_secs``.
        checkpoint_save_graph_def: accepted for tf.estimator programs; there is no graph.
        start_timeout_secs: how long to wait for the other tasks before naming the missing.
        recover_secs: how long a lost chief or ps may take to come back.
        linger_secs: how long the lead stays for tasks that have not heard the verdict.
        evaluator_expected: whether the job ends only after an evaluator has evaluated the final
            checkpoint; None: if TF_CONFIG lists one or one has joined.
        cluster_config: what TF_CONFIG said, for psys's own roles.

    Raises:
        ConfigError: an option or TF_CONFIG is not legal; the message names it.
    """

    model_dir: str | None = None
    tf_random_seed: int | None = None
    save_summary_steps: int | None = 100
    save_checkpoints_steps: int | None = _UNSET
    save_checkpoints_secs: float | None = _UNSET
    session_config: None = None
    keep_checkpoint_max: int | None = 5
    keep_checkpoint_every_n_hours: float | None = 10000
    log_step_count_steps: int | None = 100
    train_distribute: ParameterServerStrategy | None = None
    device_fn: Callable[..., Any] | None = None
    protocol: str | None = None
    eval_distribute: None = None
    experimental_distribute: None = None
    experimental_max_worker_delay_secs: int | None = None
    session_creation_timeout_secs: float | None = 7200
    checkpoint_save_graph_def: bool = True
    start_timeout_secs: float = field(default=300, kw_only=True)
    recover_secs: float = field(default=60, kw_only=True)
    linger_secs: float = field(default=60, kw_only=True)
    evaluator_expected: bool | None = field(default=None, kw_only=True)
    cluster_config: ClusterConfig = field(init=False)

    def __post_init__(self) -> None:
        self._set("cluster_config", read_tf_config())
        if self.save_checkpoints_steps is _UNSET and self.save_checkpoints_secs is _UNSET:
            self._set("save_checkpoints_secs", _DEFAULT_CHECKPOINTS_SECS)
        for name in ("save_checkpoints_steps", "save_checkpoints_secs"):
            if getattr(self, name) is _UNSET:
                self._set(name, None)
        self._check()
        self._set("model_dir", _agreed_model_dir(self.model_dir, self.cluster_config.model_dir))
        for caution in self.cluster_config.cautions:
            _LOGGER.warning(caution)

    def replace(self: _Config, **options: Any) -> _Config:
        """Return a deep copy with other values for some options.

        Replacing one of ``save_checkpoints_steps`` and ``save_checkpoints_secs`` clears the
        other. What comes from TF_CONFIG cannot be replaced.

        Raises:
            ConfigError: a name is no option, or a value is not legal.
        """
        for name in options:
            if name not in _OPTIONS:
                raise ConfigError(
                    f"Replacing {name} is not supported. Allowed properties are "
                    f"{', '.join(_OPTIONS)}; what describes the cluster comes from TF_CONFIG."
                )
        cleared = {}
        given = options.keys() & {"save_checkpoints_steps", "save_checkpoints_secs"}
        if given == {"save_checkpoints_steps"}:
            cleared = {"save_checkpoints_secs": None}
        elif given == {"save_checkpoints_secs"}:
            cleared = {"save_checkpoints_steps": None}
        new = copy.deepcopy(self)
        for name, value in (cleared | options).items():
            new._set(name, value)
        new._check()
        return new

    @property
    def strategy(self) -> ParameterServerStrategy:
        """What ``train_distribute`` says, or its defaults."""
        return self.train_distribute or ParameterServerStrategy()

    @property
    def cluster_spec(self) -> ClusterSpec:
        """The cluster this task trains in; empty without a cluster and for an evaluator."""
        cluster = self.cluster_config.cluster
        return ClusterSpec() if cluster is None or self.task_type == EVALUATOR else cluster

    @property
    def task_type(self) -> str:
        """``chief``, ``master``, ``worker``, ``ps`` or ``evaluator``; worker on one machine."""
        return self.cluster_config.task.type

    @property
    def task_id(self) -> int:
        """The index among the tasks of this type."""
        return self.cluster_config.task.index

    @property
    def is_chief(self) -> bool:
        """Whether this task saves checkpoints: the chief, or the only one there is."""
        return self.cluster_config.task.is_chief or self.cluster_config.cluster is None

    @property
    def num_ps_replicas(self) -> int:
        """The number of ps; 0 for an evaluator."""
        return len(self.cluster_spec.ps)

    @property
    def num_worker_replicas(self) -> int:
        """The number of trainers, the chief among them; 0 for an evaluator."""
        if self.cluster_config.cluster is None:
            return 1
        return len(self.cluster_spec.trainers)

    @property
    def global_id_in_cluster(self) -> int | None:
        """A number for each task: the chief 0, other types by name, ps last.

        None for an evaluator, which is no member of the training cluster.
        """
        if self.task_type == EVALUATOR:
            return None
        if not self.cluster_spec:
            return 0
        rank = {CHIEF: 0, MASTER: 0, PS: 2}
        order = sorted(self.cluster_spec.tasks, key=lambda task: (rank.get(task.type, 1), task))
        return order.index(self.cluster_config.task)

    @property
    def master(self) -> str:
        """``grpc://`` and this task's own address; '' for an evaluator or a single task."""
        if self.task_type == EVALUATOR:
            return ""
        if self.cluster_config.session_master is not None:
            return self.cluster_config.session_master
        if len(self.cluster_spec.tasks) <= 1:
            return ""
        return f"grpc://{self.cluster_spec.address(self.cluster_config.task)}"

    @property
    def evaluation_master(self) -> str:
        """TF_CONFIG's ``eval_session_master``, for an evaluator and without a cluster."""
        if self.cluster_spec:
            return ""
        return self.cluster_config.eval_session_master or ""

    @property
    def service(self) -> Mapping[str, Any] | None:
        """TF_CONFIG's ``service``, for the user's own programs."""
        return self.cluster_config.service

    def _set(self, name: str, value: object) -> None:
        # Only while the object is being made: nobody else has seen it yet.
        object.__setattr__(self, name, value)

    def _check(self) -> None:
        if self.model_dir == "":
            raise ConfigError("model_dir should be non-empty, got ''; None makes a temporary one.")
        for name in (*_AT_LEAST_ZERO, *_ABOVE_ZERO):
            _check_number(name, getattr(self, name), zero_ok=name in _AT_LEAST_ZERO)
        if self.save_checkpoints_steps is not None and self.save_checkpoints_secs is not None:
            raise ConfigError(
                "`save_checkpoints_steps` and `save_checkpoints_secs` cannot be both set. "
                f"Got {self.save_checkpoints_steps} and {self.save_checkpoints_secs}; set one."
            )
        if not isinstance(self.tf_random_seed, int | None):
            raise ConfigError(f"tf_random_seed must be integer, got {self.tf_random_seed!r}.")
        if not isinstance(self.experimental_max_worker_delay_secs, int | None):
            raise ConfigError(
                "experimental_max_worker_delay_secs must be an integer if set, got "
                f"{self.experimental_max_worker_delay_secs!r}."
            )
        if self.protocol not in (None, "grpc", "grpc+verbs"):
            raise ConfigError(f"protocol should be grpc or grpc+verbs, got {self.protocol!r}.")
        if not isinstance(self.evaluator_expected, bool | None):
            raise ConfigError(
                f"evaluator_expected must be True, False or None, got {self.evaluator_expected!r}."
            )
        for name in ("start_timeout_secs", "recover_secs", "linger_secs"):
            if getattr(self, name) is None:
                raise ConfigError(f"{name} must be a number of seconds, got None.")
        self._check_absent()

    def _check_absent(self) -> None:
        """Refuse what psys does not have, and check what it accepts without using it."""
        if self.session_config is not None:
            raise ConfigError(
                "session_config must be instance of ConfigProto, which psys does not have: leave "
                "it None. Numeric threads are set by OMP_NUM_THREADS, time-outs by "
                f"start_timeout_secs and recover_secs. Got {self.session_config!r}."
            )
        if not isinstance(self.train_distribute, ParameterServerStrategy | None):
            raise ConfigError(
                "train_distribute must be a psys.distribute.ParameterServerStrategy or None, got "
                f"{self.train_distribute!r}."
            )
        for name in _NO_DISTRIBUTES:
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{name} must be None: each evaluation runs in one process. "
                    f"Got {getattr(self, name)!r}."
                )
        if self.device_fn is not None and _argument_names(self.device_fn) != ["op"]:
            raise ConfigError(
                'device_fn must be callable with exactly one argument "op", got '
                f"{self.device_fn!r}."
            )


_OPTIONS = tuple(name for name, option in RunConfig.__dataclass_fields__.items() if option.init)


def _agreed_model_dir(given: str | None, in_tf_config: str | None) -> str | None:
    if given is not None and in_tf_config is not None and given != in_tf_config:
        raise ConfigError(
            f"model_dir, {given!r}, must have the same value as the model_dir in TF_CONFIG, "
            f"{in_tf_config!r}; remove one of the two."
        )
    return in_tf_config if given is None else given


def _check_number(name: str, value: object, zero_ok: bool) -> None:
    if value is None:
        return
    if not isinstance(value, Real):
        raise ConfigTypeError(f"{name} should be a number, got {value!r}.")
    if math.isnan(value) or value < 0 or (value == 0 and not zero_ok):
        raise ConfigError(f"{name} should be {'>= 0' if zero_ok else '> 0'}, got {value!r}.")


def _argument_names(function: object) -> list[str] | None:
    """Return the names of a callable's arguments; None if it cannot be called at all."""
    if not callable(function):
        return None
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None
