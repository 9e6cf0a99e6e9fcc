"""Every reader of a text that a user hands us leaves a byte-order mark at its start off."""

import hashlib

import numpy as np
import pytest

from jrec.data.click_lines import read_log_lines
from jrec.data.click_pairs import read_pairs
from jrec.data.clicks_csv import read_clicks_csv
from jrec.data.netflix_files import find_raw, read_raw
from jrec.data.netflix_lines import parse_lines, parse_titles
from jrec.data.own_csv import CsvClicks
from jrec.data.sources import load_ratings
from jrec.data.tables import BYTE_ORDER_MARK
from jrec.retrieval.vector_files import read_text_vectors
from jrec.serving.profiles import read_profile


def with_marks(folder):
    """Puts a mark at the start of every file of a folder."""
    for path in folder.iterdir():
        path.write_bytes(BYTE_ORDER_MARK + path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("layout", "name"),
    [("ml_1m", "ml-1m"), ("ml_100k", "ml-100k"), ("ml_csv", "ml-latest-small")],
)
def test_movielens(layout, name, request):
    folder = request.getfixturevalue(layout)
    plain, marked = load_ratings(name, folder), load_ratings(name, with_marks(folder))
    for column in ("user", "item", "rating", "timestamp"):
        np.testing.assert_array_equal(getattr(plain, column), getattr(marked, column))
    assert plain.titles == marked.titles
    assert plain.source.checksum != marked.source.checksum  # of the bytes that stand there


def netflix(path):
    pieces = [part for part in read_raw(find_raw(path), lambda n: None, hashlib.sha256())]
    return parse_lines(pieces).user.tolist()


READERS = {
    "profile": ("p1 5\np2 3\n", lambda path: read_profile(path)),
    "pairs": ("1 7\n1 8\n1 9\n", lambda path: read_pairs("ml-1m-sas", path).item.tolist()),
    "odd pairs": ("1\t7\n1 8\n1 9\n", lambda path: read_pairs("ml-1m-sas", path).item.tolist()),
    "vectors": ("0.5,1\n2,3\n", lambda path: read_text_vectors(path).tolist()),
    "netflix": ("1:\n7,3,2005-01-01\n8,4,2005-01-02\n", netflix),
    "titles": ("1,1990,M\n2,NULL,N\n", lambda path: parse_titles("", path.read_bytes())),
    "csv": (
        "user,item\na,b\na,c\n",
        lambda path: read_clicks_csv(path, CsvClicks()).vocabularies["item"].values.tolist(),
    ),
    "csv without a header": (
        "u,b\na,c\n",
        lambda path: (
            read_clicks_csv(path, CsvClicks(user="1", item="2", header=False))
            .vocabularies["user"]
            .values.tolist()
        ),
    ),
    "click log": (
        "u1\tp\tc\tv:k:t\tf\n",
        lambda path: read_log_lines(path).profile["user"].names.tolist(),
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_mark_is_left_off(kind, tmp_path):
    text, read = READERS[kind]
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_text(text)
    marked.write_bytes(BYTE_ORDER_MARK + text.encode())
    assert read(marked) == read(plain) and len(read(plain)) > 0
