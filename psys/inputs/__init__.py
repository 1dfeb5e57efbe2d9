"""Ready-made input functions, under the names of ``tf.estimator.inputs``.

An input_fn is a function without arguments that returns an iterator of batches.
"""

from psys.inputs.numpy_io import numpy_input_fn
from psys.inputs.pandas_io import pandas_input_fn

__all__ = ["numpy_input_fn", "pandas_input_fn"]
