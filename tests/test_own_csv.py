"""Files of one's own: columns by flag, ids of any text, bad lines named, predictions in original ids."""

import csv
import json

import numpy as np
import pytest

from experiments.autoencoder import __main__ as autoencoder
from experiments.baselines import __main__ as baselines
from experiments.candidates import __main__ as candidates
from experiments.embedding_mlp import __main__ as embedding_mlp
from experiments.fusion import __main__ as fusion
from jrec.data.click_sources import load_clicks_dataset
from jrec.data.own_csv import CsvClicks, CsvRatings
from jrec.data.rating_parts import rating_parts
from jrec.data.sources import load_ratings
from jrec.data.splits import Split, split_ratings
from jrec.errors import InputError

WINE = CsvRatings("member", "wine, bottle", "when", delimiter=";", rating="points")
FLAGS = ["--dataset", "csv", "--csv.user", "member", "--csv.item", "wine, bottle"]
FLAGS += ["--csv.rating", "points", "--csv.time", "when", "--csv.delimiter", ";"]


def write_rows(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.fixture
def wine(tmp_path):
    """600 ratings from 0 to 100 of 20 members for 30 wines, in an order of columns of its own."""
    generator = np.random.default_rng(0)
    rows = [["points", "when", "wine, bottle", "note", "member"]]
    for place in generator.choice(600, 600, replace=False):
        points = round(float(np.clip(generator.normal(60, 15), 0, 100)), 1)
        when = f"2024-05-{1 + place % 30:02d}T12:00:00Z"
        rows.append(
            [points, when, f"Château; n° {place // 20}", 'a "note"', f"Zoë {place % 20:02d}"]
        )
    return write_rows(tmp_path / "wine.csv", rows, ";")


@pytest.fixture
def shop(tmp_path):
    """900 clicks of 30 users on 25 things."""
    generator = np.random.default_rng(0)
    rows = [["user", "item", "time"]]
    for k in range(900):
        row = [f"u{generator.integers(30)}", f"shoe-{generator.integers(25)}", 1_700_000_000 + k]
        rows.append(row)
    return write_rows(tmp_path / "shop.csv", rows)


def ratings_of(tmp_path, text, **columns):
    path = tmp_path / "own.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_ratings("csv", path, csv=CsvRatings(**columns))


def test_every_rating_is_what_the_file_says(wine):
    ratings = load_ratings("csv", wine, csv=WINE)
    with wine.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter=";"))
    assert len(ratings) == len(lines) == 600
    users = ratings.vocabularies["user"].decode(ratings.user)
    items = ratings.vocabularies["item"].decode(ratings.item)
    for k, line in enumerate(lines):
        assert (users[k], items[k]) == (line["member"], line["wine, bottle"])
        assert ratings.rating[k] == np.float32(line["points"])
        assert str(np.datetime64(int(ratings.timestamp[k]), "s")) + "Z" == line["when"]
    assert ratings.rating_range == (ratings.rating.min(), ratings.rating.max())
    assert ratings.unknown == {"user": 0, "item": 0} and ratings.repeated == 0


def test_ids_stay_the_texts_of_the_file(tmp_path):
    ratings = ratings_of(tmp_path, "user,item,rating\n007,1e3,1\n7, 1000 ,2\n7,1e3,3\n")
    assert ratings.vocabularies["user"].values.tolist() == ["007", "7"]
    assert ratings.vocabularies["item"].values.tolist() == ["1000", "1e3"]
    assert ratings.user.tolist() == [2, 3, 3] and ratings.item.tolist() == [3, 2, 3]
    # Without times the order of the lines counts, and the run is told so.
    assert ratings.timestamp.tolist() == [0, 1, 2] and "--csv.time" in ratings.source.note


def test_without_a_header_columns_are_numbers(tmp_path):
    ratings = ratings_of(
        tmp_path,
        "\ufeff5\tx\ta\n4\ty\ta\n",
        user="3",
        item="2",
        rating="1",
        header=False,
        delimiter="tab",
    )
    assert ratings.rating.tolist() == [5, 4] and len(ratings.vocabularies["user"].values) == 1


@pytest.mark.parametrize(
    "text",
    ["\ufeffuser,item,rating\r\na,b,1\r\n\r\nc,d,2", 'user,item,rating\n"a","b",1\nc,d,"2"\n\n'],
)
def test_line_ends_quotes_and_blank_lines_do_not_matter(text, tmp_path):
    ratings = ratings_of(tmp_path, text)
    assert ratings.rating.tolist() == [1, 2]
    assert ratings.vocabularies["user"].values.tolist() == ["a", "c"]


def test_the_latest_of_a_pair_stays_and_the_range_may_be_given(tmp_path):
    text = "user,item,rating,t\na,x,1,20\na,x,2,10\nb,x,3,2024-05-01\nb,y,4,1714521600\n"
    ratings = ratings_of(tmp_path, text, time="t", low=0, high=10)
    assert ratings.rating.tolist() == [1, 3, 4] and ratings.repeated == 1
    assert ratings.timestamp[1] == ratings.timestamp[2] and ratings.rating_range == (0, 10)
    in_ms = ratings_of(
        tmp_path, "user,item,rating,t\na,x,1,1714521600999\na,y,2,1\n", time="t", time_unit="ms"
    )
    assert in_ms.timestamp.tolist() == [1714521600.999, 0.001]


# Three moments of one second, written in each form of time; the newest first, as logs often are.
ONE_SECOND = {
    "milliseconds": ("ms", ["1714521600900", "1714521600500", "1714521600100"]),
    "fractions": ("s", ["1714521600.000003", "1714521600.000002", "1714521600.000001"]),
    "dates": ("s", [f"2024-05-01T00:00:00.{digit}Z" for digit in (9, 5, 1)]),
}


@pytest.mark.parametrize("form", ONE_SECOND)
def test_times_of_one_second_keep_their_order(form, tmp_path):
    unit, times = ONE_SECOND[form]
    names = ("c", "b", "a")
    lines = [
        f"u,{item},{k},{time}" for k, (item, time) in enumerate(zip(names, times, strict=True))
    ]
    text = "\n".join(["user,item,rating,t", *lines, f"u,d,3,{times[-1]}", f"v,a,4,{times[0]}"])
    ratings = ratings_of(tmp_path, text, time="t", time_unit=unit)
    assert (ratings.timestamp // 1 == 1714521600).all()
    path, columns = tmp_path / "own.csv", CsvClicks(time="t", time_unit=unit)
    clicks = load_clicks_dataset("csv", path, csv=columns)
    # Of equal times the earlier line comes first.
    assert clicks.vocabularies["item"].decode(clicks.item).tolist() == ["a", "d", "b", "c", "a"]
    assert clicks.timestamp.dtype == np.int64 and set(clicks.timestamp.tolist()) == {1714521600}
    last = split_ratings(ratings, "leave-one-out")
    assert (last.test.tolist(), last.valid.tolist()) == ([0], [1])
    cut = split_ratings(ratings, "global-time", test_fraction=0.4, valid_fraction=0.0)
    assert cut.test.tolist() == [0, 4]  # only the latest moment
    everything = Split(np.arange(5), *[np.zeros(0, int)] * 2)
    parts = rating_parts(ratings, everything)
    assert parts.items[parts.train.item].tolist() == ["a", "d", "b", "c", "a"]
    assert parts.time_ranges["train"] == ("2024-05-01", "2024-05-01")


@pytest.mark.parametrize("form", ONE_SECOND)
def test_the_later_rating_of_one_second_stays(form, tmp_path):
    unit, (late, _, early) = ONE_SECOND[form]
    text = f"user,item,rating,t\nu,a,5,{late}\nu,a,1,{early}\nu,b,2,{late}\nu,b,3,{late}\n"
    ratings = ratings_of(tmp_path, text, time="t", time_unit=unit)
    assert ratings.rating.tolist() == [5, 3] and ratings.repeated == 2


HEAD = "user,item,rating,time\na,x,1,5\n"
BAD_FILES = {
    "three-fields": (HEAD + "b,y,2\n", "line 3", "3 fields", "4"),
    "rating-text": (HEAD + "b,y,good,5\n", "line 3", "rating is 'good'", "number"),
    "rating-empty": (HEAD + "b,y,,5\n", "line 3", "rating is ''", "number"),
    "rating-nan": (HEAD + "b,y,nan,5\n", "line 3", "rating is 'nan'"),
    "rating-huge": (HEAD + "b,y,1e39,5\n", "line 3", "1e39"),
    "rating-python": (HEAD + "b,y,1_0,5\n", "line 3", "1_0"),
    "user-empty": (HEAD + " ,y,2,5\n", "line 3", "user is ' '", "id"),
    "item-control": (HEAD + "b,y\0z,2,5\n", "line 3", "item is", "control"),
    "item-long": (HEAD + f"b,{'y' * 300},2,5\n", "line 3", "item is", "256"),
    "time-text": (HEAD + "b,y,2,soon\n", "line 3", "time is 'soon'", "seconds"),
    "time-negative": (HEAD + "b,y,2,-5\n", "line 3", "time is '-5'"),
    "time-in-ms": (HEAD + "b,y,2,1714521600999\n", "line 3", "--csv.time-unit"),
    "quote-open": (HEAD + 'b,"y,2,5\nc,z,3,5\n', "line 3", "quote"),
    "quote-over-a-line": (HEAD + 'b,"y\nz",2,5\n', "line 3", "quote"),
    "not-utf8": ((HEAD + "b,").encode() + b"\xe9,2,5\n", "line 3", "utf-8"),
    "column-missing": (
        "user,movie,rating,time\n1,2,3,4\n",
        "line 1",
        "lacks item",
        "movie",
        "--csv.item",
    ),
    "column-twice": ("user,user,item,rating,time\n1,1,2,3,4\n", "line 1", "user twice"),
    "all-the-same": (HEAD + "b,y,1,6\n", "all ratings are 1", "--csv.low"),
    "no-rows": ("user,item,rating,time\n", "no rows"),
    "empty": ("", "no rows"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_line_is_named(case, tmp_path):
    text, *parts = BAD_FILES[case]
    with pytest.raises(InputError) as fault:
        ratings_of(tmp_path, text, time="time")
    said = str(fault.value)
    assert "\n" not in said and said.endswith((".", "?")) and str(tmp_path / "own.csv") in said
    for part in parts:
        assert part in said, said


BAD_COLUMNS = {
    "two-characters": (CsvRatings(delimiter="::"), "--csv.delimiter"),
    "same-column": (CsvRatings(item="user"), "--csv.user"),
    "outside": (CsvRatings(low=2), "line 2", "from 2 to"),
    "range-nan": (CsvRatings(low=float("nan")), "--csv.low"),
    "number": (CsvRatings("9", "2", rating="3", header=False), "line 1", "'9'", "from 1 to 4"),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_bad_flags_are_named(case, tmp_path):
    columns, *parts = BAD_COLUMNS[case]
    path = tmp_path / "own.csv"
    path.write_text(HEAD + "b,y,3,5\n")
    with pytest.raises(InputError) as fault:
        load_ratings("csv", path, csv=columns)
    for part in parts:
        assert part in str(fault.value), fault.value


@pytest.mark.parametrize("name", ["no.csv", "", None])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(InputError, match="--data-dir"):
        load_ratings("csv", None if name is None else tmp_path / name)
    with pytest.raises(InputError, match="--data-dir"):
        load_clicks_dataset("csv", None if name is None else tmp_path / name)


def test_clicks_are_what_the_file_says(shop):
    clicks = load_clicks_dataset("csv", shop, csv=CsvClicks(time="time"))
    with shop.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(clicks) == len(lines) and clicks.timed
    users = clicks.vocabularies["user"].decode(clicks.user_row[clicks.user_of_event])
    items = clicks.vocabularies["item"].decode(clicks.item)
    found = sorted(zip(users, items, clicks.timestamp.tolist(), strict=True))
    assert found == sorted((line["user"], line["item"], int(line["time"])) for line in lines)
    untimed = load_clicks_dataset("csv", shop)
    assert not untimed.timed and np.array_equal(untimed.item, clicks.item)


def test_rating_experiments_answer_in_the_ids_of_the_file(wine, tmp_path, capsys):
    own = [*FLAGS, "--data-dir", str(wine)]
    run = tmp_path / "mlp"
    flags = ["--epochs", "3", "--batch-size", "32", "--run-dir", str(run)]
    embedding_mlp.main(["train", *own, *flags])  # from 0 to 100, on which raw ratings diverge
    results = json.loads((run / "results.json").read_text())
    assert results["test_rmse"] < 1.5 * results["baselines"]["global mean"]["rmse"]
    assert "has rated all 30 items: nothing is left" in capsys.readouterr().out
    embedding_mlp.main(["recommend", "--run-dir", str(run), "--user", "Zoë 07", "--seen"])
    assert "Château; n°" in capsys.readouterr().out
    embedding_mlp.main(
        ["predict", "--run-dir", str(run), "--user", "Zoë 07", "--item", "Château; n° 9"]
    )
    assert "note" not in capsys.readouterr().out
    embedding_mlp.main(
        ["predict", "--run-dir", str(run), "--user", "Ann", "--item", "Château; n° 9"]
    )
    assert "user Ann is not in the data" in capsys.readouterr().out
    run = tmp_path / "autoencoder"
    autoencoder.main(["train", *own, "--hidden", "4", "--epochs", "1", "--run-dir", str(run)])
    line = (run / "predictions.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")
    assert line[0].startswith("Zoë ") and line[1].startswith("Château; n° ")
    capsys.readouterr()
    mine = tmp_path / "mine.txt"
    mine.write_text("Château; n° 3\t70\nnone 60\n", encoding="utf-8")
    autoencoder.main(["recommend", "--run-dir", str(run), "--ratings", str(mine), "--count", "30"])
    said = capsys.readouterr().out
    assert "1 rated items are not in the training data" in said and "(none, …)" in said
    assert "n° 3 " not in said and "n° 4 " in said  # rated: left out
    run = tmp_path / "biases"
    baselines.main(["rate", *own, "--run-dir", str(run)])
    assert (run / "results.json").exists()
    with pytest.raises(InputError, match="no content"):
        baselines.main(["rate", *own, "--method", "content", "--run-dir", str(tmp_path / "no")])


@pytest.mark.slow
def test_the_improved_fusion_takes_any_range(wine, tmp_path):
    run = tmp_path / "fusion"
    small = ["--improved.width", "4", "--improved.heads", "1", "--epochs", "1"]
    own = [*FLAGS, "--data-dir", str(wine), "--preset", "improved"]
    fusion.main(["train", *own, *small, "--run-dir", str(run)])
    assert (run / "export" / "catalogue.npz").exists()


@pytest.mark.slow
def test_click_experiments_answer_in_the_ids_of_the_file(shop, tmp_path, capsys):
    own = ["--dataset", "csv", "--data-dir", str(shop), "--csv.time", "time"]
    run = tmp_path / "next"
    small = ["--epochs", "1", "--item-width", "4", "--layers", "1"]
    candidates.main(["train", *own, *small, "--run-dir", str(run)])
    capsys.readouterr()
    candidates.main(["search", "--run-dir", str(run), "--user", "u3", "--count", "3", "--seen"])
    assert capsys.readouterr().out.count("shoe-") == 3
    candidates.main(["evaluate", "--run-dir", str(run)])
    baselines.main(["rank", *own, "--method", "ease", "--run-dir", str(tmp_path / "ease")])
    assert (tmp_path / "ease" / "results.json").exists()
