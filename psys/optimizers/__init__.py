"""How a gradient changes a variable: one class an algorithm, with TF's names and arguments."""

from psys.optimizers.adadelta import AdadeltaOptimizer
from psys.optimizers.adagrad import AdagradOptimizer
from psys.optimizers.adagrad_da import AdagradDAOptimizer
from psys.optimizers.adam import AdamOptimizer, LazyAdamOptimizer
from psys.optimizers.ftrl import FtrlOptimizer
from psys.optimizers.gradient_descent import GradientDescentOptimizer
from psys.optimizers.momentum import MomentumOptimizer
from psys.optimizers.optimizer import Optimizer, from_config, get
from psys.optimizers.proximal import ProximalAdagradOptimizer, ProximalGradientDescentOptimizer
from psys.optimizers.rms_prop import RMSPropOptimizer
from psys.optimizers.schedules import LearningRateSchedule
from psys.optimizers.train_op import Minimization, TrainOp, group
from psys.optimizers.updates import MovingAverage, Sum

__all__ = [
    "AdadeltaOptimizer",
    "AdagradDAOptimizer",
    "AdagradOptimizer",
    "AdamOptimizer",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "LazyAdamOptimizer",
    "LearningRateSchedule",
    "Minimization",
    "MomentumOptimizer",
    "MovingAverage",
    "Optimizer",
    "ProximalAdagradOptimizer",
    "ProximalGradientDescentOptimizer",
    "RMSPropOptimizer",
    "Sum",
    "TrainOp",
    "from_config",
    "get",
    "group",
]
