"""What a metric is: sums over some examples, which can be added, and a number made of them.

Metrics compute in float64 over untraced values; no gradient flows through one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from autograd.tracer import getval

from psys.arrays import Array
from psys.errors import ModelError

MetricT = TypeVar("MetricT", bound="Metric")


@dataclass(frozen=True, eq=False)
class Metric(ABC):
    """A measure of the examples seen: ``merge`` adds examples, ``result`` is the number.

    ``a.merge(b).result()`` is what one metric over the examples of both would give.

    Attributes:
        totals: float64 sums over examples, whatever the subclass needs.
    """

    totals: Array

    @abstractmethod
    def result(self) -> float:
        """Return the metric of all examples seen; 0 where there is nothing to divide by."""

    def merge(self: MetricT, other: Metric) -> MetricT:
        """Return the metric of the examples of both.

        Raises:
            ModelError: if the other is another kind of metric, or was made with other arguments.
        """
        if type(self) is not type(other) or self._arguments() != other._arguments():
            raise ModelError(f"A metric cannot be merged with another one: {self!r}, {other!r}.")
        return replace(self, totals=self.totals + other.totals)

    def _arguments(self) -> dict[str, Any]:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "totals"}
        return {**given, "shape": self.totals.shape}


def ratio(numerator: Any, denominator: Any) -> Any:
    """Return ``numerator / denominator``, 0 where the denominator is 0."""
    denominator = np.asarray(denominator, np.float64)
    zeros = np.zeros(np.broadcast_shapes(np.shape(numerator), denominator.shape))
    return np.divide(numerator, denominator, out=zeros, where=denominator != 0)


def plain(values: Any) -> Array:
    """Return ``values`` as an untraced array."""
    return np.asarray(getval(values))


def paired(labels: Any, predictions: Any) -> tuple[Array, Array]:
    """Return both as arrays of one shape; a last axis of size 1 that only one has is dropped.

    Raises:
        ModelError: if the shapes do not fit.
    """
    first, second = plain(labels), plain(predictions)
    if first.ndim == second.ndim + 1 and first.shape[-1] == 1:
        first = first[..., 0]
    if second.ndim == first.ndim + 1 and second.shape[-1] == 1:
        second = second[..., 0]
    if first.shape != second.shape:
        raise ModelError(
            f"metrics: labels of shape {first.shape} do not fit predictions of shape "
            f"{second.shape}."
        )
    return first, second


def weights_for(values: Array, weights: Any) -> Array:
    """Return float64 weights in the shape of ``values``; ones if None.

    Raises:
        ModelError: if they do not broadcast.
    """
    if weights is None:
        return np.ones(values.shape)
    given = np.asarray(plain(weights), np.float64)
    if given.ndim == values.ndim + 1 and given.shape[-1] == 1:
        given = given[..., 0]
    elif given.ndim and given.ndim == values.ndim - 1:
        given = given[..., None]
    try:
        return np.broadcast_to(given, values.shape)
    except ValueError:
        raise ModelError(
            f"metrics: weights shape {given.shape} does not broadcast to values of shape "
            f"{values.shape}."
        ) from None
