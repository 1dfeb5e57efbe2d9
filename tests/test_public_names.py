"""The public names are a tested list: none appears or disappears by accident."""

from __future__ import annotations

import importlib
import inspect

import pytest

NAMES = {
    "psys": """
        __version__ clip_by_average_norm clip_by_global_norm clip_by_norm clip_by_value counter
        distribute estimator feature_column fixed_size_partitioner get_variable global_norm group
        initializers layers losses metrics min_max_variable_partitioner moving_average nn train
        variable_axis_size_partitioner variable_scope
    """,
    "psys.distribute": """
        GreedyLoadBalancingStrategy ParameterServerStrategy Part Partitioner Placement
        RoundRobinStrategy byte_size_load_fn
    """,
    "psys.estimator": """
        DNNClassifier DNNEstimator DNNLinearCombinedClassifier DNNLinearCombinedEstimator
        DNNLinearCombinedRegressor DNNRegressor Estimator EstimatorSpec EvalSpec Exporter
        FinalExporter LatestExporter LinearClassifier LinearEstimator LinearRegressor ModeKeys
        RunConfig TrainSpec export inputs train_and_evaluate
    """,
    "psys.estimator.export": """
        ServingInputReceiver TensorServingInputReceiver build_parsing_serving_input_receiver_fn
        build_raw_serving_input_receiver_fn load_export
    """,
    "psys.feature_column": """
        CategoricalColumn DenseColumn FeatureColumn SparseFeature SparseIds bucketized_column
        categorical_column_with_hash_bucket categorical_column_with_identity
        categorical_column_with_vocabulary_list crossed_column embedding_column indicator_column
        input_layer linear_model numeric_column
    """,
    "psys.initializers": """
        Constant GlorotUniform Initializer RandomNormal RandomUniform TruncatedNormal
    """,
    "psys.inputs": """
        numpy_input_fn pandas_input_fn
    """,
    "psys.layers": """
        batch_normalization dense dropout flatten
    """,
    "psys.losses": """
        Reduction absolute_difference compute_weighted_loss hinge_loss huber_loss log_loss
        mean_squared_error sigmoid_cross_entropy softmax_cross_entropy
        sparse_softmax_cross_entropy
    """,
    "psys.metrics": """
        Metric accuracy accuracy_baseline auc false_negatives false_positives mean
        mean_absolute_error mean_squared_error precision recall root_mean_squared_error
        true_negatives true_positives
    """,
    "psys.nn": """
        bias_add dropout elu l2_loss leaky_relu log_softmax relu relu6 selu sigmoid
        sigmoid_cross_entropy_with_logits softmax softmax_cross_entropy_with_logits softplus
        sparse_softmax_cross_entropy_with_logits tanh zero_fraction
    """,
    "psys.train": """
        AdadeltaOptimizer AdagradDAOptimizer AdagradOptimizer AdamOptimizer CheckpointSaverListener
        FtrlOptimizer GradientDescentOptimizer LazyAdamOptimizer LearningRateSchedule
        MomentumOptimizer NanLossDuringTrainingError Optimizer ProximalAdagradOptimizer
        ProximalGradientDescentOptimizer RMSPropOptimizer SessionRunArgs SessionRunContext
        SessionRunHook SessionRunValues SyncReplicasOptimizer clip_gradients_by_norm cosine_decay
        cosine_decay_restarts exponential_decay
        get_global_step inverse_time_decay latest_checkpoint linear_cosine_decay natural_exp_decay
        noisy_linear_cosine_decay piecewise_constant polynomial_decay
    """,
    "psys.optimizers": """
        AdadeltaOptimizer AdagradDAOptimizer AdagradOptimizer AdamOptimizer FtrlOptimizer
        GradientDescentOptimizer LazyAdamOptimizer LearningRateSchedule Minimization
        MomentumOptimizer MovingAverage Optimizer ProximalAdagradOptimizer
        ProximalGradientDescentOptimizer RMSPropOptimizer Sum TrainOp from_config get group
    """,
    "psys.sharding": """
        ShardMap Slice describe plan planned_slices
    """,
    "psys.checkpoint": """
        CHECKPOINTS CheckpointReader Fault FileInfo FileStorage MANIFEST Manifest
        MemoryStorage ModelReader ShardEntry ShardReader SliceState Storage checkpoint_dir commit
        delete find_latest_valid latest_checkpoint load load_all no_fault
        open_checkpoint plan_deletions shard_file_name write_shard
    """,
    "psys.summary": """
        SummaryWriter
    """,
}
"""What ``__all__`` says, by module. What is not reachable through it from ``psys`` is private."""


@pytest.mark.parametrize("module", NAMES)
def test_all_is_the_list(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == NAMES[module].split()


@pytest.mark.parametrize("module", NAMES)
def test_every_name_is_there(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", NAMES)
def test_every_public_class_and_function_says_what_it_is(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__doc__
    public = [getattr(found, name) for name in NAMES[module].split()]
    silent = [
        one.__name__
        for one in public
        if (inspect.isclass(one) or inspect.isfunction(one)) and not inspect.getdoc(one)
    ]
    assert silent == []
