"""What a name that psys does not have is told to a program written for tf.estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

_ADVICE = {
    "logging": "leave the line out: psys says what it does by itself, through logging's 'psys'",
    "app": "call main() yourself",
    "flags": "use argparse",
    "float32": "use np.float32",
    "float64": "use np.float64",
    "int32": "use np.int32",
    "int64": "use np.int64",
    "string": "use np.bytes_ or str",
    "placeholder": "exports need no serving_input_receiver_fn; leave it out",
    "data": "let input_fn return arrays, or any iterable of batches",
    "compat": "import psys as tf, and use the names without compat.v1",
}


class MissingName(AttributeError):
    """A program asked for a name that psys does not have."""


def missing_in(module: str) -> Callable[[str], Any]:
    """Return a module's ``__getattr__``: it says what to do about a name that is not there."""

    def missing(name: str) -> NoReturn:
        advice = _ADVICE.get(name) if module == "psys" else None
        raise MissingName(
            f"{module} has no {name!r}: {advice or 'it is not in this version'} "
            "(docs/migrating-from-tf-estimator.md says what there is instead).",
            name=name,
        )

    return missing
