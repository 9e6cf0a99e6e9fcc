"""Every data set in the one form: MovieLens, user-item pairs, KuaiRand-Pure; and what is refused."""

import gzip
import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from experiments.candidates import settings
from experiments.candidates.settings import TABLE_WIDTHS
from experiments.ranking.system import KEYS
from jrec.data import show_clicks
from jrec.data.click_examples import count_items, leave_one_out, time_cut
from jrec.data.click_log import prepare_click_log
from jrec.data.click_maker import make_clicks
from jrec.data.click_sources import CLICK_DATASETS, load_clicks_dataset
from jrec.data.click_store import load_clicks, save_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Bag, Categorical, Continuous
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.kuairand import EARLIER, LOG, china_midnight
from jrec.data.kuairand_tables import USERS, VIDEOS
from jrec.data.sources import load_ratings
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from tests.conftest import GENRES, TITLES, toy_ratings
from tests.test_bad_input import check_sentence, refusal, replace_line
from tests.test_clicks import same

REAL = Path("/work/shared/data")
HAS_PARQUET = importlib.util.find_spec("pyarrow") is not None
needs_parquet = pytest.mark.skipif(not HAS_PARQUET, reason="pyarrow is not installed")


def values(clicks, column, row):
    """What a column says of a row, in words."""
    if isinstance(column, Continuous):
        return float(column.values[row]) if column.known[row] else None
    rows = column.rows[row]
    known = clicks.vocabularies[column.vocabulary]
    if isinstance(column, Bag):
        return [str(known.decode(r)) if r >= FIRST else None for r in rows]
    return str(known.decode(rows)) if rows >= FIRST else None


def user_named(clicks, raw):
    row = clicks.vocabularies["user"].encode(np.array([raw]))[0]
    return int(np.flatnonzero(clicks.user_row == row)[0])


def items_of(clicks, user):
    rows = clicks.item[clicks.offsets[user] : clicks.offsets[user + 1]]
    return clicks.vocabularies["item"].decode(rows).tolist()


# MovieLens.


@pytest.mark.parametrize("name", ["ml_1m", "ml_100k", "ml_csv"])
def test_ratings_become_watches(name, request):
    folder = request.getfixturevalue(name)
    dataset = {"ml_1m": "ml-1m", "ml_100k": "ml-100k", "ml_csv": "ml-latest-small"}[name]
    clicks = load_clicks_dataset(dataset, folder)
    assert len(clicks) == 80 and clicks.timed
    minus = 0.5 if name == "ml_csv" else 0
    for raw in range(1, 13):
        mine = sorted((t, f, s) for u, f, s, t in toy_ratings() if u == raw)
        user = user_named(clicks, raw)
        assert items_of(clicks, user) == [item for _, item, _ in mine]
        events = range(clicks.offsets[user], clicks.offsets[user + 1])
        assert [clicks.timestamp[e] for e in events] == [time for time, *_ in mine]
        rating = clicks.event_features["rating"]
        assert [values(clicks, rating, e) for e in events] == [s - minus for *_, s in mine]
    assert set(clicks.user_features) == (
        set() if name == "ml_csv" else {"gender", "age", "occupation"}
    )


def test_attributes_genres_and_titles_keep_their_values(ml_1m):
    clicks = load_clicks_dataset("ml-1m", ml_1m)
    ages = (1, 18, 25, 35, 45, 50, 56)
    for raw in range(1, 13):
        user = user_named(clicks, raw)
        shown = {key: values(clicks, c, user) for key, c in clicks.user_features.items()}
        assert shown == {
            "gender": str(raw % 2),
            "age": str(ages[raw % 7]),
            "occupation": str(raw % 21),
        }
    for k in range(len(TITLES)):
        row = clicks.vocabularies["item"].encode(np.array([k + 1]))[0]
        assert sorted(values(clicks, clicks.item_features["genres"], row)) == sorted(GENRES[k % 5])
    title = clicks.item_features["title"]
    assert values(clicks, title, FIRST) == ["toy", "story"]
    # Padding has no words, the unknown item one unknown word.
    assert title.rows[0].tolist() == [] and title.rows[1].tolist() == [1]


def test_a_item_without_a_line_is_no_target(ml_1m):
    items = (ml_1m / "movies.dat").read_text("latin-1").splitlines()
    (ml_1m / "movies.dat").write_text("\n".join(items[1:]) + "\n", "latin-1")
    lost = sum(item == 1 for _, item, _, _ in toy_ratings())
    clicks = load_clicks_dataset("ml-1m", ml_1m)
    assert len(clicks) == 80 - lost and clicks.item.min() >= FIRST
    assert clicks.dropped["ratings of users or items without a line of their own"] == lost


# Pairs.

PAIRS = [(7, 30), (7, 10), (3, 10), (7, 20), (3, 30)]


def test_pairs_keep_their_order(tmp_path):
    path = tmp_path / "ml-1m_sas.txt.gz"
    text = "".join(f"{user} {item}\n" for user, item in PAIRS)
    path.write_bytes(gzip.compress(text.encode()))
    plain = tmp_path / "plain.txt"
    plain.write_text(text)
    odd = tmp_path / "odd.txt"  # what pandas' quick way does not take
    odd.write_text("\n" + text.replace(" ", "\t").replace("\n", " \r\n"))
    for place in (path, tmp_path, plain, odd):
        clicks = load_clicks_dataset("ml-1m-sas", place)
        assert not clicks.timed and clicks.vocabularies["user"].decode(
            clicks.user_row
        ).tolist() == [3, 7]
        assert [items_of(clicks, 0), items_of(clicks, 1)] == [[10, 30], [30, 10, 20]]
        assert "another sum" in clicks.source.note


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("7", "1 fields"),
        ("7 30 5", "3 fields"),
        ("7 x", "item is 'x'"),
        ("-7 30", "user is '-7'"),
        ("7 3.0", "item is '3.0'"),
        ("7,30", "1 fields"),
        (f"7 {2**63}", "item is '9"),
        ("7 1e3", "item is '1e3'"),
        ("7 nan", "item is 'nan'"),
        ("7 ", "1 fields"),
        (b"7 \xff", "item is"),
    ],
)
def test_a_bad_pair_is_named(line, part, tmp_path):
    path = tmp_path / "pairs"
    path.write_text("".join(f"{user} {item}\n" for user, item in PAIRS))
    replace_line(path, 3, line)
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("ml-1m-sas", path)
    check_sentence(str(fault.value), f"{path}, line 3:", part)


def test_pair_files_that_cannot_be_read(tmp_path):
    for content, part in (
        (None, "holds neither"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08", "is damaged"),
    ):
        path = tmp_path if content is None else tmp_path / "pairs"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as fault:
            load_clicks_dataset("ml-1m-sas", path)
        check_sentence(str(fault.value), str(path), part)


@pytest.mark.skipif(not REAL.exists(), reason="the real data is not on this machine")
def test_the_real_pairs_have_the_published_size():
    clicks = load_clicks_dataset("ml-1m-sas", REAL / "ml-1m_sas.txt.gz")
    assert (clicks.users, len(clicks.vocabularies["item"].values), len(clicks)) == (
        6040,
        3416,
        999_611,
    )
    assert clicks.source.note == "" and clicks.item_counts[FIRST:].min() >= 5
    split = leave_one_out(clicks)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [987_531, 6040, 6040]
    # The file's own first user.
    lines = gzip.decompress((REAL / "ml-1m_sas.txt.gz").read_bytes()).split(b"\n")
    first = [int(line.split()[1]) for line in lines if line.startswith(b"1 ")]
    assert items_of(clicks, 0) == first


# KuaiRand-Pure.

MAY = china_midnight("2022-05-01")
WORDS = [f"onehot_feat{k}" for k in range(18)]
USER_HEADER = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    "friend_user_num_range,register_days,register_days_range," + ",".join(WORDS)
)
VIDEO_HEADER = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag"
)
LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
# user, video, hourmin, seconds from May on, click, like, long, played, of; out of order on purpose,
# two of one second
ROWS = [
    (0, 12, 1400, 50.5, 1, 0, 1, 7000, 20000),
    (0, 11, 1300, 50, 1, 0, 1, 9000, 10000),
    (0, 10, 900, -70, 1, 1, 1, 8000, 10000),
    (1, 10, 0, -40, 1, 0, 0, 2000, 10000),
    (1, 12, 2300, 60, 0, 0, 0, 500, 20000),
    (5, 13, 1500, 70, 1, 0, 1, 7000, 20000),  # neither user nor video is in the tables
]


@pytest.fixture
def kuairand(tmp_path):
    """Tables in the official layout, without the parquet file."""
    folder = tmp_path / "KuaiRand-Pure" / "data"
    folder.mkdir(parents=True)
    log = [
        f"{u},{v},20220430,{h},{int((MAY + s) * 1000) + 7},{c},{like},0,0,0,0,{long},{p},{d},0,0,0,0,{u + 1}"
        for u, v, h, s, c, like, long, p, d in ROWS
    ]
    ones = ",".join(["1"] * 12 + [""] * 6)
    users = [
        f'{u},full_active,0,1,0,{5 * u},"(0,10]",2,"[1,10)",3,"[1,5)",700,366-730,{ones}'
        for u in (2, 1, 0)
    ]
    videos = [
        '10,7,NORMAL,2022-04-10,Kmovie,0.0,10000.0,720.0,1280.0,9155697141,9.0,"20,43"',
        "11,7,AD,2022-04-10,UNKNOWN,0.0,,720.0,1280.0,9155697141,,",
        "12,8,NORMAL,2022-04-11,Web,0.0,20000.0,720.0,1280.0,5,4.0,20",
    ]
    for name, header, rows in (
        (LOG, LOG_HEADER, log),
        (USERS, USER_HEADER, users),
        (VIDEOS, VIDEO_HEADER, videos),
    ):
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder


def write_earlier(folder, **columns):
    import pyarrow
    import pyarrow.parquet

    table = {
        "user_id": [1, 0],
        "history_len": [3, 2],
        "last_time_ms": [(MAY - 5000) * 1000, (MAY - 70) * 1000 + 7],
        "watch_seq": [[12, 12, 10], [11, 10]],
        "like_seq": [[], [10]],
        "long_watch_seq": [[12], [11, 10]],
        **columns,
    }
    kept = {key: column for key, column in table.items() if column is not None}
    pyarrow.parquet.write_table(pyarrow.table(kept), folder / EARLIER)


WATCHED = {
    "long_view": {0: [10, 11, 12], 5: [13]},
    "is_click": {0: [10, 11, 12], 1: [10], 5: [13]},
    "is_like": {0: [10]},
    "shown": {0: [10, 11, 12], 1: [10, 12], 5: [13]},
}


@pytest.mark.parametrize("watched", WATCHED)
def test_what_counts_as_a_click_is_an_argument(watched, kuairand):
    clicks = load_clicks_dataset("kuairand-pure", kuairand, watched=watched, earlier=False)
    ids = clicks.vocabularies["user"].decode(clicks.user_row).tolist()
    assert {u: items_of(clicks, k) for k, u in enumerate(ids)} == WATCHED[watched]
    left_out = len(ROWS) - len(clicks)
    assert sum(clicks.dropped.values()) == left_out and watched in clicks.source.note + "shown"
    # The catalogue is every video that is known, clicked or not.
    assert clicks.vocabularies["item"].values.tolist() == [10, 11, 12, 13]


def test_columns_keep_their_values(kuairand):
    clicks = load_clicks_dataset("kuairand-pure", kuairand.parent, watched="shown", earlier=False)
    user = {
        raw: {
            k: values(clicks, c, user_named(clicks, raw)) for k, c in clicks.user_features.items()
        }
        for raw in (0, 1, 5)
    }
    assert user[1]["follow_user_num"] == 5 and user[1]["follow_user_num_range"] == "(0,10]"
    assert user[0]["onehot_feat0"] == "1" and user[0]["onehot_feat17"] is None
    assert set(user[5].values()) == {None}
    video = {
        raw: {k: values(clicks, c, raw - 10 + FIRST) for k, c in clicks.item_features.items()}
        for raw in (10, 11, 12, 13)
    }
    assert video[10]["tag"] == ["20", "43"] and video[11]["tag"] == [None] == video[13]["tag"]
    assert video[10]["video_seconds"] == 10 and video[11]["video_seconds"] is None
    assert video[10]["music_id"] == video[11]["music_id"] == "9155697141"
    assert video[11]["upload_type"] is None and video[11]["music_type"] is None
    rows = sorted(ROWS, key=lambda row: (row[0], row[3]))
    for event, (u, _, hourmin, seconds, click, like, long, played, length) in enumerate(rows):
        shown = {k: values(clicks, c, event) for k, c in clicks.event_features.items()}
        assert shown == {
            "play_seconds": pytest.approx(played / 1000),
            "duration_seconds": length / 1000,
            "tab": str(u + 1),
            "hour": str(hourmin // 100),
            "is_click": click,
            "is_like": like,
            "long_view": long,
        }
        assert clicks.timestamp[event] == int(MAY + seconds)
    of_long_views = load_clicks_dataset("kuairand-pure", kuairand, earlier=False)
    assert not {"is_click", "is_like", "long_view"} & of_long_views.event_features.keys()


def test_names_in_tables_of_the_experiments_are_names_of_the_data(kuairand):
    found = load_clicks_dataset("kuairand-pure", kuairand, earlier=False)
    clicks = make_clicks(ClickSize(users=30, items=40, clicks=6, categories=4, groups=3), 0)[0]
    impressions = make_impressions(ImpressionSize(users=4, items=20, pages=2, slots=2), 0)
    assert set(TABLE_WIDTHS) <= found.vocabularies.keys() | clicks.vocabularies.keys()
    assert set(KEYS) <= found.item_features.keys() | impressions.item_features.keys()


def test_an_archive_is_the_same_as_its_folder(kuairand, tmp_path):
    archive = tmp_path / "KuaiRand-Pure.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in kuairand.iterdir():
            file.write(path, f"KuaiRand-Pure/data/{path.name}")
    one, two = (load_clicks_dataset("kuairand-pure", p, earlier=False) for p in (archive, kuairand))
    assert np.array_equal(one.item, two.item) and same(one.user_features, two.user_features)
    assert (one.source.kind, two.source.kind) == ("archive", "folder")


def test_a_day_begins_in_china(kuairand):
    assert china_midnight("2022-05-01") == 1_651_334_400  # 2022-04-30 16:00 UTC
    clicks = load_clicks_dataset("kuairand-pure", kuairand, watched="shown", earlier=False)
    split = time_cut(clicks, MAY - 50, MAY)
    assert [len(split.train), len(split.valid), len(split.test)] == [1, 1, 4]
    with pytest.raises(InputError, match="2022-05-01"):
        china_midnight("May 1")


@needs_parquet
@pytest.mark.parametrize(
    ("watched", "expected"),
    [
        # User 0's row at -70 is the sequence's last and stands there once.
        ("long_view", {0: [11, 10, 11, 12], 1: [12], 5: [13]}),
        ("is_click", {0: [11, 10, 11, 12], 1: [12, 10], 5: [13]}),
        ("is_like", {0: [10]}),
        ("shown", {0: [11, 10, 11, 12], 1: [12, 12, 10, 10, 12], 5: [13]}),
    ],
)
def test_earlier_sequences_come_first(watched, expected, kuairand):
    write_earlier(kuairand)
    clicks = load_clicks_dataset("kuairand-pure", kuairand, watched=watched)
    ids = clicks.vocabularies["user"].decode(clicks.user_row).tolist()
    assert {u: items_of(clicks, k) for k, u in enumerate(ids)} == expected
    assert clicks.dropped["rows that the earlier sequences hold, too"] == 1
    known = clicks.event_features["play_seconds"].known
    before = clicks.timestamp < MAY - 60
    assert before.sum() > 0 and (known == ~before).all()
    assert np.array_equal(known, clicks.event_features["tab"].rows >= FIRST)


@needs_parquet
@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"long_watch_seq": None}, "lacks the column long_watch_seq"),
        ({"user_id": [1, 1]}, "a user twice"),
        ({"long_watch_seq": [[-1], []]}, "an id below 0"),
        ({"long_watch_seq": [1, 2]}, "of another form"),
        ({"long_watch_seq": [["a"], []]}, "of another form"),
        ({"last_time_ms": [None, 3]}, "of another form"),
    ],
)
def test_sequences_of_another_form_are_refused(columns, part, kuairand):
    write_earlier(kuairand, **columns)
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("kuairand-pure", kuairand)
    check_sentence(str(fault.value), str(kuairand / EARLIER), part)


@needs_parquet
def test_a_damaged_parquet_file_is_one_sentence(kuairand):
    write_earlier(kuairand)
    path = kuairand / EARLIER
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("kuairand-pure", kuairand)
    check_sentence(str(fault.value), str(path), "damaged")


def test_without_pyarrow_a_sentence_says_what_to_do(kuairand, monkeypatch):
    (kuairand / EARLIER).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("kuairand-pure", kuairand)
    check_sentence(str(fault.value), str(kuairand / EARLIER), "jrec[parquet]", "--no-earlier")


def row(k, **changes):
    names = LOG_HEADER.split(",")
    u, v, h, s, c, like, long, p, d = ROWS[k]
    ms = int((MAY + s) * 1000)
    fields = [u, v, 20220430, h, ms, c, like, 0, 0, 0, 0, long, p, d, 0, 0, 0, 0, 1]
    return ",".join(str(changes.get(n, f)) for n, f in zip(names, fields, strict=True))


BAD_TABLES = {
    "no-play-time": (LOG, 1, LOG_HEADER.replace("play_time_ms", "played"), "lacks play_time_ms"),
    "no-header": (LOG, 1, row(0), "lacks user_id, video_id"),
    "few-fields": (LOG, 3, "1,2,3", "3 fields where there should be 19"),
    "many-fields": (LOG, 3, row(0) + ",1", "20 fields where there should be 19"),
    "user-text": (LOG, 3, row(0, user_id="u1"), "user_id is 'u1'"),
    "user-negative": (LOG, 3, row(0, user_id=-1), "user_id is '-1'"),
    "video-empty": (LOG, 3, row(0, video_id=""), "video_id is ''"),
    "video-huge": (LOG, 3, row(0, video_id=2**63), "video_id is '9"),
    "time-float": (LOG, 3, row(0, time_ms="1.65e12"), "time_ms is '1.65e12'"),
    "click-two": (LOG, 3, row(0, is_click=2), "is_click is '2'; it should be 0 or 1"),
    "long-view-two": (LOG, 3, row(0, long_view=2), "long_view is '2'; it should be 0 or 1"),
    "hour": (LOG, 3, row(0, hourmin=2400), "hourmin is '2400'"),
    "play-time-negative": (LOG, 3, row(0, play_time_ms=-5), "play_time_ms is '-5'"),
    "not-utf8": (LOG, 3, b"\xff" + row(0).encode(), "not utf-8 text"),
    "user-twice": (USERS, 3, "2" + "," * 30, "user_id is '2'; it should be a user"),
    "user-count": (USERS, 3, "1" + "," * 5 + "x" + "," * 25, "follow_user_num is 'x'"),
    "user-infinite": (USERS, 3, "1" + "," * 5 + "inf" + "," * 25, "follow_user_num is 'inf'"),
    "user-fields": (USERS, 3, "1" + "," * 31, "32 fields where there should be 31"),
    "user-quote": (USERS, 3, '1,"a" b' + "," * 29, "is a quote missing?"),
    "user-header": (USERS, 1, USER_HEADER.replace("onehot_feat3,", "x,"), "lacks onehot_feat3"),
    "video-fields": (VIDEOS, 3, "11,7", "2 fields where there should be 12"),
    "video-duration": (VIDEOS, 3, "11" + "," * 6 + "long" + "," * 5, "video_duration is 'long'"),
    "video-twice": (VIDEOS, 3, "10" + "," * 11, "video_id is '10'; it should be a video"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_named_by_line(case, kuairand):
    name, number, line, part = BAD_TABLES[case]
    replace_line(kuairand / name, number, line)
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("kuairand-pure", kuairand, earlier=False)
    check_sentence(str(fault.value), f"{kuairand / name}, line {number}:", part)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in (LOG, USERS, VIDEOS) for how in ("empty", "header-only")),
        *((name, "missing") for name in (LOG, USERS, VIDEOS, EARLIER)),
    ],
)
def test_missing_and_empty_tables_are_named(name, how, kuairand):
    if HAS_PARQUET:
        write_earlier(kuairand)
    path = kuairand / name
    if how == "missing":
        path.unlink(missing_ok=True)
    else:
        path.write_text("" if how == "empty" else path.read_text().split("\n")[0])
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("kuairand-pure", kuairand, earlier=name == EARLIER)
    check_sentence(str(fault.value), str(kuairand), name)


def test_a_cut_archive_is_refused(kuairand, tmp_path):
    archive = tmp_path / "KuaiRand-Pure.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(kuairand / LOG, LOG)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError) as fault:
        load_clicks_dataset("kuairand-pure", archive)
    check_sentence(str(fault.value), str(archive), "not a complete zip archive")


@needs_parquet
@pytest.mark.skipif(not REAL.exists(), reason="the real data is not on this machine")
def test_the_real_log_has_its_known_size():
    clicks = load_clicks_dataset("kuairand-pure", REAL / "KuaiRand-Pure.zip")
    # 70,963 long views in the log, 390,929 in the sequences; 7,583 videos.
    assert len(clicks) == 70_963 + 390_929 and clicks.users == 26_195
    assert len(clicks.vocabularies["item"].values) == 7583
    assert int(clicks.event_features["play_seconds"].known.sum()) == 70_963


# All of them, and the command that shows them.


def test_other_names_and_places_are_refused(tmp_path):
    for name, place, part in (
        ("ml-2m", None, "choose from"),
        ("synthetic", tmp_path, "no meaning"),
        ("kuairand-pure", None, "--data-dir"),
        ("ml-1m-sas", None, "--data-dir"),
        ("click-log", None, "--data-dir"),
        ("click-log", tmp_path, "is a folder"),
        ("kuairand-pure", tmp_path / "x", "does not exist"),
        ("ml-1m-sas", tmp_path / "x", "does not exist"),
    ):
        with pytest.raises(InputError) as fault:
            load_clicks_dataset(name, place)
        check_sentence(str(fault.value), part)
    with pytest.raises(InputError, match="choose from long_view"):
        load_clicks_dataset("kuairand-pure", tmp_path, watched="seen")


def test_a_log_and_its_prepared_folder_are_one_data_set(tmp_path):
    path = tmp_path / "log"
    path.write_text("u\tp\tc\tv1:k:t;v2:k:t;v1:k:t\tf\nbad\n")
    prepare_click_log(path, tmp_path / "prepared", 1, skip_bad_lines=True)
    read = load_clicks_dataset("click-log", path, feat_appear_limit=1, skip_bad_lines=True)
    loaded = load_clicks_dataset("click-log", tmp_path / "prepared")
    assert loaded.item.tolist() == read.item.tolist() == [2, 2]
    assert loaded.dropped == {"malformed lines": 1, "clicks on videos outside the dictionary": 1}


@pytest.mark.parametrize("name", ["ml-1m", "kuairand-pure", "synthetic"])
def test_every_data_set_survives_its_folder(name, ml_1m, kuairand, tmp_path):
    place = {"ml-1m": ml_1m, "kuairand-pure": kuairand, "synthetic": None}[name]
    size = ClickSize(users=30, items=20, clicks=4, categories=3, groups=2)
    clicks = load_clicks_dataset(name, place, earlier=False, size=size)
    save_clicks(clicks, tmp_path / "folder")
    assert same(load_clicks(tmp_path / "folder"), clicks)
    assert all(isinstance(c, Categorical | Continuous) for c in clicks.user_features.values())


def test_counts_without_the_future_differ(ml_1m):
    clicks = load_clicks_dataset("ml-1m", ml_1m)
    split = leave_one_out(clicks)
    own = count_items(clicks, split.train)
    assert own.sum() == len(split.train) < clicks.item_counts.sum() == len(clicks)


def test_same_ratings_as_the_rating_models_see(ml_100k):
    ratings, clicks = load_ratings("ml-100k", ml_100k), load_clicks_dataset("ml-100k", ml_100k)
    rows = np.stack([clicks.user_row[clicks.user_of_event], clicks.item], 1)
    expected = np.stack([ratings.user, ratings.item], 1)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, expected.tolist()))


def show(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["show_clicks", *map(str, arguments)])
    show_clicks.main()


@pytest.mark.parametrize("name", ["ml-1m", "kuairand-pure", "synthetic", "ml-1m-sas", "click-log"])
def test_the_command_shows_a_data_set(name, ml_1m, kuairand, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    pairs, log = tmp_path / "pairs", tmp_path / "log"
    pairs.write_text("".join(f"{user} {item}\n" for user, item in PAIRS))
    log.write_text("u1\tp\tc\tv1:k:t;v2:k:t;v3:k:t\tf\n")
    place = {"ml-1m": ml_1m, "kuairand-pure": kuairand, "ml-1m-sas": pairs, "click-log": log}
    flags = ["--dataset", name, "--no-earlier", "--feat-appear-limit", 0]
    flags += ["--data-dir", place[name]] if name in place else ["--synthetic.users", 200]
    show(monkeypatch, *flags)
    said = capsys.readouterr().out
    clicks = {"ml-1m": "80", "kuairand-pure": "4", "ml-1m-sas": "5", "click-log": "3"}
    assert f"│ {clicks.get(name, '')}" in said and "an example: user" in said


def test_the_commands_refusal_is_one_sentence(monkeypatch, capsys):
    said, out = refusal(lambda: show(monkeypatch, "--dataset", "click-log"), capsys)
    check_sentence(said, "--data-dir")
    assert out == ""


def test_all_names_are_reachable():
    assert {"ml-100k", "ml-25m", "ml-1m-sas", "kuairand-pure", "click-log", "synthetic"} <= set(
        CLICK_DATASETS
    )


def test_the_settings_name_every_click_data_set():
    assert settings.CLICK_DATASETS == CLICK_DATASETS
