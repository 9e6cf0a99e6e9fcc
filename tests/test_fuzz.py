"""Every reader against changed bytes: one sentence or the right answer, never a traceback, never another answer.

A few inputs each in `make test`; JREC_FUZZ=1000 tries a thousand each, and JREC_FUZZ_COUNTS=FILE writes how
many were read and how many refused.
"""

import csv
import functools
import io
import json
import os
import re
import tarfile
import warnings
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jrec.data.click_log import load_clicks, prepare_click_log, read_click_log
from jrec.data.click_sources import load_clicks_dataset
from jrec.data.kuairand import LOG
from jrec.data.kuairand_tables import USERS, VIDEOS
from jrec.data.movielens import LAYOUTS
from jrec.data.netflix_files import find_raw
from jrec.data.netflix_table import read_table
from jrec.data.own_csv import CsvRatings
from jrec.data.rating_lines import read_ratings
from jrec.data.rating_parts import load_rating_parts, rating_parts, save_rating_parts
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.data.tables import Files
from jrec.errors import InputError
from jrec.files import read_json
from jrec.report import read_metrics
from jrec.retrieval.ann import build_index
from jrec.retrieval.ann_files import index_fingerprint, load_index, save_index
from jrec.retrieval.list_files import Lists, read_lists, write_lists
from jrec.retrieval.vector_files import (
    load_vectors,
    read_text_vectors,
    save_vectors,
    write_text_vectors,
)
from jrec.serving.export import load_export, save_export
from jrec.serving.profiles import read_profile
from jrec.train.checkpoints import Checkpoints
from jrec.train.step import TrainState
from tests.conftest import toy_ratings
from tests.test_click_sources import LOG_HEADER, ROWS, USER_HEADER, VIDEO_HEADER

ASKED = int(os.environ.get("JREC_FUZZ", "0"))
COUNTS: dict[str, Counter] = defaultdict(Counter)
# Few in `make test`, where each folder reader is slow.
fuzzed = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def some(few):
    return fuzzed(max_examples=ASKED or few)


TOKENS = [
    "\n",
    "\r\n",
    ",",
    "::",
    "\t",
    '"',
    "'",
    "\0",
    "-1",
    "+1",
    "1e9",
    "nan",
    "inf",
    "9" * 20,
    "9" * 5000,
]
TOKENS += [
    " ",
    "_",
    ":",
    ";",
    "é",
    "\u00a0",
    "\ufeff",
    "{",
    "[" * 3000,
    "null",
    "0x1",
    "1_0",
    "\u0663",
    "\x1c",
    "NULL",
]
WORDS = [token.encode() for token in TOKENS] + [
    b"\xff",
    b"\xff\xfe",
    b"\x1f\x8b",
    b"PK\x03\x04",
    bytes(64),
]
EDIT = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "bit", "cut", "double"]),
    st.floats(0, 1, allow_nan=False),
    st.one_of(st.sampled_from(WORDS), st.binary(max_size=6)),
    st.integers(0, 40),
)
EDITS = st.lists(EDIT, min_size=1, max_size=4)


def changed(content, edits):
    """The bytes after some edits."""
    content = bytearray(content)
    for kind, where, word, span in edits:
        at = int(where * len(content))
        if kind == "insert":
            content[at:at] = word
        elif kind == "replace":
            content[at : at + max(span, 1)] = word
        elif kind == "delete":
            del content[at : at + span]
        elif kind == "bit" and at < len(content):
            content[at] ^= 1 << span % 8
        elif kind == "cut":
            del content[at:]
        elif kind == "double":
            content[at:at] = content[at : at + span]
    return bytes(content)


REFUSED = object()


def answer(name, read):
    """What a reader gives, or REFUSED; anything but a sentence is a failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value = read()
    except InputError as refusal:
        said = str(refusal)
        assert "\n" not in said and said.endswith((".", "?")) and len(said) < 2000, said
        COUNTS[name]["refused"] += 1
        return REFUSED
    COUNTS[name]["read"] += 1
    return value


@pytest.fixture(scope="module", autouse=True)
def report_counts():
    yield
    if path := os.environ.get("JREC_FUZZ_COUNTS"):
        Path(path).write_text(json.dumps(COUNTS, indent=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# ---- Text of ratings and clicks: what is accepted must be what the lines say ----

NUMBER = re.compile(r'[\s"]*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[\s"]*')


def plain_rows(content, separator, encoding, header):
    """The rows that a plain reading of the lines finds; None where a line is no row."""
    rows = []
    for number, line in enumerate(content.split(b"\n")):
        text = line.decode(encoding, "replace").rstrip("\r")
        if not text.strip() or (header and number == 0):
            continue
        fields = text.split(separator)
        if len(fields) != 4 or not all(NUMBER.fullmatch(field) for field in fields):
            return None
        user, item, stars, time = (field.strip().strip('"').strip() for field in fields)
        rows.append((int(user), int(item), np.float32(float(stars)), int(time)))
    return rows


LINES = {
    "1m": "\n".join("::".join(map(str, row)) for row in toy_ratings(count=12)).encode(),
    "100k": "\n".join("\t".join(map(str, row)) for row in toy_ratings(count=12)).encode(),
    "csv": "\n".join(
        ["userId,movieId,rating,timestamp"]
        + [f"{u},{f},{s - 0.5},{t}" for u, f, s, t in toy_ratings(count=12)]
    ).encode(),
}


@pytest.mark.parametrize("layout", LINES)
@some(60)
@given(edits=EDITS)
def test_rating_lines(layout, folder, edits):
    name, columns = LAYOUTS[layout]
    content = changed(LINES[layout], edits)
    path = folder / f"ratings-{layout}"
    path.mkdir(exist_ok=True)
    (path / name).write_bytes(content)
    found = answer(f"ratings {layout}", lambda: read_ratings(Files.at(path), name, columns))
    if found is not REFUSED:
        rows = plain_rows(content, columns.separator, "latin-1", columns.header is not None)
        assert rows is not None
        kept = [found[key].tolist() for key in ("user", "item", "rating", "timestamp")]
        assert list(zip(*kept, strict=True)) == [(u, f, float(s), t) for u, f, s, t in rows]


@pytest.mark.parametrize("fixture", ["ml_1m", "ml_100k", "ml_csv"])
@some(30)
@given(edits=EDITS, which=st.integers(0, 9))
def test_tables_of_users_items_and_genres(fixture, request, edits, which):
    path = request.getfixturevalue(fixture)
    name = {"ml_1m": "ml-1m", "ml_100k": "ml-100k", "ml_csv": "ml-latest-small"}[fixture]
    files = sorted(p for p in path.iterdir() if "rating" not in p.name and p.name != "u.data")
    file = files[which % len(files)]
    whole = file.read_bytes()
    try:
        file.write_bytes(changed(whole, edits))
        ratings = answer(f"tables {name}", lambda: load_ratings(name, path))
        if ratings is not REFUSED and file.name in ("users.dat", "u.user"):
            lines = [line for line in file.read_bytes().split(b"\n") if line.strip()]
            assert len(ratings.vocabularies["user"].values) == len(lines)
    finally:
        file.write_bytes(whole)


ID = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
ID = ID.map(lambda text: text.strip(" \t")).filter(bool).filter(lambda text: text[0] != "\ufeff")
STARS = st.floats(-1000, 1000, width=32)


@some(60)
@given(
    rows=st.lists(st.tuples(ID, ID, STARS, st.integers(0, 10**10)), min_size=2, max_size=20),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_csv_of_any_ids_comes_back(folder, rows, delimiter, end):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("rating", "item", "user", "when"), *((r, i, u, t) for u, i, r, t in rows)])
    path = folder / "own.csv"
    path.write_bytes(out.getvalue().encode())
    columns = CsvRatings(time="when", delimiter=delimiter, low=-1000, high=1000)
    ratings = answer("own csv, written", lambda: load_ratings("csv", path, csv=columns))
    assert ratings is not REFUSED
    latest = {}
    for user, item, stars, time in rows:
        if (user, item) not in latest or time >= latest[user, item][1]:
            latest[user, item] = (float(np.float32(stars)), time)
    decoded = (ratings.vocabularies[k].decode(getattr(ratings, k)) for k in ("user", "item"))
    pairs = zip(*(part.tolist() for part in decoded), strict=True)
    values = zip(ratings.rating.tolist(), ratings.timestamp.tolist(), strict=True)
    assert dict(zip(pairs, values, strict=True)) == latest


OWN = b"user,item,rating,t\n" + b"".join(
    f'"u {k % 5}",i{k},{k % 7}.5,{1700000000 + k}\n'.encode() for k in range(12)
)


@some(60)
@given(edits=EDITS)
def test_a_changed_csv(folder, edits):
    content = changed(OWN, edits)
    path = folder / "changed.csv"
    path.write_bytes(content)
    columns = CsvRatings(time="t")
    ratings = answer("own csv, changed", lambda: load_ratings("csv", path, csv=columns))
    if ratings is REFUSED:
        return
    text = content.decode("utf-8").removeprefix("\ufeff")
    lines = [line for line in text.split("\n") if line.strip()]
    rows = list(csv.DictReader(line.rstrip("\r") for line in lines))
    rows = [{k.strip(): v for k, v in row.items()} for row in rows]
    assert len(rows) == len(ratings) + ratings.repeated
    kept = {(row["user"].strip(" \t"), row["item"].strip(" \t")) for row in rows}
    assert len(kept) == len(ratings)
    for user, item, stars in zip(ratings.user, ratings.item, ratings.rating, strict=True):
        pair = [str(ratings.vocabularies[k].decode(r)) for k, r in (("user", user), ("item", item))]
        said = {
            np.float32(r["rating"])
            for r in rows
            if [r["user"].strip(" \t"), r["item"].strip(" \t")] == pair
        }
        assert stars in said


CLICKS = b"".join(
    f"u{k % 6}\tp{k % 2}\tc{k % 3}\t{';'.join(f'v{(k * j) % 5}:k{j}:a_b{j}' for j in range(1, 4))}\tphone{k % 2}\n".encode()
    for k in range(14)
)


def plain_clicks(content, skip):
    """Users and videos of the well-formed lines, by a plain reading."""
    users, videos = [], []
    for number, line in enumerate(content.split(b"\n")):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
        if not line or line.isspace():
            continue
        fields = [field.strip() for field in line.split(b"\t")]
        shown = fields[3].removesuffix(b";") if len(fields) == 5 else b""
        tokens = [] if shown in (b"", b"NULL") else [t.split(b":") for t in shown.split(b";")]
        good = len(fields) == 5 and fields[0] and all(len(t) == 3 and t[0] for t in tokens)
        parts = [*fields[:3], *fields[4:], *(p for t in tokens for p in t)]
        try:
            good = good and not any(b"\0" in p or len(p) > 256 for p in parts)
            [part.decode() for part in parts]
        except UnicodeDecodeError:
            good = False
        if good:
            users.append(fields[0].decode())
            videos += [t[0].decode() for t in tokens if t[0] != b"NULL"]
        elif not skip:
            return None
    return users, videos


@some(60)
@given(edits=EDITS, skip=st.booleans())
def test_click_logs(folder, edits, skip):
    content = changed(CLICKS, edits)
    path = folder / "click.log"
    path.write_bytes(content)
    clicks = answer("click log", lambda: read_click_log(path, 0, skip))
    if clicks is REFUSED or content[:2] == b"\x1f\x8b":
        return
    users, videos = plain_clicks(content, skip)
    found = clicks.vocabularies["item"].decode(clicks.item).tolist()
    assert Counter(found) == Counter(videos)
    known = {u for u in users if u != "NULL"}
    assert set(clicks.vocabularies["user"].values.tolist()) == known


PAIRS = b"".join(f"{1 + k % 4} {k}\n".encode() for k in range(1, 20))


@some(60)
@given(edits=EDITS)
def test_pairs(folder, edits):
    content = changed(PAIRS, edits)
    path = folder / "ml-1m_sas.txt"
    path.write_bytes(content)
    clicks = answer("user item lines", lambda: load_clicks_dataset("ml-1m-sas", path))
    if clicks is not REFUSED and content[:2] != b"\x1f\x8b":
        rows = [line.split() for line in content.decode("utf-8", "backslashreplace").split("\n")]
        assert Counter(clicks.vocabularies["item"].decode(clicks.item).tolist()) == Counter(
            int(row[1]) for row in rows if row
        )


ITEM = b"5:\n" + b"".join(
    f"{k * k + 1},{1 + k % 5},200{k % 6}-0{1 + k % 9}-1{k % 9}\n".encode() for k in range(12)
)


@some(60)
@given(edits=EDITS)
def test_netflix_lines(folder, edits):
    place = folder / "netflix"
    place.mkdir(exist_ok=True)
    content = changed(ITEM, edits)
    (place / "mv_0000005.txt").write_bytes(content)
    (place / "movie_titles.txt").write_text("5,2001,A, B\n")
    table = answer("netflix lines", lambda: read_table(find_raw(place), 0, lambda size: None))
    if table is not REFUSED:
        lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")[1:]
        said = sorted(
            (int(u), int(s), d.decode()) for u, s, d in (line.split(b",") for line in lines)
        )
        user = np.repeat(table.users, np.diff(table.offsets))
        day = (table.first_day + table.day.astype(np.int64)).astype("M8[D]")
        assert (
            sorted(zip(user.tolist(), (table.packed & 7).tolist(), map(str, day), strict=True))
            == said
        )


@some(30)
@given(edits=EDITS)
def test_netflix_titles(folder, edits):
    place = folder / "titles"
    place.mkdir(exist_ok=True)
    (place / "mv_0000005.txt").write_bytes(ITEM)
    (place / "movie_titles.txt").write_bytes(changed(b"5,2001,A, B\n6,NULL,C\n", edits))
    answer("netflix titles", lambda: read_table(find_raw(place), 0, lambda size: None))


@some(30)
@given(edits=EDITS, which=st.integers(0, 2))
def test_kuairand_tables(folder, edits, which):
    place = folder / "kuairand"
    place.mkdir(exist_ok=True)
    ones = ",".join(["1"] * 12 + [""] * 6)
    log = [
        f"{u},{v},20220430,{h},{(1651334400 + s) * 1000},{c},{k},0,0,0,0,{w},{p},{d},0,0,0,0,1"
        for u, v, h, s, c, k, w, p, d in ROWS
    ]
    users = [
        f'{u},full_active,0,1,0,5,"(0,10]",2,"[1,10)",3,"[1,5)",700,366-730,{ones}'
        for u in (2, 1, 0)
    ]
    videos = ['10,7,NORMAL,2022-04-10,Kmovie,0.0,10000.0,720.0,1280.0,9155697141,9.0,"20,43"']
    tables = {LOG: (LOG_HEADER, log), USERS: (USER_HEADER, users), VIDEOS: (VIDEO_HEADER, videos)}
    for k, (name, (header, rows)) in enumerate(tables.items()):
        content = ("\n".join([header, *rows]) + "\n").encode()
        (place / name).write_bytes(changed(content, edits) if k == which else content)
    answer(
        "kuairand tables",
        lambda: load_clicks_dataset("kuairand-pure", place, watched="shown", earlier=False),
    )


@some(60)
@given(edits=EDITS)
def test_profiles(folder, edits):
    path = folder / "mine.txt"
    path.write_bytes(changed(b"1 5\n2,4.5\nSome item\t3\n", edits))
    found = answer("profiles", lambda: read_profile(path))
    if found is not REFUSED:
        text = path.read_text(encoding="utf-8")
        assert all(np.isfinite(stars) and item in text for item, stars in found.items())


# ---- Vectors and lists ----

VECTORS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@some(60)
@given(edits=EDITS)
def test_text_vectors(folder, edits):
    path = folder / "vectors.txt"
    write_text_vectors(path, VECTORS)
    content = changed(path.read_bytes(), edits)
    path.write_bytes(content)
    found = answer("text vectors", lambda: read_text_vectors(path))
    if found is not REFUSED:
        lines = [line for line in content.decode("utf-8").splitlines() if line]
        said = [[np.float32(f.strip().strip('"')) for f in line.split(",")] for line in lines]
        assert found.tolist() == np.array(said, np.float32).reshape(found.shape).tolist()


@some(60)
@given(edits=EDITS, of_ids=st.booleans())
def test_vector_arrays(folder, edits, of_ids):
    place = folder / "vectors"
    save_vectors(place, "items", np.array(["a", "b", "c", "d", "e", "f"]), VECTORS)
    path = place / ("items_ids.npy" if of_ids else "items.npy")
    path.write_bytes(changed(path.read_bytes(), edits))
    found = answer("vector arrays", lambda: load_vectors(place, "items"))
    if found is not REFUSED:  # a .npy file has no sum: form and finiteness are all that shows
        assert len(found[0]) == len(found[1]) and np.isfinite(found[1]).all()


@some(40)
@given(ids=st.lists(ID, min_size=4, max_size=4, unique=True), numbers=st.booleans())
def test_lists_of_any_ids_come_back(folder, ids, numbers):
    path = folder / "lists.tsv"
    given_ids = np.array([3, 1, 2, 70]) if numbers else np.array(ids)
    rows = np.array([[0, 1, 2], [3, 2, 0]])
    lists = Lists(
        rows,
        np.ones((2, 3), np.float32),
        np.array([[1, 1, 1], [1, 1, 0]], bool),
        np.array(["p", "q"]),
    )
    list(write_lists(path, "user", given_ids[:2], given_ids, lambda start, stop: lists, {}))
    found = answer("lists, written", lambda: read_lists(path))
    assert found is not REFUSED
    assert found["item"].astype(str).tolist() == given_ids[[0, 1, 2, 3, 2]].astype(str).tolist()
    assert found["user"].astype(str).tolist() == given_ids[[0, 0, 0, 1, 1]].astype(str).tolist()


@some(40)
@given(edits=EDITS)
def test_changed_lists(folder, edits):
    path = folder / "lists.tsv"
    content = b"user\trank\titem\tscore\trule\n" + b"".join(
        f"u{k // 3}\t{1 + k % 3}\ti{k}\t0.5\tpersonal\n".encode() for k in range(9)
    )
    path.write_bytes(changed(content, edits))
    found = answer("lists, changed", lambda: read_lists(path))
    if found is not REFUSED:
        assert np.isfinite(found["score"]).all() and (found["rank"] >= 1).all()


# ---- Archives and folders of our own: accepted means equal ----


def same(one, two):
    """Whether two results hold the same."""
    if isinstance(one, np.ndarray | jax.Array):
        return np.array_equal(np.asarray(one), np.asarray(two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, key), getattr(two, key)) for key in one.__dataclass_fields__)
    return one == two


def keeps(name, path, read, edits, whole):
    """Changes a file, reads, compares with `whole`, and puts the file back."""
    content = path.read_bytes()
    try:
        path.write_bytes(changed(content, edits))
        found = answer(name, read)
        assert found is REFUSED or same(found, whole)
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def archives(folder):
    """A zip of a MovieLens and a compressed tar of Netflix files, with what they hold."""
    with zipfile.ZipFile(folder / "ml.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ml/ratings.csv", LINES["csv"])
        file.writestr(
            "ml/movies.csv",
            "movieId,title,genres\n" + "".join(f"{k},F {k},War\n" for k in range(1, 10)),
        )
    with tarfile.open(folder / "nf.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo("training_set/mv_0000005.txt")
        member.size = len(ITEM)
        file.addfile(member, io.BytesIO(ITEM))
    readers = {
        "zip archive": (
            folder / "ml.zip",
            lambda: _columns(load_ratings("ml-latest-small", folder / "ml.zip")),
        ),
        "tar archive": (
            folder / "nf.tar.gz",
            lambda: _table(read_table(find_raw(folder / "nf.tar.gz"), 0, lambda size: None)),
        ),
    }
    return {name: (path, read, read()) for name, (path, read) in readers.items()}


def _columns(ratings):
    return [ratings.user, ratings.item, ratings.rating, ratings.timestamp, ratings.titles]


def _table(table):
    return [table.users, table.movies, table.offsets, table.day, table.packed]


@pytest.mark.parametrize("name", ["zip archive", "tar archive"])
@some(60)
@given(edits=EDITS)
def test_archives(name, archives, edits):
    path, read, whole = archives[name]
    keeps(name, path, read, edits, whole)


@pytest.fixture(scope="module")
def stores(folder):
    """Folders that jrec writes, each with a reader and what it reads."""
    ratings = synthetic_ratings(SyntheticSize(8, 6, 60), 0)
    save_rating_parts(folder / "parts", rating_parts(ratings, split_ratings(ratings, "random")))
    (folder / "log").write_bytes(CLICKS)
    prepare_click_log(folder / "log", folder / "prepared", 0)
    save_export(
        folder / "export",
        lambda arrays, row: arrays["w"][row],
        {"w": jnp.arange(5.0)},
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    state = TrainState(jnp.int32(3), jax.random.key(0), {"w": jnp.arange(4.0)}, ())
    kept = Checkpoints(folder / "last", keep=1)
    kept.save(state, {"epoch": 1})
    kept.close()

    def restored():
        kept = Checkpoints(folder / "last", keep=1)
        try:
            found, record = kept.restore(state)
        finally:
            kept.close()
        return [found.params["w"], int(found.step), record]

    readers = {
        "parts": lambda: _parts(load_rating_parts(folder / "parts")),
        "prepared": lambda: load_clicks(folder / "prepared"),
        "export": lambda: [float(load_export(folder / "export")(jnp.int32(k))) for k in range(5)],
        "last": restored,
    }
    return {name: (folder / name, read, read()) for name, read in readers.items()}


def _parts(parts):
    return [parts.name, parts.users, parts.items, parts.titles, parts.train, parts.test]


@pytest.mark.parametrize("name", ["parts", "prepared", "export", "last"])
@some(25)
@given(edits=EDITS, which=st.integers(0, 99))
def test_folders(name, stores, edits, which):
    place, read, whole = stores[name]
    files = sorted(path for path in place.rglob("*") if path.is_file())
    keeps(f"folder {name}", files[which % len(files)], read, edits, whole)


@pytest.fixture(scope="module")
def index_folder(folder):
    """An approximate index, with what is read of it."""
    pytest.importorskip("faiss", reason="faiss is not installed")
    index = build_index(VECTORS, np.arange(6), "m", "hnsw")
    save_index(index, folder / "index")

    def read():
        found = load_index(folder / "index", index_fingerprint(index))
        return [found.kind, found.model, found.ids, found.vectors]

    return folder / "index", read, read()


@some(25)
@given(edits=EDITS, which=st.integers(0, 99))
def test_index_folders(index_folder, edits, which):
    place, read, whole = index_folder
    files = sorted(path for path in place.rglob("*") if path.is_file())
    keeps("folder index", files[which % len(files)], read, edits, whole)


@some(60)
@given(edits=EDITS)
def test_records(folder, edits):
    path = folder / "settings.json"
    path.write_bytes(
        changed(b'{"epochs": 3, "rate": 0.5, "name": "x", "list": [1, 2, null]}', edits)
    )
    answer("records", lambda: read_json(path))
    (folder / "metrics.jsonl").write_bytes(
        changed(b'{"step": 1, "loss": 0.5}\n{"step": 2}\n', edits)
    )
    answer("metrics", lambda: read_metrics(folder))
