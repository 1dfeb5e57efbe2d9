"""Training: optimizers, hooks, checkpoints, under the names tf.train gives them."""

from psys.checkpoint import latest_checkpoint
from psys.compute.variables import current_global_step as get_global_step
from psys.errors import NanLossDuringTrainingError
from psys.names import missing_in as _missing_in
from psys.optimizers import (
    AdagradOptimizer,
    AdamOptimizer,
    FtrlOptimizer,
    GradientDescentOptimizer,
    MomentumOptimizer,
)
from psys.train.hooks import (
    CheckpointSaverListener,
    SessionRunArgs,
    SessionRunContext,
    SessionRunHook,
    SessionRunValues,
)

__getattr__ = _missing_in(__name__)

__all__ = [
    "AdagradOptimizer",
    "AdamOptimizer",
    "CheckpointSaverListener",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "NanLossDuringTrainingError",
    "SessionRunArgs",
    "SessionRunContext",
    "SessionRunHook",
    "SessionRunValues",
    "get_global_step",
    "latest_checkpoint",
]
