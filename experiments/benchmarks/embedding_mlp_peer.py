"""The notebook's training in Keras or PyTorch, timed on request; needs neither jrec nor JAX.

    python embedding_mlp_peer.py keras|torch DATA.npz STEPS

Started by experiments.benchmarks.embedding_mlp. Says its version, then, for each line it reads, takes
STEPS steps and says how many seconds they took and their mean loss, as lines of JSON behind `peer:`.
"""

import json
import os
import sys
import time

import numpy as np

BATCH, RATE, MOMENTUM, WIDTH, HIDDEN = 1024, 0.08, 0.9, 10, 1024


def keras_run(user, item, rating, users, items, steps):
    """`fit`, as in the notebook, on the next part of the ratings each time."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import keras
    import tensorflow as tf

    u, m = keras.Input((1,)), keras.Input((1,))
    u_vector = keras.layers.Flatten()(keras.layers.Embedding(users, WIDTH)(u))
    m_vector = keras.layers.Flatten()(keras.layers.Embedding(items, WIDTH)(m))
    x = keras.layers.Concatenate()([u_vector, m_vector])
    x = keras.layers.Dense(HIDDEN, activation="relu")(x)
    model = keras.Model([u, m], keras.layers.Dense(1)(x))
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(RATE, momentum=MOMENTUM))

    def run(number):
        part = slice(number * steps * BATCH, (number + 1) * steps * BATCH)
        start = time.perf_counter()
        history = model.fit(
            [user[part], item[part]], rating[part], batch_size=BATCH, epochs=1, verbose=0
        )
        return time.perf_counter() - start, history.history["loss"][0]

    device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    return f"Keras {keras.__version__}, TensorFlow {tf.__version__}, {device}", run


def torch_run(user, item, rating, users, items, steps):
    """The usual eager loop, on tensors that are on the device already."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.user, self.item = nn.Embedding(users, WIDTH), nn.Embedding(items, WIDTH)
            for table in (self.user, self.item):
                nn.init.uniform_(table.weight, -0.05, 0.05)
            self.hidden, self.output = nn.Linear(2 * WIDTH, HIDDEN), nn.Linear(HIDDEN, 1)
            for layer in (self.hidden, self.output):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

        def forward(self, u, m):
            x = torch.cat([self.user(u), self.item(m)], 1)
            return self.output(torch.relu(self.hidden(x)))[:, 0]

    columns = (user.astype(np.int64), item.astype(np.int64), rating)
    user, item, rating = (torch.from_numpy(column).to(device) for column in columns)
    order = torch.randperm(len(user), device=device)
    net, mse = Net().to(device), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)

    def run(number):
        total = torch.zeros((), device=device)
        start = time.perf_counter()
        for step in range(number * steps, (number + 1) * steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad()
            loss = mse(net(user[batch], item[batch]), rating[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        loss = total.item() / steps  # waits for the device
        return time.perf_counter() - start, loss

    return f"PyTorch {torch.__version__} eager, {device}", run


def main():
    kind, path, steps = sys.argv[1:]
    data = np.load(path, allow_pickle=False)
    columns = [data[name] for name in ("user", "item", "rating")]
    make = {"keras": keras_run, "torch": torch_run}[kind]
    version, run = make(*columns, int(data["users"]), int(data["items"]), int(steps))
    print("peer:" + json.dumps(version), flush=True)
    for number, _ in enumerate(sys.stdin):
        print("peer:" + json.dumps(run(number)), flush=True)


if __name__ == "__main__":
    main()
