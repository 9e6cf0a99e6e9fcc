"""The step of `embeddings.py` with TensorFlow's sparse optimizers, in a Python that has tensorflow.

    python embeddings_tensorflow.py FOLDER RULE STEPS REPEATS

Reads `table.npy` float32 [V, D] and `ids.npy` int32 [n, N] from the folder, takes steps with gradients as
IndexedSlices, and prints the median milliseconds of a step over rounds. It knows nothing of jrec.
"""

import os
import statistics
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

RATE = 0.01


def main(folder: str, rule: str, steps: int, repeats: int) -> None:
    """Prints the version and the median."""
    made = {
        "sgd": tf.compat.v1.train.GradientDescentOptimizer,
        "adagrad": tf.compat.v1.train.AdagradOptimizer,
        "adam": tf.compat.v1.train.AdamOptimizer,
    }
    table = tf.Variable(np.load(f"{folder}/table.npy", allow_pickle=False))
    batches = [tf.constant(ids) for ids in np.load(f"{folder}/ids.npy", allow_pickle=False)]
    optimizer = made[rule](RATE)

    @tf.function
    def step(ids: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.embedding_lookup(table, ids) ** 2) / 2
        gradient = tape.gradient(loss, table)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply_gradients([(gradient, table)])
        return loss

    times = []
    for round_number in range(repeats + 1):
        start = time.perf_counter()
        for number in range(steps):
            step(batches[number % len(batches)])
        table[0].numpy()  # waits
        if round_number:
            times.append(1000 * (time.perf_counter() - start) / steps)
    print(tf.__version__, statistics.median(times))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
