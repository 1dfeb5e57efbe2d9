"""TF_CONFIG in every dialect, and the environment: what is legal, and what errors say.

The dialects are those that cluster managers and users really write; each test of a dialect states
what once went wrong with it elsewhere.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import psys
from psys.cluster import (
    ClusterConfig,
    ClusterSpec,
    Task,
    parse_tf_config,
    read_tf_config,
)
from psys.environment import (
    ENVIRONMENT,
    THREAD_VARIABLES,
    child_environment,
    interactive_wishes,
    job_id,
    job_token,
)
from psys.errors import ConfigError

CLUSTER = {
    "chief": ["host0:2222"],
    "worker": ["host1:2222", "host2:2222", "host3:2222"],
    "ps": ["host4:2222", "host5:2222"],
}
MISSPELT = {
    "ps": ["ps_hosts", "PS", "parameter_servers"],
    "worker": ["worker_hosts", "workers"],
    "chief": ["cheif", "Chief"],
    "evaluator": ["evaluater"],
}
CHIEF_TASK = {"type": "chief", "index": 0}


def parse(cluster: Mapping[str, Any], task: Any = CHIEF_TASK, **more: Any) -> ClusterConfig:
    return parse_tf_config(json.dumps({"cluster": cluster, "task": task, **more}))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


class TestTfConfig:
    def test_every_example_task_of_the_train_and_evaluate_page(self) -> None:
        tasks = [("chief", 0), ("worker", 0), ("worker", 2), ("ps", 1), ("evaluator", 0)]
        for kind, index in tasks:
            config = parse(CLUSTER, {"type": kind, "index": index})
            assert config.task == Task(kind, index)
            assert config.cluster == ClusterSpec(CLUSTER)
            assert not config.evaluator_listed

    def test_no_cluster_is_training_on_this_machine(self) -> None:
        for text in ("{}", '{"cluster": {}}', '{"task": {"type": "worker", "index": 0}}'):
            assert parse_tf_config(text) == ClusterConfig()
        assert ClusterConfig().cluster is None
        assert ClusterConfig().task == Task("worker", 0)

    @pytest.mark.parametrize("text", ["", "   ", "{", "nonsense", "{'cluster': {}}"])
    def test_text_that_is_no_json_is_quoted(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_tf_config(text)
        assert "TF_CONFIG must be a JSON object" in str(caught.value)
        assert repr(text) in str(caught.value)
        assert "unset it" in str(caught.value)

    @pytest.mark.parametrize("text", ["[]", "null", "5", '"chief"'])
    def test_json_that_is_no_object_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="TF_CONFIG must be a JSON object"):
            parse_tf_config(text)

    def test_wrong_json_types_are_type_errors_that_say_where(self) -> None:
        for broken, where in (
            ({"cluster": None}, "TF_CONFIG cluster must be"),
            ({"cluster": {"chief": "c:1"}}, "TF_CONFIG cluster.chief"),
            ({"task": []}, "TF_CONFIG task must be"),
            ({"service": 789}, '"service" is set in TF_CONFIG'),
            ({"model_dir": 5}, "TF_CONFIG model_dir must be a string"),
            ({"cluster": {"chief": ["c:1"]}, "task": {"type": 5, "index": 0}}, "task.type"),
        ):
            with pytest.raises(TypeError) as caught:
                parse_tf_config(json.dumps(broken))
            assert isinstance(caught.value, ConfigError)
            assert where in str(caught.value)

    def test_dialect_facts_are_kept(self) -> None:
        config = parse(
            CLUSTER,
            service={"key": [1, 2]},
            model_dir="/models/1",
            session_master="m",
            eval_session_master="e",
            environment="cloud",
            rpc_layer="grpc",
            job={"anything": 1},
            trial="7",
        )
        assert config.service == {"key": [1, 2]}
        assert config.model_dir == "/models/1"
        assert (config.session_master, config.eval_session_master) == ("m", "e")
        assert config.environment == "cloud"
        with pytest.raises(ConfigError, match="model_dir in TF_CONFIG should be non-empty"):
            parse(CLUSTER, model_dir="")

    @pytest.mark.parametrize("environment", ["", "local", "google", "cloud"])
    def test_environment_is_no_hidden_switch(self, environment: str) -> None:
        assert parse(CLUSTER, environment=environment).cluster == ClusterSpec(CLUSTER)

    @pytest.mark.parametrize("given", ["1", 1.9, 1])
    def test_an_index_may_be_a_string_of_digits(self, given: object) -> None:
        assert parse(CLUSTER, {"type": "worker", "index": given}).task == Task("worker", 1)

    @pytest.mark.parametrize("given", ["x", "", "1.9", [], {}, float("inf")])
    def test_an_index_that_is_no_number_is_quoted(self, given: object) -> None:
        with pytest.raises(ConfigError, match=r"TF_CONFIG task\.index must be an integer, got"):
            parse(CLUSTER, {"type": "worker", "index": given})


class TestOneChief:
    def test_without_a_chief_the_error_says_how_to_name_one(self) -> None:
        workers_only = {"worker": ["a:1", "b:1"], "ps": ["c:1"]}
        for task in ({"type": "worker", "index": 0}, {"type": "ps", "index": 0}, {}):
            with pytest.raises(ConfigError, match='it must have one "chief" node') as caught:
                parse(workers_only, task)
            assert "one trainer is the chief" in str(caught.value)
        with pytest.raises(ConfigError, match='must have one "chief" node'):
            parse(workers_only, {"type": "evaluator", "index": 0})

    def test_a_cluster_of_empty_lists_is_still_a_cluster(self) -> None:
        with pytest.raises(ConfigError, match='must have one "chief" node'):
            parse({"chief": [], "ps": []})

    def test_smallest_clusters_are_legal(self) -> None:
        alone = parse({"chief": ["a:1"]}).cluster
        assert alone is not None
        assert (alone.trainers, alone.shard_addresses[0]) == (("chief",), "a:1")
        with_ps = parse({"chief": ["a:1"], "ps": ["b:1"]}).cluster
        assert with_ps is not None
        assert (with_ps.trainers, with_ps.shard_addresses[0]) == (("chief",), "b:1")
        with_worker = parse({"chief": ["a:1"], "worker": ["b:1"]}, {"type": "worker", "index": 0})
        assert with_worker.cluster is not None
        assert with_worker.cluster.shard_addresses[0] == "a:1"

    def test_master_is_accepted_with_one_caution(self) -> None:
        config = parse({"master": ["a:1"], "ps": ["b:1"]}, {"type": "master", "index": 0})
        assert config.task.is_chief
        assert len(config.cautions) == 1
        assert "'master'" in config.cautions[0]
        assert parse(CLUSTER).cautions == ()

    @pytest.mark.parametrize(("named", "listed"), [("chief", "master"), ("master", "chief")])
    def test_chief_and_master_mixed_up_is_pointed_out(self, named: str, listed: str) -> None:
        with pytest.raises(ConfigError, match=f"did you mean '{listed}'"):
            parse({listed: ["a:1"], "ps": ["b:1"]}, {"type": named, "index": 0})

    def test_order_of_the_checks(self) -> None:
        """Each cluster breaks its own rule and every later one; the first is reported."""
        later = {"type": "nobody", "index": -1}
        for cluster, task, rule in (
            ({"chief": ["a:1", "b:1"], "master": ["c:1"]}, {}, "job `chief` is not supported"),
            ({"chief": ["a:1", "b:1"]}, {}, 'only one "chief" node'),
            ({"master": ["a:1", "b:1"]}, {}, 'only one "master" node'),
            ({"chief": ["a:1"]}, {}, "task type must be set"),
            ({"chief": ["a:1"]}, {"type": "nobody"}, "task index must be set"),
            ({"master": ["a:1"]}, {"type": "evaluator", "index": -1}, "`evaluator` is not"),
            ({"chief": ["a:1"]}, later, "non-negative number"),
            ({"chief": ["a:1"]}, {"type": "nobody", "index": 9}, "not a valid task_type"),
            ({"chief": ["a:1"]}, {"type": "chief", "index": 1}, "not a valid task_id"),
            ({"chief": ["a:1"]}, {"type": "chief", "index": 1.5}, "^1.5 is not a valid task_id"),
        ):
            with pytest.raises(ConfigError, match=rule):
                parse(cluster, task)


class TestEvaluator:
    """Cluster managers disagree on whether the evaluator is in the cluster: both are right."""

    WITH: ClassVar[dict[str, list[str]]] = {**CLUSTER, "evaluator": ["host6:2222"]}

    def test_it_keeps_the_addresses_whether_listed_or_not(self) -> None:
        for cluster, listed in ((CLUSTER, False), (self.WITH, True)):
            config = parse(cluster, {"type": "evaluator", "index": 0})
            assert config.evaluator_listed is listed
            assert config.cluster is not None
            assert config.cluster.shard_addresses[0] == "host4:2222"

    def test_it_is_never_among_those_waited_for_to_train(self) -> None:
        for task in ({"type": "worker", "index": 1}, {"type": "ps", "index": 0}, CHIEF_TASK):
            config = parse(self.WITH, task)
            assert config.evaluator_listed
            assert config.cluster is not None
            assert config.cluster.trainers == ClusterSpec(CLUSTER).trainers
            assert config.cluster.digest() == ClusterSpec(CLUSTER).digest()

    def test_its_index_has_no_upper_bound_but_a_lower_one(self) -> None:
        assert parse(CLUSTER, {"type": "evaluator", "index": 12}).task.index == 12
        with pytest.raises(ConfigError, match="non-negative"):
            parse(CLUSTER, {"type": "evaluator", "index": -1})

    def test_without_a_cluster_it_has_nothing_to_watch(self) -> None:
        with pytest.raises(ConfigError, match="task type must be WORKER"):
            parse({}, {"type": "evaluator", "index": 0})


class TestSparseDialect:
    def test_kubeflows_key_for_dynamic_workers(self) -> None:
        sparse = {"chief": {"0": "h:1"}, "worker": {"3": "h:2"}, "ps": ["h:3"]}
        text = json.dumps({"sparseCluster": sparse, "task": {"type": "worker", "index": 3}})
        config = parse_tf_config(text)
        assert config.task == Task("worker", 3)
        assert config.cluster is not None
        assert config.cluster.trainers == ("chief", "worker:3")

    def test_a_task_must_find_itself_in_it(self) -> None:
        sparse = {"chief": {"0": "a:1"}, "worker": {"3": "b:1"}}
        assert parse(sparse, {"type": "worker", "index": 3}).task.index == 3
        with pytest.raises(ConfigError, match=r"0 is not a valid task_id .* indices \[3\]"):
            parse(sparse, {"type": "worker", "index": 0})

    def test_both_keys_at_once_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="both 'cluster' and 'sparseCluster'"):
            parse(CLUSTER, sparseCluster={})


class TestMisspeltKeys:
    @pytest.mark.parametrize(
        ("wrong", "right"),
        [(wrong, right) for right, all_wrong in MISSPELT.items() for wrong in all_wrong],
    )
    def test_task_types_in_the_cluster(self, wrong: str, right: str) -> None:
        cluster = {key: value for key, value in CLUSTER.items() if key != right}
        with pytest.raises(ConfigError, match=f"'{wrong}' .did you mean '{right}'") as caught:
            parse({**cluster, wrong: ["h:1"]})
        assert "TF_CONFIG cluster: unknown task type" in str(caught.value)

    @pytest.mark.parametrize("wrong", ["id", "idx", "task_id", "Index", "indx"])
    def test_task_index(self, wrong: str) -> None:
        for cluster in ({}, CLUSTER):
            with pytest.raises(ConfigError, match=f"unknown key '{wrong}' .did you mean 'index'"):
                parse(cluster, {"type": "worker", wrong: 0})

    @pytest.mark.parametrize("wrong", ["job_name", "task_type", "name", "Type"])
    def test_task_type(self, wrong: str) -> None:
        with pytest.raises(ConfigError, match=f"unknown key '{wrong}' .did you mean 'type'"):
            parse(CLUSTER, {wrong: "worker", "index": 0})

    @pytest.mark.parametrize("wrong", ["Cluster", "clusters", "cluster_spec"])
    def test_sections(self, wrong: str) -> None:
        with pytest.raises(ConfigError, match=f"unknown key '{wrong}' .did you mean 'cluster'"):
            parse_tf_config(json.dumps({wrong: CLUSTER, "task": CHIEF_TASK}))

    def test_the_value_of_task_type(self) -> None:
        with pytest.raises(ConfigError, match=r"cheif is not a valid task_type.*mean 'chief'"):
            parse(CLUSTER, {"type": "cheif", "index": 0})

    def test_other_words_are_let_through_as_tf_estimator_does(self) -> None:
        config = parse({**CLUSTER, "other_type": ["x:1"]}, {"type": "other_type", "index": 0})
        assert config.task == Task("other_type", 0)
        cloud = {"type": "worker", "index": 0, "trial": "1", "cloud": "abc"}
        assert parse(CLUSTER, cloud).task == Task("worker", 0)


class TestEnvironment:
    def test_tf_config_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert read_tf_config() == ClusterConfig()
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": CLUSTER, "task": CHIEF_TASK}))
        assert read_tf_config() == parse(CLUSTER)
        monkeypatch.setenv("TF_CONFIG", "")
        with pytest.raises(ConfigError, match="TF_CONFIG must be a JSON object, got ''"):
            read_tf_config()

    def test_tf_config_file_is_read_and_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = tmp_path / "tf_config.json"
        monkeypatch.setenv("TF_CONFIG_FILE", str(path))
        with pytest.raises(ConfigError, match=r"TF_CONFIG_FILE must name a text file, got .*json"):
            read_tf_config()
        path.write_text(json.dumps({"cluster": CLUSTER, "task": CHIEF_TASK}))
        assert read_tf_config() == parse(CLUSTER)
        path.write_text(json.dumps({"cluster": {"chief": ["nohost"]}, "task": CHIEF_TASK}))
        with pytest.raises(ConfigError, match=r"TF_CONFIG_FILE .*json cluster\.chief\[0\]"):
            read_tf_config()
        monkeypatch.setenv("TF_CONFIG", "{}")
        assert read_tf_config() == ClusterConfig()

    def test_job_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert job_token() is None
        monkeypatch.setenv("PSYS_JOB_TOKEN", "")
        assert job_token() is None
        monkeypatch.setenv("PSYS_JOB_TOKEN", "s3cret\n")
        assert job_token() == "s3cret"
        monkeypatch.setenv("PSYS_JOB_TOKEN", "gehëim")
        with pytest.raises(ConfigError, match="printable ASCII") as caught:
            job_token()
        assert "geh" not in str(caught.value)

    def test_job_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert job_id() == ""
        monkeypatch.setenv("PSYS_JOB_ID", "2026-11-21.a ")
        assert job_id() == "2026-11-21.a"
        monkeypatch.setenv("PSYS_JOB_ID", "../x y")
        with pytest.raises(ConfigError, match="PSYS_JOB_ID must be at most 64 letters"):
            job_id()

    def test_child_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TF_CONFIG_FILE", "/elsewhere")
        monkeypatch.setenv("OMP_NUM_THREADS", "6")
        monkeypatch.setenv("KEPT", "yes")
        tf_config = {"cluster": CLUSTER, "task": CHIEF_TASK}
        child = child_environment(tf_config, {"PSYS_JOB_TOKEN": "t", "KEPT": "no"}, threads=2)
        assert json.loads(child["TF_CONFIG"]) == tf_config
        assert "TF_CONFIG_FILE" not in child
        assert child["PYTHONUNBUFFERED"] == "1"
        assert (child["PSYS_JOB_TOKEN"], child["KEPT"]) == ("t", "no")
        assert [child[name] for name in THREAD_VARIABLES] == ["2", "6", "2"]
        assert child_environment({})["MKL_NUM_THREADS"] == "1"

    def test_colour_wishes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert interactive_wishes() is None
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert interactive_wishes() is True
        monkeypatch.setenv("NO_COLOR", "")
        assert interactive_wishes() is True
        monkeypatch.setenv("NO_COLOR", "1")
        assert interactive_wishes() is False

    def test_the_list_of_variables_is_complete(self) -> None:
        """Every name given to os.environ.get in the module is in ENVIRONMENT, and no other."""
        source = Path(psys.__path__[0], "environment.py").read_text(encoding="utf-8")
        read = {
            argument.value
            for call in ast.walk(ast.parse(source))
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "os.environ.get"
            for argument in call.args[:1]
            if isinstance(argument, ast.Constant)
        }
        assert read | set(THREAD_VARIABLES) == set(ENVIRONMENT)
