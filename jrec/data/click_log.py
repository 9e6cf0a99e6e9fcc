"""The click log of the Paddle book: `user, province, city, clicks, phone` a line, tabs between.

Clicks are `video:category:tag1_tag2`, `;` between, in time order. `NULL` or nothing stands for an
unknown value; a user without clicks has nothing there.
"""

import hashlib
from pathlib import Path

import numpy as np

from jrec.data.click_lines import NULL, PROFILE, LogLines, Named, read_log_lines
from jrec.data.click_store import load_clicks, save_clicks
from jrec.data.clicks import Bag, Categorical, Clicks, Column, build_clicks, take, with_stand_ins
from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError

__all__ = ["load_clicks", "prepare_click_log", "read_click_log"]


def prepare_click_log(
    path: Path,
    out: Path,
    feat_appear_limit: int = 20,
    skip_bad_lines: bool = False,
    user_appear_limit: int | None = None,
) -> Clicks:
    """Reads a log (see `read_click_log`), writes its prepared form to the folder `out`."""
    clicks = read_click_log(path, feat_appear_limit, skip_bad_lines, user_appear_limit)
    save_clicks(clicks, out)
    return clicks


def read_click_log(
    path: Path,
    feat_appear_limit: int = 20,
    skip_bad_lines: bool = False,
    user_appear_limit: int | None = None,
) -> Clicks:
    """A click log, plain or compressed with gzip, in memory.

    A value gets a row of its own if it appears more than `feat_appear_limit` times, the most
    frequent first (ties by value): users, provinces, cities and phones count once a line; videos,
    categories and tags once a click. Clicks on other videos are dropped and counted; other
    categories, tags and profile values fall on the unknown row. A video's category and tags are
    those of its last click in the file. Lines of one user are joined in the file's order, with the
    last line's profile; every line of the user `NULL` is somebody else.

    Args:
        skip_bad_lines: leave malformed lines out and count them, instead of refusing the file.
        user_appear_limit: the limit for users; as `feat_appear_limit` if None. At 0 every user has
            a row, also where each has one line.

    Raises InputError: no such file, damaged, no clicks left, or the first malformed line.
    """
    path = Path(path)
    user_limit = feat_appear_limit if user_appear_limit is None else user_appear_limit
    if min(feat_appear_limit, user_limit) < 0:
        raise InputError("The limits of appearances must be 0 or more.")
    lines = read_log_lines(path, skip_bad_lines)
    vocabularies = _vocabularies(lines, feat_appear_limit, user_limit)
    item = _rows(lines.video, vocabularies["item"])[lines.clicks]
    known = item >= FIRST
    if not known.any():
        raise InputError(
            f"{path}: none of its {len(item)} clicks is on a video of the dictionary; lower "
            f"--feat-appear-limit ({feat_appear_limit}) or use a larger log."
        )
    user_of_line, last_line = _users(lines)
    joined = len(user_of_line) - len(last_line)
    profile = {
        key: _rows(lines.profile[key], vocabularies[key])[last_line] for key in ("user", *PROFILE)
    }
    with path.open("rb") as file:
        checksum = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return build_clicks(
        name="click-log",
        source=Source(
            "click-log",
            str(path),
            checksum,
            f"{joined} lines joined to an earlier line of the same user" if joined else "",
        ),
        user=np.repeat(user_of_line, lines.lengths)[known],
        item=item[known],
        timestamp=None,
        user_row=profile["user"],
        vocabularies=vocabularies,
        user_features={key: Categorical(profile[key], key) for key in PROFILE},
        item_features=_item_features(lines, vocabularies),
        dropped={
            "malformed lines": lines.malformed,
            "clicks on videos outside the dictionary": int((~known).sum()),
        },
    )


def _vocabularies(lines: LogLines, limit: int, user_limit: int) -> dict[str, Vocabulary]:
    def counted(named: Named, times: np.ndarray | None, more_than: int) -> Vocabulary:
        counts = np.bincount(named.codes, times, minlength=len(named.names))
        counts[named.names == NULL] = 0
        return Vocabulary.by_count(named.names, counts, more_than)

    clicks = np.bincount(lines.clicks, minlength=len(lines.video.codes))
    return {
        "user": counted(lines.profile["user"], None, user_limit),
        "item": counted(lines.video, clicks, limit),
        **{key: counted(lines.profile[key], None, limit) for key in PROFILE},
        "category": counted(lines.category, clicks, limit),
        "tags": counted(lines.tags, np.repeat(clicks, np.diff(lines.tag_offsets)), limit),
    }


def _item_features(lines: LogLines, vocabularies: dict[str, Vocabulary]) -> dict[str, Column]:
    last_click = np.full(len(lines.video.codes), -1, np.int64)
    last_click[lines.clicks] = np.arange(len(lines.clicks))
    # A video's tokens by their last click: the latest is written last and stays.
    order = np.argsort(last_click, kind="stable")
    item = _rows(lines.video, vocabularies["item"])
    token_of_item = np.zeros(vocabularies["item"].rows, np.int64)
    token_of_item[item[order]] = order
    token_of_item = token_of_item[FIRST:]
    category = _rows(lines.category, vocabularies["category"])[token_of_item]
    tags = Ragged(_rows(lines.tags, vocabularies["tags"]), lines.tag_offsets)
    return {
        "category": with_stand_ins(Categorical(category, "category")),
        "tags": with_stand_ins(take(Bag(tags, "tags"), token_of_item)),
    }


def _rows(named: Named, vocabulary: Vocabulary) -> np.ndarray:
    return vocabulary.encode(named.names)[named.codes]


def _users(lines: LogLines) -> tuple[np.ndarray, np.ndarray]:
    """Each line's user from 0, in the order they first come, and each user's last line."""
    import pandas as pd  # slow to import

    user = lines.profile["user"]
    count = len(user.codes)
    anonymous = (user.names == NULL)[user.codes]
    identity = np.where(anonymous, len(user.names) + np.arange(count), user.codes)
    user_of_line, users = pd.factorize(identity)
    last_line = np.zeros(len(users), np.int64)
    last_line[user_of_line] = np.arange(count)
    return user_of_line, last_line
