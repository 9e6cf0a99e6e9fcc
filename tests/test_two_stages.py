"""Both stages from the command line to the export that another process serves from."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.ranking.settings import Data
from experiments.two_stages import __main__ as two_stages
from experiments.two_stages.lists import DAY, Lists, Log, make_lists
from experiments.two_stages.settings import first_stage_clicks
from experiments.two_stages.system import list_metrics
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.ragged import Ragged
from jrec.errors import InputError, run_command
from jrec.retrieval.nominate import Nominated
from jrec.serving.two_stage_export import load_two_stages, recommend_ranked, request_arrays
from jrec.serving.two_stages import StageSizes

ROOT = Path(__file__).parents[1]
TRAIN = ["train", "--synthetic.users", "60", "--synthetic.items", "40", "--synthetic.pages", "12"]
TRAIN += ["--synthetic.slots", "4", "--tower", "8", "--epochs", "1", "--first-epochs", "1"]
TRAIN += [
    "--first-encoder",
    "mean",
    "--first-width",
    "8",
    "--sizes.network",
    "10",
    "--sizes.hottest",
    "5",
]
TRAIN += ["--sizes.similar", "2", "--sizes.last", "2", "--sizes.events", "20"]

SERVE = """
import json, sys
from pathlib import Path
from jrec.serving.two_stage_export import load_two_stages, recommend_ranked

model = load_two_stages(Path("run/export"))
found = [recommend_ranked(model, 5, **given)[0] for given in ({"user": "u3"}, {"history": ["i1", "i2"]})]
print(json.dumps([[line._asdict() for line in one] for one in found]))
print(json.dumps([m for m in sys.modules if m.startswith(("jrec.models", "flax", "experiments"))]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("two_stages")
    two_stages.main([*TRAIN, "--run-dir", str(folder / "run")])
    return folder


def test_the_command_measures_every_order(run):
    results = json.loads((run / "run" / "results.json").read_text())
    assert {"network", "hottest", "similar", "second stage"} <= set(results["orders"])
    assert all(0 <= values["ndcg@10"] <= 1 for values in results["orders"].values())
    assert results["lists"] > 20 and 0 < results["targets_named"] < 1
    assert results["ndcg@10_gain_by_user"]["low"] <= results["ndcg@10_gain_by_user"]["high"]
    assert "second stage" in (run / "run" / "report.md").read_text()


@pytest.mark.slow
def test_another_process_serves_the_same_without_the_model_code(run):
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        cwd=run,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    served, imported = map(json.loads, done.stdout.splitlines())
    assert imported == []
    model = load_two_stages(run / "run" / "export")
    for lines, given in zip(served, ({"user": "u3"}, {"history": ["i1", "i2"]}), strict=True):
        own, notes = recommend_ranked(model, 5, **given)
        assert [line["item"] for line in lines] == [line.item for line in own] and not notes
        assert len(lines) == 5 and all(line["sources"] for line in lines)
        scores = [line["score"] for line in lines]
        assert scores == sorted(scores, reverse=True)
        assert all(line["watch_seconds"] > 0 for line in lines)


def test_what_was_watched_is_not_recommended(run):
    model = load_two_stages(run / "run" / "export")
    for place in (0, 7, 30):
        log = model.logs.events[place][
            model.logs.watched[slice(*model.logs.events.offsets[place : place + 2])]
        ]
        lines, _ = recommend_ranked(model, 100, user=f"u{place}")
        seen = set(model.items.values[log[-20:]].tolist())
        assert seen and not seen & {line.item for line in lines}
        assert len({line.item for line in lines}) == len(lines) > 5


def test_what_the_program_does_not_read_is_not_recommended_either(run):
    model = load_two_stages(run / "run" / "export")
    before = [line.item for line in recommend_ranked(model, 100, user="u3")[0]]
    rows, logs = model.items.encode(before) - 2, model.logs
    place = int(np.flatnonzero(model.user_rows == model.users.encode(["u3"])[0])[0])
    listed = model.program(*request_arrays(model, place))

    def with_older_clicks(older):
        """The model of a log in which the user has older clicks, beyond those that the program reads."""
        lists = [logs.clicks[k] for k in range(len(logs.clicks))]
        lists[place] = np.concatenate([older, lists[place]])
        longer = dataclasses.replace(logs, clicks=Ragged.from_lists(lists))
        return dataclasses.replace(model, logs=longer, program=lambda *_: listed)

    lines, notes = recommend_ranked(with_older_clicks(rows[:2]), 100, user="u3")
    assert [line.item for line in lines] == before[2:] and not notes
    lines, notes = recommend_ranked(with_older_clicks(rows), 100, user="u3")
    assert not lines and "nothing is left" in notes[0]


def test_requests_share_one_program(run, caplog):
    model = load_two_stages(run / "run" / "export")
    recommend_ranked(model, 1, user="u1")
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for count in range(1, 40):
            recommend_ranked(model, count, user=f"u{count}")
            recommend_ranked(model, count, history=[f"i{k}" for k in range(count)])
    assert not [line for line in caplog.messages if "ompil" in line]


def test_a_history_and_a_user_change_the_list(run):
    model = load_two_stages(run / "run" / "export")
    lists = [
        recommend_ranked(model, 10, **given)[0]
        for given in ({"history": ["i1"]}, {"history": ["i9", "i7"]}, {"user": "u5"})
    ]
    assert lists[0] != lists[1] != lists[2]
    lines, notes = recommend_ranked(model, 3, user="nobody")
    assert len(lines) == 3 and "unknown user" in notes[0]
    _, notes = recommend_ranked(model, 3, history=["i1", "what"])
    assert "1 of 2 items of the history are not in the catalogue" in notes[0]


def test_the_recommend_command_prints_scores_and_sources(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    two_stages.main(["recommend", "--run-dir", "run", "--user", "u3", "--count", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].startswith("rank")
    assert all(any(s in line for s in ("network", "hottest", "similar")) for line in lines[1:])


def test_a_finished_stage_is_not_trained_again(run, monkeypatch):
    before = (run / "run" / "results.json").read_text()
    monkeypatch.setattr(two_stages, "train_first", None)  # a call would fail
    two_stages.main([*TRAIN, "--run-dir", str(run / "run"), "--resume"])
    assert (
        json.loads((run / "run" / "results.json").read_text())["orders"]
        == json.loads(before)["orders"]
    )


def test_list_metrics_count_what_no_source_named():
    found = Nominated(
        rows=np.array([[3, 5, 9], [1, 2, 0]]),
        places=np.ones((2, 3, 3), int),
        scores=np.zeros((2, 3)),
        mask=np.array([[True, True, True], [True, True, False]]),
    )
    completed = np.array([[False, True, False], [True, True, False]])
    lists = Lists(
        None,
        found,
        None,
        completed,
        completed,
        None,
        np.zeros(2),
        Ragged.from_lists([[5, 7], [1, 2]]),
        np.array([1, 0]),  # the first user has watched 7 before
    )
    score = np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 9.0]])
    found = list_metrics(lists, score)
    best = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(found["ndcg@10"], [1 / np.log2(3) / best, 2 / np.log2(3) / best])
    np.testing.assert_allclose(found["recall@10"], [0.5, 1])
    assert list_metrics(lists, score, "rank")["recall@10"].tolist() == [0.5, 1]
    found = list_metrics(lists, score, "exclude")
    np.testing.assert_allclose(found["ndcg@10"], [1 / np.log2(3), 2 / np.log2(3) / best])
    np.testing.assert_allclose(found["recall@10"], [1, 1])
    # A score that is NaN is no win: its target is last, and it stands ahead of other targets.
    score = np.array([[0.1, np.nan, 0.3], [np.nan, 0.5, 9.0]])
    found = list_metrics(lists, score)
    np.testing.assert_allclose(found["ndcg@10"], [1 / 2 / best, 2 / np.log2(3) / best])


def test_a_part_in_which_nobody_completes_anything_is_refused():
    class Log:
        def users_of(self, moment):
            return np.arange(3)

        def labels(self, users, moment, rows, mask):
            return None, None, None, Ragged.from_lists([[], [], []])

    with pytest.raises(InputError, match=r"Nobody completed anything .* begins at 86400"):
        make_lists(Log(), [86_400, 172_800], None, {}, None, 1, only_targets=True)


def test_lists_hold_nothing_that_was_watched_before():
    """Also what the first stage does not read of a long log; such targets are counted."""
    impressions = make_impressions(ImpressionSize(users=30, items=12, pages=30, slots=3), 0)
    clicks = first_stage_clicks(Data(), impressions)
    log, sizes, M = Log.of(impressions, clicks, length=2), StageSizes(events=3), 12
    day = int(impressions.timestamp.min()) // DAY * DAY + 5 * DAY

    def every_item(arrays, request):
        rows = np.tile(np.arange(M), (len(request.user), 1))
        return Nominated(rows, np.ones((*rows.shape, 3), int), rows * 1.0, rows >= 0)

    lists = make_lists(log, [day], every_item, {}, sizes, 3, only_targets=True)
    before = impressions.clicked & (impressions.timestamp < day)
    repeats = 0
    for q, user in enumerate(lists.request.user):
        watched = set(impressions.item[before & (impressions.user == user)] - 2)
        assert set(lists.found.rows[q][lists.found.mask[q]]) == set(range(M)) - watched
        assert watched and not lists.completed[q][~lists.found.mask[q]].any()
        assert lists.repeats[q] == len(watched & set(lists.targets[q]))
        repeats += lists.repeats[q]
    assert repeats > 0


BAD = [
    (["--epochs", "0"], "--epochs must be 1"),
    (["--sizes.network", "0"], "--sizes.network must be 1"),
    (["--list-days", "9"], "days before validation are too few"),
    (["--valid-days", "0"], "--valid-days must be 1"),
    (["--completion-weight", "0"], "--rank-by completion needs --completion-weight"),
    (["--first-width", "7"], "--first-width must be even"),
    (["--dropout", "1"], "--dropout must be 0"),
    (["--resume"], "--resume needs --run-dir"),
    (["--dataset", "kuairand-pure"], "--data-dir"),
]


@pytest.mark.parametrize("flags,sentence", BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_settings_give_one_sentence(flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: two_stages.main([*TRAIN, *flags]))
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert sentence in said and "Traceback" not in said and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_bad_requests_give_one_sentence(run, tmp_path):
    model = load_two_stages(run / "run" / "export")
    for given, sentence in (
        ({"count": 0, "user": "u1"}, "--count must be 1"),
        ({"count": 5}, "Say for whom"),
    ):
        with pytest.raises(InputError, match=sentence):
            recommend_ranked(model, **given)
    with pytest.raises(InputError, match="does not exist"):
        load_two_stages(tmp_path)
    broken = tmp_path / "export"
    broken.mkdir()
    for path in (run / "run" / "export").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "logs.npz").write_bytes((broken / "logs.npz").read_bytes()[:-50])
    with pytest.raises(InputError, match="damaged"):
        load_two_stages(broken)
