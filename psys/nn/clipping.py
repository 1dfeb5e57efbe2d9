"""Keep values and gradients small, under the names tf gives these functions.

They take arrays, traced or not, and the gradient of some rows of a table (``IndexedSlices``),
of which the rows are clipped as they are: rows given twice are not summed first, as in tf.
Nothing here knows optimizers but ``clip_gradients_by_norm``, which wraps one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices, values_of
from psys.compute.backward import untraced
from psys.compute.tracing import by_first
from psys.errors import ConfigError, ConfigTypeError
from psys.optimizers.arguments import checked_number
from psys.optimizers.optimizer import Optimizer, OptimizerT


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None) -> Any:
    """Return ``t`` with every element moved into ``[clip_value_min, clip_value_max]``.

    The gradient of elements outside is 0.

    Args:
        t: an array or IndexedSlices.
        clip_value_min: a number, or an array that fits ``t``.
        clip_value_max: likewise.
        name: accepted for tf programs, changes nothing.
    """
    if isinstance(t, IndexedSlices):
        values = clip_by_value(t.values, clip_value_min, clip_value_max)
        return IndexedSlices(t.indices, values)
    dtype = np.asarray(untraced(t)).dtype
    low, high = (np.asarray(untraced(one), dtype) for one in (clip_value_min, clip_value_max))
    return _clip(t, low, high)


def _clip_gradient(g: Array, _answer: Array, t: Array, low: Array, high: Array) -> Array:
    # Elements on a limit are inside, as in tf: half a gradient there would be nobody's.
    return np.where((t >= low) & (t <= high), g, g.dtype.type(0))


_clip = by_first(lambda t, low, high: np.minimum(np.maximum(t, low), high), _clip_gradient)


def clip_by_norm(
    t: Any, clip_norm: float, axes: Sequence[int] | None = None, name: str | None = None
) -> Any:
    """Return ``t * clip_norm / max(norm, clip_norm)``: its L2 norm is then at most ``clip_norm``.

    Args:
        t: an array or IndexedSlices.
        clip_norm: a number more than 0.
        axes: the norm is that along these axes, by themselves for every index of the others;
            None means all axes.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if ``clip_norm`` is not a number more than 0.

    Example:
        >>> clip_by_norm(np.array([3.0, 4.0]), 2.5).tolist()
        [1.5, 2.0]
    """
    limit = _checked_norm("clip_by_norm", clip_norm)
    if isinstance(t, IndexedSlices):
        return IndexedSlices(t.indices, clip_by_norm(t.values, limit, axes))
    along = None if axes is None else tuple(axes)
    limit = np.asarray(untraced(t)).dtype.type(limit)
    squares = anp.sum(t * t, axis=along, keepdims=True)
    # Never the root of zero, whose derivative is infinite.
    return t * (limit / anp.sqrt(anp.maximum(squares, limit * limit)))


def clip_by_average_norm(t: Any, clip_norm: float, name: str | None = None) -> Any:
    """Return ``t`` scaled down so that its L2 norm over its number of elements is ``clip_norm``.

    Args:
        t: an array or IndexedSlices.
        clip_norm: a number more than 0.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if ``clip_norm`` is not a number more than 0.
    """
    limit = _checked_norm("clip_by_average_norm", clip_norm)
    if isinstance(t, IndexedSlices):
        return IndexedSlices(t.indices, clip_by_average_norm(t.values, limit))
    return clip_by_norm(t, limit * max(1, np.size(untraced(t))))


def global_norm(t_list: Sequence[Gradient | None], name: str | None = None) -> np.floating[Any]:
    """Return the L2 norm of all elements of all arrays together; None counts as nothing.

    Args:
        t_list: arrays and IndexedSlices.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigTypeError: if it is not a list.
    """
    arrays = [_values(one) for one in _checked_list("global_norm", t_list) if one is not None]
    squares = sum(float(np.vdot(one, one)) for one in arrays)
    kind = np.result_type(*arrays) if arrays else np.dtype(np.float32)
    return kind.type(np.sqrt(squares))


def clip_by_global_norm(
    t_list: Sequence[Gradient | None],
    clip_norm: float,
    use_norm: float | None = None,
    name: str | None = None,
) -> tuple[list[Gradient | None], Any]:
    """Scale all arrays down by one number so that their norm together is at most ``clip_norm``.

    Args:
        t_list: arrays and IndexedSlices; None stays None.
        clip_norm: a number more than 0.
        use_norm: ``global_norm(t_list)``, if it is known already.
        name: accepted for tf programs, changes nothing.

    Returns:
        The clipped list, and the norm before. If the norm is not finite, every result is NaN:
        a training step with it fails instead of going on with a broken gradient.

    Raises:
        ConfigTypeError: if ``t_list`` is not a list.
        ConfigError: if ``clip_norm`` is not a number more than 0.

    Example:
        >>> clipped, norm = clip_by_global_norm([np.array([3.0, 4.0]), None, np.array([12.0])], 6.5)
        >>> [None if one is None else one.tolist() for one in clipped], float(norm)
        ([[1.5, 2.0], None, [6.0]], 13.0)

    References:
        Pascanu, Mikolov and Bengio, "On the difficulty of training Recurrent Neural Networks",
        2012.
    """
    limit = _checked_norm("clip_by_global_norm", clip_norm)
    checked = _checked_list("clip_by_global_norm", t_list)
    norm = global_norm(checked) if use_norm is None else use_norm
    scale = limit / max(float(norm), limit) if np.isfinite(norm) else np.nan
    return [None if one is None else _scaled(one, scale) for one in checked], norm


def clip_gradients_by_norm(optimizer: OptimizerT, clip_norm: float) -> OptimizerT:
    """Return the optimizer so that it clips gradients by their global norm before it sends them.

    The norm is that of all variables it trains in a step. Clipping is done by the trainer, for
    its own batch (``tf.contrib.estimator.clip_gradients_by_norm``).

    Args:
        optimizer: left as it is.
        clip_norm: a number more than 0.

    Raises:
        ConfigError: if ``optimizer`` is none, or ``clip_norm`` is not a number more than 0.

    Example:
        >>> from psys.optimizers import AdamOptimizer
        >>> clip_gradients_by_norm(AdamOptimizer(0.5), 5.0)
        AdamOptimizer(learning_rate=0.5, beta1=0.9, beta2=0.999, epsilon=1e-08)
    """
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"clip_gradients_by_norm takes an optimizer, got {optimizer!r}.")
    limit = _checked_norm("clip_gradients_by_norm", clip_norm)

    def clip(gradients: dict[str, Gradient]) -> dict[str, Gradient]:
        clipped, _ = clip_by_global_norm(list(gradients.values()), limit)
        return {
            name: one
            for name, one in zip(gradients, clipped, strict=True)
            if one is not None  # none is: none went in
        }

    return optimizer.transforming(clip)


def _values(gradient: Gradient) -> Array:
    return np.asarray(untraced(values_of(gradient)))


def _scaled(gradient: Gradient, scale: float) -> Gradient:
    if isinstance(gradient, IndexedSlices):
        return IndexedSlices(gradient.indices, gradient.values * gradient.values.dtype.type(scale))
    return np.asarray(gradient * np.asarray(gradient).dtype.type(scale))


def _checked_norm(function: str, clip_norm: Any) -> Any:
    return checked_number(function, "clip_norm", clip_norm, above=0.0)


def _checked_list(function: str, t_list: Any) -> Sequence[Gradient | None]:
    if isinstance(t_list, (str, dict, np.ndarray, IndexedSlices)) or not isinstance(
        t_list, Sequence
    ):
        raise ConfigTypeError(f"{function} takes a list of gradients, got {t_list!r}.")
    return t_list
