"""Session: the training loop of one trainer: batch, model, gradients, exchange, hooks.

One round trip per ps and step: the push of a step carries the pull of the next. The loop ends
when the lead grants no more, the input ends, or a hook asks; it decides nothing else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psys.compute.train_store import TrainStore
from psys.errors import GenerationChanged, NanLossDuringTrainingError
from psys.parameters import Pulled
from psys.ps.messages import Grant, Outcome
from psys.train.hooks import (
    SessionRunArgs,
    SessionRunContext,
    SessionRunHook,
    SessionRunValues,
    with_results,
)
from psys.train.input_pipeline import Batch, InputPipeline
from psys.train.interrupts import SIGNALS
from psys.train.model import CallModel, Model, ModelSpec, loss_and_gradients
from psys.train.trainer import Trainer

logger = logging.getLogger("psys")


@dataclass(frozen=True)
class LoopResult:
    """How a training loop ended.

    Attributes:
        reason: "granted no more", "input ended", or what a hook said.
        by_hook: whether a hook asked for it.
        stopped: whether the lead granted no more: there may be more, if the model goes back.
        steps: how many steps this trainer took.
        dropped: how many more came too late for their update (synchronous training).
        global_step: the last one it heard of.
        loss: of its last step; None if it took none.
    """

    reason: str
    by_hook: bool
    stopped: bool
    steps: int
    dropped: int
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
            seed: for dropout and the like; another one in every trainer.
        """
        self._model = model
        self._call_model = call_model
        self._trainer = trainer
        self._pipeline = pipeline
        self._hooks = tuple(hooks)
        self._seed = seed
        self._steps = 0
        self._dropped = 0
        self._loss: float | None = None
        self.global_step = 0
        """The last global step this trainer heard of."""
        self.ended = False
        """Whether the loop is over: what is saved from now on is the last."""
        self._stop_reason = ""
        self._following: Batch | None = None
        self._looked_ahead = False
        self._untrained: Batch | None = None
        """The batch at hand when no more was granted."""

    def run(self, first: Batch) -> LoopResult:
        """Train from ``first`` on until the loop ends.

        Raises:
            ModelError: if a batch or model_fn is unusable.
            ClusterError: if the cluster cannot go on.
        """
        return self._train(first, self._join)

    def resume(self) -> LoopResult:
        """Go on after no more was granted: the model went back, or another chief goes on.

        Raises:
            ModelError: if a batch or model_fn is unusable.
            ClusterError: if the cluster cannot go on.
        """
        batch = self._untrained
        assert batch is not None
        return self._train(batch, self._pull_again)

    def _train(self, first: Batch, begin: Callable[[Batch], Pulled | None]) -> LoopResult:
        self.ended = False
        try:
            return self._loop(first, begin(first))
        finally:
            self.ended = True

    def _loop(self, first: Batch, pulled: Pulled | None) -> LoopResult:
        batch: Batch | None = first
        while pulled is not None and batch is not None:
            if self._stop_reason:
                return self._result(self._stop_reason, by_hook=True)
            try:
                if pulled.grant is Grant.STOP:
                    self._untrained = batch
                    return self._result("granted no more", by_hook=False, stopped=True)
                if pulled.grant is not Grant.GO:
                    pulled = self._trainer.pull(batch.rows)
                    continue
                batch, pulled = self._step(batch, pulled)
            except GenerationChanged as change:
                logger.info("%s", change)
                # The batch is trained on again: what the model learned of it is gone.
                pulled = self._join(batch) if batch is not None else None
        return self._result("input ended" if batch is None else "the job ended", by_hook=False)

    def request_stop(self, reason: str) -> None:
        """Ask the loop to end after the step under way; the first reason stays."""
        self._stop_reason = self._stop_reason or reason

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the loop to end."""
        return bool(self._stop_reason)

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the loop to end: the job may be gone on with."""
        return self._stop_reason in SIGNALS

    def _result(self, reason: str, *, by_hook: bool, stopped: bool = False) -> LoopResult:
        return LoopResult(
            reason, by_hook, stopped, self._steps, self._dropped, self.global_step, self._loss
        )

    def _pull_again(self, batch: Batch) -> Pulled | None:
        try:
            return self._trainer.pull(batch.rows)
        except GenerationChanged as change:
            logger.info("%s", change)
            return self._join(batch)

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
            seed=self._seed,
        )
        loss, gradients, spec = loss_and_gradients(
            self._model, self._call_model, batch.features, batch.labels, store
        )
        if not math.isfinite(loss):
            # Nothing was sent: the model is still the one that gave this loss.
            raise NanLossDuringTrainingError(
                f"NaN loss during training: the loss is {loss} after global step "
                f"{self.global_step}. Lower the learning rate, or look for bad input."
            )
        if not self._looked_ahead:
            self._following, self._looked_ahead = self._pipeline.next(), True
        following = self._following
        after = self._trainer.step(
            gradients,
            None if following is None else following.rows,
            global_step=self.global_step,
            examples=batch.size,
        )
        # Only now: had the generation changed, both batches would be needed again.
        self._following, self._looked_ahead = None, False
        # A step that was dropped is not taken again: its input was one of many.
        dropped = after.outcome is Outcome.DROPPED
        self._steps += not dropped
        self._dropped += dropped
        self._loss = loss
        self.global_step = after.global_step
        values = SessionRunValues(
            None, loss, after.global_step, batch.size, after.staleness, dropped
        )
        self._tell(context, wanted, spec, values)
        if context.stop_requested:
            self.request_stop(context.stop_reason)
        return following, after

    def _tell(
        self,
        context: SessionRunContext,
        wanted: Sequence[SessionRunArgs | None],
        spec: ModelSpec,
        plain: SessionRunValues,
    ) -> None:
        for hook, arguments in zip(self._hooks, wanted, strict=True):
            hook.after_run(context, with_results(plain, arguments, spec.predictions))
