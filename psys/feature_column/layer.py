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
    by_plan: Callable[[FeatureColumn], bool],
    options: tuple[Any, ...],
    key_of: Callable[[FeatureColumn], Any] = lambda _: None,
) -> LayerParts:
    """Return what each column gives a layer, whose scope is open, in the order of their names.

    Args:
        features: raw features by key.
        feature_columns: in any order; an iterable or one alone.
        give: what a column gives; called at most once for each.
        by_plan: whether nothing but the batch and the options changes what a column gives.
        options: all else that the variables of the layer depend on.
        key_of: the key of the feature whose numbers a column gives as they are; None if it does
            anything else.

    Raises:
        ModelError: if there is no column, two have one name, they read batches of different sizes,
            or ``give`` raises it.
    """
    store = current_store()
    if not isinstance(feature_columns, (Mapping, FeatureColumn)):
        feature_columns = tuple(feature_columns)
    scope = store.full_name("")
    plan = store.layers.get(scope)
    known: dict[int, Any] = {}
    if plan is not None and plan.is_of(feature_columns, options):
        found = _look_up(plan, features, give, known)
        if found is not None:
            return found
    columns = sorted_columns(features, feature_columns)
    parts: list[Any] = []
    for at, column in enumerate(columns):
        if at in known:
            parts.append(known[at])
        else:
            with store.scope(column.name):
                parts.append(give(column))
        same_batch(column, len(parts[-1]), columns[0], len(parts[0]))
    result = one_by_one(parts)
    if plan is not None and not plan.is_of(feature_columns, options):
        # Columns that are made anew in every step, maybe with a batch in them: none is kept.
        store.layers[scope] = None
    elif plan is not None or scope not in store.layers:
        allowed = {at for at, column in enumerate(columns) if by_plan(column)}
        found_keys = {at: key_of(column) for at, column in enumerate(columns)}
        keys = {at: key for at, key in found_keys.items() if key is not None}
        new = plan_of(feature_columns, options, columns, result, allowed, keys)
        if new is not None:
            store.layers[scope] = new
    return result


def _look_up(
    plan: LayerPlan, features: Mapping[str, Any], give: Give, known: dict[int, Any]
) -> LayerParts | None:
    """Return what the columns give; None if anything of this batch is not as the plan has it.

    That a column gives one row an example which did not before is such a thing too.

    Args:
        plan: of the layer.
        features: raw features by key.
        give: what a column gives.
        known: where to note what columns have given.
    """
    if not isinstance(features, Mapping):
        return None
    store = current_store()
    together = []
    for one in plan.stacks:
        found = store.lookup_stack(one.stack, one.tables, features)
        if found is None:
            return None
        together.append((one.places, found))
    numbers: list[tuple[int, Any]] = []
    rest = [*plan.rest]
    for columns in plan.numbers:
        read = columns.read(features)
        if read is None:
            rest += columns.places
        else:
            numbers.append((columns.places[0], read))
    for at in sorted(rest):
        column = plan.columns[at]
        with store.scope(column.name):
            known[at] = give(column)
    stacks = {one.stack for one in plan.stacks}
    sizes = {found.plain.inverses.shape[1] for _, found in together}
    sizes.update(len(one) for _, one in numbers)
    sizes.update(map(len, known.values()))
    widths = [plan.widths[at] for at in known]
    if len(sizes) > 1 or [*map(width_of, known.values())] != widths:
        return None
    if any(plain_of(part) in stacks for part in known.values()):
        return None
    return LayerParts(sizes.pop(), plan.widths, [*numbers, *known.items()], together)
