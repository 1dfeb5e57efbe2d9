"""Exporters: which evaluated checkpoint becomes an export, and which exports stay.

An exporter is called after every evaluation and decides; writing the export is
``Estimator.export_saved_model``. Names and behaviour are those of the documentation pages
tf.estimator.Exporter, FinalExporter and LatestExporter.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from psys.errors import ConfigError
from psys.estimator.export import received_features

_log = logging.getLogger(__name__)

# Ten digits are a time in seconds; what else lies there (temp-..., notes) is not ours to delete.
_EXPORT_NAME = re.compile(r"[0-9]{10}")


class Exportable(Protocol):
    """What an exporter needs of an Estimator."""

    def export_saved_model(
        self,
        export_dir_base: str,
        serving_input_receiver_fn: Callable[[], Any] | None,
        assets_extra: Mapping[str, str] | None = None,
        *,
        checkpoint_path: str | None = None,
    ) -> str:
        """Write an export below the base directory and return its path."""


class Exporter(ABC):
    """Decides after each evaluation whether to export the model."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The exporter's name, which is also its directory's: ``<model_dir>/export/<name>``."""

    @abstractmethod
    def export(
        self,
        estimator: Exportable,
        export_path: str,
        checkpoint_path: str,
        eval_result: Mapping[str, Any] | None,
        is_the_final_export: bool,
    ) -> str | None:
        """Export, or not.

        Args:
            estimator: whose model it is.
            export_path: the directory that holds this exporter's exports.
            checkpoint_path: the checkpoint that was evaluated.
            eval_result: its metrics.
            is_the_final_export: True if training has ended with this checkpoint.

        Returns:
            The new export's directory, or None if nothing was exported.
        """


def check_exporters(exporters: Iterable[Exporter]) -> None:
    """Call every ``serving_input_receiver_fn`` once, before there is anything to lose.

    Raises:
        ConfigError: if one fails by an error of its own.
    """
    for exporter in exporters:
        if isinstance(exporter, _ModelExporter):
            exporter.check()


class _ModelExporter(Exporter):
    """Exports the checkpoint it is given."""

    def __init__(
        self,
        name: str,
        serving_input_receiver_fn: Callable[[], Any] | None = None,
        assets_extra: Mapping[str, str] | None = None,
        as_text: bool = False,
    ) -> None:
        self._name = name
        self._serving_input_receiver_fn = serving_input_receiver_fn
        self._assets_extra = assets_extra
        self._as_text = as_text

    @property
    def name(self) -> str:
        """The exporter's name."""
        return self._name

    def check(self) -> None:
        """Call ``serving_input_receiver_fn``; leave it out for good if it tells no features.

        Raises:
            ConfigError: if it fails by an error of its own.
        """
        if self._serving_input_receiver_fn is None:
            return
        try:
            if received_features(self._serving_input_receiver_fn) is None:
                self._serving_input_receiver_fn = None
        except ConfigError as error:
            raise ConfigError(f"Exporter {self.name!r}: {error}") from error

    def export(
        self,
        estimator: Exportable,
        export_path: str,
        checkpoint_path: str,
        eval_result: Mapping[str, Any] | None,
        is_the_final_export: bool,
    ) -> str | None:
        """Export the checkpoint and return the new directory."""
        return estimator.export_saved_model(
            export_path,
            self._serving_input_receiver_fn,
            assets_extra=self._assets_extra,
            checkpoint_path=checkpoint_path,
        )


class FinalExporter(_ModelExporter):
    """Exports once, when training has ended.

    Args:
        name: a name of its own among the exporters of an EvalSpec.
        serving_input_receiver_fn: describes what is served; None for the features of the
            evaluation.
        assets_extra: files to copy into the export, place below ``assets.extra`` to source.
        as_text: accepted as tf.estimator does; ``export.json`` is always text.
    """

    def export(
        self,
        estimator: Exportable,
        export_path: str,
        checkpoint_path: str,
        eval_result: Mapping[str, Any] | None,
        is_the_final_export: bool,
    ) -> str | None:
        """Export if this is the final export; else return None."""
        if not is_the_final_export:
            return None
        _log.info("Exporter %r: training has ended, exporting %s.", self.name, checkpoint_path)
        return super().export(
            estimator, export_path, checkpoint_path, eval_result, is_the_final_export
        )


class LatestExporter(_ModelExporter):
    """Exports after every evaluation and keeps the newest exports.

    Args:
        name: a name of its own among the exporters of an EvalSpec.
        serving_input_receiver_fn: describes what is served; None for the features of the
            evaluation.
        assets_extra: files to copy into the export, place below ``assets.extra`` to source.
        as_text: accepted as tf.estimator does; ``export.json`` is always text.
        exports_to_keep: how many of the newest stay; None for all.

    Raises:
        ConfigError: if ``exports_to_keep`` is not above 0.
    """

    def __init__(
        self,
        name: str,
        serving_input_receiver_fn: Callable[[], Any] | None = None,
        assets_extra: Mapping[str, str] | None = None,
        as_text: bool = False,
        exports_to_keep: int | None = 5,
    ) -> None:
        super().__init__(name, serving_input_receiver_fn, assets_extra, as_text)
        if exports_to_keep is not None and exports_to_keep <= 0:
            raise ConfigError(
                f"`exports_to_keep`, if given, must be a positive number, got {exports_to_keep!r}."
            )
        self._exports_to_keep = exports_to_keep

    def export(
        self,
        estimator: Exportable,
        export_path: str,
        checkpoint_path: str,
        eval_result: Mapping[str, Any] | None,
        is_the_final_export: bool,
    ) -> str | None:
        """Export the checkpoint, then delete what is older than the newest ones to keep."""
        path = super().export(
            estimator, export_path, checkpoint_path, eval_result, is_the_final_export
        )
        if self._exports_to_keep is not None:
            _delete_all_but_newest(export_path, self._exports_to_keep)
        return path


def _delete_all_but_newest(directory: str, count: int) -> None:
    exports = sorted(name for name in os.listdir(directory) if _EXPORT_NAME.fullmatch(name))
    for name in exports[:-count]:
        path = os.path.join(directory, name)
        try:
            shutil.rmtree(path)
        except OSError as error:
            _log.warning("An old export could not be deleted: %s: %s", path, error)
