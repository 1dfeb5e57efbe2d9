"""psys: a gRPC parameter-server system with the tf.estimator API.

``import psys as tf`` runs a tf.estimator program that uses canned models. The public names are
those reachable from here; where each lives: docs/reference/api.md.
"""

from importlib.metadata import version as _version

from psys import estimator, feature_column, layers, losses, metrics, nn, train
from psys.compute.variables import get_variable, variable_scope
from psys.names import missing_in as _missing_in
from psys.optimizers import group
from psys.uncaught import install as _install_excepthook

__version__ = _version("psys")
__getattr__ = _missing_in(__name__)
_install_excepthook()

__all__ = [
    "__version__",
    "estimator",
    "feature_column",
    "get_variable",
    "group",
    "layers",
    "losses",
    "metrics",
    "nn",
    "train",
    "variable_scope",
]
