"""Loss functions for a model_fn, under the names that ``tf.losses`` gives them."""

from psys.losses.core import (
    Reduction,
    absolute_difference,
    compute_weighted_loss,
    hinge_loss,
    huber_loss,
    log_loss,
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
)
from psys.names import missing_in as _missing_in

__getattr__ = _missing_in(__name__)

__all__ = [
    "Reduction",
    "absolute_difference",
    "compute_weighted_loss",
    "hinge_loss",
    "huber_loss",
    "log_loss",
    "mean_squared_error",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "sparse_softmax_cross_entropy",
]
