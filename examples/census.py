r"""Wide and deep on the UCI Adult census data: who earns more than 50,000 dollars a year?

The model of tf.estimator's old wide-and-deep tutorial: a linear part over categories and their
crosses, a network over numbers, indicators and an embedding. The files ``adult.data`` and
``adult.test`` are at https://archive.ics.uci.edu/dataset/2/adult. Runs as it is on one machine,
or as every role of a cluster::

    psys run --ps 2 --workers 1 --evaluator examples/census.py \
        --train adult.data --test adult.test --model_dir /tmp/census
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import psys as tf

# In the order of the files. For numbers: mean and deviation over adult.data.
COLUMNS: dict[str, tuple[float, float] | None] = {
    "age": (38.6, 13.6),
    "workclass": None,
    "fnlwgt": None,
    "education": None,
    "education_num": (10.1, 2.57),
    "marital_status": None,
    "occupation": None,
    "relationship": None,
    "race": None,
    "gender": None,
    "capital_gain": (1078.0, 7385.0),
    "capital_loss": (87.3, 403.0),
    "hours_per_week": (40.4, 12.3),
    "native_country": None,
}
TRAIN_EXAMPLES = 32_561
EPOCHS = 20

# fmt: off
EDUCATIONS = [
    "Bachelors", "HS-grad", "11th", "Masters", "9th", "Some-college", "Assoc-acdm", "Assoc-voc",
    "7th-8th", "Doctorate", "Prof-school", "5th-6th", "10th", "1st-4th", "Preschool", "12th",
]
MARITAL_STATUSES = [
    "Married-civ-spouse", "Divorced", "Married-spouse-absent", "Never-married", "Separated",
    "Married-AF-spouse", "Widowed",
]
RELATIONSHIPS = [
    "Husband", "Not-in-family", "Wife", "Own-child", "Unmarried", "Other-relative",
]
WORKCLASSES = [
    "Self-emp-not-inc", "Private", "State-gov", "Federal-gov", "Local-gov", "?", "Self-emp-inc",
    "Without-pay", "Never-worked",
]
# fmt: on


def read_census(path: Path) -> tuple[dict[str, Any], Any]:
    """Return features by name and labels (1: more than 50,000 dollars) of one file."""
    with path.open(newline="") as file:
        # adult.test opens with a comment and ends its labels with a full stop.
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
    columns = list(zip(*rows, strict=True))
    features = {
        name: np.array(values, dtype=np.float32 if scale else np.bytes_)
        for (name, scale), values in zip(COLUMNS.items(), columns, strict=False)
        if name != "fnlwgt"  # a sampling weight, no property of the person
    }
    return features, np.array([label.startswith(">50K") for label in columns[14]], dtype=np.int64)


def census_input_fn(
    path: Path, batch_size: int, num_epochs: int | None, shuffle: bool
) -> Callable[[], Iterator[Any]]:
    """Return an input_fn that reads the file when it is called: a ps never does."""

    def input_fn() -> Iterator[Any]:
        features, labels = read_census(path)
        batches: Iterator[Any] = tf.estimator.inputs.numpy_input_fn(
            features, labels, batch_size=batch_size, num_epochs=num_epochs, shuffle=shuffle
        )()
        return batches

    return input_fn


def numeric(name: str) -> Any:
    """Return a column of a number, standardised."""
    scale = COLUMNS[name]
    assert scale is not None
    mean, deviation = scale
    return tf.feature_column.numeric_column(name, normalizer_fn=lambda x: (x - mean) / deviation)


def build_columns() -> tuple[list[Any], list[Any]]:
    """Return the wide columns and the deep columns."""
    column = tf.feature_column
    education = column.categorical_column_with_vocabulary_list("education", EDUCATIONS)
    marital_status = column.categorical_column_with_vocabulary_list(
        "marital_status", MARITAL_STATUSES
    )
    relationship = column.categorical_column_with_vocabulary_list("relationship", RELATIONSHIPS)
    workclass = column.categorical_column_with_vocabulary_list("workclass", WORKCLASSES)
    occupation = column.categorical_column_with_hash_bucket("occupation", hash_bucket_size=1000)
    age_buckets = column.bucketized_column(
        column.numeric_column("age"), boundaries=[18, 25, 30, 35, 40, 45, 50, 55, 60, 65]
    )
    wide = [
        education,
        marital_status,
        relationship,
        workclass,
        occupation,
        age_buckets,
        column.crossed_column(["education", "occupation"], hash_bucket_size=1000),
        column.crossed_column([age_buckets, "education", "occupation"], hash_bucket_size=1000),
    ]
    deep = [
        numeric("age"),
        numeric("education_num"),
        numeric("capital_gain"),
        numeric("capital_loss"),
        numeric("hours_per_week"),
        column.indicator_column(workclass),
        column.indicator_column(education),
        column.indicator_column(marital_status),
        column.indicator_column(relationship),
        column.embedding_column(occupation, dimension=8),
    ]
    return wide, deep


def main() -> None:
    parser = argparse.ArgumentParser(description="Wide and deep on the UCI Adult census data.")
    parser.add_argument("--train", type=Path, required=True, help="adult.data")
    parser.add_argument("--test", type=Path, required=True, help="adult.test")
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--max_steps", type=int, help=f"default: {EPOCHS} times over adult.data")
    parser.add_argument("--batch_size", type=int, default=128)
    options = parser.parse_args()
    for path in (options.train, options.test):
        if not path.is_file():
            sys.exit(f"census.py: there is no data file {path}")
    max_steps = options.max_steps
    if max_steps is None:
        max_steps = EPOCHS * TRAIN_EXAMPLES // options.batch_size

    wide_columns, deep_columns = build_columns()
    estimator = tf.estimator.DNNLinearCombinedClassifier(
        linear_feature_columns=wide_columns,
        linear_optimizer=tf.train.FtrlOptimizer(learning_rate=0.05),
        dnn_feature_columns=deep_columns,
        dnn_optimizer=tf.train.AdagradOptimizer(learning_rate=0.02),
        dnn_hidden_units=[100, 75, 50, 25],
        config=tf.estimator.RunConfig(
            model_dir=options.model_dir, save_checkpoints_steps=1 + max_steps // 5
        ),
    )
    train_spec = tf.estimator.TrainSpec(
        census_input_fn(options.train, options.batch_size, num_epochs=None, shuffle=True),
        max_steps=max_steps,
    )
    eval_spec = tf.estimator.EvalSpec(
        census_input_fn(options.test, 1024, num_epochs=1, shuffle=False),
        steps=None,
        start_delay_secs=0,
        throttle_secs=0,
        exporters=tf.estimator.FinalExporter("census"),
    )
    tf.estimator.train_and_evaluate(estimator, train_spec, eval_spec)


if __name__ == "__main__":
    main()
