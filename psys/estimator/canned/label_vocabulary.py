"""The names of classes: strings in labels become class numbers, class numbers become strings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from psys.arrays import Array
from psys.errors import ConfigError, ModelError


class LabelVocabulary:
    """The names of ``n_classes`` classes; without a vocabulary ``b"0"``, ``b"1"``, ...

    Attributes:
        given: whether labels are strings out of a vocabulary.
        classes: ``[n_classes]`` bytes, the name of each class.
    """

    def __init__(self, words: Sequence[str] | None, n_classes: int) -> None:
        if words is not None and not isinstance(words, (list, tuple)):
            raise ConfigError(f"label_vocabulary should be a list or a tuple, given {words!r}.")
        if words is not None and len(words) != n_classes:
            raise ConfigError(
                f"Length of label_vocabulary must be n_classes, {n_classes}, given "
                f"{len(words)} words: {list(words)}."
            )
        self.given = words is not None
        self.classes = _as_bytes(
            np.array(
                [str(n) for n in range(n_classes)] if words is None else list(words), dtype=object
            )
        )
        self._order = np.argsort(self.classes, kind="stable")
        self._sorted = self.classes[self._order]

    def ids(self, labels: Array) -> Array:
        """Return labels as class numbers; numbers as they are, where there is no vocabulary.

        Raises:
            ModelError: if labels are strings without a vocabulary or numbers with one, or a
                word is not in it.
        """
        strings = labels.dtype.kind in "SUO"
        if not self.given:
            if strings:
                raise ModelError(
                    "Labels dtype should be integer. Instead got strings; for those, give a "
                    "label_vocabulary."
                )
            return labels
        if not strings:
            raise ModelError(
                f"Labels dtype should be string since there is a vocabulary. Instead got "
                f"{labels.dtype}."
            )
        words = _as_bytes(labels)
        place = np.minimum(np.searchsorted(self._sorted, words), len(self._sorted) - 1)
        unknown = self._sorted[place] != words
        if unknown.any():
            raise ModelError(
                f"Label {words[unknown].tolist()[0]!r} is not in label_vocabulary: "
                f"{self.classes.tolist()}."
            )
        return self._order[place]

    def predictions(self, class_ids: Array) -> dict[str, Array]:
        """Return what every classifier predicts besides scores.

        Args:
            class_ids: ``[..., 1]`` the class number of each example.
        """
        count = len(self.classes)
        shape = (*class_ids.shape[:-1], count)
        return {
            "class_ids": class_ids,
            "classes": self.classes[class_ids],
            "all_class_ids": np.broadcast_to(np.arange(count), shape),
            "all_classes": np.broadcast_to(self.classes, shape),
        }


def _as_bytes(words: Array) -> Array:
    """Return strings, bytes or a mixture of them as UTF-8 bytes."""
    if words.dtype.kind == "S":
        return words
    encoded = [w.encode() if isinstance(w, str) else bytes(w) for w in words.reshape(-1).tolist()]
    return np.array(encoded, dtype="S").reshape(words.shape)
