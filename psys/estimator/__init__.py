"""Estimators, their specs, exporters and inputs, under the names tf.estimator gives them."""

from typing import Any

from psys import inputs
from psys.estimator import export
from psys.estimator.canned.dnn import DNNClassifier, DNNEstimator, DNNRegressor
from psys.estimator.canned.dnn_linear_combined import (
    DNNLinearCombinedClassifier,
    DNNLinearCombinedEstimator,
    DNNLinearCombinedRegressor,
)
from psys.estimator.canned.linear import LinearClassifier, LinearEstimator, LinearRegressor
from psys.estimator.estimator import Estimator
from psys.estimator.exporters import Exporter, FinalExporter, LatestExporter
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.estimator.run_config import RunConfig
from psys.estimator.specs import EvalSpec, TrainSpec
from psys.names import missing_in as _missing_in

__getattr__ = _missing_in(__name__)

__all__ = [
    "DNNClassifier",
    "DNNEstimator",
    "DNNLinearCombinedClassifier",
    "DNNLinearCombinedEstimator",
    "DNNLinearCombinedRegressor",
    "DNNRegressor",
    "Estimator",
    "EstimatorSpec",
    "EvalSpec",
    "Exporter",
    "FinalExporter",
    "LatestExporter",
    "LinearClassifier",
    "LinearEstimator",
    "LinearRegressor",
    "ModeKeys",
    "RunConfig",
    "TrainSpec",
    "export",
    "inputs",
    "train_and_evaluate",
]


def train_and_evaluate(estimator: Estimator, train_spec: TrainSpec, eval_spec: EvalSpec) -> Any:
    """Train, evaluate and export, here or as one task of the cluster TF_CONFIG names.

    See ``psys.roles.train_and_evaluate``, which this calls.
    """
    # The roles are built on estimators; importing them above would be a circle.
    from psys.roles.train_and_evaluate import train_and_evaluate as run

    return run(estimator, train_spec, eval_spec)
