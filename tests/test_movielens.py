import dataclasses
import zipfile

import numpy as np
import pytest

from jrec.data import __main__ as show_data
from jrec.data.movielens import age_group, occupation_number
from jrec.data.ratings import ATTRIBUTE_CODES, ATTRIBUTE_LABELS, title_words, user_labels
from jrec.data.sources import load_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError
from tests.conftest import GENRES, TITLES, toy_ratings


def test_1m_layout_comes_out_as_it_went_in(ml_1m):
    ratings = load_ratings("ml-1m", ml_1m)
    raw = toy_ratings()
    assert ratings.vocabularies["user"].decode(ratings.user).tolist() == [row[0] for row in raw]
    assert ratings.vocabularies["item"].decode(ratings.item).tolist() == [row[1] for row in raw]
    assert ratings.rating.tolist() == [row[2] for row in raw]
    assert ratings.timestamp.tolist() == [row[3] for row in raw]
    assert (ratings.user.dtype, ratings.rating.dtype) == (np.int32, np.float32)
    row = int(ratings.vocabularies["user"].encode([8])[0])
    codes = {
        name: int(ratings.vocabularies[name].decode(by_row[row]))
        for name, by_row in ratings.user_features.items()
    }
    assert codes == {"gender": 0, "age": 18, "occupation": 8}
    item = int(ratings.vocabularies["item"].encode([4])[0])
    assert ratings.titles[item] == TITLES[3]
    genres = ratings.vocabularies["genres"].decode(ratings.item_features["genres"][item])
    assert genres.tolist() == GENRES[3]
    words = ratings.vocabularies["title"].decode(ratings.item_features["title"][item])
    assert words.tolist() == ["usual", "suspects,", "the"]


def test_archive_and_folder_hold_the_same(ml_1m, tmp_path):
    archive = tmp_path / "any.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in ml_1m.iterdir():
            file.write(path, f"ml-1m/{path.name}")
    one, two = load_ratings("ml-1m", ml_1m), load_ratings("ml-1m", archive)
    assert np.array_equal(one.user, two.user) and one.titles == two.titles
    assert (one.source.kind, two.source.kind) == ("folder", "archive")
    assert "not the archive" in two.source.note


def test_100k_is_brought_to_the_numbering_of_1m(ml_100k):
    ratings = load_ratings("ml-100k", ml_100k)
    row = ratings.vocabularies["user"].encode([1, 4, 9])
    ages = ratings.vocabularies["age"].decode(ratings.user_features["age"][row])
    jobs = ratings.vocabularies["occupation"].decode(ratings.user_features["occupation"][row])
    assert ages.tolist() == [1, 25, 50]  # 15, 30 and 55 years
    assert jobs.tolist() == [20, 4, 20]  # writer, student, writer
    assert "unknown" not in ratings.vocabularies["genres"].values


def test_csv_layout_has_half_stars_and_no_users(ml_csv):
    ratings = load_ratings("ml-latest-small", ml_csv)
    assert ratings.rating.tolist() == [row[2] - 0.5 for row in toy_ratings()]
    assert ratings.user_features == {} and ratings.rating_range == (0.5, 5)
    assert set(TITLES) < set(ratings.titles)


def test_10m_layout_is_1m_without_users(ml_1m):
    (ml_1m / "users.dat").unlink()
    ratings = load_ratings("ml-10m", ml_1m)
    assert len(ratings) == 80 and ratings.user_features == {}


@pytest.mark.parametrize(
    ("years", "group"),
    [(7, 1), (17, 1), (18, 18), (24, 18), (25, 25), (44, 35), (49, 45), (73, 56)],
)
def test_age_groups(years, group):
    assert age_group(years) == group


def test_a_student_under_18_is_a_pupil():
    assert occupation_number("student", 17) == 10
    assert occupation_number("student", 18) == 4
    assert occupation_number("astronaut", 40) is None


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Toy Story (1995)", ["toy", "story"]),
        ("Seven (Se7en) (1995)", ["seven", "(se7en)"]),
        ("Seven Up! (7 Up!) (1964)", ["seven", "up!", "(7", "up!)"]),
        ("Untitled", ["untitled"]),
        ("unfinished (19", ["unfinished", "(19"]),
        ("(1995)", []),
    ],
)
def test_title_words_lose_the_year_alone(title, words):
    assert title_words(title) == words


def test_the_latest_of_repeated_ratings_is_kept(ml_1m):
    first = (ml_1m / "ratings.dat").read_text().splitlines()[0].split("::")
    user, item = int(first[0]), int(first[1])
    with (ml_1m / "ratings.dat").open("a") as file:
        file.write(f"{user}::{item}::5::999999999\n{user}::{item}::1::5\n")
    ratings = load_ratings("ml-1m", ml_1m)
    assert ratings.repeated == 2 and len(ratings) == 80
    mine = (ratings.vocabularies["user"].decode(ratings.user) == user) & (
        ratings.vocabularies["item"].decode(ratings.item) == item
    )
    assert ratings.rating[mine].tolist() == [5] and ratings.timestamp[mine].tolist() == [999999999]


def test_ids_that_no_file_knows_go_to_the_unknown_row(ml_1m):
    with (ml_1m / "ratings.dat").open("a") as file:
        file.write("1::777::5::1\n1::778::5::1\n888::1::4::1\n")
    ratings = load_ratings("ml-1m", ml_1m)
    assert ratings.unknown == {"user": 1, "item": 2} and ratings.repeated == 0
    assert ratings.item[-3:].tolist() == [1, 1, 2] and ratings.user[-1] == 1


def test_synthetic_data_is_seeded_and_sized():
    size = SyntheticSize(users=50, items=30, ratings=600)
    one, two, other = (synthetic_ratings(size, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.rating, two.rating) and one.titles == two.titles
    assert not np.array_equal(one.rating[:100], other.rating[:100])
    assert len(one) + one.repeated == 600 and set(np.unique(one.rating)) <= {1, 2, 3, 4, 5}
    assert one.vocabularies["user"].rows == 52 and len(one.user_features) == 3
    assert dataclasses.replace(one, name="x").source.kind == "synthetic"


def test_the_data_command_shows_counts_a_user_a_item_and_an_example(ml_1m, monkeypatch, capsys):
    arguments = ["jrec.data", "--dataset", "ml-1m", "--data-dir", str(ml_1m)]
    monkeypatch.setattr("sys.argv", arguments)
    show_data.main()
    said = capsys.readouterr().out
    for part in (
        "80",
        "12 (12)",
        "a user",
        "gender",
        "an item",
        "an example",
        "genre rows",
        "target",
    ):
        assert part in said, part


def shown(ml_1m, monkeypatch, capsys, *flags):
    arguments = ["jrec.data", "--dataset", "ml-1m", "--data-dir", str(ml_1m), *flags]
    monkeypatch.setattr("sys.argv", arguments)
    show_data.main()
    return capsys.readouterr().out


def test_the_data_command_shows_the_user_and_the_item_asked_for(ml_1m, monkeypatch, capsys):
    raw = {(user, item): stars for user, item, stars, _ in toy_ratings()}
    said = shown(ml_1m, monkeypatch, capsys, "--user", "3", "--item", "4")
    assert "id 3, gender F, age 35-44, occupation clerical/admin" in said
    assert f"id 4, '{TITLES[3]}'" in said
    example = f"{raw[3, 4]} stars" if (3, 4) in raw else "no such rating"
    assert example in said
    absent = next((u, f) for u in range(1, 13) for f in range(1, 10) if (u, f) not in raw)
    user, item = map(str, absent)
    said = shown(ml_1m, monkeypatch, capsys, "--user", user, "--item", item)
    assert "the data set has no such rating" in said and f"id {user}, " in said
    said = shown(ml_1m, monkeypatch, capsys, "--item", "9")
    first = next(row for row in toy_ratings() if row[1] == 9)
    assert f"id {first[0]}, " in said and "'Untitled'" in said and f"{first[2]} stars" in said


def test_labels_are_those_of_the_codes(ml_1m):
    for name, codes in ATTRIBUTE_CODES.items():
        assert len(ATTRIBUTE_LABELS[name]) == len(set(ATTRIBUTE_LABELS[name])) == len(codes)
    ratings = load_ratings("ml-1m", ml_1m)
    row = ratings.vocabularies["user"].encode([7])[0]
    assert user_labels(ratings, row) == {
        "gender": "F",
        "age": "under 18",
        "occupation": "executive/managerial",
    }
    assert set(user_labels(ratings, 1).values()) == {"unknown"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--user", "99"], "--user 99 is no user of ml-1m; it has 12 from 1 to 12."),
        (["--item", "x"], "--item x is no item of ml-1m; it has 9 from 1 to 9."),
    ],
)
def test_the_data_command_names_unknown_ids(ml_1m, monkeypatch, capsys, flags, sentence):
    with pytest.raises(InputError, match=sentence):
        shown(ml_1m, monkeypatch, capsys, *flags)
    assert capsys.readouterr().out == ""
