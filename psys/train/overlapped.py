"""OverlappedSession: computes a step while the one before is being sent.

``ParameterServerStrategy(pipeline_depth=1)``: what a step is computed with lacks the trainer's own
last step, which is still on its way. Permission is needed to send a step, not to compute it: at
the end of a job the step computed last may not be granted, and is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from psys.errors import GenerationChanged
from psys.exchange import Pulled
from psys.ps.messages import Grant
from psys.train.courier import Courier
from psys.train.input_pipeline import Batch
from psys.train.lookahead import Lookahead
from psys.train.session import Computed, LoopResult, Session

LARGE_STEP_BYTES = 4 << 20
"""From this size on a courier sends a step: copying it lets the next one be computed. A smaller
step is the interpreter's work for the most part, which two threads only do more slowly."""

INPUT_WAIT_SECS = 0.001
"""So long a step that could be sent waits for the batch that its exchange is to pull for. Pulling
for it in an exchange of its own takes as long; a later input keeps no step back."""

_Step = Computed | Exception
"""A step, or why it could not be computed."""


class OverlappedSession(Session):
    """One trainer's model, live; each step is computed while the one before is sent."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Prepare; see ``Session``."""
        super().__init__(*arguments, **options)
        self._courier = Courier()

    def close(self) -> None:
        """Give up what the loop holds."""
        self._courier.close()

    def _loop(self, batches: Lookahead, begin: Callable[[], Pulled | None]) -> LoopResult:
        """Take steps until the loop ends; see ``Session``."""
        pulled = begin()
        if pulled is None:
            return self._result("the job ended")
        first = batches.at(0)
        assert first is not None
        if ended := self._ended(pulled.grant):
            return ended
        second = batches.at_once(1)
        later = None if second is None else self._trainer.peek(second.rows)
        computed: _Step | None = self._try(first, pulled, ahead=0)
        while computed is not None:
            if ended := self._ended(pulled.grant):
                return ended
            if pulled.grant is not Grant.GO:
                second = batches.at_once(1)
                pulled = self._trainer.pull({} if second is None else second.rows)
                later = None if second is None else pulled
                continue
            if isinstance(computed, Exception):
                raise computed
            computed, pulled, later = self._overlap(batches, computed, later)
        return self._input_ended()

    def _overlap(
        self, batches: Lookahead, computed: Computed, later: Pulled | None
    ) -> tuple[_Step | None, Pulled, Pulled | None]:
        """Send the step of batch 0 and compute that of batch 1.

        However late the input is, a step that may be sent is hardly kept back: what was not there
        to be pulled for is pulled for later.

        Args:
            batches: to train on.
            computed: the step of the first.
            later: what was pulled for the second; None if nothing was.

        Returns:
            The second step, or None if the input ended; the answer to the first; and that too
            as what was pulled for the third, None if it was not there yet.
        """
        begun = self._begin_step()
        third = batches.at_once(2, INPUT_WAIT_SECS)
        more = not batches.ends_before(1)
        send = partial(self._send, computed, third, more=more)
        if computed.nbytes < LARGE_STEP_BYTES:
            finish = send()
        else:
            finish = self._courier.take(lambda: send()()).result
        batches.read_on()
        second = batches.at_once(1)
        following: _Step | None = None
        if second is not None and later is not None:
            following = self._try(second, later, ahead=1)
        after = finish()
        self._end_step(batches, computed, begun, after)
        if following is None:
            following = self._catch_up(batches, after)
        return following, after, None if third is None else after

    def _catch_up(self, batches: Lookahead, after: Pulled) -> _Step | None:
        """Compute the next step with nothing on its way: the input was late."""
        if self._ended(after.grant) is not None:
            return GenerationChanged("Never computed, and never sent: no more is granted.")
        batch = batches.at(0)
        if batch is None:
            return None
        return self._try(batch, self._trainer.peek(batch.rows), ahead=0)

    def _try(self, batch: Batch, pulled: Pulled, *, ahead: int) -> _Step:
        """Compute a step, or return why that failed: it is a failure only if it is granted."""
        try:
            return self._compute(batch, pulled, ahead=ahead)
        except Exception as error:
            return error
