"""Session: the training loop of one trainer: batch, model, gradients, exchange, hooks.

One round trip per ps and step: the push of a step carries the pull of a later one. The loop ends
when the lead grants no more, the input ends, or a hook asks; it decides nothing else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from psys.arrays import Gradient
from psys.compute.train_store import TrainStore
from psys.errors import GenerationChanged, NanLossDuringTrainingError
from psys.exchange import Pulled
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
from psys.train.lookahead import Lookahead
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


@dataclass(frozen=True)
class Computed:
    """A step that is computed and not yet applied.

    Attributes:
        batch: what it was computed on.
        gradients: by variable, or of tables in a stack by that.
        loss: of the batch.
        spec: what model_fn returned.
        global_step: the step it was computed at.
        versions: of each shard, that it was computed from.
    """

    batch: Batch
    gradients: dict[str, Gradient]
    loss: float
    spec: ModelSpec
    global_step: int
    versions: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the gradients' values."""
        total = 0
        for one in self.gradients.values():
            total += one.nbytes
        return total


@dataclass(frozen=True)
class Begun:
    """A step that hooks were told of: what they asked for, and may ask."""

    context: SessionRunContext
    wanted: Sequence[SessionRunArgs | None]


class Session:
    """One trainer's model, live; each step is computed with what the ones before made of it."""

    def __init__(
        self,
        model: Model,
        call_model: CallModel,
        trainer: Trainer,
        pipeline: InputPipeline,
        hooks: Sequence[SessionRunHook],
        seed: int,
        second: Executor | None = None,
    ) -> None:
        """Prepare; ``run`` trains.

        Args:
            model: as the first run of model_fn found it.
            call_model: runs model_fn on a batch.
            trainer: this task's place.
            pipeline: of its batches.
            hooks: called around each step, in order.
            seed: for dropout and the like; another one in every trainer.
            second: a thread that computes some of the gradients; None for none.
        """
        self._model = model
        self._call_model = call_model
        self._trainer = trainer
        self._pipeline = pipeline
        self._hooks = tuple(hooks)
        self._seed = seed
        self._second = second
        self._steps = 0
        self._dropped = 0
        self._loss: float | None = None
        self.global_step = 0
        """The last global step this trainer heard of."""
        self.ended = False
        """Whether the loop is over: what is saved from now on is the last."""
        self._stop_reason = ""
        self._batches: Lookahead | None = None

    def run(self, first: Batch) -> LoopResult:
        """Train from ``first`` on until the loop ends.

        Raises:
            ModelError: if a batch or model_fn is unusable.
            ClusterError: if the cluster cannot go on.
        """
        self._batches = Lookahead(first, self._pipeline)
        return self._train(self._join)

    def resume(self) -> LoopResult:
        """Go on after no more was granted: the model went back, or another chief goes on.

        Raises:
            ModelError: if a batch or model_fn is unusable.
            ClusterError: if the cluster cannot go on.
        """
        return self._train(self._pull_again)

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

    def close(self) -> None:
        """Give up what the loop holds."""

    # ------------------------------------------------------------ the loop

    def _train(self, begin: Callable[[], Pulled | None]) -> LoopResult:
        assert self._batches is not None
        self.ended = False
        try:
            while True:
                try:
                    return self._loop(self._batches, begin)
                except GenerationChanged as change:
                    logger.info("%s", change)
                # Batches are trained on again: what the model learned of them is gone.
                begin = self._join
        finally:
            self.ended = True

    def _loop(self, batches: Lookahead, begin: Callable[[], Pulled | None]) -> LoopResult:
        """Take steps until the loop ends.

        Args:
            batches: to train on.
            begin: pulls what the first of them needs, with permission or not; None if the job
                has ended. It is called here, so that nobody else holds what it returns.

        Raises:
            GenerationChanged: if the model went back.
        """
        pulled = begin()
        if pulled is None:
            return self._result("the job ended")
        while (batch := batches.at(0)) is not None:
            if ended := self._ended(pulled.grant):
                return ended
            if pulled.grant is not Grant.GO:
                pulled = self._trainer.pull(batch.rows)
                continue
            begun = self._begin_step()
            computed = self._compute(batch, pulled)
            following = batches.at(1)
            finish = self._send(computed, following, more=following is not None)
            batches.read_on()
            pulled = finish()
            self._end_step(batches, computed, begun, pulled)
            # And with them what was pulled for the step, before the next one.
            del computed, begun, finish
        return self._input_ended()

    def _ended(self, grant: Grant) -> LoopResult | None:
        """Return how the loop ends before the step at hand, None if it does not."""
        if self._stop_reason:
            return self._result(self._stop_reason, by_hook=True)
        if grant is Grant.STOP:
            return self._result("granted no more", stopped=True)
        return None

    def _input_ended(self) -> LoopResult:
        if self._stop_reason:  # asked for during the last step
            return self._result(self._stop_reason, by_hook=True)
        return self._result("input ended")

    def _result(self, reason: str, *, by_hook: bool = False, stopped: bool = False) -> LoopResult:
        return LoopResult(
            reason, by_hook, stopped, self._steps, self._dropped, self.global_step, self._loss
        )

    def _pull_again(self) -> Pulled | None:
        try:
            return self._trainer.pull(self._first().rows)
        except GenerationChanged as change:
            logger.info("%s", change)
            return self._join()

    def _join(self) -> Pulled | None:
        """Take a place in the live generation and pull; None if the job has ended."""
        while self._trainer.join():
            try:
                pulled = self._trainer.pull(self._first().rows)
            except GenerationChanged as change:
                logger.info("%s", change)
                continue
            self.global_step = pulled.global_step
            for hook in self._hooks:
                hook.after_create_session(self, None)
            return pulled
        return None

    def _first(self) -> Batch:
        assert self._batches is not None
        first = self._batches.at(0)
        assert first is not None  # the loop ends with its input, and is not begun again
        return first

    # ------------------------------------------------------------ one step

    def _begin_step(self) -> Begun:
        """Tell the hooks that a step begins."""
        context = SessionRunContext(self)
        return Begun(context, [hook.before_run(context) for hook in self._hooks])

    def _compute(self, batch: Batch, pulled: Pulled, *, ahead: int = 0) -> Computed:
        """Compute a step on ``batch`` with what was pulled for it.

        Args:
            batch: to train on.
            pulled: for it.
            ahead: how many of this trainer's steps are still on their way.

        Raises:
            NanLossDuringTrainingError: if the loss is not finite.
        """
        step = self.global_step
        store = TrainStore(
            self._model.specs,
            pulled.dense,
            pulled.rows,
            self._trainer.fetch,
            stacks=self._model.lookups.stacks,
            global_step=step,
            seed=self._seed,
            ahead=ahead,
            second=self._second,
            layers=self._model.lookups.layers,
        )
        loss, gradients, spec = loss_and_gradients(
            self._model, self._call_model, batch.features, batch.labels, store
        )
        if not math.isfinite(loss):
            # Nothing was sent: the model is still the one that gave this loss.
            raise NanLossDuringTrainingError(
                f"NaN loss during training: the loss is {loss} after global step "
                f"{step}. Lower the learning rate, or look for bad input."
            )
        return Computed(batch, gradients, loss, spec, step, pulled.versions)

    def _send(self, computed: Computed, later: Batch | None, *, more: bool) -> Callable[[], Pulled]:
        """Push a step and pull what ``later`` needs; return what waits for the answer."""
        return self._trainer.begin_step(
            computed.gradients,
            None if later is None else later.rows,
            more=more,
            global_step=computed.global_step,
            examples=computed.batch.size,
            versions=computed.versions,
        )

    def _end_step(
        self, batches: Lookahead, computed: Computed, begun: Begun, after: Pulled
    ) -> None:
        """Note what became of the step of the first batch, and tell the hooks."""
        batches.trained()  # also where it was dropped: the next batch is as good
        dropped = after.outcome is Outcome.DROPPED
        self._steps += not dropped
        self._dropped += dropped
        self._loss = computed.loss
        self.global_step = step = after.global_step
        examples, staleness = computed.batch.size, after.staleness
        plain = SessionRunValues(None, computed.loss, step, examples, staleness, dropped)
        for hook, arguments in zip(self._hooks, begun.wanted, strict=True):
            hook.after_run(begun.context, with_results(plain, arguments, computed.spec.predictions))
        if begun.context.stop_requested:
            self.request_stop(begun.context.stop_reason)
