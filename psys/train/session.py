"""Session: the training loop of one trainer: batch, model, gradients, exchange, hooks.

One round trip per ps and step: the push of a step carries the pull of the next. The loop ends
when the lead grants no more, the input ends, or a hook asks; it decides nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.compute.backward import untraced
from psys.compute.train_store import TrainStore
from psys.errors import GenerationChanged, ModelError
from psys.parameters import Pulled
from psys.ps.messages import Grant
from psys.train.hooks import SessionRunArgs, SessionRunContext, SessionRunHook, SessionRunValues
from psys.train.input_pipeline import Batch, InputPipeline
from psys.train.model import CallModel, Model, ModelSpec, loss_and_gradients
from psys.train.trainer import Trainer

logger = logging.getLogger("psys")


@dataclass(frozen=True)
class LoopResult:
    """How a training loop ended.

    Attributes:
        reason: "granted no more", "input ended", or what a hook said.
        by_hook: whether a hook asked for it.
        steps: how many steps this trainer took.
        global_step: the last one it heard of.
        loss: of its last step; None if it took none.
    """

    reason: str
    by_hook: bool
    steps: int
    global_step: int
    loss: float | None


class Session:
    """One trainer's model, live."""

    def __init__(
        self,
        model: Model,
        call_model: CallModel,
        trainer: Trainer,
        pipeline: InputPipeline,
        hooks: Sequence[SessionRunHook],
        seed: int,
    ) -> None:
        """Prepare; ``run`` trains.

        Args:
            model: as the first run of model_fn found it.
            call_model: runs model_fn on a batch.
            trainer: this task's place.
            pipeline: of its batches.
            hooks: called around each step, in order.
            seed: for dropout and the like.
        """
        self._model = model
        self._call_model = call_model
        self._trainer = trainer
        self._pipeline = pipeline
        self._hooks = tuple(hooks)
        self._seed = seed
        self._steps = 0
        self._loss: float | None = None
        self.global_step = 0
        """The last global step this trainer heard of."""
        self.request_stop: Callable[[str], None] = self._note_stop
        """Ask the loop to end after the step under way."""
        self._stop_reason = ""
        self._following: Batch | None = None
        self._looked_ahead = False

    def run(self, first: Batch) -> LoopResult:
        """Train from ``first`` on until the loop ends.

        Raises:
            ModelError: if a batch or model_fn is unusable.
            ClusterError: if the cluster cannot go on.
        """
        batch: Batch | None = first
        pulled = self._join(first)
        while pulled is not None and batch is not None:
            if self._stop_reason:
                return self._result(self._stop_reason, by_hook=True)
            try:
                if pulled.grant is Grant.STOP:
                    return self._result("granted no more", by_hook=False)
                if pulled.grant is not Grant.GO:
                    pulled = self._trainer.pull(batch.rows)
                    continue
                batch, pulled = self._step(batch, pulled)
            except GenerationChanged as change:
                logger.info("%s", change)
                # The batch is trained on again: what the model learned of it is gone.
                pulled = self._join(batch) if batch is not None else None
        return self._result("input ended" if batch is None else "the job ended", by_hook=False)

    def _note_stop(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason

    def _result(self, reason: str, *, by_hook: bool) -> LoopResult:
        return LoopResult(reason, by_hook, self._steps, self.global_step, self._loss)

    def _join(self, batch: Batch) -> Pulled | None:
        """Take a place in the live generation and pull; None if the job has ended."""
        while self._trainer.join():
            try:
                pulled = self._trainer.pull(batch.rows)
            except GenerationChanged as change:
                logger.info("%s", change)
                continue
            self.global_step = pulled.global_step
            for hook in self._hooks:
                hook.after_create_session(self, None)
            return pulled
        return None

    def _step(self, batch: Batch, pulled: Pulled) -> tuple[Batch | None, Pulled]:
        """Train on ``batch`` with what was pulled for it; return the next of both."""
        context = SessionRunContext(self)
        wanted = [hook.before_run(context) for hook in self._hooks]
        store = TrainStore(
            self._model.specs,
            pulled.dense,
            pulled.rows,
            self._trainer.fetch,
            global_step=self.global_step,
            seed=self._seed + self._steps,
        )
        loss, gradients, spec = loss_and_gradients(
            self._model, self._call_model, batch.features, batch.labels, store
        )
        if not np.isfinite(loss):
            self._tell(context, wanted, spec, loss, batch)
        if not self._looked_ahead:
            self._following, self._looked_ahead = self._pipeline.next(), True
        following = self._following
        after = self._trainer.step(gradients, None if following is None else following.rows)
        # Only now: had the generation changed, both batches would be needed again.
        self._following, self._looked_ahead = None, False
        self._steps += 1
        self._loss = loss
        self.global_step = after.global_step
        self._tell(context, wanted, spec, loss, batch)
        if context.stop_requested:
            self._note_stop(context.stop_reason)
        return following, after

    def _tell(
        self,
        context: SessionRunContext,
        wanted: Sequence[SessionRunArgs | None],
        spec: ModelSpec,
        loss: float,
        batch: Batch,
    ) -> None:
        values = {"loss": loss, "global_step": self.global_step}
        for hook, arguments in zip(self._hooks, wanted, strict=True):
            fetched = None if arguments is None else _fetch(arguments.fetches, values, spec)
            hook.after_run(context, SessionRunValues(fetched, loss, self.global_step, batch.size))


def _fetch(fetches: Any, values: Mapping[str, Any], spec: ModelSpec) -> Any:
    """Return what a hook asked for, in the form it asked."""
    if isinstance(fetches, Mapping):
        return {key: _fetch(one, values, spec) for key, one in fetches.items()}
    if isinstance(fetches, (list, tuple)):
        return [_fetch(one, values, spec) for one in fetches]
    if fetches in values:
        return values[fetches]
    predictions = spec.predictions
    if isinstance(predictions, Mapping) and fetches in predictions:
        return _plain(predictions[fetches])
    known = sorted([*values, *(predictions if isinstance(predictions, Mapping) else ())])
    raise ModelError(f"A hook asked for {fetches!r}; a step has {known}.")


def _plain(value: Any) -> Array:
    return np.asarray(untraced(value))
