"""Broken files and settings: each is one sentence with the place and the fix, and exit code 1."""

import asyncio
import errno
import gc
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pooch
import pytest
import requests

from experiments.fusion import __main__ as fusion
from jrec.data import __main__ as show_data
from jrec.data import sources
from jrec.data.sources import load_ratings
from jrec.data.splits import Split
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError, run_command
from jrec.report import MetricsLog, read_metrics, write_json
from jrec.serving.export import load_export, save_export
from jrec.serving.ratings import export_rating_model, load_rating_model
from jrec.train.checkpoints import Checkpoints
from jrec.train.loop import Schedule, fit
from jrec.train.step import TrainState
from tests.test_sources import offline, recbole_members, zip_of

TINY = ["train", "--dataset", "synthetic", "--synthetic.users", "30", "--synthetic.items", "20"]
TINY += ["--synthetic.ratings", "600", "--epochs", "1"]
HUGE = str(10**30)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test may reach the network or the user's own cache, whatever fault it finds."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("JREC_CACHE", str(folder))
    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setattr(requests, "get", offline)
    monkeypatch.setattr(
        sources.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1)
    )
    return folder


def check_sentence(text, *parts):
    """One line of plain text that ends as a sentence does and says each of `parts`."""
    assert "\n" not in text and text.endswith((".", "?")), text
    assert not re.search(r"-{4,}|[─│╭╰]|Traceback|  ", text), text
    for part in parts:
        assert part in text, text


def fault_of(name, folder):
    with pytest.raises(InputError) as fault:
        load_ratings(name, folder)
    return str(fault.value)


def refusal(command, capsys):
    """What a command that must end with exit code 1 says on stderr, and on stdout."""
    with pytest.raises(SystemExit) as stop:
        run_command(command)
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err.removeprefix("error: ").rstrip("\n"), said.out


def replace_line(path, number, line):
    """Puts `line` (bytes, or text) in the place of line `number` of a file."""
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(b"\n".join(lines))


WHOLE = "whole number of 0 or more"
STARS = "stars from 1 to 5"

# id: line number, what stands there, what the sentence says beside file and line.
BAD_RATINGS_1M = {
    "three-fields-first": (1, "1::2::3", "3 fields", "4"),
    "five-fields-first": (1, "1::2::3::978300000::9", "5 fields", "4"),
    "three-fields": (7, "1::2::3", "3 fields", "4"),
    "five-fields": (7, "1::2::3::978300000::9", "5 fields", "4"),
    "last-line-cut": (80, "1::2::", "3 fields", "4"),
    "user-is-text": (7, "one::2::3::978300000", "user is 'one'", WHOLE),
    "user-is-empty": (7, "::2::3::978300000", "user is ''", WHOLE),
    "user-negative": (7, "-1::2::3::978300000", "user is '-1'", WHOLE),
    "item-is-float": (7, "1::2.5::3::978300000", "item is '2.5'", WHOLE),
    "item-beyond-int64": (7, f"1::{2**63}::3::978300000", "item is '92", WHOLE),
    "user-of-30-digits": (7, f"{HUGE}::2::3::978300000", "user is '1000", WHOLE),
    "zero-stars": (7, "1::2::0::978300000", "rating is '0'", STARS),
    "six-stars": (7, "1::2::6::978300000", "rating is '6'", STARS),
    "stars-between": (7, "1::2::4.3::978300000", "rating is '4.3'", STARS),
    "stars-nan": (7, "1::2::nan::978300000", "rating is 'nan'", STARS),
    "stars-inf": (7, "1::2::inf::978300000", "rating is 'inf'", STARS),
    "stars-empty": (7, "1::2::::978300000", "rating is ''", STARS),
    "stars-text": (7, "1::2::good::978300000", "rating is 'good'", STARS),
    "time-negative": (7, "1::2::3::-5", "timestamp is '-5'", WHOLE),
    "time-is-text": (7, "1::2::3::2001-01-01", "timestamp is '2001-01-01'", WHOLE),
    "time-is-float": (7, "1::2::3::978300000.5", "timestamp is '978300000.5'", WHOLE),
    "single-colons": (7, "1:2:3:978300000", "1 fields", "4"),
    "single-colons-first": (1, "1:2:3:978300000", "1 fields", "4"),
    "a-colon-more": (7, "1::2::3::978:300000", "timestamp is '978:300000'", WHOLE),
    "a-single-colon": (7, "1::2:3::978300000", "3 fields", "4"),
    "seven-single-colon-fields": (7, "1:0:2:0:3:0:978300000", "1 fields", "4"),
    "stray-colon": (7, "1::2::3:::978300000", "timestamp is ':978300000'", WHOLE),
    "nul-byte": (7, b"1::2::3\x00::978300000", "rating is '3\\x00'", STARS),
    "nul-byte-in-id": (7, b"1\x002::2::3::978300000", "user is '1\\x002'", WHOLE),
    "binary": (7, bytes(range(128, 256)), "1 fields", "4"),
    "quote": (7, '"1::2::3::978300000', "user is '\"1'", WHOLE),
}


@pytest.mark.parametrize("case", BAD_RATINGS_1M)
def test_a_bad_rating_is_named_by_line(case, ml_1m):
    number, line, *parts = BAD_RATINGS_1M[case]
    replace_line(ml_1m / "ratings.dat", number, line)
    check_sentence(fault_of("ml-1m", ml_1m), f"{ml_1m / 'ratings.dat'}, line {number}:", *parts)


BAD_RATINGS_OTHER = {
    "100k-spaces": ("ml_100k", "u.data", 7, "1 2 3 978300000", "1 fields", "4"),
    "100k-spaces-first": ("ml_100k", "u.data", 1, "1 2 3 978300000", "1 fields", "4"),
    "100k-three-fields": ("ml_100k", "u.data", 7, "1\t2\t3", "3 fields", "4"),
    "100k-five-fields": ("ml_100k", "u.data", 7, "1\t2\t3\t978300000\t1", "5 fields", "4"),
    "100k-empty-fifth": ("ml_100k", "u.data", 7, "1\t2\t3\t978300000\t", "5 fields", "4"),
    "csv-three-fields-first": ("ml_csv", "ratings.csv", 2, "1,2,3", "3 fields", "4"),
    "csv-five-fields-first": ("ml_csv", "ratings.csv", 2, "1,2,3,9,9", "5 fields", "4"),
    "csv-five-fields": ("ml_csv", "ratings.csv", 7, "1,2,3,9,9", "5 fields", "4"),
    "csv-semicolons": ("ml_csv", "ratings.csv", 7, "1;2;3;9", "1 fields", "4"),
    "csv-decimal-comma": ("ml_csv", "ratings.csv", 7, "1,2,3,5,9", "5 fields", "4"),
    "csv-under-half-a-star": ("ml_csv", "ratings.csv", 7, "1,2,0,9", "rating is '0'", "0.5 to 5"),
    "csv-quarter-stars": ("ml_csv", "ratings.csv", 7, "1,2,3.25,9", "'3.25'", "halves"),
    "csv-exponent": ("ml_csv", "ratings.csv", 7, "1,2,3,15e-1", "timestamp is '15e-1'", WHOLE),
    # What a spreadsheet makes of a long id; beyond int64.
    "csv-item-huge": ("ml_csv", "ratings.csv", 7, "1,9.3e18,3,9", "item is '9.3e18'", WHOLE),
    "csv-header-names": ("ml_csv", "ratings.csv", 1, "user,movie,stars,when", "header", "rename"),
    "csv-header-order": (
        "ml_csv",
        "ratings.csv",
        1,
        "movieId,userId,rating,timestamp",
        "'userId,movieId,rating,timestamp'",
        "reorder",
    ),
    "csv-header-missing": ("ml_csv", "ratings.csv", 1, "1,2,3.5,9", "'1,2,3.5,9'", "header"),
}


@pytest.mark.parametrize("case", BAD_RATINGS_OTHER)
def test_a_bad_rating_in_other_layouts(case, request):
    fixture, file, number, line, *parts = BAD_RATINGS_OTHER[case]
    folder = request.getfixturevalue(fixture)
    replace_line(folder / file, number, line)
    check_sentence(fault_of(name_of(fixture), folder), f"{folder / file}, line {number}:", *parts)


def name_of(fixture):
    return {"ml_1m": "ml-1m", "ml_100k": "ml-100k", "ml_csv": "ml-latest-small"}[fixture]


BAD_USERS_AND_ITEMS = {
    "gender": ("ml_1m", "users.dat", 3, "3::X::25::4::1", "gender is 'X'", "M or F"),
    "age": ("ml_1m", "users.dat", 3, "3::M::24::4::1", "age is 24", "one of"),
    "age-text": ("ml_1m", "users.dat", 3, "3::M::old::4::1", "age is 'old'", WHOLE),
    "occupation": ("ml_1m", "users.dat", 3, "3::M::25::21::1", "occupation is 21", "0 to 20"),
    "occupation-word": ("ml_1m", "users.dat", 3, "3::M::25::poet::1", "is 'poet'", WHOLE),
    "user-twice": ("ml_1m", "users.dat", 3, "1::M::25::4::1", "user 1 comes twice", "keep one"),
    "user-id": ("ml_1m", "users.dat", 3, "x3::M::25::4::1", "user id is 'x3'", WHOLE),
    "user-column": ("ml_1m", "users.dat", 3, "3::M::25::4", "4 fields", "5"),
    "item-twice": ("ml_1m", "movies.dat", 3, "1::M (1931)::War", "film 1 comes twice", "keep one"),
    "item-id": ("ml_1m", "movies.dat", 3, "-3::M (1931)::War", "film id is '-3'", WHOLE),
    "item-column": ("ml_1m", "movies.dat", 3, "3::M (1931)", "2 fields", "3"),
    "item-title": ("ml_1m", "movies.dat", 3, "3::::War", "title"),
    "100k-gender": ("ml_100k", "u.user", 3, "3|25|m|student|1", "gender is 'm'", "M or F"),
    "100k-job": ("ml_100k", "u.user", 3, "3|25|M|astronaut|1", "is 'astronaut'", "student"),
    "100k-user-column": ("ml_100k", "u.user", 3, "3|25|M|student", "4 fields", "5"),
    "100k-flag": ("ml_100k", "u.item", 3, "3|M (1931)||||0|0|2|0|0|0", "flags", "0 or 1"),
    "100k-item-column": ("ml_100k", "u.item", 3, "3|M (1931)||||0|0|1|0|0", "10 fields", "11"),
    "100k-genre-number": ("ml_100k", "u.genre", 3, "Comedy|two", "genre number is 'two'", WHOLE),
    "100k-genre-skipped": ("ml_100k", "u.genre", 3, "Comedy|9", "genre number"),
    "100k-genre-twice": ("ml_100k", "u.genre", 3, "Comedy|1", "genre number"),
    "csv-item-comma": ("ml_csv", "movies.csv", 3, "3,Usual Suspects, The,War", "4 fields", "quote"),
    "csv-item-quote": ("ml_csv", "movies.csv", 3, '3,"M (1931),War', "2 fields", "3"),
    "csv-item-header": ("ml_csv", "movies.csv", 1, "id,name,genres", "movieId,title,genres"),
    "csv-item-no-header": ("ml_csv", "movies.csv", 1, "1,M (1931),War", "movieId,title,genres"),
    "csv-item-title": ("ml_csv", "movies.csv", 3, "2,,War", "title"),
    "csv-not-utf8": ("ml_csv", "movies.csv", 3, b"3,Am\xe9lie,War", "not utf-8", "save it as"),
    # Longer than Python's csv module reads: a stray quote in a file without line ends.
    "csv-endless-line": ("ml_csv", "movies.csv", 3, f'2,"{"M" * 200_000},War'),
}


@pytest.mark.parametrize("case", BAD_USERS_AND_ITEMS)
def test_a_bad_user_item_or_genre_is_named_by_line(case, request):
    fixture, file, number, line, *parts = BAD_USERS_AND_ITEMS[case]
    folder = request.getfixturevalue(fixture)
    replace_line(folder / file, number, line)
    check_sentence(fault_of(name_of(fixture), folder), f"{folder / file}, line {number}:", *parts)


@pytest.mark.parametrize("member", ["ml-100k.inter", "ml-100k.item", "ml-100k.user"])
def test_the_headers_of_recboles_copy_are_checked(member, tmp_path):
    # Skipped unread, a missing header would cost the first user or item of the file.
    for name, text in recbole_members().items():
        (tmp_path / name).write_text(text)
    assert len(load_ratings("ml-100k", tmp_path)) == 80
    lines = (tmp_path / member).read_text().split("\n")
    (tmp_path / member).write_text("\n".join(lines[1:]))
    check_sentence(fault_of("ml-100k", tmp_path), f"{tmp_path / member}, line 1:", "header")


FILES = [
    *(("ml_1m", name) for name in ("ratings.dat", "users.dat", "movies.dat")),
    *(("ml_100k", name) for name in ("u.data", "u.user", "u.item")),
    *(("ml_csv", name) for name in ("ratings.csv", "movies.csv")),
]


@pytest.mark.parametrize(("fixture", "file"), FILES)
def test_an_empty_file_is_named(fixture, file, request):
    folder = request.getfixturevalue(fixture)
    (folder / file).write_bytes(b"")
    check_sentence(fault_of(name_of(fixture), folder), str(folder / file), "empty", "fetch")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("file", ["ratings.csv", "movies.csv"])
def test_a_header_without_lines_is_an_empty_file(file, end, ml_csv):
    header = (ml_csv / file).read_text().split("\n")[0]
    (ml_csv / file).write_bytes(f"{header}{end}".encode())
    check_sentence(fault_of("ml-latest-small", ml_csv), str(ml_csv / file), "empty", "fetch")


@pytest.mark.parametrize(
    ("fixture", "file"), [f for f in FILES if f[1] != "users.dat" and "ratings" not in f[1]]
)
def test_a_missing_file_is_named(fixture, file, request):
    folder = request.getfixturevalue(fixture)
    (folder / file).unlink()
    # Without its ratings file a folder is of no layout; the sentence then lists those files.
    check_sentence(fault_of(name_of(fixture), folder), str(folder), file)


def test_csv_in_another_encoding_is_refused(ml_csv):
    path = ml_csv / "ratings.csv"
    path.write_text(path.read_text(), encoding="utf-16")
    check_sentence(fault_of("ml-latest-small", ml_csv), f"{path}, line 1:", "header")


@pytest.mark.parametrize("fixture", ["ml_1m", "ml_100k", "ml_csv"])
@pytest.mark.parametrize("form", ["crlf", "blank-last", "blank-within", "spaces-last", "no-end"])
def test_line_ends_and_blank_lines_do_not_matter(fixture, form, request):
    folder, name = request.getfixturevalue(fixture), name_of(fixture)
    before = load_ratings(name, folder)
    for path in folder.iterdir():
        content = path.read_bytes()
        middle = content.index(b"\n", len(content) // 2) + 1
        path.write_bytes(
            {
                "crlf": content.replace(b"\n", b"\r\n"),
                "blank-last": content + b"\n\n",
                "blank-within": content[:middle] + b"\n" + content[middle:],
                "spaces-last": content + b"   \n",
                "no-end": content.rstrip(b"\n"),
            }[form]
        )
    after = load_ratings(name, folder)
    for column in ("user", "item", "rating", "timestamp"):
        assert np.array_equal(getattr(before, column), getattr(after, column))
    assert after.titles == before.titles
    for key, vocabulary in before.vocabularies.items():
        assert np.array_equal(after.vocabularies[key].values, vocabulary.values)


def test_a_byte_order_mark_does_not_matter(ml_csv):
    for path in ml_csv.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    ratings = load_ratings("ml-latest-small", ml_csv)
    assert len(ratings) == 80 and ratings.unknown == {"user": 0, "item": 0}


def test_unknown_ids_and_repeats_are_counted_not_refused(ml_1m):
    user, item, _, _ = (ml_1m / "ratings.dat").read_text().split("\n")[0].split("::")
    with (ml_1m / "ratings.dat").open("a") as file:
        file.write(f"77::1::5::1\n1::777::5::2\n{user}::{item}::2::978999999\n")
    ratings = load_ratings("ml-1m", ml_1m)
    assert (len(ratings), ratings.repeated) == (82, 1)
    assert ratings.unknown == {"user": 1, "item": 1}
    assert ratings.user[-3] == ratings.item[-2] == 1 and ratings.rating[-1] == 2


def test_a_huge_unknown_id_costs_no_other_rating(ml_1m):
    # 2^62 is a valid id, but a pair's number, made of two ids, must not overflow: (1, 5) and
    # (5, 1) would meet, and one of them would count as a repeat of the other.
    (ml_1m / "ratings.dat").write_text(f"1::5::3::1\n5::1::4::2\n2::{2**62}::5::3\n")
    ratings = load_ratings("ml-1m", ml_1m)
    assert (len(ratings), ratings.repeated, ratings.unknown["item"]) == (3, 0, 1)


# ---- Archives, folders and the cache ----


def corrupt(archive, change):
    archive.write_bytes(change(archive.read_bytes()))


def set_in_headers(content, local_at, central_at, value):
    """Sets one byte of every member's two zip headers."""
    content = bytearray(content)
    for mark, at in ((b"PK\x03\x04", local_at), (b"PK\x01\x02", central_at)):
        for found in re.finditer(re.escape(mark), bytes(content)):
            content[found.start() + at] = value
    return bytes(content)


BAD_ARCHIVES = {
    "truncated": (lambda content: content[: len(content) // 2], "not a complete zip", "fetch"),
    "empty": (lambda content: b"", "not a complete zip", "fetch"),
    "a-web-page": (lambda content: b"<html>404</html>", "not a complete zip", "fetch"),
    "flipped-bytes": (lambda content: content.replace(b"::97830", b"::97831"), "damaged", "fetch"),
    "with-password": (lambda content: set_in_headers(content, 6, 8, 1), "password"),
    "odd-compression": (lambda content: set_in_headers(content, 8, 10, 97), "compress"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_bad_archive_is_named(case, ml_1m, tmp_path):
    change, *parts = BAD_ARCHIVES[case]
    archive = zip_of(ml_1m, tmp_path / "ml-1m.zip")
    corrupt(archive, change)
    check_sentence(fault_of("ml-1m", archive), str(archive), *parts)


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as file:
        file.writestr("notes.txt", "hello")
    check_sentence(
        fault_of("ml-1m", tmp_path / "notes.zip"), str(tmp_path / "notes.zip"), "ratings.dat"
    )


@pytest.mark.parametrize(
    ("fixture", "asked", "held"),
    [
        ("ml_1m", "ml-100k", "ml-1m"),
        ("ml_csv", "ml-1m", "ml-latest"),
        ("ml_100k", "ml-10m", "100k"),
    ],
)
def test_a_folder_of_another_layout_is_refused(fixture, asked, held, request):
    folder = request.getfixturevalue(fixture)
    check_sentence(fault_of(asked, folder), str(folder), held, f"not of {asked}", "--dataset")


def test_a_missing_or_empty_folder_is_named(tmp_path):
    check_sentence(fault_of("ml-1m", tmp_path / "no"), str(tmp_path / "no"), "exist", "--data-dir")
    (tmp_path / "empty").mkdir()
    check_sentence(fault_of("ml-1m", tmp_path / "empty"), str(tmp_path / "empty"), "ratings.dat")


def test_a_folder_of_two_data_sets_is_refused(ml_csv):
    # Both hold ratings.csv; one would win by its place in the directory.
    shutil.copytree(ml_csv, ml_csv.parent / "ml-25m")
    check_sentence(fault_of("ml-25m", ml_csv.parent), str(ml_csv.parent), ".csv", "twice")


def test_a_file_without_the_right_to_read_is_named(ml_1m, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Not by chmod: the tests may run as root, whom no mode stops.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(sources, "_describe", lambda *_: None)
    check_sentence(fault_of("ml-1m", ml_1m), str(ml_1m / "users.dat"), "may not be read", "chmod")


def test_a_cached_archive_with_another_checksum_is_refused(ml_1m, cache):
    archive = zip_of(ml_1m, cache / "ml-1m.zip")
    check_sentence(fault_of("ml-1m", None), str(archive), "checksum", "delete")


def test_a_cached_archive_cut_short_is_to_be_deleted(ml_csv, cache):
    archive = zip_of(ml_csv, cache / "ml-latest-small.zip")
    corrupt(archive, lambda content: content[:-30])
    check_sentence(fault_of("ml-latest-small", None), str(archive), "not a complete", "fetch")


@pytest.mark.parametrize("name", ["ml-1m", "ml-100k", "ml-latest"])
def test_without_network_and_cache_the_fix_is_data_dir(name, cache):
    check_sentence(fault_of(name, None), f"{name}.zip", "reached", "--data-dir")
    assert not cache.exists() or list(cache.iterdir()) == []


def test_another_checksum_on_the_host_is_refused(cache, monkeypatch):
    def retrieve(*args, **kwargs):
        raise ValueError("MD5 hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    check_sentence(fault_of("ml-1m", None), "ml-1m.zip", "checksum", "--data-dir")


def test_a_cache_that_is_a_file_is_named(cache, monkeypatch):
    cache.write_text("")

    def retrieve(address, known_hash, fname, path, downloader):
        Path(path).mkdir(parents=True, exist_ok=True)  # as pooch does before it fetches

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    check_sentence(fault_of("ml-1m", None), str(cache))


@pytest.mark.parametrize("fault", ["changed", "lacking", "truncated"])
def test_a_bad_wheel_in_the_cache_is_refused(fault, cache):
    cache.mkdir()
    wheel = cache / sources._WHEEL
    with zipfile.ZipFile(wheel, "w") as file:
        for name, text in recbole_members().items():
            if (fault, name) != ("lacking", "ml-100k.inter"):
                file.writestr(f"recbole/{name}", text)
    if fault == "truncated":
        corrupt(wheel, lambda content: content[:-30])
    parts = {"changed": "wrong checksum", "lacking": "lacks", "truncated": "not a complete"}
    check_sentence(fault_of("ml-100k", None), str(wheel), parts[fault])


# ---- Settings ----

BAD_SETTINGS = {
    "unknown-flag": (["--colour", "red"], "--colour", "--help"),
    "misspelt-flag": (["--learning-rte", "0.1"], "--learning-rte", "--learning-rate"),
    "shortened-flag": (["--epoch", "3"], "--epoch", "--epochs"),
    "stray-word": (["fast"], "fast", "--help"),
    "flag-without-value": (["--epochs"], "--epochs", "--help"),
    "dataset": (["--dataset", "netflix"], "netflix", "ml-100k"),
    "split": (["--split", "leave-two-out"], "leave-two-out", "leave-one-out"),
    "pooling": (["--title-pooling", "mean"], "mean", "max"),
    "epochs-text": (["--epochs", "two"], "--epochs", "two"),
    "epochs-float": (["--epochs", "1.5"], "--epochs", "1.5"),
    "epochs-negative": (["--epochs", "-1"], "--epochs", "1 or more", "-1"),
    "epochs-zero": (["--epochs", "0"], "--epochs", "1 or more"),
    "epochs-huge": (["--epochs", HUGE], "--epochs", "2^31"),
    "batch-zero": (["--batch-size", "0"], "--batch-size", "1 or more"),
    "chunk-zero": (["--chunk-steps", "0"], "--chunk-steps", "1 or more"),
    "width-zero": (["--id-width", "0"], "--id-width", "1 or more"),
    "tower-negative": (["--tower-width", "-4"], "--tower-width", "1 or more"),
    "seed-negative": (["--seed", "-1"], "--seed", "0 or more"),
    "split-seed-negative": (["--split-seed", "-1"], "--split-seed", "0 or more"),
    "rate-zero": (["--learning-rate", "0"], "--learning-rate", "above 0"),
    "rate-nan": (["--learning-rate", "nan"], "--learning-rate", "nan"),
    "rate-inf": (["--learning-rate", "inf"], "--learning-rate", "inf"),
    "rate-negative": (["--learning-rate", "-1"], "--learning-rate", "above 0"),
    # Infinite in float32, in which all training is.
    "rate-beyond-float32": (["--learning-rate", "1e39"], "--learning-rate", "1e+39"),
    "rate-text": (["--learning-rate", "fast"], "--learning-rate", "fast"),
    "test-zero": (["--test-fraction", "0"], "between 0 and 1", "test 0"),
    "test-over-one": (["--test-fraction", "1.5"], "between 0 and 1", "test 1.5"),
    "test-nan": (["--test-fraction", "nan"], "between 0 and 1", "test nan"),
    "valid-one": (["--valid-fraction", "1"], "between 0 and 1", "validation 1"),
    "valid-negative": (["--valid-fraction", "-0.1"], "between 0 and 1", "validation -0.1"),
    "nothing-to-train": (
        ["--split", "global-time", "--test-fraction", "0.99999"],
        "train 0",
        "use more ratings",
    ),
    "patience-unwatched": (["--patience", "2", "--valid-fraction", "0"], "--valid-fraction"),
    "patience-negative": (["--patience", "-1"], "--patience", "0 or more"),
    "data-dir-synthetic": (["--data-dir", "/tmp"], "--data-dir", "leave it out"),
    "data-dir-missing": (
        ["--dataset", "ml-1m", "--data-dir", "/no/such"],
        "/no/such",
        "--data-dir",
    ),
    "no-users": (["--synthetic.users", "0"], "positive", "users=0"),
    "no-items": (["--synthetic.items", "0"], "positive", "items=0"),
    "no-ratings": (["--synthetic.ratings", "0"], "positive", "ratings=0"),
    "one-rating": (["--synthetic.ratings", "1"], "1 ratings", "use more ratings"),
    "noise-negative": (["--synthetic.noise", "-1"], "noise=-1"),
    "noise-nan": (["--synthetic.noise", "nan"], "noise=nan"),
    "noise-inf": (["--synthetic.noise", "inf"], "noise=inf"),
    "users-huge": (["--synthetic.users", HUGE], "users=1000"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_bad_setting_is_refused_before_anything_is_made(case, tmp_path, monkeypatch, capsys):
    def too_late(*args):
        raise AssertionError("the run began")

    monkeypatch.setattr(fusion, "open_run", too_late)
    flags, *parts = BAD_SETTINGS[case]
    said, out = refusal(
        lambda: fusion.main([*TINY, "--run-dir", str(tmp_path / "run"), *flags]), capsys
    )
    check_sentence(said, *parts)
    assert out == "" and not (tmp_path / "run").exists()


BAD_COMMANDS = {
    "nothing": ([], "train, predict, recommend"),
    "misspelt-command": (["trian"], "trian", "train, predict, recommend"),
    "resume-where": ([*TINY, "--resume"], "--resume", "--run-dir"),
    "predict-where": (["predict"], "--run-dir"),
    "predict-no-run": (["predict", "--run-dir", "/no/run"], "/no/run", "is the run finished"),
    "recommend-no-run": (["recommend", "--run-dir", "/no/run"], "/no/run", "is the run finished"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_a_bad_command_is_refused(case, capsys):
    arguments, *parts = BAD_COMMANDS[case]
    said, out = refusal(lambda: fusion.main(arguments), capsys)
    check_sentence(said, *parts)
    assert out == ""


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--dataset", "netflix"], "ml-100k"),
        (["--sed", "1"], "--seed"),
        (["--dataset", "synthetic", "--seed", "-1"], "seed"),
        (["--dataset", "ml-1m", "--data-dir", "/no/such"], "/no/such"),
    ],
    ids=["dataset", "misspelt-flag", "seed-negative", "data-dir-missing"],
)
def test_the_data_command_refuses_alike(flags, part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jrec.data", *flags])
    said, out = refusal(show_data.main, capsys)
    check_sentence(said, part)
    assert out == ""


# ---- Run directories ----


class BeforeTraining(Exception):
    pass


def stop_before_training(*args):
    raise BeforeTraining


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of `TINY`: all that resume and predict read, with a model of one array.

    Training the real one would take longer than all tests of this file.
    """
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BeforeTraining):
        patch.setattr(fusion, "show_ratings", stop_before_training)
        fusion.main([*TINY, "--run-dir", str(folder)])
    for name in ("last", "best"):
        kept = Checkpoints(folder / name, keep=1)
        kept.save(state_of(2), {"epoch": 2})
        kept.close()
    ratings = synthetic_ratings(SyntheticSize(30, 20, 600), 0)
    export_rating_model(
        folder / "export",
        lambda arrays, user, item: arrays["bias"][item] + 0.0 * user,
        {"bias": jnp.zeros(ratings.vocabularies["item"].rows)},
        ratings,
        Split(np.arange(len(ratings)), *[np.zeros(0, np.int64)] * 2),
    )
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to break."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def processes(finished, tmp_path_factory):
    """Real commands in processes of their own, side by side: name -> (code, stderr, run)."""
    folder = tmp_path_factory.mktemp("runs")
    data = folder / "ml-latest-small"
    data.mkdir()
    (data / "movies.csv").write_text("movieId,title,genres\n1,M (1931),War\n")
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,5\n1,1,4.3,6\n")
    shutil.copytree(finished, folder / "damaged")
    damage(folder / "damaged" / "last" / "2", "cut")
    commands = {
        "nan": [*TINY, "--learning-rate", "1e30", "--batch-size", "64"],
        "damaged": [*TINY, "--resume"],
        "bad-data": ["train", "--dataset", "ml-latest-small", "--data-dir", str(data)],
    }
    # Nothing but the error may be on stderr: no word of XLA's about what another process compiled.
    settings = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "experiments.fusion", *command, "--run-dir", str(folder / name)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env=settings,
        )
        for name, command in commands.items()
    }
    said = {name: process.communicate(timeout=120)[1] for name, process in started.items()}
    return {name: (started[name].returncode, said[name], folder / name) for name in commands}


def said_by(processes, name):
    code, said, folder = processes[name]
    assert code == 1 and said.startswith("error: ") and said.count("\n") == 1, said
    return said.removeprefix("error: ").rstrip("\n"), folder


@pytest.mark.slow
def test_a_process_stops_at_a_bad_line(processes):
    said, folder = said_by(processes, "bad-data")
    check_sentence(said, "ratings.csv, line 3:", "'4.3'", "halves")
    assert not folder.exists()


@pytest.mark.slow
def test_a_process_stops_when_the_loss_is_not_finite(processes):
    said, folder = said_by(processes, "nan")
    check_sentence(said, "not finite", "step 2", "--learning-rate")
    assert not (folder / "export").exists() and not (folder / "results.json").exists()
    assert (folder / "settings.json").exists() and list((folder / "last").iterdir()) == []


def resume(folder, *flags):
    return lambda: fusion.main([*TINY, "--resume", "--run-dir", str(folder), *flags])


def test_a_used_run_directory_is_left_alone(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said, _ = refusal(lambda: fusion.main([*TINY, "--run-dir", str(run)]), capsys)
    check_sentence(said, str(run), "not empty", "--resume")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_run_directory_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "run").write_text("mine")
    said, _ = refusal(lambda: fusion.main([*TINY, "--run-dir", str(tmp_path / "run")]), capsys)
    check_sentence(said, str(tmp_path / "run"), "is a file", "--run-dir")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
def test_resume_needs_a_run(there, tmp_path, capsys):
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    said, _ = refusal(resume(folder), capsys)
    check_sentence(said, str(folder), "no run to resume", "drop --resume")
    assert folder.exists() == there and not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--learning-rate", "0.1"], ("learning_rate", "0.2", "0.1")),
        (["--split-seed", "1"], ("split",)),
        (["--synthetic.ratings", "599"], ("ratings", "599")),
        (["--epochs", "2"], ("epochs",)),
    ],
    ids=["rate", "split-seed", "data", "epochs"],
)
def test_resume_refuses_other_settings(flags, parts, run, capsys):
    said, _ = refusal(resume(run, *flags), capsys)
    check_sentence(said, str(run / "settings.json"), "same settings", *parts)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"epochs": 1', b"\xff\xfe{}", b"[1]", b"null"],
    ids=["empty", "cut", "not-utf8", "list", "null"],
)
def test_resume_refuses_a_damaged_settings_file(content, run, capsys):
    (run / "settings.json").write_bytes(content)
    said, _ = refusal(resume(run), capsys)
    check_sentence(said, str(run / "settings.json"), "restore or delete")
    assert (run / "settings.json").read_bytes() == content


def state_of(value, width=3):
    return TrainState(jnp.int32(value), jax.random.key(0), {"w": jnp.full(width, float(value))}, ())


def damage(step_folder, how):
    """Breaks one saved step: data cut short, data gone, record gone, or record not JSON."""
    if how == "cut":
        for path in step_folder.glob("state/**/d/*"):
            path.write_bytes(path.read_bytes()[:20])
    elif how == "state-gone":
        shutil.rmtree(step_folder / "state")
    elif how == "record-gone":
        shutil.rmtree(step_folder / "record")
    else:
        (step_folder / "record" / "metadata").write_text("{no")


@pytest.mark.parametrize("how", ["cut", "state-gone", "record-gone", "record-cut"])
def test_a_damaged_checkpoint_is_named(how, tmp_path):
    kept = Checkpoints(tmp_path / "last", keep=2)
    for step in (1, 2):
        kept.save(state_of(step), {"epoch": step})
    kept.close()
    damage(tmp_path / "last" / "2", how)
    with pytest.raises(InputError) as fault:
        Checkpoints(tmp_path / "last", keep=2).restore(state_of(0))
    check_sentence(str(fault.value), str(tmp_path / "last" / "2"), "damaged", "delete")
    # Doing as the sentence says helps.
    shutil.rmtree(tmp_path / "last" / "2")
    state, record = Checkpoints(tmp_path / "last", keep=2).restore(state_of(0))
    assert (int(state.step), record) == (1, {"epoch": 1})


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    kept = Checkpoints(tmp_path / "last", keep=2)
    kept.save(state_of(1), {"epoch": 1})
    with pytest.raises(InputError) as fault:
        kept.restore(state_of(0, width=4))
    check_sentence(str(fault.value), str(tmp_path / "last" / "1"), "another model")
    with pytest.raises(InputError, match="no complete checkpoint"):
        Checkpoints(tmp_path / "none", keep=2).restore(state_of(0))


@pytest.mark.slow
def test_a_process_names_a_damaged_checkpoint_on_resume(processes, finished):
    said, folder = said_by(processes, "damaged")
    check_sentence(said, str(folder / "last" / "2"), "damaged", "delete")
    for path in (finished / "export").iterdir():
        assert (folder / "export" / path.name).read_bytes() == path.read_bytes()


def test_a_metrics_line_that_a_crash_garbled_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xe9\xff\x00\n{"step')
    assert read_metrics(tmp_path) == [{"step": 1}]


@pytest.mark.parametrize("content", [b"[1]\n", b'{"epoch": 1}\n', b"5\n"])
def test_a_metrics_file_of_something_else_is_named(content, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + content)
    with pytest.raises(InputError) as fault:
        MetricsLog(tmp_path, 1)
    check_sentence(str(fault.value), str(tmp_path / "metrics.jsonl"))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blank(path):
    """Overwrites the middle half with zeros; the length stays."""
    content = path.read_bytes()
    quarter = len(content) // 4
    path.write_bytes(content[:quarter] + bytes(2 * quarter) + content[3 * quarter :])


def empty(path):
    path.write_bytes(b"")


def no_arrays(path):
    np.savez(path, other=np.zeros(3))


def no_archive(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


EXPORT = ("predict.jaxexport", "arrays.npz", "catalogue.npz")
DAMAGES = [(name, how) for name in EXPORT for how in (cut, blank, empty)]
DAMAGES += [(name, how) for name in EXPORT[1:] for how in (no_arrays, no_archive)]


DAMAGES = [  # one way for each file in `make test`
    pytest.param(name, how, marks=[] if how is cut else pytest.mark.slow) for name, how in DAMAGES
]


@pytest.mark.parametrize(("name", "how"), DAMAGES, ids=lambda x: getattr(x, "__name__", x))
def test_predict_names_the_damaged_file_of_an_export(name, how, run, capsys):
    how(run / "export" / name)
    said, out = refusal(lambda: fusion.main(["predict", "--run-dir", str(run)]), capsys)
    gc.collect()  # so that a file left open is this test's fault and not a later one's
    check_sentence(said, str(run / "export" / name), "damaged", "train again")
    assert out == ""


@pytest.mark.parametrize("name", EXPORT)
def test_predict_names_a_missing_file_of_an_export(name, run, capsys):
    (run / "export" / name).unlink()
    said, _ = refusal(lambda: fusion.main(["predict", "--run-dir", str(run)]), capsys)
    check_sentence(said, str(run / "export" / name), "is the run finished")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["recommend", "--count", "0"], ("--count", "1 or more")),
        (["predict", "--user", HUGE], ("user", HUGE)),
        (["predict", "--item", HUGE], ("item", HUGE)),
        (["predict", "--user", "me"], ("--user", "'me'", "whole numbers")),
    ],
    ids=["count-zero", "user-huge", "item-huge", "user-is-text"],
)
def test_a_number_that_makes_no_sense_is_refused(arguments, parts, run, capsys):
    said, _ = refusal(lambda: fusion.main([*arguments, "--run-dir", str(run)]), capsys)
    check_sentence(said, *parts)


# ---- Training that goes wrong, and a full disk ----

NAN = float("nan")


def train_two_epochs(folder, parameters, losses, watch, evaluate):
    """`fit` where epoch k's one step leaves `parameters[k]` and reports `losses[k]`."""

    def chunk(state, data, order, first, steps):
        k = int(state.step)
        state = state._replace(step=state.step + 1, params={"w": jnp.full(3, parameters[k])})
        bad_step = jnp.int32(-1 if math.isfinite(losses[k]) else k + 1)
        return state, {"loss_sum": jnp.float32(losses[k]), "count": jnp.float32(1)}, bad_step

    last, best = (Checkpoints(folder / name, keep=2) for name in ("last", "best"))
    schedule = Schedule(epochs=2, steps_per_epoch=1, chunk_steps=1, watch=watch)
    list(fit(state_of(0), None, chunk, lambda epoch: None, evaluate, schedule, last, best))


@pytest.mark.parametrize(
    ("losses", "watch", "parts"),
    [
        ([1.0, NAN], "rmse", ("loss", "step 2", "epoch 2", "--learning-rate")),
        ([1.0, 1.0], "rmse", ("rmse", "step 2", "epoch 2", "--learning-rate")),
        # A loss is that of the parameters before its step: what an epoch's last step breaks shows
        # in no loss, and without validation ratings in no watched metric.
        ([1.0, 1.0], None, ("not finite", "step 2", "epoch 2", "--learning-rate")),
    ],
    ids=["loss", "last-step", "last-step-unwatched"],
)
def test_parameters_that_are_not_finite_are_never_kept(losses, watch, parts, tmp_path):
    def evaluate(state):
        return {"rmse": float(state.params["w"][0])}

    with pytest.raises(InputError) as fault:
        train_two_epochs(tmp_path, [2.0, NAN], losses, watch, evaluate)
    check_sentence(str(fault.value), *parts)
    for name in ("last", "best"):
        state, record = Checkpoints(tmp_path / name, keep=2).restore(state_of(0))
        assert int(state.step) == 1 and state.params["w"].tolist() == [2, 2, 2]
        assert record["epoch"] == 2


def test_where_no_checkpoint_was_saved_none_is_promised(tmp_path):
    with pytest.raises(InputError) as fault:
        train_two_epochs(tmp_path, [NAN, NAN], [NAN, NAN], "rmse", lambda state: {"rmse": 1.0})
    check_sentence(str(fault.value), "step 1", "--learning-rate")
    assert Checkpoints(tmp_path / "last", keep=2).latest_step() is None
    assert "is kept" not in str(fault.value)


def full_disk(file, *args, **kwargs):
    """Writes some bytes and fails as the kernel does: the error knows no file name."""
    with file.open("wb") as half:
        half.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_json(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(Path, "write_text", full_disk)
    said, _ = refusal(lambda: write_json(path, {"new": 2}), capsys)
    check_sentence(said, "No space left", str(path))
    assert json.loads(path.read_text()) == {"old": 1} and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_half_export(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(np, "savez", full_disk)
    arrays, row = {"w": jnp.ones(3)}, jax.ShapeDtypeStruct((), jnp.int32)
    said, _ = refusal(
        lambda: save_export(tmp_path / "export", lambda held, k: held["w"][k], arrays, row), capsys
    )
    check_sentence(said, "No space left", str(tmp_path / "export"))
    assert list((tmp_path / "export").iterdir()) == []


def test_a_full_disk_leaves_the_old_export_whole(tmp_path, monkeypatch, capsys):
    folder, row = tmp_path / "export", jax.ShapeDtypeStruct((), jnp.int32)
    save_export(folder, lambda held, k: held["w"][k], {"w": jnp.ones(3)}, row)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    # Other arrays with another program: the old program must not be left with the new arrays.
    refusal(
        lambda: save_export(folder, lambda held, k: held["v"][k], {"v": jnp.ones(4)}, row), capsys
    )
    assert float(load_export(folder)(jnp.int32(0))) == 1


def test_a_full_disk_at_a_checkpoint_is_one_sentence(tmp_path, monkeypatch, capsys, caplog):
    kept = Checkpoints(tmp_path / "last", keep=2)
    kept.save(state_of(1), {"epoch": 1})

    def save(*args, **kwargs):
        # What TensorStore makes of it: a ValueError, not an OSError.
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [OS error 28]")

    monkeypatch.setattr(kept._manager, "save", save)
    said, _ = refusal(lambda: kept.save(state_of(2), {"epoch": 2}), capsys)
    check_sentence(said, str(tmp_path / "last"), "space")
    assert Checkpoints(tmp_path / "last", keep=2).latest_step() == 1

    # Other writes of the same checkpoint failed, too, and nobody asks for their errors.
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(ValueError("No space left on device"))
    gc.collect()
    loop.close()
    assert caplog.text == ""


def test_a_finished_run_loads(run):
    # What the tests above break is whole before.
    assert len(load_rating_model(run / "export").titles) == 22


def test_no_network_was_needed():
    with pytest.raises(requests.ConnectionError):
        pooch.retrieve("https://example.org")
