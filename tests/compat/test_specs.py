"""TrainSpec and EvalSpec as tf.estimator has them (pages TrainSpec, EvalSpec)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from psys.errors import ConfigError
from psys.estimator.specs import EvalSpec, TrainSpec
from psys.train.hooks import CheckpointSaverListener, SessionRunHook


class DuckExporter:
    """All an exporter needs, without the base class."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Export nothing."""


def batches() -> Iterator[tuple[dict[str, Any], None]]:
    yield {}, None


class TestTrainSpec:
    def test_required_arguments_only(self) -> None:
        spec = TrainSpec(batches)
        assert (spec.input_fn, spec.max_steps) == (batches, None)
        assert (spec.hooks, spec.saving_listeners) == ((), ())

    def test_all_arguments(self) -> None:
        hook, listener = SessionRunHook(), CheckpointSaverListener()
        spec = TrainSpec(
            input_fn=batches, max_steps=2, hooks=[hook], saving_listeners=iter([listener])
        )
        assert spec == (batches, 2, (hook,), (listener,))
        assert TrainSpec._fields == ("input_fn", "max_steps", "hooks", "saving_listeners")

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"input_fn": "fn"}, TypeError, "`input_fn` must be callable, given: 'fn'"),
            ({"max_steps": 0}, ValueError, "Must specify max_steps > 0, given: 0"),
            ({"max_steps": -5}, ValueError, "Must specify max_steps > 0"),
            ({"max_steps": float("inf")}, ValueError, "Must specify max_steps > 0"),
            ({"max_steps": "10"}, TypeError, "`max_steps` must be a number"),
            ({"hooks": [object()]}, TypeError, "All hooks must be `SessionRunHook` instances"),
            ({"hooks": SessionRunHook()}, TypeError, "`hooks` must be an iterable"),
            (
                {"saving_listeners": [object()]},
                TypeError,
                "All saving_listeners must be `CheckpointSaverListener` instances",
            ),
            ({"saving_listeners": [SessionRunHook()]}, TypeError, "CheckpointSaverListener"),
        ],
    )
    def test_refused(self, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message) as caught:
            TrainSpec(**{"input_fn": batches, **arguments})
        assert isinstance(caught.value, ConfigError)

    def test_steps_written_as_a_float_are_a_whole_number(self) -> None:
        for given, steps in ((1e6, 10**6), (2.5, 3)):
            max_steps = TrainSpec(batches, max_steps=given).max_steps  # type: ignore[arg-type]
            assert max_steps == steps
            assert isinstance(max_steps, int)

    def test_is_immutable(self) -> None:
        with pytest.raises(AttributeError):
            TrainSpec(batches).max_steps = 5  # type: ignore[misc]
        with pytest.raises(AttributeError):
            TrainSpec(batches).other = 5  # type: ignore[attr-defined]


class TestEvalSpec:
    def test_required_arguments_only(self) -> None:
        spec = EvalSpec(batches)
        assert (spec.input_fn, spec.steps, spec.name) == (batches, 100, None)
        assert (spec.hooks, spec.exporters) == ((), ())
        assert (spec.start_delay_secs, spec.throttle_secs) == (120, 600)

    def test_all_arguments(self) -> None:
        hook = SessionRunHook()
        exporter: Any = DuckExporter("a")
        spec = EvalSpec(
            input_fn=batches,
            steps=2,
            name="name",
            hooks=[hook],
            exporters=exporter,
            start_delay_secs=3,
            throttle_secs=4,
        )
        assert spec == (batches, 2, "name", (hook,), (exporter,), 3, 4)

    def test_none_means_until_the_input_ends(self) -> None:
        assert EvalSpec(batches, steps=None).steps is None

    def test_exporters_come_alone_or_several(self) -> None:
        a: Any = DuckExporter("a")
        b: Any = DuckExporter("b")
        for given, exporters in (
            (a, (a,)),
            ([a, b], (a, b)),
            ((a, b), (a, b)),
            (iter([a, b]), (a, b)),
            (None, ()),
            ([], ()),
        ):
            assert EvalSpec(batches, exporters=given).exporters == exporters

    @pytest.mark.parametrize(
        ("exporters", "error", "message"),
        [
            ([object()], TypeError, "must be an Exporter, an iterable of Exporter, or `None`"),
            (object(), TypeError, "must be an Exporter, an iterable of Exporter, or `None`"),
            (DuckExporter(None), ValueError, "cannot have a name that is `None` or empty"),
            (DuckExporter(""), ValueError, "cannot have a name that is `None` or empty"),
            (DuckExporter(123), ValueError, "name must be a string, given: 123"),
            ([DuckExporter("a"), DuckExporter("a")], ValueError, "must have unique names"),
        ],
    )
    def test_exporters_refused(self, exporters: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            EvalSpec(batches, exporters=exporters)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"input_fn": "fn"}, TypeError, "`input_fn` must be callable"),
            ({"steps": 0}, ValueError, "Must specify steps > 0, given: 0"),
            ({"name": 123}, TypeError, "`name` must be string, given: 123"),
            ({"start_delay_secs": -1}, ValueError, "Must specify start_delay_secs >= 0"),
            ({"throttle_secs": -1}, ValueError, "Must specify throttle_secs >= 0"),
            ({"throttle_secs": None}, TypeError, "`throttle_secs` must be a number of seconds"),
            ({"hooks": [object()]}, TypeError, "All hooks must be `SessionRunHook` instances"),
        ],
    )
    def test_refused(self, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            EvalSpec(**{"input_fn": batches, **arguments})

    def test_a_time_of_0_is_legal(self) -> None:
        spec = EvalSpec(batches, start_delay_secs=0, throttle_secs=0)
        assert (spec.start_delay_secs, spec.throttle_secs) == (0, 0)
