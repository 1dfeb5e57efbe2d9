"""Handwritten digits: 1,797 real 8 × 8 images that come with scikit-learn, ten classes.

One fifth is held out for evaluation. Runs as it is on one machine, or as every role of a cluster:
``psys run --ps 2 --workers 1 --evaluator examples/digits.py --model_dir /tmp/digits``.
"""

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

import psys as tf


def load(held_out: float = 0.2) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return images [examples, 64] in [0, 1] and labels, to train on and held out.

    Every role splits them alike: the order is drawn from a fixed seed.
    """
    digits = load_digits()
    images, labels = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int64)
    order = np.random.default_rng(2024).permutation(len(labels))
    held, train = np.split(order, [round(held_out * len(labels))])
    return (images[train], labels[train]), (images[held], labels[held])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--max_steps", type=int, default=1500)
    parser.add_argument("--batch_size", type=int, default=64)
    options = parser.parse_args()

    (train_images, train_labels), (eval_images, eval_labels) = load()
    estimator = tf.estimator.DNNClassifier(
        hidden_units=[128, 64],
        feature_columns=[tf.feature_column.numeric_column("pixels", shape=(64,))],
        n_classes=10,
        config=tf.estimator.RunConfig(
            model_dir=options.model_dir, save_checkpoints_steps=1 + options.max_steps // 3
        ),
    )
    train_spec = tf.estimator.TrainSpec(
        input_fn=tf.estimator.inputs.numpy_input_fn(
            {"pixels": train_images},
            train_labels,
            batch_size=options.batch_size,
            num_epochs=None,
            shuffle=True,
        ),
        max_steps=options.max_steps,
    )
    eval_spec = tf.estimator.EvalSpec(
        input_fn=tf.estimator.inputs.numpy_input_fn(
            {"pixels": eval_images}, eval_labels, num_epochs=1, shuffle=False
        ),
        steps=None,
        start_delay_secs=0,
        throttle_secs=0,
        exporters=tf.estimator.FinalExporter("digits"),
    )
    tf.estimator.train_and_evaluate(estimator, train_spec, eval_spec)


if __name__ == "__main__":
    main()
