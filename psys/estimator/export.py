"""Exports: a model's variables and signature, in a directory a server can load.

``<base>/<unix seconds>/`` holds ``export.json`` (what it is: step, variables, signature),
``variables.safetensors`` (the values, no slots; a scalar as one row) and ``assets.extra/``. It is
written as ``temp-<unix seconds>`` and renamed: a directory whose name is a number is whole. An
export reads like a checkpoint, so ``Estimator.predict`` takes either. Nothing here runs a model.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from psys import __version__
from psys.arrays import DTYPES, Array, VariableSpec
from psys.checkpoint import CheckpointReader, FileStorage, ModelReader, open_checkpoint
from psys.checkpoint.manifest import variable_from_config, variable_to_config
from psys.checkpoint.reader import check_rows
from psys.checkpoint.shard_file import ShardReader, write_shard
from psys.checkpoint.storage import sync
from psys.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, ModelError
from psys.names import MissingName, missing_in
from psys.train.input_pipeline import as_batch
from psys.uncaught import one_line, place_of

_log = logging.getLogger(__name__)

__all__ = [
    "ServingInputReceiver",
    "TensorServingInputReceiver",
    "build_parsing_serving_input_receiver_fn",
    "build_raw_serving_input_receiver_fn",
    "load_export",
]
__getattr__ = missing_in(__name__)

EXPORT = "export.json"
VARIABLES = "variables.safetensors"
ASSETS_EXTRA = "assets.extra"
VERSION = 1

_MAX_ATTEMPTS = 10


def make_signature(features: Mapping[str, Any], predictions: Iterable[str]) -> dict[str, Any]:
    """Return what a server must be given and gives back.

    Args:
        features: one batch, ``[batch, ...]`` by key; the batch size is left open.
        predictions: the keys of what ``model_fn`` predicts.
    """
    described = {}
    for key, value in sorted(features.items()):
        array = np.asarray(value)
        dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
        described[key] = {"dtype": dtype, "shape": [None, *array.shape[1:]]}
    return {"features": described, "predictions": sorted(predictions)}


@dataclasses.dataclass(frozen=True)
class ServingInputReceiver:
    """What a ``serving_input_receiver_fn`` returns (tf.estimator.export.ServingInputReceiver).

    Attributes:
        features: what model_fn is given, as example arrays ``[batch, ...]`` by key or one array;
            None for the features of the evaluation.
        receiver_tensors: accepted as tf.estimator does; an export here has no graph to feed.
        receiver_tensors_alternatives: accepted as tf.estimator does.
    """

    features: Any
    receiver_tensors: Any = None
    receiver_tensors_alternatives: Any = None


class TensorServingInputReceiver(ServingInputReceiver):
    """The same for a model_fn whose features are one bare array."""


def build_raw_serving_input_receiver_fn(
    features: Any,
    default_batch_size: int | None = None,  # noqa: ARG001 - the size is left open
) -> Callable[[], ServingInputReceiver]:
    """Return a ``serving_input_receiver_fn`` that serves features as they are.

    Args:
        features: example arrays ``[batch, ...]`` by key, or one array.
        default_batch_size: accepted as tf.estimator does; an export leaves the size open.
    """
    return lambda: ServingInputReceiver(features, features)


def build_parsing_serving_input_receiver_fn(
    feature_spec: Any,  # noqa: ARG001 - nothing is parsed here
    default_batch_size: int | None = None,  # noqa: ARG001 - the size is left open
) -> Callable[[], ServingInputReceiver]:
    """Return a ``serving_input_receiver_fn`` for the features of the evaluation.

    Nothing parses tf.Examples here: an export describes the parsed features, which are those
    that the model is evaluated on.

    Args:
        feature_spec: accepted as tf.estimator does.
        default_batch_size: accepted as tf.estimator does.
    """
    return lambda: ServingInputReceiver(None)


def received_features(serving_input_receiver_fn: Callable[[], Any]) -> Any:
    """Return the features a serving_input_receiver_fn describes: a dict of arrays, or one array.

    Returns:
        None for those of the evaluation: it says so, or, with a warning, it needs TensorFlow's
        graph or returns what is no feature here. An export can do without it.

    Raises:
        ConfigError: if it fails by an error of its own.
    """
    try:
        received = serving_input_receiver_fn()
    except MissingName as error:
        _leave_out(f"it needs TensorFlow ({error})")
        return None
    except Exception as error:
        place = place_of(error.__traceback__)
        raise ConfigError(
            f"serving_input_receiver_fn failed: {one_line(error)}{place and f' ({place})'}."
        ) from error
    if isinstance(received, ServingInputReceiver) and received.features is None:
        return None
    try:
        return as_batch(getattr(received, "features", received)).features
    except ModelError:
        _leave_out(
            "it should return the features a server is given, as a dict of example arrays "
            f"[batch, ...], and returned {type(received).__name__}"
        )
        return None


def _leave_out(why: str) -> None:
    _log.warning(
        "A serving_input_receiver_fn is left out: %s. Exports need none: they describe the "
        "features of the evaluation.",
        why,
    )


def write_export(
    base: str | os.PathLike[str],
    reader: CheckpointReader,
    signature: Mapping[str, Any],
    assets_extra: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Export a checkpoint's variables, and return the new directory.

    The values are held in memory while they are written.

    Args:
        base: where exports of this model go, e.g. ``<model_dir>/export/<exporter>``.
        reader: the checkpoint.
        signature: JSON-able, see ``make_signature``.
        assets_extra: files to copy, their place below ``assets.extra`` to their source path.
        clock: unix time in seconds.
        sleep: waits for the next second, where this one's name is taken.

    Raises:
        ConfigError: if an asset's place is not below ``assets.extra``, or it has no source.
        RuntimeError: if no unique name was free in ten attempts (tf.estimator's rule).
    """
    base = os.path.abspath(os.fspath(base))
    assets = _checked_assets(assets_extra or {})
    os.makedirs(base, exist_ok=True)
    for attempt in range(_MAX_ATTEMPTS):
        if attempt:
            sleep(1.0)
        stamp = f"{int(clock()):010d}"
        final, staged = os.path.join(base, stamp), os.path.join(base, f"temp-{stamp}")
        if os.path.exists(final):
            continue
        try:
            os.mkdir(staged)
        except FileExistsError:  # another exporter, at work or killed
            continue
        try:
            _fill(staged, reader, signature, assets)
            os.rename(staged, final)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        sync(base)
        return final
    raise RuntimeError(
        f"Failed to obtain a unique export directory name under {base} in {_MAX_ATTEMPTS} attempts."
    )


class ExportReader:
    """An export, read like a checkpoint.

    Attributes:
        path: its directory.
        global_step: the step the values are of.
        checkpoint_id: the checkpoint they come from.
        signature: see ``make_signature``.
        variables: by name, without optimizers.

    Raises:
        CheckpointNotFound: if the directory is no export.
        CheckpointCorrupt: if a file of it is missing, short, or not as ``export.json`` says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        storage = FileStorage(path)
        origin = storage.path(EXPORT)
        if not storage.exists(EXPORT):
            raise CheckpointNotFound(f"{storage.root} is no export: it has no {EXPORT}.")
        self.path = storage.root
        try:
            document = json.loads(storage.read(EXPORT))
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']}; this psys reads {VERSION}")
            self.global_step = int(document["global_step"])
            self.checkpoint_id = str(document["checkpoint_id"])
            self.signature: dict[str, Any] = dict(document["signature"])
            specs = [variable_from_config(config) for config in document["variables"]]
            size = int(document["bytes"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointCorrupt(f"{origin}: not a valid export: {error!r}.") from error
        self.variables: Mapping[str, VariableSpec] = {spec.name: spec for spec in specs}
        if not storage.exists(VARIABLES) or storage.size(VARIABLES) != size:
            raise CheckpointCorrupt(f"{storage.path(VARIABLES)} is missing or short.")
        self._shard = ShardReader(storage, VARIABLES)
        for spec in specs:
            value = self._shard.view(spec.name) if spec.name in self._shard else None
            shape = (spec.rows, *spec.row_shape)
            if value is None or value.shape != shape or value.dtype != DTYPES[spec.dtype]:
                raise CheckpointCorrupt(
                    f"{storage.path(VARIABLES)}: {spec.name!r} is not {spec.dtype} {shape}."
                )

    def read(self, name: str) -> Array:
        """Return a variable's value in its shape.

        Raises:
            ModelError: if there is no such variable.
        """
        return self._shard.read(self._spec(name).name).reshape(self._spec(name).shape)

    def read_rows(self, name: str, ids: Array) -> Array:
        """Return rows ``ids`` ``[n]`` of a variable, ``[n, *row_shape]``, loading no others.

        Raises:
            ModelError: if there is no such variable, or an id is not one of its rows.
        """
        ids = np.asarray(ids, np.int64)
        check_rows(self._spec(name), ids)
        return self._shard.read_rows(name, ids)

    def _spec(self, name: str) -> VariableSpec:
        if name not in self.variables:
            raise ModelError(
                f"{self.path} has no variable {name!r}; it has {sorted(self.variables)}."
            )
        return self.variables[name]


def load_export(path: str | os.PathLike[str]) -> ExportReader:
    """Open an export's directory; see ``ExportReader`` for what is raised."""
    return ExportReader(path)


def open_model(path: str | os.PathLike[str]) -> ModelReader:
    """Open an export, a checkpoint's directory, or the newest valid checkpoint of a model_dir.

    Raises:
        CheckpointNotFound: if it is none of them.
        CheckpointCorrupt: if it was named, and cannot be read.
    """
    if os.path.isfile(os.path.join(path, EXPORT)):
        return load_export(path)
    return open_checkpoint(path)


def _fill(
    directory: str,
    reader: CheckpointReader,
    signature: Mapping[str, Any],
    assets: Mapping[str, str],
) -> None:
    storage = FileStorage(directory)
    specs = [dataclasses.replace(spec, optimizer=None) for spec in reader.variables.values()]
    values = {
        spec.name: reader.read(spec.name).reshape(spec.rows, *spec.row_shape) for spec in specs
    }
    slices = [[spec.name, 0, spec.rows] for spec in specs]
    identity = {"checkpoint_id": reader.checkpoint_id, "global_step": reader.global_step}
    info = write_shard(storage, VARIABLES, values, {**identity, "slices": slices})
    for place, source in assets.items():
        target = os.path.join(directory, ASSETS_EXTRA, place)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(source, target)
    document = {
        "version": VERSION,
        "psys_version": __version__,
        **identity,
        "variables": [variable_to_config(spec) for spec in specs],
        "bytes": info.bytes,
        "sha256": info.sha256,
        "signature": dict(signature),
    }
    storage.write(EXPORT, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def _checked_assets(assets_extra: Mapping[str, str]) -> dict[str, str]:
    for place, source in assets_extra.items():
        inside = os.path.normpath(place)
        if os.path.isabs(place) or inside.split(os.sep)[0] in ("..", ".", ""):
            raise ConfigError(f"assets_extra: expected a path below {ASSETS_EXTRA}, got {place!r}.")
        if not os.path.isfile(source):
            raise ConfigError(f"assets_extra[{place!r}]: there is no file {source!r}.")
    return {os.path.normpath(place): source for place, source in assets_extra.items()}
