"""Each file of experiments/minimal is held to its full experiment: parameters, batches, losses; and stays small."""

import ast
import dataclasses
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.autoencoder.batches import device_rows, gather_users
from experiments.autoencoder.settings import Train as AutoencoderTrain
from experiments.autoencoder.system import build_optimizer, build_step
from experiments.candidates.batches import device_clicks
from experiments.candidates.network import build_model as build_candidates
from experiments.candidates.network import feature_names
from experiments.candidates.settings import Train as CandidatesTrain
from experiments.candidates.system import build_stream
from experiments.candidates.system import build_training as candidates_training
from experiments.embedding_mlp import source as full_mlp
from experiments.fusion import source as full_fusion
from experiments.minimal import (
    autoencoder,
    candidates,
    embedding_mlp,
    fusion,
    ranking,
    two_stages,
)
from experiments.ranking.__main__ import build_training as ranking_training
from experiments.ranking.__main__ import prepare
from experiments.ranking.batches import gather_impressions
from experiments.ranking.settings import Data as RankingData
from experiments.ranking.settings import Train as RankingTrain
from experiments.ranking.settings import load as load_impressions
from experiments.two_stages.lists import Log, make_lists
from experiments.two_stages.settings import Train as TwoStagesTrain
from experiments.two_stages.settings import first_stage_clicks
from experiments.two_stages.system import build_model as build_second
from experiments.two_stages.system import (
    feature_arrays,
    history_keys,
    history_quantiles,
    list_data,
    make_gather,
)
from jrec.data.click_examples import count_items, leave_one_out
from jrec.data.click_sources import clicks_of_ratings
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.rating_parts import rating_parts
from jrec.data.splits import Split, split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.data.vocabulary import FIRST
from jrec.models.autoencoder import Autoencoder
from jrec.retrieval.nominate import Nominated
from jrec.train.devices import first_batch
from jrec.train.flags import RunFlags
from jrec.train.step import init_state
from jrec.train.streams import DeviceStream

RATINGS = synthetic_ratings(SyntheticSize(users=60, items=30, ratings=900), 0)
KEYS = jax.random.split(jax.random.key(0), 3)


def same_losses(state, step, stream, minimal_state, minimal_step, convert, steps=50):
    """Runs both steps on the same batches; their losses agree to 1e-5."""
    step, minimal_step = jax.jit(step), jax.jit(minimal_step)
    gather = jax.jit(stream.gather)
    size, found = stream.batch_size, []
    for number in range(steps):
        epoch, place = divmod(number, stream.steps)
        position = stream.order(epoch)[place * size : (place + 1) * size]
        mask = position < stream.count
        batch = gather(stream.data, jnp.where(mask, position, 0), mask)
        state, sums = step(state, batch)
        minimal_state, value = minimal_step(minimal_state, convert(batch))
        found.append((sums["loss_sum"] / sums["count"], value))
    full, minimal = np.array(found).T
    assert minimal[-1] < minimal[0]
    np.testing.assert_allclose(minimal, full, rtol=1e-5)


def same_shapes(params, expected):
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)


def rating_batch(kind):
    def convert(batch):
        return kind(batch["user"]["user"], batch["item"]["item"], batch["rating"], batch["mask"])

    return convert


def test_fusion_takes_the_full_experiments_steps():
    split = split_ratings(RATINGS, "random", 0, 0.1, 0)
    full = full_fusion.source_system(full_fusion.Source(), RATINGS, split, 16, 0.2, KEYS)
    rows = {name: vocabulary.rows for name, vocabulary in RATINGS.vocabularies.items()}
    features = fusion.feature_tables(RATINGS)
    part = np.isin(np.arange(len(RATINGS)), split.train)
    data = fusion.columns(RATINGS, part)
    for name, column in (("user", data.user), ("item", data.item), ("rating", data.stars)):
        assert np.array_equal(full.stream.data[name], column)
    model = fusion.Fusion(rows)
    given = dict(full.state.params["params"])
    title = given.pop("title")
    given |= {"title_table": title["words"], "title_filters": title["filters"]}
    same_shapes(
        model.init(KEYS[0], *fusion.inputs(features, data.user, data.item)), {"params": given}
    )
    optimizer = optax.sgd(0.2)
    state = fusion.State({"params": given}, optimizer.init({"params": given}))
    step = fusion.make_step(model, features, optimizer)
    same_losses(full.state, full.step, full.stream, state, step, rating_batch(fusion.Batch))


def test_embedding_mlp_takes_the_full_experiments_steps():
    split = split_ratings(RATINGS, "random", 0, 0.2, 0)
    mean = full_mlp.mean_rating(RATINGS, split.train)
    source = full_mlp.Source(hidden=(32,))
    full = full_mlp.source_system(source, RATINGS, split, mean, 16, 0.05, False, KEYS)
    data = embedding_mlp.columns(RATINGS, np.isin(np.arange(len(RATINGS)), split.train), mean)
    for name in ("user", "item", "target"):
        assert np.array_equal(full.stream.data[name], getattr(data, name))
    users, items = (RATINGS.vocabularies[name].rows for name in ("user", "item"))
    model = embedding_mlp.EmbeddingMlp(users, items, 10, 32)
    given, table = full.state.params["params"]["hidden_0"], full.state.params["params"]["vectors"]
    params = {
        "user_table": {"embedding": table["embedding"][:users]},
        "item_table": {"embedding": table["embedding"][users:]},
        "Dense_0": {"kernel": given["kernel"], "bias": given["bias"]},
        "Dense_1": {"kernel": given["output_kernel"], "bias": given["output_bias"]},
    }
    same_shapes(model.init(KEYS[0], data.user, data.item), {"params": params})
    optimizer = optax.sgd(0.05, 0.9)
    state = embedding_mlp.State({"params": params}, optimizer.init({"params": params}))
    step = embedding_mlp.make_step(model, optimizer)
    same_losses(full.state, full.step, full.stream, state, step, lambda b: embedding_mlp.Batch(**b))


def test_autoencoder_takes_the_full_experiments_steps():
    early = autoencoder.first_ratings(RATINGS)
    items = np.unique(RATINGS.item[early])
    data = autoencoder.rectangle(RATINGS, early, items)
    nothing = np.zeros(0, np.int64)
    parts = rating_parts(RATINGS, Split(np.flatnonzero(early), nothing, np.flatnonzero(~early)))
    settings = AutoencoderTrain(hidden=(16, 8), milestones=())
    full_model = Autoencoder(len(items), settings.hidden, dropout=settings.dropout)
    stream = DeviceStream(device_rows(parts.train), gather_users, len(parts.users), 16, KEYS[2])
    optimizer = build_optimizer("momentum", 0.005, (), 0.0, 2 * stream.steps)
    params = full_model.init(KEYS[0], jnp.zeros((1, len(items))))
    full_state = init_state(params, optimizer, KEYS[1])
    # The original's decoder holds its kernels transposed.
    given = {
        name: layer | {"kernel": layer["kernel"].T if "decoder" in name else layer["kernel"]}
        for name, layer in params["params"].items()
    }
    model = autoencoder.Autoencoder(len(items), settings.hidden, settings.dropout)
    same_shapes(model.init(KEYS[0], data.ratings), {"params": given})
    optimizer = optax.sgd(0.005, 0.9)
    state = autoencoder.State(
        jnp.zeros((), jnp.int32), KEYS[1], {"params": given}, optimizer.init({"params": given})
    )

    def convert(batch):
        # The split is the source's, of all its users.
        return autoencoder.Batch(
            data.ratings[batch["user"]], data.rated[batch["user"]], batch["mask"]
        )

    step = autoencoder.make_step(model, optimizer, refeed=1)
    full_step = build_step(full_model, build_optimizer("momentum", 0.005, (), 0.0, 2), None)
    same_losses(full_state, full_step, stream, state, step, convert)


def test_the_autoencoders_training_ratings_are_those_of_the_sources_split():
    split = split_ratings(RATINGS, "user-70-30")
    assert np.array_equal(np.flatnonzero(autoencoder.first_ratings(RATINGS)), split.train)


def test_candidates_takes_the_full_experiments_steps():
    clicks = clicks_of_ratings(RATINGS)
    settings = CandidatesTrain(tables="dense", length=6, item_width=8, dropout=0.0, batch_size=16)
    split = leave_one_out(clicks)
    full_model = build_candidates(settings, clicks)
    counts = count_items(clicks, split.train)
    data = device_clicks(clicks, *feature_names(full_model))
    stream = build_stream(settings, clicks, split, counts, data, KEYS[2])
    full_state, full_step = candidates_training(
        settings, full_model, stream, counts, KEYS[0], KEYS[1]
    )
    histories = np.split(clicks.item, clicks.offsets[1:-1])
    runs = candidates.runs([own[:-2] for own in histories], 6)
    position = jnp.arange(stream.count)
    every = stream.gather(stream.data, position, position >= 0)

    def rows(*columns):
        return sorted(np.concatenate(columns, 1).tolist())

    assert rows(runs.item, runs.target, runs.mask) == rows(
        every["item"], every["target"], every["counted"]
    )

    given = full_state.params["params"]
    params = {
        name: value[:, :6] if "distance" in name else value
        for name, value in given["attention"].items()
    }
    params["table"] = given["item_table"]["embedding"]
    params["bias"] = given["bias_table"]["embedding"][:, 0]
    model = candidates.Attention(len(params["table"]), 6, 8, 2, 2, 0.0)
    same_shapes(model.init(KEYS[0], runs.item[:1], runs.mask[:1]), {"params": params})
    rate = settings.learning_rate
    optimizer = optax.adam(optax.linear_schedule(rate / 100, rate, 100))
    state = candidates.State(
        jnp.zeros((), jnp.int32), KEYS[1], {"params": params}, optimizer.init({"params": params})
    )
    step = candidates.make_step(model, optimizer)
    same_losses(
        full_state,
        full_step,
        stream,
        state,
        step,
        lambda batch: candidates.Batch(batch["item"], batch["target"], batch["counted"]),
    )


def test_candidates_ranks_the_last_click_among_new_items():
    score_NV = np.array([[0.0, 9, 5, 4, 3, 2], [0, 0, 1, 1, 1, 1]])
    found = candidates.metrics(score_NV, [np.array([1, 2, 4]), np.array([2, 3])])
    # Rank 2, behind item 3, as items 1 and 2 are not new; and rank 3, as ties count against the target.
    assert found["HR@10"] == 1
    np.testing.assert_allclose(found["NDCG@10"], (1 / np.log2(3) + 1 / np.log2(4)) / 2)


def test_ranking_takes_the_full_experiments_steps():
    size = ImpressionSize(users=80, items=40, pages=10, slots=4)
    settings = RankingTrain(
        data=RankingData(synthetic=size), tower=(16, 8), tables="dense", batch_size=64
    )
    settings = dataclasses.replace(settings, run=RunFlags(epochs=3))
    log, split = load_impressions(settings.data, settings.longest_watch)
    arrays, full_model = prepare(settings, log, split)
    stream = DeviceStream(arrays, gather_impressions, len(split.train), 64, KEYS[2])
    params = full_model.init(KEYS[0], first_batch(gather_impressions, arrays))
    full_state, full_step = ranking_training(settings, full_model, params, stream.steps, KEYS[1])
    every = ranking.features(log, np.isin(np.arange(len(log)), split.train))
    position = jnp.arange(stream.count)
    batch = ranking_batch(stream.gather(arrays, position, position >= 0))
    jax.tree.map(np.testing.assert_array_equal, batch, ranking.rows_of(every, split.train))

    model = ranking.Ranking({name: log.vocabularies[name].rows for name in every.ids}, (16, 8))
    same_shapes(model.init(KEYS[0], jax.tree.map(lambda column: column[:1], batch)), params)
    optimizer = optax.adam(optax.linear_schedule(1e-3, 0, 3 * stream.steps))
    state = ranking.State(params, optimizer.init(params))
    same_losses(
        full_state, full_step, stream, state, ranking.make_step(model, optimizer), ranking_batch
    )


def ranking_batch(batch):
    """Returns a batch of the full experiment as the minimal file writes it."""
    ids = dict(batch["ids"])
    watched, mask = ids.pop("watched")
    numbers = jnp.where(batch["known"], batch["numbers"], 0)
    rest = (batch[name] for name in ("known", "clicked", "weight", "mask"))
    return ranking.Batch(ids, jnp.where(mask, watched, 0), numbers, *rest)


def second_stage():
    """Returns the full experiment's second stage on a small log, its lists of all items that are new to a user."""
    log = make_impressions(ImpressionSize(users=60, items=20, pages=20, slots=4), 0)
    moment = int(log.timestamp.min()) // two_stages.SECONDS * two_stages.SECONDS
    moment += 5 * two_stages.SECONDS
    settings = TwoStagesTrain(
        tower=(16, 8), dropout=0.0, completion_weight=0.0, rank_by="watch", user_id=True
    )

    def every_item(arrays, request):
        rows = np.tile(np.arange(20), (len(request.user), 1))
        return Nominated(rows, np.ones((*rows.shape, 3), int), rows * 1.0, rows >= 0)

    clicks = first_stage_clicks(settings.data, log)
    lists = make_lists(Log.of(log, clicks, 50), [moment], every_item, {}, settings.sizes, 3)
    keys = history_keys(log)
    features, *columns = feature_arrays(log, np.flatnonzero(log.timestamp < moment), True)
    features["quantiles"] = history_quantiles(features, keys, lists)
    model = build_second(settings, log, *columns)
    data = list_data(lists, features, np.arange(len(lists)))
    stream = DeviceStream(data, make_gather(keys, settings.sizes), len(lists), 8, KEYS[2])
    return log, moment, lists, model, stream


def test_two_stages_takes_the_full_experiments_steps_on_lists():
    log, _, _, full_model, stream = second_stage()
    params = full_model.init(KEYS[0], first_batch(stream.gather, stream.data))
    settings = RankingTrain(tables="dense", run=RunFlags(epochs=8))
    full_state, full_step = ranking_training(settings, full_model, params, stream.steps, KEYS[1])
    rows = {c.name: log.vocabularies[c.vocabulary].rows for c in full_model.ids if not c.bag}
    optimizer = optax.adam(optax.linear_schedule(1e-3, 0, 8 * stream.steps))
    state = ranking.State(params, optimizer.init(params))
    step = ranking.make_step(ranking.Ranking(rows, (16, 8)), optimizer)

    def lists(batch):
        return jax.tree.map(lambda c: c.reshape(8, 20, *c.shape[1:]), ranking_batch(batch))

    same_losses(full_state, full_step, stream, state, step, lists)


def test_two_stages_reads_of_candidates_what_the_full_experiment_reads():
    log, moment, lists, _, stream = second_stage()
    position = jnp.arange(len(lists))
    full = ranking_batch(stream.gather(stream.data, position, position >= 0))
    full = jax.tree.map(lambda c: np.asarray(c).reshape(len(lists), 20, *c.shape[1:]), full)
    day = two_stages.day_of(log, moment)
    assert day.user.tolist() == lists.request.user.tolist()
    named = two_stages.best(np.tile(np.arange(22.0)[::-1], (len(lists), 1)), day, 20)
    item = np.arange(20) + FIRST
    score = np.where(lists.found.mask, 0, -np.inf)
    own = two_stages.features(
        log, day, two_stages.Lists(np.tile(item, (len(lists), 1)), score), log.timestamp < moment
    )
    assert np.array_equal(own.mask, full.mask) and own.mask.any() and not own.mask.all()
    assert np.array_equal(own.seconds * own.mask, full.seconds) and (full.seconds > 0).any()
    assert np.array_equal(own.clicked & own.mask, full.clicked)
    for name, rows in full.ids.items():
        assert np.array_equal(own.ids[name][own.mask], rows[own.mask]), name
    watched = np.sort(own.watched[own.mask], -1), np.sort(full.watched[own.mask], -1)
    assert np.array_equal(*watched) and watched[0].any()
    # The length, then how often the item, its author and its category were shown, and when last watched.
    assert np.array_equal(own.known[own.mask][:, :7], full.known[own.mask][:, :7])
    # What was watched is named last, if at all.
    for q, items in enumerate(day.watched):
        assert set(named.item[q][named.score[q] == -np.inf]) <= {*items.tolist(), 0, 1}


def test_two_stages_reads_nothing_of_the_day_but_its_labels():
    log = make_impressions(ImpressionSize(users=60, items=20, pages=20, slots=4), 0)
    moment = int(log.timestamp.min()) // two_stages.SECONDS * two_stages.SECONDS
    moment += 5 * two_stages.SECONDS
    kept = log.timestamp < moment
    names = ("user", "item", "timestamp", "page", "clicked", "completed", "watch_seconds")
    names += ("history_only", "expected_watch_seconds")
    early = dataclasses.replace(log, **{name: getattr(log, name)[kept] for name in names})
    users = np.arange(60)
    whole, part = (two_stages.day_of(some, moment, users) for some in (log, early))
    assert all(map(np.array_equal, whole.watched, part.watched)) and not part.seconds.any()
    lists = two_stages.best(np.tile(np.arange(22.0), (60, 1)), whole, 5)
    batches = [
        two_stages.features(log, whole, lists, kept),
        two_stages.features(early, part, lists, kept[kept]),
    ]
    for name in ("ids", "watched", "numbers", "known", "mask"):
        jax.tree.map(np.testing.assert_array_equal, *(getattr(batch, name) for batch in batches))


def test_two_stages_metrics_count_what_no_list_names():
    completed = np.array([[0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], bool)
    seconds = completed * np.array([[0, 0, 5.0, 0, 3], [0, 0, 0, 2, 0]])
    day = two_stages.Day(0, np.arange(2), [], completed, seconds)
    lists = two_stages.Lists(np.array([[2, 3], [4, 2]]), np.array([[1.0, 0], [1, 0]]))
    found = two_stages.measure([day], [lists])
    assert found == {"recall@10": 0.25, "recall@50": 0.25, "watch@10": 0.5}


ROOT = Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT / "experiments" / "minimal").glob("[!_]*.py"))
ALLOWED = ("jrec.data", "jrec.evaluate", "jrec.errors", "jrec.console")


def imported(path):
    """Returns the modules of jrec that a file imports, with the files that they are in."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("jrec.") and file.is_file():
                found[name] = file
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_small_with_all_that_it_imports_from_jrec(name):
    path = ROOT / "experiments" / "minimal" / f"{name}.py"
    assert all(module.startswith(ALLOWED) for module in imported(path))
    assert ("from ." in path.read_text()) == (name == "two_stages")
    files, todo = {path}, list(imported(path).values())
    while todo:
        file = todo.pop()
        todo += [] if file in files else imported(file).values()
        files.add(file)
    lines = {file: len(file.read_text().splitlines()) for file in files}
    assert lines[path] <= 250 and sum(lines.values()) <= 1500


def test_the_six_systems_are_there():
    assert FILES == [
        "autoencoder",
        "candidates",
        "embedding_mlp",
        "fusion",
        "ranking",
        "two_stages",
    ]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The fusion file with the diff of docs/write_a_feature.md."""
    text = (ROOT / "docs" / "write_a_feature.md").read_text()
    diff = re.search(r"```diff\n(.*?)```", text, re.DOTALL)[1]
    file = tmp_path / "experiments" / "minimal" / "fusion.py"
    file.parent.mkdir(parents=True)
    shutil.copy(fusion.__file__, file)
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tmp_path, check=True)
    spec = importlib.util.spec_from_file_location("mine", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mine", module)
    spec.loader.exec_module(module)
    return module


def test_the_diff_of_write_a_feature_applies(mine):
    titles = ["Heat (1995)", "Heat", "M (1931)", "2001 (1968) again"]
    assert mine.decades(titles).tolist() == [11, 0, 5, 0]


@pytest.mark.slow
def test_the_diff_of_write_a_feature_trains(mine, ml_1m, capsys):
    rmse = mine.main(mine.Settings("ml-1m", ml_1m, epochs=2, batch_size=16))
    assert 0 < rmse < 3 and capsys.readouterr().out.count("epoch") == 2


def test_a_file_runs_from_data_to_ten_items(ml_1m, capsys):
    rmse = embedding_mlp.main(embedding_mlp.Settings("ml-1m", ml_1m, epochs=2, batch_size=16))
    said = capsys.readouterr().out
    assert f"embedding MLP           {rmse:.4f}" in said and "ten items for user 1" in said


@pytest.mark.slow
def test_the_other_files_run_too(ml_1m, capsys):
    size = ImpressionSize(users=60, items=40, pages=10, slots=4)
    common = {"dataset": "ml-1m", "data_dir": ml_1m, "epochs": 2}
    fusion.main(fusion.Settings(**common, batch_size=16))
    autoencoder.main(autoencoder.Settings(**common, hidden=(8, 4)))
    candidates.main(candidates.Settings(**common, length=5, width=8, batch_size=4))
    ranking.main(ranking.Settings(log=size, tower=(8,), epochs=2))
    two_stages.main(two_stages.Settings(log=size, first_epochs=1, epochs=1, candidates=12))
    assert capsys.readouterr().out.count("ten items for user 1") == 5
