"""Trainer: a chief's or worker's place among the trainers, and its exchanges.

It joins a generation, numbers its pushes, and joins again when the model was restored under
it. It runs no model and no hook.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from psys.arrays import Array, Gradient
from psys.attendance import Attendance
from psys.errors import Fenced, GenerationChanged
from psys.exchange import NO_ORIGIN, Exchange, Origin, Place, Pulled
from psys.parameters import Parameters
from psys.ps.messages import Directive, Standing, TaskPhase

logger = logging.getLogger("psys")

NEW_NUMBER_LIMIT_SECS = 30.0


class _Begun:
    """An exchange that was sent. Whoever first needs its answer waits for it, in any thread."""

    def __init__(self, finish: Callable[[], Pulled]) -> None:
        self._finish = finish
        self._lock = threading.Lock()
        self._outcome: Pulled | Exception | None = None
        self._settled = False

    def settle(self) -> None:
        """Wait until the answer is here, or why there is none."""
        with self._lock:
            if not self._settled:
                try:
                    self._outcome = self._finish()
                except Exception as error:  # for whom the answer is for
                    self._outcome = error
                self._settled = True

    def __call__(self) -> Pulled:
        """Return the answer, once: what was pulled is the caller's alone to keep."""
        self.settle()
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return outcome


class Trainer:
    """One trainer's steps. Exchanges of several threads come one after another."""

    def __init__(self, attendance: Attendance, parameters: Parameters) -> None:
        self._attendance = attendance
        self._parameters = parameters
        self._place = Place("", attendance.report.task, 0)
        self._sequence = 0
        self._input_batches = 0
        """Batches this process has trained on: where its input stands."""
        self._lock = threading.Lock()
        self._begun: _Begun | None = None
        """The exchange sent last; the next is sent once its answer is here."""

    @property
    def generation(self) -> str:
        """The generation joined, '' before the first."""
        return self._place.generation

    def check(self, place: Place) -> None:
        """Raise if trying again makes no sense; ``Parameters`` calls it between tries."""
        self._attendance.check()
        directive = self._attendance.directive
        if directive.verdict is not None or directive.generation != place.generation:
            raise GenerationChanged("The model is being restored, or the job ended.")

    def join(self) -> bool:
        """Wait for a live model and take a place; False if the job ended instead.

        Raises:
            JobFailed: if the job's verdict is FAILED.
            Fenced: if another process has this task's place.
            ClusterError: if the lead stays out of reach.
        """
        old = self._place

        def ready(directive: Directive) -> bool:
            if directive.verdict is not None:
                return directive.verdict.finished
            return bool(directive.generation and directive.member) and (
                (directive.generation, directive.member) != (old.generation, old.member)
            )

        what = "the model to be ready" if not old.generation else "the model to be ready again"
        directive = self._attendance.wait_for(ready, what)
        if directive.verdict is not None:
            return False
        self._place = Place(directive.generation, old.task, directive.member)
        self._sequence = 0
        self._attendance.update(generation=directive.generation, phase=TaskPhase.WORKING)
        return True

    def pull(self, rows: Mapping[str, Array]) -> Pulled:
        """Pull what a batch needs, and ask for permission to train on it."""
        return self._begin(None, rows, wants_grant=True, pull=True)()

    def step(
        self,
        gradients: Mapping[str, Gradient],
        rows: Mapping[str, Array] | None,
        *,
        more: bool,
        global_step: int,
        examples: int,
        versions: tuple[int, ...] = (),
    ) -> Pulled:
        """Push a step; pull what a later one needs: ``begin_step``, and what it returns.

        Raises:
            ModelError: if a gradient does not fit, or a ps refused the step.
            GenerationChanged: if the model was restored meanwhile; join again.
            ClusterError: if a ps stayed out of reach.
        """
        return self.begin_step(
            gradients,
            rows,
            more=more,
            global_step=global_step,
            examples=examples,
            versions=versions,
        )()

    def begin_step(
        self,
        gradients: Mapping[str, Gradient],
        rows: Mapping[str, Array] | None,
        *,
        more: bool,
        global_step: int,
        examples: int,
        versions: tuple[int, ...] = (),
    ) -> Callable[[], Pulled]:
        """Send a step; return what waits for its answer, to be called once, from any thread.

        Args:
            gradients: of one batch, by variable.
            rows: wanted for a later batch; None if there is none.
            more: whether there is another batch, for which permission is asked.
            global_step: the step the gradients were computed at.
            examples: in the batch.
            versions: of each shard, that the gradients were computed from; empty for the newest.

        Raises:
            ModelError: if a gradient does not fit; nothing was sent.
        """
        origin = Origin(global_step, self._input_batches + 1, examples, versions)
        pull = rows is not None
        finish = self._begin(gradients, rows or {}, wants_grant=more, pull=pull, origin=origin)

        def finish_step() -> Pulled:
            pulled = finish()
            self._input_batches += 1
            return pulled

        return finish_step

    def peek(self, rows: Mapping[str, Array]) -> Pulled:
        """Pull what a later batch needs, without asking for permission."""
        return self._begin(None, rows, wants_grant=False, pull=True)()

    def fetch(self, table: str, ids: Array) -> Array:
        """Return rows of a table that were not foreseen, ``[n, *row_shape]``."""
        ids = np.asarray(ids, np.int64)
        pulled = self._begin(None, {table: ids}, wants_grant=False, pull=False)()
        return pulled.rows[table][1]

    def _begin(
        self,
        gradients: Mapping[str, Gradient] | None,
        rows: Mapping[str, Array],
        *,
        wants_grant: bool,
        pull: bool,
        origin: Origin = NO_ORIGIN,
    ) -> Callable[[], Pulled]:
        """Send an exchange; return what waits for its answer."""
        with self._lock:
            # Rows not foreseen may be fetched while a step is on its way.
            if self._begun is not None:
                self._begun.settle()
            sequence = self._sequence + (gradients is not None)
            exchange = self._parameters.begin(
                self._place,
                sequence,
                gradients,
                rows,
                pull=pull,
                wants_grant=wants_grant,
                origin=origin,
            )
            self._begun = _Begun(partial(self._finish, exchange, sequence))
            return self._begun

    def _finish(self, exchange: Exchange, sequence: int) -> Pulled:
        try:
            pulled = self._parameters.finish(exchange)
            self._sequence = sequence
        except Fenced as error:
            self._confirm_fenced(error)
            raise GenerationChanged("This task was given up for lost and is back.") from error
        return pulled

    def _confirm_fenced(self, error: Fenced) -> None:
        """Return if the lead has a new number for this very process; else raise ``error``."""
        old = self._place
        directive = self._attendance.wait_for(
            lambda one: (
                one.standing is not Standing.ADMITTED
                or one.member != old.member
                or one.generation != old.generation
                or one.verdict is not None
            ),
            "a new member number",
            NEW_NUMBER_LIMIT_SECS,
        )
        if directive.standing is not Standing.ADMITTED:
            self._attendance.check()  # what the lead says tells more
            raise error
        logger.warning("%s Joining again.", error)
