"""The program of tf.estimator's train_and_evaluate page, on data it makes itself.

Hash-bucket and embedding columns, a DNNClassifier, a TrainSpec and an EvalSpec. It runs as it is
on one machine (``python examples/train_and_evaluate.py --model_dir /tmp/page``), as every role of
a cluster (``psys run --ps 2 --workers 2 --evaluator examples/train_and_evaluate.py --model_dir
/tmp/page``), and anywhere TF_CONFIG says which task it is.
"""

import argparse
from typing import Any

import numpy as np

import psys as tf

NUM_QUERIES, NUM_ITEMS = 100, 60


def make_clicks(num_rows: int, seed: int) -> tuple[dict[str, Any], Any]:
    """Return queries, items, and whether the item was clicked: each name has its own leaning."""
    leanings = np.random.default_rng(42)
    query_leaning = leanings.normal(size=NUM_QUERIES)
    item_leaning = leanings.normal(size=NUM_ITEMS)
    rows = np.random.default_rng(seed)
    queries = rows.integers(NUM_QUERIES, size=num_rows)
    items = rows.integers(NUM_ITEMS, size=num_rows)
    noise = 0.3 * rows.normal(size=num_rows)
    clicked = query_leaning[queries] + item_leaning[items] + noise > 0
    features = {
        "query": np.char.add("query ", queries.astype(str)),
        "item": np.char.add("item ", items.astype(str)),
    }
    return features, clicked.astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--max_steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=128)
    options = parser.parse_args()

    # Set up feature columns.
    query = tf.feature_column.categorical_column_with_hash_bucket("query", hash_bucket_size=1000)
    query_emb = tf.feature_column.embedding_column(categorical_column=query, dimension=16)
    item = tf.feature_column.categorical_column_with_hash_bucket("item", hash_bucket_size=1000)
    item_emb = tf.feature_column.embedding_column(categorical_column=item, dimension=16)

    estimator = tf.estimator.DNNClassifier(
        config=tf.estimator.RunConfig(model_dir=options.model_dir, save_summary_steps=100),
        feature_columns=[query_emb, item_emb],
        hidden_units=[1024, 512, 256],
    )

    # Input pipeline for train and evaluate.
    train_x, train_y = make_clicks(50_000, seed=1)
    train_input_fn = tf.estimator.inputs.numpy_input_fn(
        train_x, train_y, batch_size=options.batch_size, num_epochs=None, shuffle=True
    )
    eval_x, eval_y = make_clicks(5_000, seed=2)
    eval_input_fn = tf.estimator.inputs.numpy_input_fn(
        eval_x, eval_y, batch_size=1000, num_epochs=1, shuffle=False
    )

    train_spec = tf.estimator.TrainSpec(input_fn=train_input_fn, max_steps=options.max_steps)
    # The page leaves both delays at their defaults (120 s and 600 s); this job is over before.
    eval_spec = tf.estimator.EvalSpec(
        input_fn=eval_input_fn, steps=None, start_delay_secs=0, throttle_secs=0
    )

    tf.estimator.train_and_evaluate(estimator, train_spec, eval_spec)


if __name__ == "__main__":
    main()
