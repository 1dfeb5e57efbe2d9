"""OverlappedSession: computes a step while the one before is being sent.

``ParameterServerStrategy(pipeline_depth=1)``: what a step is computed with lacks the trainer's own
last step, which is still on its way. Permission is needed to send a step, not to compute it: at
the end of a job the step computed last may not be granted, and is thrown away.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from psys.parameters import Pulled
from psys.ps.messages import Grant
from psys.train.courier import Courier
from psys.train.lookahead import Lookahead
from psys.train.session import Computed, LoopResult, Session


class OverlappedSession(Session):
    """One trainer's model, live; each step is computed while the one before is sent."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Prepare; see ``Session``."""
        super().__init__(*arguments, **options)
        self._courier = Courier()

    def close(self) -> None:
        """Give up what the loop holds."""
        self._courier.close()

    def _loop(self, batches: Lookahead, pulled: Pulled) -> LoopResult:
        """Take steps until the loop ends; see ``Session``."""
        first, second = batches.at(0), batches.at(1)
        assert first is not None
        if ended := self._ended(pulled.grant):
            return ended
        later = None if second is None else self._trainer.peek(second.rows)
        computed: Computed | Exception | None = self._compute(first, pulled)
        while computed is not None:
            if ended := self._ended(pulled.grant):
                return ended
            if pulled.grant is not Grant.GO:
                second = batches.at(1)
                pulled = later = self._trainer.pull({} if second is None else second.rows)
                continue
            if isinstance(computed, Exception):
                raise computed
            computed, pulled = self._overlap(batches, computed, later)
            later = pulled
        return self._result("input ended")

    def _overlap(
        self, batches: Lookahead, computed: Computed, later: Pulled | None
    ) -> tuple[Computed | Exception | None, Pulled]:
        """Send the step of batch 0 and compute that of batch 1.

        Args:
            batches: to train on.
            computed: the step of the first.
            later: what was pulled for the second; None if there is none.

        Returns:
            The second step, or why it could not be computed: that is the program's failure only
            if the step is granted. None if the input ended. And the answer to the first, with
            what the third needs.
        """
        begun = self._begin_step()
        second = batches.at(1)
        sent = self._courier.send(
            partial(self._send, computed, batches.at(2), more=second is not None)
        )
        following: Computed | Exception | None = None
        if second is not None and later is not None:
            try:
                following = self._compute(second, later)
            except Exception as error:
                following = error
        after = sent.result()
        self._end_step(batches, computed, begun, after)
        return following, after
