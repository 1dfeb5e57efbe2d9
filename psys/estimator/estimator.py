"""Estimator: a model_fn, a directory, and the four things one does with them.

Train, evaluate, predict, export, each on this machine. In a cluster ``train_and_evaluate``
runs the same training through the same ``TrainingRun``.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.checkpoint import ModelReader, latest_checkpoint, open_checkpoint
from psys.checkpoint.catalog import find_latest_valid
from psys.checkpoint.storage import FileStorage
from psys.compute.build_store import BuildStore
from psys.errors import CheckpointNotFound, ConfigError, ModelError
from psys.estimator import evaluation
from psys.estimator.export import make_signature, open_model, received_features, write_export
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.estimator.run_config import RunConfig
from psys.estimator.specs import checked_hooks, checked_listeners
from psys.estimator.training import TrainArguments, TrainingRun
from psys.train.hooks import CheckpointSaverListener, SessionRunHook
from psys.train.input_pipeline import Batch, InputPipeline, batches, call_input_fn
from psys.train.interrupts import saving_on_signal
from psys.train.log import show_log_lines
from psys.train.membership import Membership, local_settings
from psys.train.model import InitialModel
from psys.train.restoring import new_seed
from psys.train.verdict import put_aside_verdict

logger = logging.getLogger("psys")

GLOBAL_STEP = "global_step"
_MODEL_FN_ARGUMENTS = {"features", "labels", "mode", "params", "self", "config"}


class Estimator:
    """Trains and evaluates the model a ``model_fn`` describes (tf.estimator.Estimator)."""

    def __init__(
        self,
        model_fn: Callable[..., EstimatorSpec],
        model_dir: str | os.PathLike[str] | None = None,
        config: RunConfig | None = None,
        params: Mapping[str, Any] | None = None,
        warm_start_from: None = None,
    ) -> None:
        """Check the arguments; nothing is built yet.

        Args:
            model_fn: called once a step with the batch's arrays: ``(features[, labels][, mode]
                [, params][, config])`` → EstimatorSpec.
            model_dir: where everything is kept; RunConfig's if None; else a temporary one.
            config: a RunConfig; one that reads TF_CONFIG if None.
            params: given to model_fn and input_fn, copied.
            warm_start_from: not available in this version.

        Raises:
            ConfigError: if an argument cannot be used.
        """
        self._refuse_overrides()
        config = RunConfig() if config is None else config
        if not isinstance(config, RunConfig):
            raise ConfigError(f"config must be an instance of `RunConfig`, given {config!r}.")
        if warm_start_from is not None:
            raise ConfigError("warm_start_from is not available in this version of psys.")
        self._config = _with_model_dir(config, model_dir)
        self._params: Any = {} if params is None else copy.deepcopy(params)
        if model_fn is None:
            raise ConfigError("model_fn must be provided to Estimator.")
        self._arguments = _check_model_fn(model_fn, params)
        self._model_fn = model_fn
        self._seen_features: Any = None

    # ------------------------------------------------------------ properties

    @property
    def config(self) -> RunConfig:
        """A copy of the RunConfig."""
        return copy.deepcopy(self._config)

    @property
    def model_dir(self) -> str:
        """Where checkpoints, summaries and exports are."""
        assert self._config.model_dir is not None
        return self._config.model_dir

    @property
    def params(self) -> Any:
        """A copy of the parameters."""
        return copy.deepcopy(self._params)

    @property
    def model_fn(self) -> Callable[..., EstimatorSpec]:
        """The model_fn, with params bound: (features, labels, mode, config) → EstimatorSpec."""

        def bound(features: Any, labels: Any, mode: str, config: RunConfig) -> EstimatorSpec:
            del config
            return self.call_model_fn(features, labels, mode)

        return bound

    # ------------------------------------------------------------ the four verbs

    def train(
        self,
        input_fn: Callable[..., Any],
        hooks: Sequence[SessionRunHook] | None = None,
        steps: int | None = None,
        max_steps: int | None = None,
        saving_listeners: Sequence[CheckpointSaverListener] | None = None,
    ) -> Estimator:
        """Train on this machine, going on from the latest checkpoint.

        Args:
            input_fn: makes batches; asked again for each call.
            hooks: called around each step.
            steps: so many more steps; excludes ``max_steps``.
            max_steps: up to this global step; nothing is done if it is reached already.
            saving_listeners: told of every checkpoint.

        Raises:
            ConfigError: if an argument cannot be used, or TF_CONFIG names a cluster (there,
                ``train_and_evaluate`` trains).
            ModelError: if the model or its data cannot be used.
            KeyboardInterrupt: after Ctrl-C, once the step under way is saved; SystemExit after
                SIGTERM.
        """
        _check_steps(steps, max_steps)
        if self._config.cluster_config.cluster is not None:
            raise ConfigError(
                "Estimator.train trains on one machine, and TF_CONFIG names a cluster: "
                "use train_and_evaluate."
            )
        checked = checked_hooks(hooks or ())
        listeners = checked_listeners(saving_listeners or ())
        show_log_lines()
        if max_steps is not None and (reached := self._reached()) >= max_steps:
            logger.info(
                "Nothing to do: the checkpoint at step %d is at or beyond max_steps %d.",
                reached,
                max_steps,
            )
            return self
        arguments = TrainArguments(
            input_fn, checked, listeners, steps, max_steps, params=self.params
        )
        FileStorage(self.model_dir).check_writable()
        put_aside_verdict(self.model_dir)
        membership = Membership(local_settings(self.model_dir))
        run = TrainingRun(self.call_model_fn, self._config, membership, arguments)
        try:
            assert membership.attendance is not None
            with saving_on_signal(run.request_stop):
                membership.attendance.begin()
                run.run()
                run.finish()
        finally:
            run.close()
            membership.close()
        return self

    def evaluate(
        self,
        input_fn: Callable[..., Any],
        steps: int | None = None,
        hooks: Sequence[SessionRunHook] | None = None,
        checkpoint_path: str | None = None,
        name: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Evaluate a checkpoint; return its metrics, ``loss`` and ``global_step``.

        Args:
            input_fn: makes batches.
            steps: how many at most; None for all.
            hooks: called around each batch.
            checkpoint_path: which; the latest if None; initial values if there is none.
            name: of the evaluation; its results go to ``eval_<name>`` instead of ``eval``.
            progress: told the number of each batch.

        Raises:
            ConfigError: if ``steps`` is not above 0.
            ModelError: if the model or its data cannot be used.
            CheckpointError: if the checkpoint cannot be read.
        """
        _check_steps(steps, None)
        checked = checked_hooks(hooks or ())
        begun = time.monotonic()
        path = checkpoint_path or self.latest_checkpoint()
        with _batches_of(self._input(input_fn, ModeKeys.EVAL)) as source:
            if path is not None:
                reader = open_model(path)
            else:
                self._say_untrained()
                source, reader = self._initial(source, ModeKeys.EVAL)
            results = evaluation.evaluate(
                self._noting_call, reader, source, steps, checked, progress
            )
        evaluation.write_results(self.eval_dir(name), results, path or "", time.monotonic() - begun)
        said = ", ".join(
            f"{key} = {value:.6g}" for key, value in sorted(results.items()) if key != "global_step"
        )
        logger.info("Evaluated step %d: %s", results["global_step"], said)
        return results

    def predict(
        self,
        input_fn: Callable[..., Any],
        predict_keys: Sequence[str] | str | None = None,
        hooks: Sequence[SessionRunHook] | None = None,
        checkpoint_path: str | None = None,
        yield_single_examples: bool = True,
    ) -> Iterator[Any]:
        """Yield predictions for features.

        Args:
            input_fn: makes batches; labels are dropped.
            predict_keys: which predictions; all if None.
            hooks: called around each batch.
            checkpoint_path: a checkpoint or an export; the latest checkpoint if None.
            yield_single_examples: False yields whole batches.

        Raises:
            ModelError: if predictions have different lengths, or no key is among them.
        """
        checked = checked_hooks(hooks or ())
        path = checkpoint_path or self.latest_checkpoint()
        with _batches_of(self._input(input_fn, ModeKeys.PREDICT)) as source:
            if path is not None:
                reader = open_model(path)
            else:
                self._say_untrained()
                source, reader = self._initial(source, ModeKeys.PREDICT)
            yield from evaluation.predict(
                self.call_model_fn, reader, source, predict_keys, checked, yield_single_examples
            )

    def export_saved_model(
        self,
        export_dir_base: str,
        serving_input_receiver_fn: Callable[[], Any] | None = None,
        assets_extra: Mapping[str, str] | None = None,
        as_text: bool = False,
        checkpoint_path: str | None = None,
    ) -> str:
        """Write a checkpoint's variables and the model's signature; return the new directory.

        Args:
            export_dir_base: a directory named after the time is made below it.
            serving_input_receiver_fn: returns the features a server is given, as a dict of
                example arrays ``[batch, ...]``; None takes those of the last evaluation.
            assets_extra: files to copy, their place in the export to their source.
            as_text: accepted as in tf.estimator.
            checkpoint_path: which checkpoint; the latest if None.

        Raises:
            CheckpointNotFound: (a ValueError) if there is no checkpoint.
            ConfigError: if serving_input_receiver_fn fails by an error of its own.
            ModelError: if model_fn makes no predictions of these features.
        """
        path = checkpoint_path or self.latest_checkpoint()
        if path is None:
            raise CheckpointNotFound(f"Couldn't find trained model at {self.model_dir}.")
        reader = open_checkpoint(path)
        features = self._seen_features
        if serving_input_receiver_fn is not None:
            received = received_features(serving_input_receiver_fn)
            features = features if received is None else received
        served: Mapping[str, Any] = {}
        predictions: tuple[str, ...] = ()
        if features is not None:
            served = features if isinstance(features, Mapping) else {"feature": features}
            predictions = evaluation.prediction_keys(self.call_model_fn, reader, features)
        signature = make_signature(served, predictions)
        return write_export(export_dir_base, reader, signature, assets_extra)

    # ------------------------------------------------------------ introspection

    def latest_checkpoint(self) -> str | None:
        """Return the newest checkpoint's directory, or None."""
        return latest_checkpoint(self.model_dir)

    def get_variable_names(self) -> list[str]:
        """Return the names of all variables, ``global_step`` among them.

        Raises:
            CheckpointNotFound: if there is no checkpoint.
        """
        return sorted([*self._trained().variables, GLOBAL_STEP])

    def get_variable_value(self, name: str) -> Array:
        """Return a variable's value, whole; that of ``global_step`` is the checkpoint's step.

        Raises:
            CheckpointNotFound: if there is no checkpoint.
            ModelError: if there is no such variable.
        """
        reader = self._trained()
        if name == GLOBAL_STEP and name not in reader.variables:
            return np.array(reader.global_step, np.int64)
        return reader.read(name)

    def eval_dir(self, name: str | None = None) -> str:
        """Return where an evaluation's results go."""
        return os.path.join(self.model_dir, f"eval_{name}" if name else "eval")

    # ------------------------------------------------------------ for psys itself

    def call_model_fn(self, features: Any, labels: Any, mode: str) -> EstimatorSpec:
        """Run model_fn on one batch, with those of its arguments it declares.

        Raises:
            ModelError: if it takes no labels and there are some, writes into an array that is only
                to be read, or returns no EstimatorSpec.
        """
        # Each call gets its own params: it may change them as a graph's one call might.
        params = copy.copy(self._params)
        given: dict[str, Any] = {"mode": mode, "params": params, "config": self._config}
        arguments = {name: value for name, value in given.items() if name in self._arguments}
        if "labels" in self._arguments:
            arguments["labels"] = labels
        elif labels is not None:
            raise ModelError("model_fn does not take labels, but input_fn returns labels.")
        try:
            spec = self._model_fn(features=features, **arguments)
        except ValueError as error:
            if type(error) is not ValueError or not str(error).endswith(" is read-only"):
                raise
            raise ModelError(
                f"model_fn wrote into an array ({error}). Features, labels and variables are only "
                "to be read; make a new array instead: features['x'] = features['x'] + 1."
            ) from error
        if not isinstance(spec, EstimatorSpec):
            raise ModelError(f"model_fn should return an EstimatorSpec, got {spec!r}.")
        return spec

    # ------------------------------------------------------------ inside

    def _noting_call(self, features: Any, labels: Any, mode: str) -> EstimatorSpec:
        """Run model_fn and remember the features, for an export's signature."""
        self._seen_features = features
        return self.call_model_fn(features, labels, mode)

    def _input(self, input_fn: Callable[..., Any], mode: str) -> Callable[[], Generator[Batch]]:
        def read() -> Generator[Batch]:
            returned = call_input_fn(input_fn, mode=mode, params=self.params, config=self._config)
            return batches(returned, repeat=False)

        return read

    def _initial(self, source: Iterator[Batch], mode: str) -> tuple[Iterator[Batch], ModelReader]:
        """Find the model's variables with the first batch; return all batches and the model."""
        first = next(source, None)
        if first is None:
            raise ModelError("input_fn gave no batch: its input is empty.")
        seed = self._config.tf_random_seed
        store = BuildStore(new_seed() if seed is None else seed)
        with store:
            self.call_model_fn(
                first.features, None if mode == ModeKeys.PREDICT else first.labels, mode
            )

        def again() -> Iterator[Batch]:
            yield first
            yield from source

        return again(), InitialModel(store.specs, store.seed)

    def _say_untrained(self) -> None:
        show_log_lines()
        logger.warning(
            "There is no checkpoint in %s: the model is untrained, its values are initial ones.",
            self.model_dir,
        )

    def _reached(self) -> int:
        manifest = find_latest_valid(FileStorage(self.model_dir), hashes=False)
        return -1 if manifest is None else manifest.global_step

    def _trained(self) -> ModelReader:
        path = self.latest_checkpoint()
        if path is None:
            raise CheckpointNotFound(f"Could not find trained model in {self.model_dir}.")
        return open_model(path)

    def _refuse_overrides(self) -> None:
        allowed = {"__init__", "__module__", "__doc__", "__qualname__"}
        for kind in type(self).__mro__:
            if kind is Estimator:
                return
            overridden = {name for name in vars(kind) if name in vars(Estimator)} - allowed
            overridden = {name for name in overridden if not name.startswith("__")}
            if overridden:
                raise ConfigError(
                    "Subclasses of Estimator cannot override members of Estimator: "
                    f"{kind.__name__} overrides {sorted(overridden)}."
                )


class _batches_of:  # noqa: N801 - a context manager, used like a function
    """Reads batches ahead in a thread while the block runs."""

    def __init__(self, source: Callable[[], Generator[Batch]]) -> None:
        self._pipeline = InputPipeline(source)

    def __enter__(self) -> Iterator[Batch]:
        pipeline = self._pipeline

        def read() -> Iterator[Batch]:
            while (batch := pipeline.next()) is not None:
                yield batch

        return read()

    def __exit__(self, *_: object) -> None:
        self._pipeline.close()


def _with_model_dir(config: RunConfig, model_dir: str | os.PathLike[str] | None) -> RunConfig:
    given = None if not model_dir and config.model_dir is None else model_dir
    if given is not None:
        given = os.fspath(given)
        if config.model_dir is not None and config.model_dir != given:
            raise ConfigError(
                "`model_dir` are set both in constructor and `RunConfig`, but with different "
                f"values: {given!r} and {config.model_dir!r}."
            )
        return config.replace(model_dir=given)
    if config.model_dir is not None:
        return config
    temporary = tempfile.mkdtemp()
    logger.warning("Using temporary folder as model directory: %s", temporary)
    return config.replace(model_dir=temporary)


def _check_model_fn(model_fn: Callable[..., Any], params: object) -> frozenset[str]:
    parameters = inspect.signature(model_fn).parameters.values()
    bound = getattr(model_fn, "keywords", {})  # of a functools.partial
    arguments = frozenset(
        one.name
        for one in parameters
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and one.name not in bound
    )
    if "features" not in arguments:
        raise ConfigError(f"model_fn ({model_fn}) must include features argument.")
    if params is not None and "params" not in arguments:
        raise ConfigError(
            f"model_fn ({model_fn}) does not include params argument, but params "
            f"({params}) is passed to Estimator."
        )
    unexpected = sorted(arguments - _MODEL_FN_ARGUMENTS)
    if unexpected:
        raise ConfigError(f"model_fn ({model_fn}) has following not expected args: {unexpected}.")
    return arguments


def _check_steps(steps: int | None, max_steps: int | None) -> None:
    if steps is not None and max_steps is not None:
        raise ConfigError("Can not provide both steps and max_steps.")
    if steps is not None and steps <= 0:
        raise ConfigError(f"Must specify steps > 0, given: {steps}.")
    if max_steps is not None and max_steps <= 0:
        raise ConfigError(f"Must specify max_steps > 0, given: {max_steps}.")
