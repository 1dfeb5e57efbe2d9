"""psys: a gRPC parameter-server system with the tf.estimator API.

``import psys as tf`` runs a tf.estimator program that uses canned models. The public names are
those reachable from here; where each lives: docs/reference/api.md.
"""

__version__ = "0.1.0"

from psys import (
    distribute,
    estimator,
    feature_column,
    initializers,
    layers,
    losses,
    metrics,
    nn,
    train,
)
from psys.compute.updates import counter, moving_average
from psys.compute.variables import get_variable, variable_scope
from psys.names import missing_in as _missing_in
from psys.nn.clipping import (
    clip_by_average_norm,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    global_norm,
)
from psys.optimizers import group
from psys.sharding.partitioner import (
    fixed_size_partitioner,
    min_max_variable_partitioner,
    variable_axis_size_partitioner,
)
from psys.uncaught import install as _install_excepthook

__getattr__ = _missing_in(__name__)
_install_excepthook()

__all__ = [
    "__version__",
    "clip_by_average_norm",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "counter",
    "distribute",
    "estimator",
    "feature_column",
    "fixed_size_partitioner",
    "get_variable",
    "global_norm",
    "group",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "min_max_variable_partitioner",
    "moving_average",
    "nn",
    "train",
    "variable_axis_size_partitioner",
    "variable_scope",
]
