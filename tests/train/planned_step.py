"""One step of a model with these plans of its layers, and all that it gives, as bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from psys.arrays import IndexedSlices
from psys.compute.features import InputFeatures
from psys.compute.train_store import TrainStore
from psys.compute.variables import untraced
from psys.train.input_pipeline import Batch
from psys.train.model import InitialModel, Model, loss_and_gradients

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from stack_models import CallModel, pulled_for


def bits(found: Any) -> Any:
    """Return gradients or predictions as what their bytes are."""
    return {
        name: (one.indices.tobytes(), one.values.tobytes())
        if isinstance(one, IndexedSlices)
        else np.asarray(one).tobytes()
        for name, one in found.items()
    }


def step(call: CallModel, model: Model, given: dict[str, Any], plans: Any) -> Any:
    """Return all that a step with these plans of layers gives, as bits."""
    values = InitialModel(model.specs, seed=1)
    batch = Batch(InputFeatures(given), None)
    batch.prepare(model.lookups)
    store = TrainStore(
        model.specs,
        {name: values.read(name) for name, one in model.specs.items() if not one.sparse},
        pulled_for(model, batch, values),
        values.read_rows,
        stacks=model.lookups.stacks,
        seed=1,
        layers=plans,
    )
    loss, gradients, spec = loss_and_gradients(model, call, batch.features, None, store)
    predictions = {name: untraced(one) for name, one in spec.predictions.items()}
    return loss, bits(gradients), bits(predictions), store._used
