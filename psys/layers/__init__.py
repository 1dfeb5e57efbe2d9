"""Layers for a model_fn, under the names that ``tf.layers`` gives them."""

from psys.layers.core import dense, dropout, flatten

__all__ = ["dense", "dropout", "flatten"]
