"""What a name that psys does not have is told to a program written for tf.estimator."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

_GUIDE = "docs/migrating-from-tf-estimator.md"
_FIRST_VALUES = "use psys.initializers"
_ADVICE = {
    "psys": {
        "logging": "leave the line out: psys says what it does by itself, through logging's 'psys'",
        "app": "call main() yourself",
        "flags": "use argparse",
        "float32": "use np.float32",
        "float64": "use np.float64",
        "int32": "use np.int32",
        "int64": "use np.int64",
        "string": "use np.bytes_ or str",
        "placeholder": "exports need no serving_input_receiver_fn; leave it out",
        "FixedLenFeature": "exports need no serving_input_receiver_fn; leave it out",
        "parse_example": "exports need no serving_input_receiver_fn; leave it out",
        "data": "let input_fn return arrays, or any iterable of batches",
        "compat": "import psys as tf, and use the names without compat.v1",
        "set_random_seed": "use RunConfig(tf_random_seed=...)",
        "random": "use RunConfig(tf_random_seed=...) and numpy's generators",
        "get_or_create_global_step": "use tf.train.get_global_step()",
        "zeros_initializer": f"{_FIRST_VALUES}.Constant(0.0)",
        "ones_initializer": f"{_FIRST_VALUES}.Constant(1.0)",
        "constant_initializer": f"{_FIRST_VALUES}.Constant(value)",
        "random_normal_initializer": f"{_FIRST_VALUES}.RandomNormal",
        "random_uniform_initializer": f"{_FIRST_VALUES}.RandomUniform",
        "truncated_normal_initializer": f"{_FIRST_VALUES}.TruncatedNormal",
        "glorot_uniform_initializer": f"{_FIRST_VALUES}.GlorotUniform()",
        "cast": "use array.astype on features and labels",
        "constant": "use np.array",
        "convert_to_tensor": "use np.asarray",
        "reshape": "use np.reshape on features and labels",
        "expand_dims": "use np.expand_dims on features and labels",
        "squeeze": "use np.squeeze on features and labels",
        "one_hot": "use np.eye(depth)[ids]",
        "argmax": "use np.argmax on plain arrays",
        "reduce_mean": "use psys.losses for a loss, np.mean for plain arrays",
        "reduce_sum": "use psys.losses for a loss, np.sum for plain arrays",
    },
    "psys.train": {
        "get_or_create_global_step": "use tf.train.get_global_step()",
        "create_global_step": "leave it out: there always is one",
    },
    "psys.feature_column": {
        "make_parse_example_spec": "exports need no serving_input_receiver_fn; leave both out",
    },
}
# What the migration guide has a row for.
GUIDED = {
    "BestExporter",
    "LoggingTensorHook",
    "MultiHead",
    "StopAtStepHook",
    "SyncReplicasOptimizer",
    "WarmStartSettings",
    "contrib",
    "summary",
}
_GUIDED_PREFIXES = ("Baseline", "BoostedTrees", "KMeans", "sequence_", "shared_", "weighted_")


class MissingName(AttributeError):
    """A program asked for a name that psys does not have."""


def missing_in(module: str) -> Callable[[str], Any]:
    """Return a module's ``__getattr__``: it says what to do about a name that is not there."""

    def missing(name: str) -> NoReturn:
        raise MissingName(f"{module} has no {name!r}: {_advice(module, name)}", name=name)

    return missing


def _advice(module: str, name: str) -> str:
    known = _ADVICE.get(module, {})
    if name in known:
        return f"{known[name]}."
    names = getattr(sys.modules.get(module), "__all__", ())
    near = [] if name.startswith("_") else difflib.get_close_matches(name, names, 1, cutoff=0.8)
    if near:
        return f"did you mean {near[0]!r}?"
    if name in GUIDED or name.startswith(_GUIDED_PREFIXES):
        return f"it is not in this version ({_GUIDE} says what there is instead)."
    return "it is not in this version."
