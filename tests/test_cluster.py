"""Tasks and addresses: what is legal, and what the error says where it is not."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.cluster import (
    ClusterSpec,
    ConfigTypeError,
    Task,
)
from psys.errors import ConfigError

CLUSTER = {
    "chief": ["host0:2222"],
    "worker": ["host1:2222", "host2:2222", "host3:2222"],
    "ps": ["host4:2222", "host5:2222"],
}


class TestTask:
    @pytest.mark.parametrize(
        ("task", "name"),
        [
            (Task("chief", 0), "chief"),
            (Task("worker", 1), "worker:1"),
            (Task("ps", 0), "ps:0"),
            (Task("evaluator", 0), "evaluator"),
            (Task("evaluator", 12), "evaluator:12"),
        ],
    )
    def test_name_and_back(self, task: Task, name: str) -> None:
        assert str(task) == name
        assert Task.parse(name) == task

    def test_a_master_is_known_as_the_chief(self) -> None:
        assert str(Task("master", 0)) == "chief"
        assert Task("master", 0).is_chief
        assert not Task("worker", 0).is_chief

    @pytest.mark.parametrize("name", ["", "worker", "ps", "worker:", "worker:x", ":1", "ps:-1"])
    def test_a_name_no_task_can_have_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"A task name is .* got "):
            Task.parse(name)

    def test_is_immutable_and_checked(self) -> None:
        with pytest.raises(AttributeError):
            Task("ps", 0).index = 1  # type: ignore[misc]
        with pytest.raises(ConfigError, match="non-negative"):
            Task("ps", -1)
        with pytest.raises(ConfigError, match="such as 'worker'"):
            Task("ps:0", 0)

    @given(st.sampled_from(["chief", "worker", "ps", "evaluator", "foo"]), st.integers(0, 10**6))
    def test_every_name_can_be_parsed(self, kind: str, index: int) -> None:
        assert Task.parse(str(Task(kind, index))) == Task(kind, index)


class TestClusterSpec:
    def test_addresses_by_role(self) -> None:
        spec = ClusterSpec(CLUSTER)
        assert spec.chief == "host0:2222"
        assert spec.workers == ("host1:2222", "host2:2222", "host3:2222")
        assert spec.ps == ("host4:2222", "host5:2222")
        assert spec.trainers == ("chief", "worker:0", "worker:1", "worker:2")
        assert spec.jobs == ("chief", "ps", "worker")
        assert spec.as_dict() == CLUSTER
        assert spec.address(Task("worker", 2)) == "host3:2222"
        assert spec.tasks_of("ps") == (Task("ps", 0), Task("ps", 1))

    def test_an_empty_one_is_false_and_has_nothing(self) -> None:
        spec = ClusterSpec()
        assert not spec
        assert spec == ClusterSpec({})
        assert (spec.chief, spec.ps, spec.trainers, spec.as_dict()) == (None, (), (), {})
        assert ClusterSpec(CLUSTER)

    def test_an_address_of_a_task_not_listed_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="worker:3 is not in the cluster"):
            ClusterSpec(CLUSTER).address(Task("worker", 3))

    def test_a_master_is_the_chief(self) -> None:
        spec = ClusterSpec({"master": ["h:1"], "worker": ["h:2"]})
        assert spec.chief == "h:1"
        assert spec.trainers == ("chief", "worker:0")

    def test_the_lead_is_ps_0_or_else_the_chief(self) -> None:
        assert ClusterSpec(CLUSTER).shard_addresses[0] == "host4:2222"
        alone = ClusterSpec({"chief": ["h:1"], "worker": ["h:2"]})
        assert alone.shard_addresses == ("h:1",)
        assert ClusterSpec({"worker": ["h:2"]}).shard_addresses == ()

    def test_sparse_form_keeps_its_indices(self) -> None:
        spec = ClusterSpec({"chief": ["h:1"], "worker": {"7": "h:9", 2: "h:8"}})
        assert spec.trainers == ("chief", "worker:2", "worker:7")
        assert spec.workers == ("h:8", "h:9")
        assert spec.as_dict() == {"chief": ["h:1"], "worker": {2: "h:8", 7: "h:9"}}
        assert ClusterSpec(spec.as_dict()) == spec

    def test_sparse_ps_may_have_no_gap(self) -> None:
        assert ClusterSpec({"ps": {"1": "h:2", "0": "h:1"}}).ps == ("h:1", "h:2")
        with pytest.raises(ConfigError, match=r"cluster\.ps: .*without a gap, got \[0, 2\]"):
            ClusterSpec({"ps": {0: "h:1", 2: "h:2"}})

    def test_a_sparse_index_must_be_a_number_given_once(self) -> None:
        with pytest.raises(ConfigError, match=r"cluster\.worker: expected each index once"):
            ClusterSpec({"worker": {"first": "h:1"}})
        with pytest.raises(ConfigError, match=r"cluster\.worker: expected each index once"):
            ClusterSpec({"worker": {"1": "h:1", "01": "h:2"}})

    def test_digest_tells_a_ps_list_in_another_order(self) -> None:
        spec = ClusterSpec(CLUSTER)
        reordered = ClusterSpec({**CLUSTER, "ps": CLUSTER["ps"][::-1]})
        fewer = ClusterSpec({**CLUSTER, "ps": CLUSTER["ps"][:1]})
        assert len({spec.digest(), reordered.digest(), fewer.digest()}) == 3

    def test_digest_is_the_same_for_all_who_may_train_together(self) -> None:
        other_workers = ClusterSpec({**CLUSTER, "worker": {5: "elsewhere:1"}})
        prefixed = ClusterSpec({**CLUSTER, "ps": ["grpc://HOST4:2222", "host5:2222"]})
        assert ClusterSpec(CLUSTER).digest() == other_workers.digest() == prefixed.digest()

    def test_is_a_value(self) -> None:
        spec = ClusterSpec(CLUSTER)
        same = ClusterSpec(dict(reversed(CLUSTER.items())))
        assert spec == same == copy.deepcopy(spec) == pickle.loads(pickle.dumps(spec))
        assert len({spec, same}) == 1
        with pytest.raises(AttributeError):
            spec.addresses = ()  # type: ignore[misc]

    @pytest.mark.parametrize(
        "address",
        [
            "localhost:1",
            "10.0.0.1:65535",
            "job-worker-0.ns.svc.cluster.local:2222",
            "my_service:80",
            "[::1]:2222",
            "[2001:db8::5]:1",
        ],
    )
    def test_address_syntax_accepted(self, address: str) -> None:
        assert ClusterSpec({"ps": [address]}).ps == (address,)
        assert ClusterSpec({"ps": [f"grpc://{address}"]}).ps == (address,)

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "host",
            "host:",
            ":2222",
            "host:0",
            "host:65536",
            "host:-1",
            "host:port",
            "host: 2222",
            "host:2222 ",
            "ho st:2222",
            "::1:2222",
            "[::1]",
            "[host]:1",
            "http://host:1",
            "grpc://",
            "host:٢",
        ],
    )
    def test_address_syntax_refused(self, address: str) -> None:
        with pytest.raises(ConfigError) as caught:
            ClusterSpec({"ps": ["good:1", address]})
        assert "cluster.ps[1]: expected" in str(caught.value)
        assert repr(address) in str(caught.value)

    @pytest.mark.parametrize("host", ["lcoalhost", "locahost", "localhots", "Localhst"])
    def test_misspelt_localhost_is_named_instead_of_never_resolving(self, host: str) -> None:
        with pytest.raises(ConfigError, match="did you mean 'localhost'"):
            ClusterSpec({"ps": [f"{host}:2222"]})

    @pytest.mark.parametrize("host", ["localhost2", "locust", "LOCALHOST", "local-host"])
    def test_hosts_that_only_resemble_localhost_pass(self, host: str) -> None:
        assert ClusterSpec({"ps": [f"{host}:2222"]}).ps == (f"{host}:2222",)

    def test_two_tasks_cannot_share_an_address(self) -> None:
        cluster = {"chief": ["a:1"], "ps": ["b:1", "grpc://A:1"]}
        with pytest.raises(ConfigError, match=r"ps\[1\]: A:1 is already .* cluster\.chief\[0\]"):
            ClusterSpec(cluster)

    @pytest.mark.parametrize("listed", [None, "c:1", 5])
    def test_a_task_type_needs_a_list_or_dict(self, listed: object) -> None:
        with pytest.raises(ConfigTypeError, match=r"cluster\.chief: expected a list"):
            ClusterSpec({"chief": listed})
        with pytest.raises(TypeError):
            ClusterSpec({"chief": listed})

    def test_an_address_must_be_a_string(self) -> None:
        with pytest.raises(TypeError, match=r"cluster\.ps\[0\]: expected .* got 2222"):
            ClusterSpec({"ps": [2222]})

    @given(
        st.dictionaries(
            st.sampled_from(["chief", "worker", "ps", "evaluator", "foo"]),
            st.integers(0, 5),
            min_size=1,
        )
    )
    def test_as_dict_can_be_read_back(self, sizes: dict[str, int]) -> None:
        port = iter(range(1, 100))
        cluster = {job: [f"h:{next(port)}" for _ in range(n)] for job, n in sizes.items()}
        spec = ClusterSpec(cluster)
        assert spec.as_dict() == {job: listed for job, listed in cluster.items() if listed}
        assert ClusterSpec(spec.as_dict()) == spec
