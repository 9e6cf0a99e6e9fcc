"""The ranking paper's tables: cells trained once, other settings refused, trees beside them."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from experiments.ranking import table as ranking_table
from experiments.ranking.settings import Data, Train, load
from experiments.ranking.trees import mean_labels, tree_columns, tree_metrics
from jrec.data.impression_maker import ImpressionSize
from jrec.errors import InputError, run_command
from jrec.files import plain, write_json

FLAGS = ["--users", "60", "--seeds", "0", "1", "--epochs", "1", "--no-ablations", "--no-trees"]
DATA = Data(synthetic=ImpressionSize(users=150, items=40, pages=10, slots=4))


@pytest.mark.slow
def test_the_table_is_trained_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ranking_table, "TOWERS", {"8": (8,)})
    flags = [*FLAGS, "--run-dir", str(tmp_path / "runs")]
    ranking_table.main(flags)
    table = (tmp_path / "runs" / "table.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| 8",
        "| popularity",
    ]
    assert " ± " in table and (tmp_path / "runs" / "depth.png").stat().st_size > 0
    results = json.loads((tmp_path / "runs" / "8-1" / "results.json").read_text())
    values = [
        json.loads((tmp_path / "runs" / f"8-{k}" / "results.json").read_text())[
            "test_weighted_loss"
        ]
        for k in (0, 1)
    ]
    assert f"{np.mean(values):.4f} ± " in table and results["seed"] == 1
    monkeypatch.setattr(ranking_table, "train", None)  # a call would fail
    ranking_table.main(flags)
    assert (tmp_path / "runs" / "table.md").read_text() == table
    with pytest.raises(InputError, match="holds a run with dropout"):
        ranking_table.main([*flags, "--dropout", "0.5"])
    capsys.readouterr()


def test_every_row_changes_one_thing():
    settings = ranking_table.Table()
    cells = ranking_table.cells_of(settings)
    whole = ranking_table.settings_of(settings, cells["1024-512-256"], 0, None)
    for name, changed in {"equal weights": "weights", "no powers": "powers"}.items():
        other = ranking_table.settings_of(settings, cells[name], 0, None)
        differ = [
            f.name
            for f in dataclasses.fields(Train)
            if getattr(whole, f.name) != getattr(other, f.name)
        ]
        assert differ == [changed]


def test_trees_read_what_the_network_reads_and_learn():
    pytest.importorskip("sklearn", reason="the trees need scikit-learn")
    settings = Train(
        data=dataclasses.replace(DATA, synthetic=dataclasses.replace(DATA.synthetic, users=800))
    )
    impressions, split = load(settings.data, None)
    few, many, numbers = tree_columns(settings, impressions)
    assert few.shape[1] + many.shape[1] == 6  # user, item, author, category, city, phone
    assert numbers.shape[1] == 7  # the duration, and three pairs of history
    assert np.isnan(numbers).any() and np.isfinite(few).all()
    found = tree_metrics(settings, impressions, split, most_trees=60)
    assert found["completion_auc"] > 0.65 and found["trees"] >= 1
    assert found["completion_head_gauc"] == pytest.approx(found["completion_gauc"], abs=1e-3)


def test_a_rows_own_label_is_not_in_its_mean():
    g = np.random.default_rng(0)
    ids, label = g.integers(0, 4, (60, 2)), g.random(60) < 0.4
    train = np.arange(40)
    means = mean_labels(ids, label, train, 0)
    for row in range(60):
        other = label.copy()
        other[row] = ~other[row]
        if other[train].mean() == label[train].mean():  # not trained on: changes nothing
            np.testing.assert_array_equal(mean_labels(ids, other, train, 0), means)
            same = ids[train, 0] == ids[row, 0]
            expected = (label[train][same].sum() + 10 * label[train].mean()) / (same.sum() + 10)
            assert means[row, 0] == pytest.approx(expected)
        else:  # only through the mean of all
            moved = mean_labels(ids, other, train, 0)[row] - means[row]
            step = (other[train].mean() - label[train].mean()) * 10
            assert (np.abs(moved) <= abs(step) / 10 + 1e-6).all()


def test_trees_without_scikit_learn_name_the_extra(monkeypatch):
    for name in ("sklearn", "sklearn.ensemble"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = Train(data=DATA)
    with pytest.raises(InputError, match=r"jrec\[bench\]"):
        tree_metrics(settings, *load(DATA, None))


BAD = [
    (["--seeds"], "--seeds must name a seed"),
    (["--epochs", "0"], "--epochs must be 1"),
    (["--dropout", "1"], "--dropout must be 0"),
    (["--data-dir", "nowhere.zip"], "nowhere.zip"),
]


@pytest.mark.parametrize("flags,sentence", BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_settings_give_one_sentence(flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: ranking_table.main([*FLAGS, "--run-dir", "runs", *flags]))
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert sentence in said and "Traceback" not in said
    assert not any(tmp_path.iterdir())


def test_a_run_on_other_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ranking_table, "train", None)  # a call would fail
    made = ranking_table.Table(run_dir=tmp_path, users=60)
    ran = plain(dataclasses.asdict(ranking_table.settings_of(made, {}, 0, None)))
    (tmp_path / "256-0").mkdir()
    write_json(tmp_path / "256-0" / "results.json", {"run_settings": ran})
    assert ranking_table.run_cell(made, "256", {}, 0, None)["run_settings"] == ran
    real = dataclasses.replace(made, data_dir=tmp_path / "KuaiRand-Pure.zip")
    fewer = dataclasses.replace(made, users=61)
    for other, what in ((real, "dataset"), (fewer, "synthetic")):
        with pytest.raises(InputError, match=f"holds a run with {what} = "):
            ranking_table.run_cell(other, "256", {}, 0, None)
