"""The Netflix converter: every form of the data, the splits against loops, and tampered files."""

import datetime
import errno
import gzip
import io
import re
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data import netflix
from jrec.data.date_splits import NETFLIX_WINDOWS
from jrec.data.netflix import Convert, convert
from jrec.data.netflix_lines import Lines, parse_lines, parse_titles
from jrec.data.rating_parts import PARTS, load_rating_parts, rating_parts
from jrec.data.ratings import Items, Source, build
from jrec.data.splits import split_ratings
from jrec.errors import InputError, run_command
from tests.test_rating_parts import rows_of

SLICE = Path("/work/shared/data/netflix_slice.tar.gz")
SPLITS = ("3m", "6m", "1y", "full")
MOVIES = (1, 2, 3, 5, 20, 700, 17770)
USERS, COUNT = 56, 50  # of all, and how many of them rate each movie


def toy(seed=0):
    """{movie: [(user, stars, date)]}, some of the users and one movie only late."""
    generator = np.random.default_rng(seed)
    movies = {}
    for movie in MOVIES:
        users = (generator.choice(USERS, COUNT, replace=False) + 1) ** 4 + 9
        spans = ["2004-05-25", "2006-01-05"], ["2005-05-25", "2005-07-03"]
        spans = (
            [*spans, ["2005-11-25", "2006-01-05"]]
            if movie != 700
            else [["2005-12-01", "2006-01-05"]]
        )
        dates = []
        for span in generator.choice(
            len(spans), COUNT
        ):  # so that no month that is held out is thin
            dates.append(generator.choice(np.arange(*spans[span], dtype="M8[D]")))
        stars = generator.integers(1, 6, COUNT)
        movies[movie] = list(zip(users.tolist(), stars.tolist(), map(str, dates), strict=True))
    return movies


def text_of(movie, rows):
    return "".join([f"{movie}:\n", *(f"{u},{s},{d}\n" for u, s, d in rows)])


TITLES = "".join(
    f"{movie},{'NULL' if movie == 5 else 1990},Caf\xe9, the {movie}th\n" for movie in (*MOVIES, 9)
).encode("latin-1")


def write_folder(path, movies):
    path.mkdir(parents=True)
    for movie, rows in movies.items():
        (path / f"mv_{movie:07d}.txt").write_text(text_of(movie, rows))
    return path


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def movie_members(movies, prefix="training_set/"):
    return {
        f"{prefix}mv_{movie:07d}.txt": text_of(movie, r).encode() for movie, r in movies.items()
    }


def as_folder(path, movies):
    write_folder(path / "training_set", movies)
    (path / "movie_titles.txt").write_bytes(TITLES)
    return path


def as_bare_folder(path, movies):
    (write_folder(path, movies) / "movie_titles.txt").write_bytes(TITLES)
    (path / "README").write_text("no ratings\n")
    return path


def as_windows_folder(path, movies):
    as_bare_folder(path, movies)
    for file in path.glob("mv_*"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    return path


def as_folder_without_last_line_ends(path, movies):
    as_bare_folder(path, movies)
    for file in path.glob("mv_*"):
        file.write_bytes(file.read_bytes()[:-1])
    return path


def as_official(path, movies):
    inner = tar_of(path.with_suffix(".inner"), movie_members(movies)).read_bytes()
    members = {"download/training_set.tar": inner, "download/movie_titles.txt": TITLES}
    return tar_of(path.with_suffix(".tar.gz"), members, "w:gz")


def as_folder_of_tar(path, movies):
    path.mkdir()
    tar_of(path / "training_set.tar", movie_members(movies))
    (path / "movie_titles.txt").write_bytes(TITLES)
    return path


def as_shuffled_tar_gz(path, movies):
    members = movie_members(dict(sorted(movies.items(), reverse=True)), "./netflix/training_set/")
    members = {"netflix/movie_titles.txt": TITLES} | members
    return tar_of(path.with_suffix(".tgz"), members, "w:gz")


def as_tar(path, movies):
    return tar_of(path.with_suffix(".tar"), movie_members(movies) | {"movie_titles.txt": TITLES})


def as_combined(path, movies):
    path.mkdir()
    for part, chosen in ((1, MOVIES[:3]), (2, MOVIES[3:6]), (4, MOVIES[6:])):
        text = "".join(text_of(movie, movies[movie]) for movie in chosen)
        (path / f"combined_data_{part}.txt").write_text(text)
    (path / "movie_titles.csv").write_bytes(TITLES)
    return path


FORMS = {name[3:]: value for name, value in list(globals().items()) if name.startswith("as_")}


def arrays_of(folder):
    """Everything but the source of the four splits, as plain values."""
    found = {}
    for name in SPLITS:
        parts = load_rating_parts(folder / name)
        rows = {part: rows_of(parts, part) for part in PARTS}
        offsets = {part: getattr(parts, part).offsets.tolist() for part in PARTS}
        found[name] = (rows, offsets, parts.users.tolist(), parts.items.tolist(), parts.titles)
        found[name] += (parts.dropped, parts.time_ranges, parts.rating_range)
    return found


@pytest.mark.parametrize("form", [form for form in FORMS if form != "bare_folder"])
def test_each_form_gives_the_same(form, tmp_path):
    movies = toy()
    convert(Convert(as_bare_folder(tmp_path / "plain", movies), tmp_path / "wanted"))
    raw = FORMS[form](tmp_path / "raw", movies)
    before = sorted(tmp_path.rglob("*"))
    convert(Convert(raw, tmp_path / "out"))
    assert arrays_of(tmp_path / "out") == arrays_of(tmp_path / "wanted")
    made = set(tmp_path.rglob("*")) - set(before)
    assert all((tmp_path / "out") in (path, *path.parents) for path in made)


def test_one_combined_file_is_enough_and_has_no_titles(tmp_path):
    folder = as_combined(tmp_path / "raw", toy())
    splits, notes = convert(Convert(folder / "combined_data_1.txt", tmp_path / "out", ("full",)))
    assert splits[0].titles is None and set(splits[0].items.tolist()) <= {1, 2, 3}
    assert "not the whole Netflix Prize data: 150 ratings" in notes[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_equal_a_loop(seed, tmp_path):
    movies = toy(seed)
    convert(Convert(as_official(tmp_path / "raw", movies), tmp_path / "out", seed=seed))
    everything = [(d, f, u, s) for f, rows in movies.items() for u, s, d in rows]
    everything.sort(key=lambda row: row[:2])  # stable: file order within a movie and day
    for name in SPLITS:
        window = NETFLIX_WINDOWS[f"netflix-{name}"]
        inside = {
            key: [row for row in everything if first <= row[0] <= last]
            for key, (first, last) in (("train", window.train), ("held", window.held_out))
        }
        users, items = ({row[k] for row in inside["train"]} for k in (2, 1))
        coins = np.random.default_rng(seed).random(len(inside["held"]))
        lists = {"train": inside["train"], "valid": [], "test": []}
        dropped = dict.fromkeys(("valid user", "valid item", "test user", "test item"), 0)
        for row, coin in zip(inside["held"], coins, strict=True):
            part = "valid" if coin < 0.5 else "test"
            if row[2] not in users:
                dropped[f"{part} user"] += 1
            elif row[1] not in items:
                dropped[f"{part} item"] += 1
            else:
                lists[part].append(row)
        parts = load_rating_parts(tmp_path / "out" / name)
        assert sum(dropped.values()) > 3 and parts.dropped == dropped | {"unknown": 0}
        assert parts.users.tolist() == sorted(users) and parts.items.tolist() == sorted(items)
        for part, rows in lists.items():
            wanted = [(u, f, s) for d, f, u, s in sorted(rows, key=lambda row: row[2])]
            assert rows_of(parts, part) == wanted and len(wanted) > 1
            assert parts.time_ranges[part] == (min(rows)[0], max(rows)[0])


def test_the_converter_splits_as_split_ratings_does(tmp_path):
    movies = toy()
    splits, _ = convert(Convert(as_folder(tmp_path / "raw", movies), tmp_path / "out", seed=3))
    rows = [(u, f, s, d) for f, rows in movies.items() for u, s, d in rows]
    user, movie, stars, date = zip(*rows, strict=True)
    columns = {
        "user": np.array(user),
        "item": np.array(movie),
        "rating": np.array(stars, np.float32),
        "timestamp": np.array(date, "M8[s]").astype(np.int64) + 5,
    }
    info = Items(np.array(MOVIES), [f"movie {k}" for k in MOVIES], [[]] * len(MOVIES))
    ratings = build("netflix", Source("x", "", ""), columns, None, info, (1.0, 5.0))
    for name, parts in zip(SPLITS, splits, strict=True):
        other = rating_parts(ratings, split_ratings(ratings, f"netflix-{name}", 3))
        assert parts.dropped == other.dropped and parts.time_ranges == other.time_ranges
        for part in PARTS:
            assert rows_of(parts, part) == rows_of(other, part)
            assert getattr(parts, part).rating.dtype == getattr(other, part).rating.dtype


def test_titles_are_latin_1_with_commas_and_years(tmp_path):
    convert(Convert(as_official(tmp_path / "raw", toy()), tmp_path / "out"))
    parts = load_rating_parts(tmp_path / "out" / "full")
    by_movie = dict(zip(parts.items.tolist(), parts.titles, strict=True))
    assert by_movie[3] == "Café, the 3th (1990)" and by_movie[5] == "Café, the 5th"


def test_seeds_and_sources_are_kept_apart(tmp_path):
    raw = as_official(tmp_path / "raw", toy())
    (one,), _ = convert(Convert(raw, tmp_path / "a", ("3m",)))
    (same,), _ = convert(Convert(raw, tmp_path / "b", ("3m",)))
    (other,), _ = convert(Convert(raw, tmp_path / "c", ("3m",), seed=1))
    assert rows_of(one, "test") == rows_of(same, "test") != rows_of(other, "test")
    assert rows_of(one, "train") == rows_of(other, "train")
    assert one.source == same.source and one.source.location == str(raw)
    sum_ = subprocess.run(["sha256sum", raw], capture_output=True, text=True).stdout[:64]
    assert one.source.checksum == f"sha256:{sum_}"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["3m"]


def test_text_form_is_the_originals(tmp_path):
    raw = as_folder(tmp_path / "raw", toy())
    convert(Convert(raw, tmp_path / "out", text=True))
    for name, original in zip(SPLITS, ("n3m", "n6m", "n1y", "nf"), strict=True):
        parts = load_rating_parts(tmp_path / "out" / name)
        for part in PARTS:
            folder = tmp_path / "out" / f"{original.upper()}_{part.upper()}"
            lines = (folder / f"{original}.{part}.txt").read_text().splitlines()
            wanted = [f"{user}\t{item}\t{float(r)}" for user, item, r in rows_of(parts, part)]
            assert lines == wanted and len(lines) > 1


def test_known_sizes_are_compared_when_the_data_are_whole(tmp_path, monkeypatch):
    raw = as_folder(tmp_path / "raw", toy())
    for name, value in (("RATINGS", 7 * COUNT), ("USERS", USERS), ("MOVIES", 7)):
        monkeypatch.setattr(netflix, f"FULL_{name}", value)
    splits, notes = convert(Convert(raw, tmp_path / "a"))
    assert len(notes) == 8 and "The valid + test part of 1y has" in notes[5]
    assert splits[0].source.note == "the sum of its ratings files, one after the other"
    sizes = {}
    for name, parts in zip(SPLITS, splits, strict=True):
        rows = [rows_of(parts, "train"), rows_of(parts, "valid") + rows_of(parts, "test")]
        sizes[name] = tuple((len(r), len({x[0] for x in r}), len({x[1] for x in r})) for r in rows)
    monkeypatch.setattr(netflix, "KNOWN_SIZES", sizes)
    assert convert(Convert(raw, tmp_path / "b"))[1] == []
    monkeypatch.setattr(netflix, "FULL_USERS", USERS + 1)
    splits, notes = convert(Convert(raw, tmp_path / "c"))
    assert len(notes) == 1 and "not the whole" in notes[0]
    assert "not the whole Netflix Prize data" in splits[0].source.note


LINE = re.compile(rb"([0-9]{1,7}),([1-5]),([0-9]{4}-[0-9]{2}-[0-9]{2})")


def by_loop(content, movie=None):
    """What a file says, read line by line with a regular expression; None where it says nonsense."""
    rows, runs = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        header = re.fullmatch(rb"([0-9]{1,7}):", line)
        if header:
            if int(header[1]) == 0 or movie not in (None, int(header[1])) or (movie and number > 1):
                return None
            runs.append([int(header[1]), 0])
            continue
        match = LINE.fullmatch(line)
        if match is None or not runs or int(match[1]) == 0:
            return None
        try:
            day = (datetime.date.fromisoformat(match[3].decode()) - datetime.date(1970, 1, 1)).days
        except ValueError:
            return None
        if not 0 <= day < 29220:  # 2050-01-01
            return None
        rows.append((int(match[1]), int(match[2]), day))
        runs[-1][1] += 1
    return rows, runs


good_lines = st.one_of(
    st.builds(
        "{},{},{}".format,
        st.integers(1, 9_999_999),
        st.integers(1, 5),
        st.dates(datetime.date(1970, 1, 1), datetime.date(2049, 12, 31)),
    ),
    st.builds("{}:".format, st.integers(1, 9_999_999)),
)
odd_lines = st.one_of(
    st.text("0123456789,-:", max_size=22),
    st.builds(
        "{},{},{:04d}-{:02d}-{:02d}".format,
        st.integers(-1, 10**8),
        st.integers(0, 6),
        st.integers(1890, 2110),
        st.integers(0, 13),
        st.integers(0, 32),
    ),
)


@given(
    st.lists(st.one_of(good_lines, good_lines, odd_lines), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=1),
    st.booleans(),
    st.booleans(),
)
def test_words_of_eight_bytes_read_as_a_loop_does(lines, changes, is_movie_file, all_good):
    if all_good:
        lines, changes = ["8:", *(line for line in lines if LINE.fullmatch(line.encode()))], []
    content = bytearray("".join(f"{line}\n" for line in lines).encode())
    for place, value in changes:
        content[place % (len(content) - 1)] = value
    content = bytes(content)
    movie = 8 if is_movie_file else None
    wanted = by_loop(content, movie)
    if wanted is None:
        with pytest.raises(InputError, match=r"^file, line"):
            parse_lines([Lines("file", movie, 1, content)])
        return
    columns = parse_lines([Lines("file", movie, 1, content)])
    rows = [columns.user.tolist(), columns.rating.tolist(), columns.day.tolist()]
    assert list(zip(*rows, strict=True)) == wanted[0]
    assert [[run.movie, run.count] for run in columns.runs] == wanted[1]


def test_any_byte_in_the_place_of_any_other_reads_as_a_loop_does():
    content = b"8:\n1234567,3,2005-10-09\n6,5,1998-02-28\n"
    refused = 0
    for place in range(len(content) - 1):
        for value in range(256):
            changed = content[:place] + bytes([value]) + content[place + 1 :]
            wanted = by_loop(changed)
            try:
                columns = parse_lines([Lines("file", None, 1, changed)])
            except InputError:
                assert wanted is None, changed
                refused += 1
                continue
            rows = [columns.user.tolist(), columns.rating.tolist(), columns.day.tolist()]
            assert wanted is not None and list(zip(*rows, strict=True)) == wanted[0], changed
    assert refused > 9000


@given(st.lists(good_lines, max_size=20), st.lists(st.integers(1, 20), max_size=4))
def test_a_file_in_pieces_reads_as_a_whole(lines, cuts):
    lines = [f"{line}\n".encode() for line in ["8:", *lines]]
    ends = [0, *sorted({min(cut, len(lines)) for cut in cuts} | {len(lines)})]
    pieces = [
        Lines("file", None, first + 1, b"".join(lines[first:last]))
        for first, last in pairwise(ends)
    ]
    whole = parse_lines([Lines("file", None, 1, b"".join(lines))])
    for columns in (parse_lines(pieces), *([parse_lines(pieces[:1])] if len(ends) == 2 else [])):
        for name in ("user", "rating", "day"):
            assert np.array_equal(getattr(columns, name), getattr(whole, name))
        joined = []
        for run in columns.runs:
            if run.movie is None:
                movie, line, count = joined.pop()
                assert run.line == line + count
                joined.append((movie, line, count + run.count))
            else:
                joined.append((run.movie, run.line, run.count))
        assert joined == [(run.movie, run.line, run.count) for run in whole.runs]


def test_a_movie_longer_than_a_block_is_one_movie(tmp_path, monkeypatch):
    movies = toy()
    convert(Convert(as_folder(tmp_path / "raw", movies), tmp_path / "wanted"))
    for name in ("netflix_files._CHUNK", "netflix_table._BLOCK"):
        monkeypatch.setattr(f"jrec.data.{name}", 100)
    for form in ("combined", "folder"):
        raw = FORMS[form](tmp_path / f"{form}2", movies)
        convert(Convert(raw, tmp_path / f"out-{form}"))
        assert arrays_of(tmp_path / f"out-{form}") == arrays_of(tmp_path / "wanted")


def refusal(arguments, monkeypatch, capsys):
    """The sentence with which the command stops."""
    monkeypatch.setattr(sys, "argv", ["netflix", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run_command(netflix.main)
    said = capsys.readouterr()
    assert stop.value.code == 1 and said.out == "" and said.err.count("\n") == 1, said
    assert said.err.endswith((".\n", "?\n")) and "Traceback" not in said.err
    return said.err.removeprefix("error: ").rstrip("\n")


NUMBER, DAY = "whole number from 1 to 9999999", "a day YYYY-MM-DD of 1970 to 2049"

# id: line number of mv_0000020.txt, what stands there, what the sentence says.
TAMPERED = {
    "user-text": (4, "bob,3,2005-09-01", "user is 'bob'", NUMBER),
    "user-empty": (4, ",3,2005-09-01", "user is ''", NUMBER),
    "user-zero": (4, "0,3,2005-09-01", "user is '0'", NUMBER),
    "user-negative": (4, "-7,3,2005-09-01", "user is '-7'", NUMBER),
    "user-huge": (4, "12345678,3,2005-09-01", "user is '12345678'", NUMBER),
    "user-of-30-digits": (4, f"{10**29},3,2005-09-01", "user is '1000", NUMBER),
    "user-with-blank": (4, " 77,3,2005-09-01", "user is ' 77'", NUMBER),
    "user-other-digits": (4, "٣٣,3,2005-09-01", "user is ", NUMBER),
    "rating-zero": (4, "77,0,2005-09-01", "rating is '0'", "1, 2, 3, 4 or 5"),
    "rating-six": (4, "77,6,2005-09-01", "rating is '6'", "1, 2, 3, 4 or 5"),
    "rating-half": (4, "77,3.5,2005-09-01", "rating is '3.5'", "1, 2, 3, 4 or 5"),
    "rating-empty": (4, "77,,2005-09-01", "rating is ''", "1, 2, 3, 4 or 5"),
    "rating-two-digits": (4, "77,03,2005-09-01", "rating is '03'", "1, 2, 3, 4 or 5"),
    "date-no-day": (4, "77,3,2005-02-29", "date is '2005-02-29'", DAY),
    "date-month-13": (4, "77,3,2005-13-01", "date is '2005-13-01'", DAY),
    "date-month-0": (4, "77,3,2005-00-01", "date is '2005-00-01'", DAY),
    "date-slashes": (4, "77,3,2005/09/01", "date is '2005/09/01'", DAY),
    "date-short": (4, "77,3,2005-9-1", "date is '2005-9-1'", DAY),
    "date-cut": (COUNT + 1, "77,3,2005-09-0", "date is '2005-09-0'", DAY),
    "date-with-time": (4, "77,3,2005-09-01T00", "date is '2005-09-01T00'", DAY),
    "date-of-1869": (4, "77,3,1869-09-01", "date is '1869-09-01'", DAY),
    "date-of-2950": (4, "77,3,2950-09-01", "date is '2950-09-01'", DAY),
    "two-fields": (4, "77,3", "2 fields", "user,rating,YYYY-MM-DD"),
    "four-fields": (4, "77,3,2005-09-01,9", "4 fields", "user,rating,YYYY-MM-DD"),
    "tabs": (4, "77\t3\t2005-09-01", "1 fields", "user,rating,YYYY-MM-DD"),
    "empty-line": (4, "", "1 fields", "user,rating,YYYY-MM-DD"),
    "two-ratings-on-a-line": (4, "77,3,2005-09-0177,3,2005-09-01", "5 fields"),
    "nul": (4, "77\x00,3,2005-09-01", "user is '77\\x00'", NUMBER),
    "carriage-return": (4, "77,3\r,2005-09-01", "rating is '3\\r'"),
    "no-movie-line": (1, "77,3,2005-09-01", "movie's number and a colon"),
    "movie-line-empty": (1, ":", "the movie is ':'", "from 1 to 9999999"),
    "movie-line-text": (1, "Up:", "the movie is 'Up:'", "from 1 to 9999999"),
    "movie-line-zero": (1, "0:", "the movie is '0:'"),
    "movie-line-of-another": (1, "21:", "the movie is '21:' but the file's name says 20"),
    "second-movie-line": (4, "20:", "second movie line '20:'"),
    "same-user-twice": (COUNT + 1, "{0},3,2005-09-01", "user {0} rates movie 20 a second time"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_line_is_named_and_nothing_is_left(case, tmp_path, monkeypatch, capsys):
    raw = as_folder(tmp_path / "raw", toy())
    file = raw / "training_set" / "mv_0000020.txt"
    number, line, *said = TAMPERED[case]
    lines = file.read_text().splitlines()
    user = lines[5].split(",")[0]
    lines[number - 1] = line.format(user)
    file.write_bytes("\n".join([*lines, ""]).encode())
    before = sorted(tmp_path.rglob("*"))
    text = refusal([raw, tmp_path / "deep" / "out"], monkeypatch, capsys)
    assert text.startswith(f"{file}, line {number}: ")
    assert all(part.format(user) in text for part in said), text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("form", ["official", "tar", "combined", "folder_of_tar"])
def test_a_tampered_line_is_named_in_other_forms(form, tmp_path, monkeypatch, capsys):
    movies = toy()
    movies[20][2] = (77, 9, "2005-09-01")
    raw = FORMS[form](tmp_path / "raw", movies)
    place = {
        "official": f"{raw}/download/training_set.tar/training_set/mv_0000020.txt, line 4:",
        "tar": f"{raw}/training_set/mv_0000020.txt, line 4:",
        "combined": f"{raw}/combined_data_2.txt, line {COUNT + 1 + 4}:",
        "folder_of_tar": f"{raw}/training_set.tar/training_set/mv_0000020.txt, line 4:",
    }
    before = sorted(tmp_path.rglob("*"))
    text = refusal([raw, tmp_path / "out"], monkeypatch, capsys)
    assert text.startswith(place[form]) and "rating is '9'" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_lines_are_counted_across_pieces(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jrec.data.netflix_files._CHUNK", 50)
    movies = toy()
    movies[20][12] = (77, 9, "2005-09-01")
    movies[700][11] = movies[700][3]
    raw = as_combined(tmp_path / "raw", movies)
    text = refusal([raw, tmp_path / "out"], monkeypatch, capsys)
    assert f"combined_data_2.txt, line {COUNT + 1 + 14}:" in text
    movies[20][12] = (77, 1, "2005-09-01")
    text = refusal([as_combined(tmp_path / "r2", movies), tmp_path / "out"], monkeypatch, capsys)
    assert (
        f"combined_data_2.txt, line {2 * (COUNT + 1) + 13}:" in text
        and "movie 700 a second time" in text
    )


def test_a_second_movie_line_far_down_a_movie_file_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jrec.data.netflix_files._CHUNK", 50)
    raw = as_folder(tmp_path / "raw", toy())
    file = raw / "training_set" / "mv_0000020.txt"
    file.write_text(file.read_text() + "20:\n")
    text = refusal([raw, tmp_path / "out"], monkeypatch, capsys)
    assert text.startswith(f"{file}, line {COUNT + 2}: a second movie line '20:'")


def truncated(tmp_path):
    raw = as_official(tmp_path / "raw", toy())
    raw.write_bytes(raw.read_bytes()[:-400])
    return raw


def truncated_at_the_checksum(tmp_path):
    raw = as_official(tmp_path / "raw", toy())
    raw.write_bytes(raw.read_bytes()[:-3])
    return raw


def flipped(tmp_path):
    raw = as_official(tmp_path / "raw", toy())
    content = bytearray(raw.read_bytes())
    content[-6] ^= 255  # the checksum
    raw.write_bytes(content)
    return raw


def flipped_far_behind_the_last_member(tmp_path):
    tar = as_tar(tmp_path / "x", toy())
    content = bytearray(gzip.compress(tar.read_bytes() + bytes(3 << 20)))
    content[-6] ^= 255
    raw = tmp_path / "raw.tar.gz"
    raw.write_bytes(content)
    return raw


def tar_cut_in_a_member(tmp_path):
    raw = as_tar(tmp_path / "raw", toy())
    raw.write_bytes(raw.read_bytes()[:5000])
    return raw


def tar_cut_between_members(tmp_path):
    raw = as_tar(tmp_path / "raw", toy())
    raw.write_bytes(raw.read_bytes()[: 3 * 1024])
    return raw


def gzip_of_text(tmp_path):
    raw = tmp_path / "x.gz"
    raw.write_bytes(gzip.compress(b"hello " * 1000))
    return raw


def archive_of_other_things(tmp_path):
    return tar_of(tmp_path / "x.tar.gz", {"a.txt": b"1:\n", "mv_x.txt": b"1:\n"}, "w:gz")


def folder_of_other_things(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "ratings.dat").write_text("1::2::3::4\n")
    return tmp_path / "x"


def other_text(tmp_path):
    (tmp_path / "x.txt").write_text("1,3,2005-09-01\n")
    return tmp_path / "x.txt"


def empty_member(tmp_path):
    raw = as_folder(tmp_path / "raw", toy())
    (raw / "training_set" / "mv_0000003.txt").write_bytes(b"")
    return raw


def movie_in_two_files(tmp_path):
    raw = as_combined(tmp_path / "raw", toy())
    (raw / "combined_data_3.txt").write_text(text_of(5, [(3, 3, "2005-09-01")]))
    return raw


def only_movie_lines(tmp_path):
    (tmp_path / "combined_data_1.txt").write_text("1:\n2:\n")
    return tmp_path / "combined_data_1.txt"


def no_line_ends(tmp_path):
    raw = as_folder(tmp_path / "raw", toy())
    (raw / "training_set" / "mv_0000003.txt").write_bytes(b"3" * (9 << 20))
    return raw


def bad_title(tmp_path):
    raw = as_folder(tmp_path / "raw", toy())
    (raw / "movie_titles.txt").write_bytes(b"1,2003,Up\n2,2003\n")
    return raw


def title_twice(tmp_path):
    raw = as_folder(tmp_path / "raw", toy())
    (raw / "movie_titles.txt").write_bytes(b"1,2003,Up\n\n1,2004,Down\n")
    return raw


def only_old_ratings(tmp_path):
    return write_folder(tmp_path / "raw", {1: [(5, 3, "1999-11-11"), (6, 3, "1999-11-11")]})


WRONG_INPUT = {
    truncated: ("raw.tar.gz is damaged or cut short", "fetch it again"),
    truncated_at_the_checksum: ("raw.tar.gz is damaged or cut short", "fetch it again"),
    flipped: ("raw.tar.gz is damaged or cut short", "CRC"),
    flipped_far_behind_the_last_member: ("raw.tar.gz is damaged or cut short", "CRC"),
    tar_cut_in_a_member: ("raw.tar is damaged or cut short", "fetch it again"),
    tar_cut_between_members: ("raw.tar is damaged or cut short", "end mark"),
    gzip_of_text: ("x.gz is damaged or cut short",),
    archive_of_other_things: ("holds no mv_*.txt",),
    folder_of_other_things: ("holds no Netflix ratings", "give another folder"),
    other_text: ("neither a tar archive nor a text that begins with a movie line",),
    empty_member: ("mv_0000003.txt is empty",),
    movie_in_two_files: ("combined_data_3.txt, line 1: movie 5 comes a second time",),
    only_movie_lines: ("holds no ratings",),
    no_line_ends: ("mv_0000003.txt has no line ends",),
    bad_title: ("movie_titles.txt, line 2: the line is '2,2003'",),
    title_twice: ("movie_titles.txt, line 3: movie 1 comes twice",),
    only_old_ratings: ("training part of netflix-3m is empty",),
    lambda tmp_path: tmp_path / "nowhere": ("nowhere does not exist", "combined_data"),
}


@pytest.mark.parametrize("make", WRONG_INPUT, ids=lambda make: make.__name__)
def test_wrong_input_is_one_sentence_and_nothing_is_left(make, tmp_path, monkeypatch, capsys):
    raw = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    text = refusal([raw, tmp_path / "out"], monkeypatch, capsys)
    assert all(part in text for part in WRONG_INPUT[make]), text
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_settings_are_refused_before_anything_is_read(tmp_path, monkeypatch, capsys):
    raw = as_folder(tmp_path / "raw", toy())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for arguments, said in (
        ([raw, tmp_path / "full"], "full exists already"),
        ([raw, tmp_path / "full" / "thesis.txt"], "exists already"),
        ([tmp_path / "nowhere", tmp_path / "full"], "full exists already"),
        ([raw, tmp_path / "out", "--seed", "-1"], "--seed must be 0 or more"),
        ([raw, tmp_path / "out", "--splits", "3m", "3m"], "--splits must name each split once"),
        ([raw, tmp_path / "out", "--splits", "2m"], "2m"),
        ([raw], "out"),
    ):
        assert said.lower() in refusal(arguments, monkeypatch, capsys).lower()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, capsys):
    raw = as_folder(tmp_path / "raw", toy())
    before = sorted(tmp_path.rglob("*"))
    save = netflix.save_rating_parts

    def full(folder, parts):
        if folder.name == "1y":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, parts)

    monkeypatch.setattr(netflix, "save_rating_parts", full)
    text = refusal([raw, tmp_path / "out"], monkeypatch, capsys)
    assert "No space left" in text and str(tmp_path / "out") in text
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_prints_the_table_into_an_empty_folder(tmp_path, monkeypatch, capsys):
    raw = as_folder(tmp_path / "raw", toy())
    (raw / "movie_titles.txt").unlink()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(sys, "argv", ["netflix", str(raw), str(tmp_path / "out")])
    run_command(netflix.main)
    said = capsys.readouterr()
    train = len(load_rating_parts(tmp_path / "out" / "6m").train)
    assert re.search(rf"ratings train .*│ {train} ", said.out) and "netflix-1y" in said.out
    assert "2005-11-30" in said.out and "…" not in said.out
    assert said.err.count("warning: ") == 2 and "No movie_titles.txt was found" in said.err


def test_titles_of_movies_that_the_file_lacks(tmp_path):
    assert parse_titles("x", b"7,NULL,A\n") == {7: "A"}
    raw = as_folder(tmp_path / "raw", toy())
    (raw / "movie_titles.txt").write_bytes(b"1,2003,Up\n")
    (parts,), _ = convert(Convert(raw, tmp_path / "out", ("full",)))
    assert parts.titles[:2] == ["Up (2003)", "movie 2"]


@pytest.mark.skipif(not SLICE.exists(), reason=f"{SLICE} (real data) is not on this machine")
def test_a_slice_of_the_real_data(tmp_path):
    splits, notes = convert(Convert(SLICE, tmp_path / "out"))
    assert "50,684 ratings, 43,424 users, 21 movies" in notes[0]
    full = splits[3]
    # mv_0000020.txt ends early but with a whole line, so what it says stands.
    assert 20 in full.items and full.titles[0] == "Dinosaur Planet (2003)"
    with tarfile.open(SLICE) as archive:
        lines = []
        for member in archive:
            if "mv_" in member.name:
                text = archive.extractfile(member).read().decode().split()
                lines += [(line[-10:], int(text[0][:-1])) for line in text[1:]]
    for parts, name in zip(splits, SPLITS, strict=True):
        first, last = NETFLIX_WINDOWS[f"netflix-{name}"].train
        dates = [date for date, _ in lines if first <= date <= last]
        assert len(parts.train) == len(dates) and parts.time_ranges["train"][0] == min(dates)
