"""How a gradient changes a variable: one class an algorithm, with TF's names and arguments."""

from psys.optimizers.adagrad import AdagradOptimizer
from psys.optimizers.adam import AdamOptimizer
from psys.optimizers.ftrl import FtrlOptimizer
from psys.optimizers.gradient_descent import GradientDescentOptimizer
from psys.optimizers.momentum import MomentumOptimizer
from psys.optimizers.optimizer import Optimizer, from_config, get
from psys.optimizers.train_op import Minimization, TrainOp, group
from psys.optimizers.updates import MovingAverage, Sum

__all__ = [
    "AdagradOptimizer",
    "AdamOptimizer",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "Minimization",
    "MomentumOptimizer",
    "MovingAverage",
    "Optimizer",
    "Sum",
    "TrainOp",
    "from_config",
    "get",
    "group",
]
