"""The Paddle book's fusion program, for a Python 3.7 with paddlepaddle 1.8.5; run by `fusion.py`.

    python3.7 fusion_paddle.py DATA.npz OUT.npz STEPS [EPOCHS [FEEDER]]

Reads a data set as `fusion.py` wrote it, trains with the source's settings (SGD 0.2, batch 256,
sparse tables) in the given order, and writes the initial parameters, the cost of each of the first
STEPS steps, and for each epoch the seconds and the test cost. It is written from the chapter's text
and knows nothing of jrec, so that agreement of the costs means something.
"""

import sys
import time

import numpy as np
import paddle.fluid as fluid
from paddle.fluid import layers, nets

BATCH = 256
ATTRIBUTES = ("gender", "age", "occupation")


def table(rows, name, width, sequence=False):
    ids = layers.data(name=name, shape=[1], dtype="int64", lod_level=int(sequence))
    return layers.embedding(
        ids, size=[int(rows[name]), width], is_sparse=True, param_attr=name + "_table"
    )


def dense(inputs, width, name, act=None):
    return layers.fc(
        inputs, width, act=act, param_attr=name + "_kernel", bias_attr=name + "_bias"
    )


def build(rows):
    user = [dense(table(rows, "user", 32), 32, "user_layer")]
    for name in ATTRIBUTES:
        user.append(dense(table(rows, name, 16), 16, name + "_layer"))
    user = dense(layers.concat(user, axis=1), 200, "user_tower", "tanh")
    item = [dense(table(rows, "item", 32), 32, "item_layer")]
    item.append(layers.sequence_pool(table(rows, "genres", 32, True), "sum"))
    title = nets.sequence_conv_pool(
        table(rows, "title", 32, True), 32, 3, act="tanh", pool_type="sum",
        param_attr="title_kernel", bias_attr="title_bias",
    )
    item = dense(layers.concat(item + [title], axis=1), 200, "item_tower", "tanh")
    score = layers.scale(layers.cos_sim(user, item), scale=5.0)
    target = layers.data(name="score", shape=[1], dtype="float32")
    return layers.mean(layers.square_error_cost(score, target))


def feed(data, rows):
    """One batch in Paddle's form: columns, and LoD tensors for genres and titles."""
    place = fluid.CPUPlace()
    user, item = data["user"][rows], data["item"][rows]

    def column(values):
        return np.asarray(values, np.int64).reshape(-1, 1)

    batch = {"user": column(user), "item": column(item)}
    for name in ATTRIBUTES:
        batch[name] = column(data[name][user])
    for name in ("genres", "title"):
        sequences = [data[name][f][data[name + "_mask"][f]] for f in item]
        lengths = [[len(sequence) for sequence in sequences]]
        batch[name] = fluid.create_lod_tensor(column(np.concatenate(sequences)), lengths, place)
    batch["score"] = (2 * data["rating"][rows] - 5).astype("float32").reshape(-1, 1)
    return batch


def samples(data, rows):
    """The same batch as the original's reader gives it: one list of values a rating."""
    for row in rows:
        user, item = data["user"][row], data["item"][row]
        sample = [[user]] + [[data[name][user]] for name in ATTRIBUTES] + [[item]]
        sample += [data[name][item][data[name + "_mask"][item]] for name in ("genres", "title")]
        yield sample + [[2 * data["rating"][row] - 5]]


def main(source, target, steps, epochs, feeder):
    data = dict(np.load(source, allow_pickle=False))
    rows = dict(zip(("user",) + ATTRIBUTES + ("item", "genres", "title"), data["rows"]))
    cost = build(rows)
    test_program = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.SGD(learning_rate=0.2).minimize(cost)
    executor = fluid.Executor(fluid.CPUPlace())
    executor.run(fluid.default_startup_program())
    out = {"costs": [], "seconds": [], "test_cost": []}
    for parameter in fluid.default_main_program().global_block().all_parameters():
        tensor = fluid.global_scope().find_var(parameter.name).get_tensor()
        out["init/" + parameter.name] = np.array(tensor)
    train, test = data["train"], data["test"]
    block = fluid.default_main_program().global_block()
    names = ("user",) + ATTRIBUTES + ("item", "genres", "title", "score")
    one_by_one = fluid.DataFeeder([block.var(name) for name in names], fluid.CPUPlace())
    generator = np.random.RandomState(0)
    for epoch in range(max(epochs, 1)):
        order = train[data["order"] if epoch == 0 else generator.permutation(len(train))]
        if not epochs:
            order = order[: steps * BATCH]
        start = time.time()
        for first in range(0, len(order), BATCH):
            part = order[first : first + BATCH]
            batch = one_by_one.feed(list(samples(data, part))) if feeder else feed(data, part)
            value = executor.run(feed=batch, fetch_list=[cost])[0]
            if len(out["costs"]) < steps:
                out["costs"].append(float(value))
        out["seconds"].append(time.time() - start)
        if epochs:
            total = 0.0
            for first in range(0, len(test), 4096):
                part = test[first : first + 4096]
                batch = feed(data, part)
                total += len(part) * float(
                    executor.run(test_program, feed=batch, fetch_list=[cost])[0]
                )
            out["test_cost"].append(total / len(test))
            print("paddle epoch", epoch + 1, "stars", (out["test_cost"][-1]) ** 0.5 / 2, flush=True)
    np.savez(target, **out)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[3:]] + [0, 0]
    main(sys.argv[1], sys.argv[2], *numbers[:3])
