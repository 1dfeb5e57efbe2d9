"""ShardSave: how far one shard is with the save under way: held, cut, written.

The shard decides when it may cut; here is only what it then keeps and tells. Each attempt of a
save has an object of its own, and so has "no save", whose id is ''.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from psys.ps.fence import Fence
from psys.ps.messages import Fences, PastFence, ShardFile, TaskName
from psys.ps.slice_state import SliceState
from psys.ps.snapshot import Snapshot


@dataclass
class ShardSave:
    """One attempt of a save, on one shard."""

    save: str = ""
    fences: Fences = field(default_factory=dict)
    """As they were when the hold began."""
    past_fences: tuple[PastFence, ...] = ()
    cut: Fences | None = None
    """What to let in before the cut; None while holding."""
    cut_step: int = 0
    cut_taken: str = ""
    """``save`` once the cut is taken, and ``written`` likewise; '' before."""
    cut_inputs: Mapping[TaskName, int] = field(default_factory=dict)
    cut_examples: int = 0
    written: str = ""
    file: ShardFile | None = None
    write_error: str = ""
    snapshot: Snapshot | None = None
    """The cut that was taken, until somebody fetches it."""

    @classmethod
    def begin(
        cls,
        save: str,
        fences: Mapping[TaskName, Fence],
        past_fences: Mapping[tuple[TaskName, int], int],
    ) -> ShardSave:
        """Begin to hold, with the fences as they are; with '' there is nothing to hold for."""
        if not save:
            return cls()
        past = tuple(PastFence(*key, sequence) for key, sequence in past_fences.items())
        return cls(save, dict(fences), past)

    @property
    def holding(self) -> bool:
        """Whether nothing beyond the cut may be applied."""
        return bool(self.save) and not self.cut_taken

    def take_cut(
        self,
        index: int,
        generation: str,
        slices: Iterable[SliceState],
        inputs: Mapping[TaskName, int],
        examples: int,
    ) -> None:
        """Keep what is to be written.

        Args:
            index: of the shard.
            generation: that it holds.
            slices: of the shard.
            inputs: where each trainer's input stands.
            examples: trained on in this generation.
        """
        assert self.cut is not None
        self.cut_taken, self.cut_inputs, self.cut_examples = self.save, dict(inputs), examples
        self.snapshot = Snapshot(
            self.save,
            generation,
            index,
            self.cut_step,
            dict(self.cut),
            tuple(state.cut() for state in slices),
        )

    def note_written(self, save: str, file: ShardFile | None, error: str) -> None:
        """Note that the shard file of ``save`` is on disk, or why not; an older one is no news."""
        if save == self.save:
            self.written, self.file, self.write_error = save, file, error
