"""RunConfig as tf.estimator has it: defaults, checks, TF_CONFIG, replace.

The promises are those of the tf.estimator pages on RunConfig and train_and_evaluate, restated as
inputs and what comes of them. Ports are real ones here: psys refuses port 0.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from psys.cluster import ClusterSpec
from psys.environment import ENVIRONMENT
from psys.errors import ConfigError
from psys.estimator.run_config import RunConfig

OTHERS = {"ps": ["host1:1", "host2:2"], "worker": ["host3:3", "host4:4", "host5:5"]}
CHIEF = {"chief": ["host0:10"], **OTHERS}
MASTER = {"master": ["host0:10"], **OTHERS}
# chief, 3 workers, 3 ps: the cluster in which global ids are counted.
SEVEN = {"chief": ["h:10"], "ps": ["h:1", "h:2", "h:3"], "worker": ["h:4", "h:5", "h:6"]}

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    """Build a RunConfig under a TF_CONFIG of this cluster and task."""

    def make(
        cluster: Mapping[str, Any] | None = None,
        kind: str | None = None,
        index: Any = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> RunConfig:
        named = {"type": kind, "index": index}
        task = {key: value for key, value in named.items() if value is not None}
        document = {"task": task, **more}
        if cluster is not None:
            document["cluster"] = cluster
        monkeypatch.setenv("TF_CONFIG", json.dumps(document))
        return RunConfig(**(options or {}))

    return make


def facts(config: RunConfig) -> tuple[Any, ...]:
    return (
        config.cluster_spec,
        config.task_type,
        config.task_id,
        config.master,
        config.evaluation_master,
        config.is_chief,
        config.num_worker_replicas,
        config.num_ps_replicas,
        config.global_id_in_cluster,
    )


class TestOptions:
    def test_defaults(self) -> None:
        config = RunConfig()
        assert config.model_dir is None
        assert config.session_config is None
        assert config.tf_random_seed is None
        assert config.save_summary_steps == 100
        assert config.save_checkpoints_secs == 600
        assert config.save_checkpoints_steps is None
        assert config.keep_checkpoint_max == 5
        assert config.keep_checkpoint_every_n_hours == 10000
        assert config.log_step_count_steps == 100
        assert config.service is None
        assert config.device_fn is None
        assert config.protocol is None
        assert config.train_distribute is None
        assert config.eval_distribute is None
        assert config.experimental_distribute is None
        assert config.experimental_max_worker_delay_secs is None
        assert config.session_creation_timeout_secs == 7200
        assert config.checkpoint_save_graph_def is True

    def test_psys_defaults(self) -> None:
        config = RunConfig()
        assert (config.start_timeout_secs, config.recover_secs, config.linger_secs) == (300, 60, 60)
        assert config.evaluator_expected is None

    NONE: ClassVar[dict[str, Any]] = dict.fromkeys(
        (
            "tf_random_seed",
            "model_dir",
            "save_summary_steps",
            "save_checkpoints_secs",
            "save_checkpoints_steps",
            "session_config",
            "keep_checkpoint_max",
            "keep_checkpoint_every_n_hours",
            "device_fn",
        )
    )

    def test_none_passes_every_check(self) -> None:
        for config in (RunConfig(**self.NONE), RunConfig().replace(**self.NONE)):
            assert [getattr(config, name) for name in self.NONE] == [None] * len(self.NONE)

    OTHER: ClassVar[dict[str, Any]] = {
        "model_dir": "/somewhere",
        "tf_random_seed": 7,
        "save_summary_steps": 0,
        "save_checkpoints_steps": 11,
        "keep_checkpoint_max": 0,
        "keep_checkpoint_every_n_hours": 0.5,
        "log_step_count_steps": 3,
        "device_fn": lambda op: op,
        "protocol": "grpc",
        "experimental_max_worker_delay_secs": -1,
        "session_creation_timeout_secs": 9,
        "checkpoint_save_graph_def": False,
        "start_timeout_secs": 1,
        "recover_secs": 2.5,
        "linger_secs": 0,
        "evaluator_expected": True,
    }

    def test_every_option_can_be_given_and_replaced(self) -> None:
        for config in (RunConfig(**self.OTHER), RunConfig().replace(**self.OTHER)):
            for name, value in self.OTHER.items():
                assert getattr(config, name) == value, name

    def test_positional_order_is_tf_estimators(self) -> None:
        config = RunConfig("/dir", 1, 2, 3, None, None, 4, 5, 6)
        assert (config.model_dir, config.tf_random_seed, config.save_summary_steps) == (
            "/dir",
            1,
            2,
        )
        assert (config.save_checkpoints_steps, config.save_checkpoints_secs) == (3, None)
        assert (config.keep_checkpoint_max, config.keep_checkpoint_every_n_hours) == (4, 5)
        assert config.log_step_count_steps == 6

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("model_dir", "", "model_dir should be non-empty"),
            ("save_summary_steps", -1, "save_summary_steps should be >= 0"),
            ("save_checkpoints_steps", -1, "save_checkpoints_steps should be >= 0"),
            ("save_checkpoints_secs", -1, "save_checkpoints_secs should be >= 0"),
            ("session_config", {}, "session_config must be instance of ConfigProto"),
            ("keep_checkpoint_max", -1, "keep_checkpoint_max should be >= 0"),
            ("keep_checkpoint_every_n_hours", 0, "keep_checkpoint_every_n_hours should be > 0"),
            ("session_creation_timeout_secs", 0, "session_creation_timeout_secs should be > 0"),
            ("log_step_count_steps", 0, "log_step_count_steps should be > 0"),
            ("tf_random_seed", 1.0, "tf_random_seed must be integer"),
            ("tf_random_seed", "1", "tf_random_seed must be integer"),
            ("device_fn", lambda x: x, 'exactly one argument "op"'),
            ("device_fn", lambda op, x: (op, x), 'exactly one argument "op"'),
            ("device_fn", "/cpu:0", 'exactly one argument "op"'),
            ("experimental_max_worker_delay_secs", "5", "must be an integer if set"),
            ("protocol", "foo", "protocol should be grpc or grpc\\+verbs"),
            (
                "train_distribute",
                object(),
                "must be a psys.distribute.ParameterServerStrategy or None",
            ),
            ("eval_distribute", object(), "eval_distribute must be None: each evaluation runs"),
            ("eval_distribute", object(), "eval_distribute must be None"),
            ("experimental_distribute", object(), "experimental_distribute must be None"),
            ("start_timeout_secs", 0, "start_timeout_secs should be > 0"),
            ("start_timeout_secs", None, "start_timeout_secs must be a number of seconds"),
            ("recover_secs", 0, "recover_secs should be > 0"),
            ("linger_secs", -1, "linger_secs should be >= 0"),
            ("linger_secs", float("nan"), "linger_secs should be >= 0"),
            ("evaluator_expected", "yes", "evaluator_expected must be True, False or None"),
            ("save_summary_steps", "10", "save_summary_steps should be a number"),
        ],
    )
    def test_values_refused_when_built_and_when_replaced(
        self, name: str, value: Any, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message) as built:
            RunConfig(**{name: value})
        with pytest.raises(ConfigError, match=message):
            RunConfig().replace(**{name: value})
        if not callable(value):
            assert repr(value) in str(built.value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tf_random_seed", True),
            ("keep_checkpoint_max", 0),
            ("experimental_max_worker_delay_secs", 0),
            ("experimental_max_worker_delay_secs", -1),
            ("protocol", "grpc+verbs"),
        ],
    )
    def test_values_accepted(self, name: str, value: Any) -> None:
        assert getattr(RunConfig(**{name: value}), name) == value

    def test_is_read_only(self) -> None:
        config = RunConfig()
        for name in ("save_summary_steps", "cluster_config"):
            with pytest.raises(AttributeError):
                setattr(config, name, 1)
        for name in ("master", "task_id", "is_chief"):
            with pytest.raises(AttributeError):
                setattr(config, name, 1)

    def test_a_subclass_may_add_attributes(self) -> None:
        class Mine(RunConfig):
            def __init__(self, extra: int) -> None:
                super().__init__(save_summary_steps=5)
                self.extra = extra

        replaced = Mine(3).replace(save_summary_steps=6)
        assert isinstance(replaced, Mine)
        assert (replaced.extra, replaced.save_summary_steps) == (3, 6)


class TestReplace:
    @pytest.mark.parametrize(
        "name", ["master", "some_undefined_property", "task_type", "cluster_spec", "cluster_config"]
    )
    def test_other_names_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"Replacing {name} is not supported. Allowed") as got:
            RunConfig().replace(**{name: 123})
        assert "save_summary_steps" in str(got.value)

    def test_the_original_stays(self) -> None:
        original = RunConfig(model_dir="/a")
        replaced = original.replace(model_dir="/b", save_summary_steps=1)
        assert (original.model_dir, original.save_summary_steps) == ("/a", 100)
        assert (replaced.model_dir, replaced.save_summary_steps) == ("/b", 1)

    def test_it_is_a_deep_copy_that_keeps_the_cluster(self, config: MakeConfig) -> None:
        original = config(CHIEF, "worker", 1, service={"key": [1]})
        replaced = original.replace(save_summary_steps=1)
        assert facts(replaced) == facts(original)
        assert replaced.service == original.service
        assert replaced.service is not original.service

    def test_tf_config_is_read_once(
        self, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = config(CHIEF, "worker", 1)
        monkeypatch.setenv("TF_CONFIG", "nonsense")
        assert original.replace(save_summary_steps=1).task_id == 1
        assert original.task_type == "worker"


class TestCheckpointFrequency:
    @staticmethod
    def frequency(config: RunConfig) -> tuple[float | None, int | None]:
        return config.save_checkpoints_secs, config.save_checkpoints_steps

    def test_one_option_clears_the_other(self) -> None:
        by_default = RunConfig()
        assert self.frequency(by_default) == (600, None)
        by_steps = by_default.replace(save_checkpoints_steps=100)
        assert self.frequency(by_steps) == (None, 100)
        by_secs = by_steps.replace(save_checkpoints_secs=200)
        assert self.frequency(by_secs) == (200, None)
        assert self.frequency(by_default.replace(save_checkpoints_secs=None)) == (None, None)
        assert self.frequency(by_steps.replace(save_checkpoints_steps=None)) == (None, None)
        assert self.frequency(by_steps.replace(save_summary_steps=1)) == (None, 100)

    def test_when_built(self) -> None:
        assert self.frequency(RunConfig(save_checkpoints_steps=100)) == (None, 100)
        assert self.frequency(RunConfig(save_checkpoints_secs=200)) == (200, None)
        assert self.frequency(RunConfig(save_checkpoints_secs=None)) == (None, None)
        assert self.frequency(RunConfig(save_checkpoints_steps=0)) == (None, 0)

    def test_both_none_is_off(self) -> None:
        both: dict[str, Any] = {"save_checkpoints_steps": None, "save_checkpoints_secs": None}
        assert self.frequency(RunConfig(**both)) == (None, None)
        assert self.frequency(RunConfig().replace(**both)) == (None, None)

    def test_both_set_is_refused(self) -> None:
        both: dict[str, Any] = {"save_checkpoints_steps": 100, "save_checkpoints_secs": 200}
        with pytest.raises(ValueError, match="cannot be both set"):
            RunConfig(**both)
        with pytest.raises(ValueError, match="cannot be both set"):
            RunConfig().replace(**both)


class TestWithoutCluster:
    LOCAL = (ClusterSpec(), "worker", 0, "", "", True, 1, 0, 0)

    def test_no_tf_config(self) -> None:
        config = RunConfig()
        assert facts(config) == self.LOCAL
        assert config.cluster_config.cluster is None

    @pytest.mark.parametrize(("kind", "index"), [(None, None), ("worker", 0), (None, 0)])
    def test_worker_0_or_no_task(self, config: MakeConfig, kind: str | None, index: Any) -> None:
        assert facts(config(None, kind, index)) == self.LOCAL
        assert facts(config({}, kind, index)) == self.LOCAL

    def test_session_masters(self, config: MakeConfig) -> None:
        assert config(session_master="_my_master").master == "_my_master"
        evaluating = config(eval_session_master="_my_eval_master")
        assert (evaluating.evaluation_master, evaluating.master) == ("_my_eval_master", "")

    @pytest.mark.parametrize("kind", ["chief", "master", "ps", "evaluator"])
    def test_other_task_types_are_refused(self, config: MakeConfig, kind: str) -> None:
        message = 'If "cluster" is not set in TF_CONFIG, task type must be WORKER.'
        with pytest.raises(ValueError, match=message):
            config(None, kind, 0)

    def test_other_indices_are_refused(self, config: MakeConfig) -> None:
        with pytest.raises(ValueError, match=r"task index must be 0\."):
            config(None, "worker", 1)


class TestCluster:
    @pytest.mark.parametrize("name", ["chief", "master"])
    def test_each_role(self, config: MakeConfig, name: str) -> None:
        cluster = {name: ["host0:10"], **OTHERS}
        spec = ClusterSpec(cluster)
        for kind, index, address, global_id in (
            (name, 0, "host0:10", 0),
            ("worker", 1, "host4:4", 2),
            ("ps", 0, "host1:1", 4),
        ):
            master, is_chief = f"grpc://{address}", kind == name
            expected = (spec, kind, index, master, "", is_chief, 4, 2, global_id)
            assert facts(config(cluster, kind, index)) == expected

    def test_the_evaluator_is_no_member(self, config: MakeConfig) -> None:
        got = config(CHIEF, "evaluator", 12)
        assert facts(got) == (ClusterSpec(), "evaluator", 12, "", "", False, 0, 0, None)
        assert got.cluster_config.cluster == ClusterSpec(CHIEF)

    def test_the_evaluators_masters(self, config: MakeConfig) -> None:
        got = config(
            CHIEF, "evaluator", 0, eval_session_master="grpc://123", session_master="_ignored"
        )
        assert (got.evaluation_master, got.master) == ("grpc://123", "")

    def test_eval_session_master_is_not_for_trainers(self, config: MakeConfig) -> None:
        assert config(CHIEF, "worker", 1, eval_session_master="e").evaluation_master == ""

    def test_a_chief_alone(self, config: MakeConfig) -> None:
        alone = {"chief": ["host0:10"]}
        expected = (ClusterSpec(alone), "chief", 0, "", "", True, 1, 0, 0)
        assert facts(config(alone, "chief", 0)) == expected
        assert config(alone, "chief", 0, session_master="_my_master").master == "_my_master"

    def test_session_master_goes_before_the_address(self, config: MakeConfig) -> None:
        cluster = {"chief": ["host0:10"], "ps": ["host1:1"]}
        got = config(cluster, "chief", 0, session_master="_my_master")
        assert got.master == "_my_master"
        assert (got.num_worker_replicas, got.num_ps_replicas) == (1, 1)

    @pytest.mark.parametrize(
        ("kind", "index", "global_id"), [("chief", 0, 0), ("worker", 2, 3), ("ps", 1, 5)]
    )
    @pytest.mark.parametrize("name", ["chief", "master"])
    def test_global_ids(
        self, config: MakeConfig, name: str, kind: str, index: int, global_id: int
    ) -> None:
        cluster = {name if job == "chief" else job: listed for job, listed in SEVEN.items()}
        kind = name if kind == "chief" else kind
        assert config(cluster, kind, index).global_id_in_cluster == global_id

    def test_other_task_types_count_by_name(self, config: MakeConfig) -> None:
        cluster = {**SEVEN, "other_type": ["x:1", "x:2"]}
        got = config(cluster, "other_type", 1)
        assert (got.global_id_in_cluster, got.is_chief, got.num_worker_replicas) == (2, False, 4)

    def test_an_unknown_task_type_is_accepted(self, config: MakeConfig) -> None:
        got = config({"chief": ["h:1"], "foo": ["h:2"]}, "foo", 0)
        assert (got.task_type, got.is_chief, got.global_id_in_cluster) == ("foo", False, 1)

    def test_a_listed_evaluator_counts(self, config: MakeConfig) -> None:
        got = config({**CHIEF, "evaluator": ["host6:6"]}, "worker", 1)
        assert got.global_id_in_cluster == 3
        assert (got.num_worker_replicas, got.num_ps_replicas) == (4, 2)
        assert got.cluster_config.evaluator_listed

    @pytest.mark.parametrize("index", ["1", 1.9])
    def test_indices_are_made_integers(self, config: MakeConfig, index: Any) -> None:
        assert config(CHIEF, "worker", index).task_id == 1

    @pytest.mark.parametrize(
        ("cluster", "kind", "index", "message"),
        [
            ({"chief": ["a:1", "b:1"]}, None, None, 'must have only one "chief" node.'),
            ({"master": ["a:1", "b:1"]}, None, None, 'must have only one "master" node.'),
            ({"worker": ["a:1", "b:1"]}, "worker", 0, 'must have one "chief" node'),
            ({"chief": ["a:1"]}, None, None, "task type must be set"),
            ({"chief": ["a:1"]}, "chief", None, "task index must be set"),
            ({"chief": ["a:1"]}, "chief", 1, "1 is not a valid task_id for task_type chief"),
            ({"chief": ["a:1"]}, "chief", -1, "Task index must be non-negative number."),
            ({"chief": ["a:1"]}, "worker", 0, "worker is not a valid task_type"),
            ({"chief": ["a:1"]}, "chief", "x", "must be an integer, got 'x'"),
            (CHIEF, "evaluator", -1, "Task index must be non-negative number."),
            (MASTER, "evaluator", 1, "task_type `evaluator` is not supported"),
            ({**CHIEF, "master": ["m:1"]}, "ps", 1, "job `chief` is not supported."),
        ],
    )
    def test_clusters_refused(
        self, config: MakeConfig, cluster: Mapping[str, Any], kind: str, index: Any, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            config(cluster, kind, index)

    def test_a_master_cluster_is_mentioned_once(
        self, config: MakeConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="psys"):
            config(MASTER, "master", 0).replace(save_summary_steps=1)
        assert ["'master'" in record.getMessage() for record in caplog.records] == [True]

    @pytest.mark.parametrize("text", ["", "   "])
    def test_an_empty_tf_config_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ValueError, match="TF_CONFIG must be a JSON object"):
            RunConfig()

    def test_wrong_json_types_are_type_errors(
        self, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TF_CONFIG", '{"cluster": null}')
        with pytest.raises(TypeError, match="must be a JSON object"):
            RunConfig()
        with pytest.raises(TypeError, match="expected a list"):
            config({"chief": "c:1"}, "chief", 0)


class TestServiceAndModelDir:
    def test_service(self, config: MakeConfig) -> None:
        service = {"key1": [1, 2], "key2": {"a": 3, "b": 4}, "key3": 789}
        assert config(service=service).service == service
        assert config().service is None
        with pytest.raises(TypeError, match="must be a dict"):
            config(service=789)

    def test_model_dir_of_tf_config(self, config: MakeConfig) -> None:
        assert config(model_dir="/models/123").model_dir == "/models/123"
        same = config(model_dir="/models/123", options={"model_dir": "/models/123"})
        assert same.model_dir == "/models/123"
        assert config(options={"model_dir": "/models/7"}).model_dir == "/models/7"
        with pytest.raises(ValueError, match="must have the same value as the model_dir in TF_C"):
            config(model_dir="/models/123", options={"model_dir": "/models/456"})
        with pytest.raises(ValueError, match="model_dir in TF_CONFIG should be non-empty"):
            config(model_dir="")
