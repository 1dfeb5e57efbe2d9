"""Layers for a model_fn, under the names that ``tf.layers`` gives them."""

from psys.layers.core import dense, dropout, flatten
from psys.layers.normalization import batch_normalization

__all__ = ["batch_normalization", "dense", "dropout", "flatten"]
