"""The click log against a slow reader of its own; bad lines, damaged files, limits, round trips."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.click_examples import history_of, leave_one_out, training_examples
from jrec.data.click_log import load_clicks, prepare_click_log, read_click_log
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError
from tests.click_writer import write_click_log
from tests.test_bad_input import check_sentence

GOOD = "u1\tp1\tc1\tv1:k1:t1_t2;v2:k2:t1\tf1"


def log_of(tmp_path, *lines, name="log"):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def decoded(clicks, vocabulary, rows):
    known = clicks.vocabularies[vocabulary]
    return ["?" if row < FIRST else str(known.decode(row)) for row in np.atleast_1d(rows)]


def in_words(clicks):
    """Each user as (id, province, city, phone, clicks), each click (video, category, tags)."""
    users = []
    category, tags = clicks.item_features["category"], clicks.item_features["tags"]
    for user in range(clicks.users):
        profile = [decoded(clicks, "user", clicks.user_row[user])[0]]
        for key in ("province", "city", "phone"):
            profile += decoded(clicks, key, clicks.user_features[key].rows[user])
        mine = clicks.item[clicks.offsets[user] : clicks.offsets[user + 1]]
        shown = [
            (
                *decoded(clicks, "item", item),
                *decoded(clicks, "category", category.rows[item]),
                tuple(decoded(clicks, "tags", tags.rows[item])),
            )
            for item in mine
        ]
        users.append((*profile, shown))
    return users


def slowly(lines, limit, user_limit):
    """The format's definition, word for word: the oracle."""
    counts = {
        key: Counter() for key in ("user", "province", "city", "phone", "item", "category", "tags")
    }
    kinds, users = {}, {}
    for number, line in enumerate(lines):
        user, province, city, clicks, phone = line.split("\t")
        counts["user"][user] += 1
        counts["province"][province] += 1
        counts["city"][city] += 1
        counts["phone"][phone] += 1
        shown = []
        for token in filter(None, clicks.split(";")):
            item, category, tags = token.split(":")
            counts["item"][item] += 1
            counts["category"][category] += 1
            counts["tags"].update(tags.split("_"))
            kinds[item] = (category, tags.split("_"))
            shown.append(item)
        identity = (user, number) if user == "NULL" else user
        earlier = users.pop(identity)[1] if identity in users else []
        users[identity] = ((user, province, city, phone), earlier + shown)
    kept = {
        key: [
            value
            for value, count in sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
            if count > (user_limit if key == "user" else limit) and value not in ("NULL", "")
        ]
        for key, counter in counts.items()
    }

    def word(key, value):
        return value if value in kept[key] else "?"

    result = []
    for (user, province, city, phone), shown in users.values():
        clicks = [
            (
                item,
                word("category", kinds[item][0]),
                tuple(word("tags", tag) for tag in kinds[item][1]),
            )
            for item in shown
            if item in kept["item"]
        ]
        profile = (word("user", user), word("province", province), word("city", city))
        result.append((*profile, word("phone", phone), clicks))
    dropped = sum(n for item, n in counts["item"].items() if item not in kept["item"])
    return kept, result, dropped


def values(prefix, count):
    return st.sampled_from([f"{prefix}{k}" for k in range(count)] + ["NULL", ""])


TOKENS = st.builds(
    "{}:{}:{}".format,
    st.sampled_from(["v1", "v2", "v3", "v10", "é", "NULL"]),
    values("k", 3),
    st.lists(values("t", 3), min_size=1, max_size=3).map("_".join),
)
LINES = st.builds(
    "{}\t{}\t{}\t{}\t{}".format,
    st.sampled_from(["u1", "u2", "u3", "NULL"]),
    values("p", 2),
    values("c", 3),
    st.lists(TOKENS, max_size=6).map(";".join),
    values("f", 2),
)


@given(st.lists(LINES, min_size=1, max_size=12), st.integers(0, 4), st.integers(0, 2))
def test_the_reader_does_what_the_format_says(tmp_path_factory, lines, limit, user_limit):
    path = log_of(tmp_path_factory.mktemp("log"), *lines)
    kept, users, dropped = slowly(lines, limit, user_limit)
    if not any(user[4] for user in users):
        with pytest.raises(InputError, match="feat-appear-limit"):
            read_click_log(path, limit, user_appear_limit=user_limit)
        return
    clicks = read_click_log(path, limit, user_appear_limit=user_limit)
    read = {key: known.values.tolist() for key, known in clicks.vocabularies.items()}
    assert read == kept
    # Order of users apart: a joined user stands where its first line does.
    assert sorted(map(str, in_words(clicks))) == sorted(map(str, users))
    assert clicks.dropped["clicks on videos outside the dictionary"] == dropped
    own = Counter(item for user in users for item, *_ in user[4])
    assert clicks.item_counts.tolist() == [0, 0, *(own[item] for item in kept["item"])]
    assert clicks.unknown["user"] == sum(user[0] == "?" for user in users)
    assert clicks.unknown["city"] == sum(user[2] == "?" for user in users)


def test_the_sources_example(tmp_path):
    """Its document: window 2 gives [unk] -> 1, [unk, 1] -> 2, [1, 2] -> 3, [2, 3] -> 4."""
    path = log_of(tmp_path, "u\tp\tc\tv1:k:t;v2:k:t;v3:k:t;v4:k:t;v5:k:t;v6:k:t\tf")
    clicks = read_click_log(path, feat_appear_limit=0)
    examples = training_examples(clicks, leave_one_out(clicks), window=2)
    shown = [
        (decoded(clicks, "item", history_of(clicks, examples, k)), decoded(clicks, "item", target))
        for k, target in enumerate(clicks.item[examples.target])
    ]
    assert shown == [
        (["?"], ["v1"]),
        (["?", "v1"], ["v2"]),
        (["v1", "v2"], ["v3"]),
        (["v2", "v3"], ["v4"]),
    ]


def test_a_value_is_kept_if_it_appears_more_than_the_limit(tmp_path):
    path = log_of(tmp_path, "u\tp\tc\tv1:k:t;v2:k:t;v1:k:t;v2:k:t;v1:k:t\tf")
    two = read_click_log(path, feat_appear_limit=2)
    assert two.vocabularies["item"].values.tolist() == ["v1"]
    assert two.item_counts.tolist() == [0, 0, 3]
    assert read_click_log(path, feat_appear_limit=1).item_counts.tolist() == [0, 0, 3, 2]


def test_ids_fall_with_the_count_and_ties_by_value():
    values, counts = np.array(["b", "c", "a", "d"]), np.array([2, 5, 2, 1])
    known = Vocabulary.by_count(values, counts, limit=1)
    assert known.values.tolist() == ["c", "a", "b"] and known.rows == 5
    assert known.encode(np.array(["a", "b", "c", "d", "e"])).tolist() == [3, 4, 2, 1, 1]
    numbers = Vocabulary.in_order(np.array([70, 5, 90]))
    assert numbers.encode(np.array([5, 70, 90, 91, -1, 6])).tolist() == [3, 2, 4, 1, 1, 1]


def test_a_users_lines_are_joined_and_the_last_profile_stays(tmp_path):
    path = log_of(
        tmp_path, "a\tp1\tc\tv1:k:t\tf", "b\tp1\tc\tv2:k:t\tf", "a\tp2\tc\tv2:old:t;v3:k:t\tf"
    )
    clicks = read_click_log(path, 0)
    assert [user[0] for user in in_words(clicks)] == ["a", "b"]
    assert [item for item, *_ in in_words(clicks)[0][4]] == ["v1", "v2", "v3"]
    assert in_words(clicks)[0][1] == "p2"
    assert clicks.source.note.startswith("1 lines joined")
    # The category of a video's last click in the file.
    assert {item: k for u in in_words(clicks) for item, k, _ in u[4]}["v2"] == "old"


def test_strangers_are_not_one_person(tmp_path):
    path = log_of(tmp_path, *["NULL\tp\tc\tv1:k:t\tf"] * 3)
    clicks = read_click_log(path, 0)
    assert clicks.users == 3 and clicks.user_row.tolist() == [1, 1, 1]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_marks_and_compression_change_nothing(tmp_path, end, start):
    plain = log_of(tmp_path, GOOD, GOOD.replace("u1", "u2"))
    text = start + end.join([GOOD, "", GOOD.replace("u1", "u2").replace("\tf1", ";\tf1 ")])
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(text.encode()))
    assert in_words(read_click_log(other, 0)) == in_words(read_click_log(plain, 0))


BAD_LINES = {
    "one-field": ("hello", "1 fields", "5"),
    "four-fields": ("u\tp\tc\tv1:k:t", "4 fields", "5"),
    "six-fields": (GOOD + "\t", "6 fields", "5"),
    "blanks-for-tabs": (GOOD.replace("\t", " "), "1 fields", "5"),
    "no-user": ("\tp\tc\tv1:k:t\tf", "the user is empty", "NULL"),
    "no-colon": ("u\tp\tc\tv1\tf", "'v1'", "video:category:tag_tag"),
    "one-colon": ("u\tp\tc\tv1:k1\tf", "'v1:k1'", "video:category:tag_tag"),
    "three-colons": ("u\tp\tc\tv1:k:t:x\tf", "'v1:k:t:x'", "video:category:tag_tag"),
    "second-click": ("u\tp\tc\tv1:k:t;v2\tf", "'v2'", "video:category:tag_tag"),
    "empty-click": ("u\tp\tc\tv1:k:t;;v2:k:t\tf", "''", "video:category:tag_tag"),
    "commas": ("u\tp\tc\tv1:k:t,v2:k:t\tf", "'v1:k:t,v2:k:t'", "video:category:tag_tag"),
    "no-video": ("u\tp\tc\t:k:t\tf", "names no video", "NULL"),
    "nul-in-user": ("u\0\tp\tc\tv1:k:t\tf", "NUL character", "'u\\x00'"),
    "nul-in-tag": ("u\tp\tc\tv1:k:t\0\tf", "NUL character", "'t\\x00'"),
    "long-city": (f"u\tp\t{'c' * 257}\tv1:k:t\tf", "longer than 256 bytes", "'ccc"),
    "long-video": (f"u\tp\tc\t{'v' * 300}:k:t\tf", "longer than 256 bytes", "'vvv"),
    "not-utf8": (b"u\tp\xff\tc\tv1:k:t\tf", "not UTF-8", "'p\\\\xff'"),
    "not-utf8-tag": (b"u\tp\tc\tv1:k:\xe9\tf", "not UTF-8", "'\\\\xe9'"),
    "binary": (bytes(range(128, 256)), "1 fields", "5"),
}


def with_line(tmp_path, line, number=3):
    lines = [GOOD.encode()] * 5
    lines[number - 1] = line if isinstance(line, bytes) else line.encode()
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.parametrize("number", [1, 3])
def test_a_malformed_line_is_named(case, number, tmp_path):
    line, *parts = BAD_LINES[case]
    path = with_line(tmp_path, line, number)
    with pytest.raises(InputError) as fault:
        read_click_log(path, 0)
    check_sentence(str(fault.value), f"{path}, line {number}:", "--skip-bad-lines", *parts)


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_malformed_line_is_left_out_and_counted_on_request(case, tmp_path):
    path = with_line(tmp_path, BAD_LINES[case][0])
    clicks = read_click_log(path, 0, skip_bad_lines=True)
    assert clicks.dropped["malformed lines"] == 1
    good = read_click_log(log_of(tmp_path, *[GOOD] * 4, name="good"), 0)
    # Not even the good clicks of a bad line count.
    assert in_words(clicks) == in_words(good)
    for key, known in good.vocabularies.items():
        assert clicks.vocabularies[key].values.tolist() == known.values.tolist()


def bad_file(tmp_path, case):
    path = tmp_path / "log.gz"
    content = gzip.compress(f"{GOOD}\n".encode() * 1000)
    if case == "folder":
        path.mkdir()
    elif case == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif case == "flipped":
        path.write_bytes(content[:-8] + b"\0\0\0\0" + content[-4:])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "blank":
        path.write_bytes(b"\n\n")
    elif case == "all-bad":
        path.write_bytes(b"x\ny\n")
    elif case == "no-clicks":
        path.write_text("u\tp\tc\t\tf\n")
    elif case == "rare":
        path.write_text(GOOD + "\n")
    return path


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("cut", "is damaged"),
        ("flipped", "is damaged"),
        ("empty", "holds no line that can be read (0 malformed)"),
        ("blank", "holds no line that can be read (0 malformed)"),
        ("all-bad", "holds no line that can be read (2 malformed)"),
        ("no-clicks", "none of its 0 clicks"),
        ("rare", "none of its 2 clicks"),
    ],
)
def test_a_bad_file_is_one_sentence_and_leaves_nothing(case, part, tmp_path):
    path, out = bad_file(tmp_path, case), tmp_path / "prepared"
    with pytest.raises(InputError) as fault:
        prepare_click_log(path, out, skip_bad_lines=True)
    check_sentence(str(fault.value), str(path), part)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_a_limit_below_zero_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 or more"):
        read_click_log(log_of(tmp_path, GOOD), -1)
    with pytest.raises(InputError, match="0 or more"):
        read_click_log(log_of(tmp_path, GOOD), 0, user_appear_limit=-1)


def test_prepared_is_what_was_read(tmp_path):
    path = log_of(tmp_path, GOOD, GOOD.replace("u1", "u2"))
    prepared = prepare_click_log(path, tmp_path / "out", 0)
    loaded = load_clicks(tmp_path / "out")
    assert in_words(loaded) == in_words(prepared) == in_words(read_click_log(path, 0))
    assert loaded.source == prepared.source and loaded.unknown == prepared.unknown
    assert loaded.dropped == prepared.dropped and not loaded.timed


@pytest.mark.parametrize("name", ["log", "log.gz"])
def test_a_made_log_survives_writing_and_reading(name, tmp_path):
    clicks, _ = make_clicks(ClickSize(users=300, items=40, clicks=6, categories=4, groups=3), 0)
    path = tmp_path / "new" / name
    write_click_log(clicks, path)
    again = read_click_log(path, 0)
    assert in_words(again) == in_words(clicks)
    before = path.read_bytes()
    write_click_log(clicks, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("vocabulary", "value"),
    [("user", "a\tb"), ("item", "a:b"), ("category", "a;b"), ("tags", "a_b")],
)
def test_a_value_with_a_separator_is_not_written(vocabulary, value, tmp_path):
    clicks = read_click_log(log_of(tmp_path, GOOD), 0)
    known = clicks.vocabularies[vocabulary]
    odd = Vocabulary.in_order(np.array([value, *known.values[1:]]))
    clicks.vocabularies[vocabulary] = odd
    with pytest.raises(InputError) as fault:
        write_click_log(clicks, tmp_path / "again")
    check_sentence(str(fault.value), repr(value), "separator")
    assert not (tmp_path / "again").exists()


def test_a_log_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="may not be read"):
        read_click_log(tmp_path / "log")
