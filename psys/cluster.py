"""Who is in the cluster, and which task this process is: tasks, addresses, TF_CONFIG.

TF_CONFIG is checked once, here, at the edge; everything later works on the values this module
returns. It opens no socket, resolves no host, starts no process.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psys.environment import tf_config_text
from psys.errors import ConfigError, ConfigTypeError

CHIEF, MASTER, WORKER, PS, EVALUATOR = "chief", "master", "worker", "ps", "evaluator"
TASK_TYPES = (CHIEF, MASTER, WORKER, PS, EVALUATOR)
"""The task types psys runs. Other types may stand in TF_CONFIG, as in tf.estimator."""

_TEXTS = ("model_dir", "session_master", "eval_session_master", "environment")
_TYPE_NAMES = ("task_type", "name", "job_name", "job", "role")
_INDEX_NAMES = ("id", "idx", "task_id", "task_index", "rank")
_MASTER_CAUTION = "TF_CONFIG: 'master', the older name of 'chief', trains and also evaluates."


@dataclass(frozen=True, order=True)
class Task:
    """One process of the cluster.

    Its name, ``str(task)``, is what other tasks know it by: ``chief`` (a ``master`` too, being
    the chief under an older name), ``worker:1``, ``ps:0``, ``evaluator``.
    """

    type: str
    index: int

    def __post_init__(self) -> None:
        if not self.type or ":" in self.type:
            raise ConfigError(f"A task type is a word such as 'worker', got {self.type!r}.")
        if self.index < 0:
            raise ConfigError(f"Task index must be non-negative number, got {self.index}.")

    def __str__(self) -> str:
        name = CHIEF if self.is_chief else self.type
        alone = name in (CHIEF, EVALUATOR) and self.index == 0
        return name if alone else f"{name}:{self.index}"

    @property
    def is_chief(self) -> bool:
        """Whether this task is the chief, under either name."""
        return self.type in (CHIEF, MASTER)

    @classmethod
    def parse(cls, name: str) -> Task:
        """Return the task that has this name; ConfigError where no task can have it."""
        kind, colon, index = name.partition(":")
        if not colon and kind in (CHIEF, MASTER, EVALUATOR):
            return cls(kind, 0)
        if not kind or not index.isdecimal():
            raise ConfigError(f"A task name is 'chief' or like 'worker:1', got {name!r}.")
        return cls(kind, int(index))


@dataclass(frozen=True, init=False)
class ClusterSpec:
    """The addresses of a cluster by task type; an empty one is false.

    Attributes:
        addresses: each task with its ``host:port``, ordered by type and index.

    Args:
        cluster: ``{"chief": ["h:1"], "ps": ["h:2", "h:3"]}`` or, where a task knows only some
            of the others, the sparse form ``{"chief": {0: "h:1"}, "worker": {7: "h:9"}}``.
        where: what to call ``cluster`` in error messages.

    Raises:
        ConfigError: an address is no ``host:port``, two tasks have one address, or the ps are
            not numbered 0, 1, … (a ps holds the shard of its number, so all must be known).
    """

    addresses: tuple[tuple[Task, str], ...]

    def __init__(self, cluster: Mapping[str, Any] | None = None, where: str = "cluster") -> None:
        entries = _addresses({} if cluster is None else cluster, where)
        object.__setattr__(self, "addresses", tuple(sorted(entries)))

    def __bool__(self) -> bool:
        return bool(self.addresses)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task listed."""
        return tuple(task for task, _ in self.addresses)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The task types listed, sorted."""
        return tuple(dict.fromkeys(task.type for task in self.tasks))

    def tasks_of(self, task_type: str) -> tuple[Task, ...]:
        """Return the tasks of one type, by index."""
        return tuple(task for task in self.tasks if task.type == task_type)

    def job_tasks(self, task_type: str) -> tuple[str, ...]:
        """Return the addresses of one task type, by index."""
        return tuple(address for task, address in self.addresses if task.type == task_type)

    def address(self, task: Task) -> str:
        """Return the address of a task; ConfigError where it is not listed."""
        if task not in self.tasks:
            raise ConfigError(f"{task} is not in the cluster {self.as_dict()}.")
        return dict(self.addresses)[task]

    def as_dict(self) -> dict[str, list[str] | dict[int, str]]:
        """Return task type → list of addresses, or index → address where indices have gaps."""
        jobs: dict[str, dict[int, str]] = {}
        for task, address in self.addresses:
            jobs.setdefault(task.type, {})[task.index] = address
        return {
            job: list(listed.values()) if list(listed) == list(range(len(listed))) else listed
            for job, listed in jobs.items()
        }

    def trainers_beside(self, task: Task) -> int:
        """Return how many trainers have addresses on a task's host, the task itself included."""
        host = self.address(task).rpartition(":")[0]
        return sum(
            (one.is_chief or one.type == WORKER) and address.rpartition(":")[0] == host
            for one, address in self.addresses
        )

    @property
    def chief(self) -> str | None:
        """The address of the chief (or master), None where none is listed."""
        return next((address for task, address in self.addresses if task.is_chief), None)

    @property
    def ps(self) -> tuple[str, ...]:
        """The addresses of the ps; the position is the shard's number."""
        return self.job_tasks(PS)

    @property
    def workers(self) -> tuple[str, ...]:
        """The addresses of the workers, the chief not among them."""
        return self.job_tasks(WORKER)

    @property
    def trainers(self) -> tuple[str, ...]:
        """The names of all tasks that train: ``("chief", "worker:0", ...)``."""
        return tuple(str(task) for task in self.tasks if task.is_chief or task.type == WORKER)

    @property
    def shard_addresses(self) -> tuple[str, ...]:
        """Where the shards are: on every ps, or on the chief where no ps is listed."""
        return self.ps or ((self.chief,) if self.chief else ())

    def digest(self) -> str:
        """Return a hash of the shard addresses in order; tasks of one job must have the same.

        A ps list in another order would send each slice to a shard that does not hold it.
        """
        return hashlib.sha256("\n".join(self.shard_addresses).lower().encode()).hexdigest()


@dataclass(frozen=True)
class ClusterConfig:
    """What TF_CONFIG said.

    Attributes:
        cluster: every address, None without a cluster (training on one machine). An evaluator
            has it too: it subscribes to the lead.
        task: this process; worker 0 without a cluster.
        service: free-form, for the user's own programs.
        model_dir: where TF_CONFIG names one.
        session_master, eval_session_master: what RunConfig then shows for its masters.
        environment: kept and shown, changes nothing.
        evaluator_listed: whether the cluster lists an evaluator, so that one is expected.
        cautions: one line for each thing that is legal but probably not meant.
    """

    cluster: ClusterSpec | None = None
    task: Task = Task(WORKER, 0)
    service: Mapping[str, Any] | None = None
    model_dir: str | None = None
    session_master: str | None = None
    eval_session_master: str | None = None
    environment: str | None = None
    evaluator_listed: bool = False
    cautions: tuple[str, ...] = ()


def parse_tf_config(text: str, source: str = "TF_CONFIG") -> ClusterConfig:
    """Parse and check the JSON text of TF_CONFIG.

    Legal are all clusters tf.estimator accepts: with ``chief`` or ``master``, with or without
    ps, workers and a listed evaluator, dense or sparse (also under Kubeflow's ``sparseCluster``).

    Args:
        text: the JSON text; ``{}`` means no cluster.
        source: what to call the text in error messages.

    Raises:
        ConfigError: the text is not a JSON object, or the cluster or task in it is not legal;
            as ConfigTypeError, which is also a TypeError, for a value of the wrong JSON type.
    """
    config = _load(text, source)
    section = _cluster_section(config, source)
    cluster = ClusterSpec(section, f"{source} cluster")
    task = _task(cluster if section else None, config.get("task", {}), source)
    service = config.get("service")
    if service is not None and not isinstance(service, dict):
        raise ConfigTypeError(f'If "service" is set in {source}, it must be a dict, got {service}.')
    return ClusterConfig(
        cluster=cluster or None,
        task=task,
        service=service,
        evaluator_listed=EVALUATOR in cluster.jobs,
        cautions=(_MASTER_CAUTION,) if MASTER in cluster.jobs else (),
        **_texts(config, source),
    )


def read_tf_config() -> ClusterConfig:
    """Parse TF_CONFIG, or the file that TF_CONFIG_FILE names; without either: no cluster."""
    found = tf_config_text()
    return ClusterConfig() if found is None else parse_tf_config(*found)


def _load(text: str, source: str) -> Mapping[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{source} must be a JSON object, got {text[:80]!r} ({error}); "
            "unset it, or set it to {}, to train without a cluster."
        ) from error
    known = _mapping(config, source, '{"cluster": …, "task": …}')
    for key in known:
        meant = _meant(key, ("cluster", "task", "service"))
        if meant and meant not in known and key != "sparseCluster":
            raise ConfigError(f"{source}: unknown key {key!r} (did you mean {meant!r}?).")
    return known


def _cluster_section(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return task type → addresses, as written, after looking for misspelt task types."""
    if "cluster" in config and "sparseCluster" in config:
        raise ConfigError(f"{source} has both 'cluster' and 'sparseCluster'; remove one of them.")
    section = config.get("sparseCluster", config.get("cluster", {}))
    section = _mapping(section, f"{source} cluster", '{"chief": ["host:port"], …}')
    for job in section:
        stem = re.sub("_?(hosts?|servers?)$", "", job.lower())
        meant = _meant("ps" if stem == "parameter" else stem, TASK_TYPES)
        if meant and job not in TASK_TYPES:
            raise ConfigError(
                f"{source} cluster: unknown task type {job!r} (did you mean {meant!r}?). "
                f"psys knows {', '.join(TASK_TYPES)}."
            )
    return section


def _task(cluster: ClusterSpec | None, value: object, source: str) -> Task:
    section = _mapping(value, f"{source} task", '{"type": "worker", "index": 0}')
    for right, wrong in (("type", _TYPE_NAMES), ("index", _INDEX_NAMES)):
        for key in section:
            if right not in section and (key.lower() in wrong or _meant(key, (right,))):
                raise ConfigError(
                    f"{source} task: unknown key {key!r} (did you mean {right!r}?); "
                    'a task is {"type": "worker", "index": 0}.'
                )
    if cluster is not None:
        return _clustered_task(cluster, section, source)
    task_type, index = section.get("type", WORKER), section.get("index", 0)
    if task_type == WORKER and _index(index, source) == 0:
        return Task(WORKER, 0)
    raise ConfigError(
        f'If "cluster" is not set in {source}, task '
        + ("index must be 0." if task_type == WORKER else "type must be WORKER.")
        + f" Got {dict(section)}; add the cluster, or remove the task to train on this machine."
    )


def _clustered_task(cluster: ClusterSpec, section: Mapping[str, Any], source: str) -> Task:
    """Return this process's task; the order of the checks is tf.estimator's."""
    chief_type = _check_one_chief(cluster, source)
    task_type, index = section.get("type"), section.get("index")
    if not task_type or index is None:
        missing = "index" if task_type else "type"
        raise ConfigError(
            f'If "cluster" is set in {source}, task {missing} must be set. Got task '
            f'{dict(section)}; a task is {{"type": "worker", "index": 0}}.'
        )
    if not isinstance(task_type, str):
        raise ConfigTypeError(f"{source} task.type must be a string, got {task_type!r}.")
    number = _index(index, source)
    if chief_type == MASTER and task_type == EVALUATOR:
        raise ConfigError(
            "If `master` node exists in `cluster`, task_type `evaluator` is not supported. "
            f"Rename master to chief in {source} to run an evaluator; a master evaluates itself."
        )
    if number < 0:
        raise ConfigError(f"Task index must be non-negative number. {source} task.index: {number}.")
    task = Task(task_type, number)
    if task_type != EVALUATOR and task not in cluster.tasks:
        raise ConfigError(_not_listed(cluster, task, index, source))
    return task


def _check_one_chief(cluster: ClusterSpec, source: str) -> str:
    """Return the task type that plays the chief: chief, or master where it is listed."""
    if MASTER in cluster.jobs and CHIEF in cluster.jobs:
        raise ConfigError(
            "If `master` node exists in `cluster`, job `chief` is not supported. "
            f"Keep one of the two in {source} cluster: both name the same role."
        )
    chief_type = MASTER if MASTER in cluster.jobs else CHIEF
    chiefs = cluster.job_tasks(chief_type)
    if len(chiefs) != 1:
        raise ConfigError(
            f'If "cluster" is set in {source}, it must have {"only " if chiefs else ""}one '
            f'"{chief_type}" node. Got {cluster.as_dict()}; one trainer is the {chief_type}, '
            "the others are workers."
        )
    return chief_type


def _not_listed(cluster: ClusterSpec, task: Task, given: object, source: str) -> str:
    if task.type in cluster.jobs:
        indices = [listed.index for listed in cluster.tasks_of(task.type)]
        return (
            f"{given} is not a valid task_id for task_type {task.type} in {source}: the "
            f"cluster lists the indices {indices}. Correct task.index, or add the address."
        )
    meant = _meant(task.type, (*cluster.jobs, EVALUATOR))
    if task.is_chief:
        meant = CHIEF if CHIEF in cluster.jobs else MASTER
    return (
        f"{task.type} is not a valid task_type in the cluster_spec of {source}"
        + (f" (did you mean {meant!r}?)" if meant else "")
        + f": the cluster lists {', '.join(cluster.jobs)}. Correct task.type, or add the task."
    )


def _addresses(cluster: Mapping[str, Any], where: str) -> Iterable[tuple[Task, str]]:
    """Return every task with its checked address."""
    entries: dict[Task, str] = {}
    owners: dict[str, str] = {}
    for job, listed in _mapping(cluster, where, '{"chief": ["host:port"], …}').items():
        for index, value in _by_index(listed, f"{where}.{job}").items():
            place = f"{where}.{job}[{index}]"
            address = _check_address(value, place)
            other = owners.setdefault(address.lower(), place)
            if other != place:
                raise ConfigError(
                    f"{place}: {address} is already the address of {other}; give every task its "
                    "own host:port."
                )
            entries[Task(job, index)] = address
        indices = sorted(task.index for task in entries if task.type == job)
        if job in (PS, CHIEF, MASTER) and indices != list(range(len(indices))):
            raise ConfigError(
                f"{where}.{job}: expected the indices 0, 1, … without a gap, got {indices}; "
                "only other task types may be listed in part."
            )
    return entries.items()


def _by_index(listed: object, where: str) -> Mapping[int, object]:
    """Return index → address of one task type, from its dense or sparse form."""
    if isinstance(listed, Mapping):
        result: dict[int, object] = {}
        for key, value in listed.items():
            if not str(key).isdecimal() or int(key) in result:
                raise ConfigError(
                    f"{where}: expected each index once, from 0, got {key!r} in {list(listed)}."
                )
            result[int(key)] = value
        return result
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        return dict(enumerate(listed))
    raise ConfigTypeError(
        f'{where}: expected a list of addresses such as ["host:2222"], or a dict of index to '
        f"address, got {listed!r}."
    )


def _check_address(value: object, where: str) -> str:
    """Return ``host:port`` without a ``grpc://`` prefix."""
    expected = f'{where}: expected "host:port" such as "10.0.0.1:2222", got {value!r}'
    if not isinstance(value, str):
        raise ConfigTypeError(f"{expected}.")
    address = value.removeprefix("grpc://")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|\w[\w.-]*):([0-9]{1,5})", address, re.ASCII)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise ConfigError(
            f"{expected}; the port is a number from 1 to 65535, an IPv6 host is in brackets."
        )
    host = match[1]
    if host.isalpha() and host.lower() != "localhost" and _meant(host, ("localhost",), 0.88):
        raise ConfigError(f"{expected}; unknown host {host!r} (did you mean 'localhost'?).")
    return address


def _mapping(value: object, where: str, example: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigTypeError(f"{where} must be a JSON object such as {example}, got {value!r}.")
    return value


def _index(value: Any, source: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source} task.index must be an integer, got {value!r}.") from error


def _texts(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    for key in _TEXTS:
        value = config.get(key)
        if value is not None and not isinstance(value, str):
            raise ConfigTypeError(f"{source} {key} must be a string, got {value!r}.")
    if config.get("model_dir") == "":
        raise ConfigError(f"model_dir in {source} should be non-empty: name it, or remove the key.")
    return {key: config.get(key) for key in _TEXTS}


def _meant(word: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """Return the known word that was probably meant."""
    return next(iter(difflib.get_close_matches(word.lower(), list(known), 1, cutoff)), None)
