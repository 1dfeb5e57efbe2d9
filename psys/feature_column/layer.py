"""The columns of a layer, looked up: by the plan of the step before, else one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from psys.compute.layer_parts import (
    LayerParts,
    LayerPlan,
    one_by_one,
    plain_of,
    plan_of,
    width_of,
)
from psys.compute.store import current_store
from psys.feature_column.column import FeatureColumn, same_batch, sorted_columns

Give = Callable[[Any], Any]
"""What a column gives the layer, an array ``[batch, width]`` or a ``Combination``; it is called in
the column's scope."""


def columns_of_layer(
    features: Mapping[str, Any],
    feature_columns: FeatureColumn | Iterable[FeatureColumn],
    give: Give,
    options: tuple[Any, ...],
) -> LayerParts:
    """Return what each column gives a layer, whose scope is open, in the order of their names.

    Args:
        features: raw features by key.
        feature_columns: in any order; an iterable or one alone.
        give: what a column gives.
        options: all else that the variables of the layer depend on.

    Raises:
        ModelError: if there is no column, two have one name, they read batches of different sizes,
            or ``give`` raises it.
    """
    store = current_store()
    if not isinstance(feature_columns, (Mapping, FeatureColumn)):
        feature_columns = tuple(feature_columns)
    given = (feature_columns, options)
    scope = store.full_name("")
    plan = store.layers.get(scope)
    if plan is not None and plan.given == given:
        found = _by_plan(plan, features, give)
        if found is not None:
            return found
    columns = sorted_columns(features, feature_columns)
    parts: list[Any] = []
    for column in columns:
        with store.scope(column.name):
            parts.append(give(column))
        same_batch(column, len(parts[-1]), columns[0], len(parts[0]))
    result = one_by_one(parts)
    new = plan_of(given, columns, result)
    if new is not None:
        store.layers[scope] = new
    return result


def _by_plan(plan: LayerPlan, features: Mapping[str, Any], give: Give) -> LayerParts | None:
    """Return what the columns give; None if anything of this batch is not as the plan has it.

    That a column gives one row an example which did not before is such a thing too.
    """
    store = current_store()
    together = []
    for one in plan.stacks:
        found = store.lookup_stack(one.stack, one.tables, features)
        if found is None:
            return None
        together.append((one.places, found))
    batch = together[0][1].plain.inverses.shape[1]
    single, stacks = [], {one.stack for one in plan.stacks}
    for at in plan.rest:
        column = plan.columns[at]
        with store.scope(column.name):
            part = give(column)
        if len(part) != batch or width_of(part) != plan.widths[at] or plain_of(part) in stacks:
            return None
        single.append((at, part))
    if any(found.plain.inverses.shape[1] != batch for _, found in together):
        return None
    return LayerParts(batch, plan.widths, single, together)
