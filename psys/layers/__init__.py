"""Layers for a model_fn, under the names that ``tf.layers`` gives them."""

from psys.layers.core import dense, dropout, flatten
from psys.layers.normalization import batch_normalization
from psys.names import missing_in as _missing_in

__getattr__ = _missing_in(__name__)

__all__ = ["batch_normalization", "dense", "dropout", "flatten"]
