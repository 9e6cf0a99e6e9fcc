"""Click data sets by name, in one form: logs, MovieLens ratings as watches, KuaiRand-Pure, made up."""

import hashlib
import io
from pathlib import Path

import numpy as np

from jrec.data.click_lines import opened
from jrec.data.click_log import load_clicks, read_click_log
from jrec.data.click_maker import make_clicks
from jrec.data.click_store import is_prepared
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import (
    Bag,
    Categorical,
    Clicks,
    Continuous,
    build_clicks,
    take,
    with_stand_ins,
)
from jrec.data.kuairand import Watched, read_kuairand
from jrec.data.movielens import DATASET_LAYOUTS
from jrec.data.own_csv import CsvClicks, read_clicks_csv
from jrec.data.ratings import Ratings, Source
from jrec.data.sources import load_ratings
from jrec.data.tables import BYTE_ORDER_MARK, whole_number
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError

CLICK_DATASETS = (*DATASET_LAYOUTS, "ml-1m-sas", "kuairand-pure", "click-log", "csv", "synthetic")

_SAS_FILES = ("ml-1m_sas.txt.gz", "ml-1m_sas.txt")
# Of the unpacked file behind SASRec's and gSASRec's published numbers.
_SAS_SHA256 = "b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2"


def load_clicks_dataset(
    name: str,
    data_dir: Path | None = None,
    watched: Watched = "long_view",
    earlier: bool = True,
    feat_appear_limit: int = 20,
    user_appear_limit: int | None = None,
    skip_bad_lines: bool = False,
    size: ClickSize | None = None,
    seed: int = 0,
    csv: CsvClicks | None = None,
) -> Clicks:
    """A data set by name.

    Args:
        name: one of `CLICK_DATASETS`. A MovieLens is found as `load_ratings` finds it, its ratings
            being watches. `ml-1m-sas` is a file of `user item` lines in time order. `click-log` is
            a log (see `read_click_log`) or a folder that `prepare_click_log` wrote.
        data_dir: where it is; needed for all but MovieLens and `synthetic`.
        watched, earlier: of kuairand-pure, see `read_kuairand`.
        feat_appear_limit, user_appear_limit, skip_bad_lines: of click-log, see `read_click_log`.
        size, seed: of synthetic, see `make_clicks`. csv: what the columns of csv are.

    Raises InputError for an unknown name and for missing, damaged or malformed files.
    """
    if name not in CLICK_DATASETS:
        raise InputError(f"There is no data set {name!r}; choose from {', '.join(CLICK_DATASETS)}.")
    if name in DATASET_LAYOUTS:
        return clicks_of_ratings(load_ratings(name, data_dir))
    if name == "synthetic":
        if data_dir is not None:
            raise InputError("--data-dir has no meaning for --dataset synthetic; leave it out.")
        return make_clicks(size or ClickSize(), seed)[0]
    if data_dir is None:
        raise InputError(f"--dataset {name} is not fetched; give its place with --data-dir.")
    path = Path(data_dir)
    if name == "csv":
        return read_clicks_csv(path, csv or CsvClicks())
    if name == "ml-1m-sas":
        return read_pairs(name, path)
    if name == "kuairand-pure":
        return read_kuairand(path, watched, earlier)
    if is_prepared(path):
        return load_clicks(path)
    return read_click_log(path, feat_appear_limit, skip_bad_lines, user_appear_limit)


def clicks_of_ratings(ratings: Ratings) -> Clicks:
    """Every rating as a watch, whatever its stars, which become the event feature `rating`.

    Ratings of users or items that the data set's own files lack are dropped.
    """
    kept = (ratings.user >= FIRST) & (ratings.item >= FIRST)
    users = np.unique(ratings.user[kept])
    items = np.arange(FIRST, ratings.vocabularies["item"].rows)
    stars = ratings.rating[kept]
    return build_clicks(
        name=ratings.name,
        source=ratings.source,
        user=np.searchsorted(users, ratings.user[kept]),
        item=ratings.item[kept],
        timestamp=ratings.timestamp[kept],
        user_row=users,
        vocabularies=ratings.vocabularies,
        user_features={
            name: Categorical(by_row[users], name) for name, by_row in ratings.user_features.items()
        },
        item_features={
            name: with_stand_ins(take(Bag(by_row, name), items))
            for name, by_row in ratings.item_features.items()
        },
        event_features={"rating": Continuous(stars, np.ones(len(stars), bool))},
        dropped={
            "repeated (user, item)": ratings.repeated,
            "ratings of users or items without a line of their own": int((~kept).sum()),
        },
    )


def read_pairs(name: str, path: Path) -> Clicks:
    """A file of `user item` lines, each user's in time order, plain or compressed with gzip.

    Args:
        path: the file, or the folder that holds `ml-1m_sas.txt.gz` or `ml-1m_sas.txt`.

    Raises InputError where it is missing or damaged, and for the first malformed line.
    """
    if path.is_dir():
        found = [path / file for file in _SAS_FILES if (path / file).is_file()]
        if not found:
            raise InputError(f"{path} holds neither {' nor '.join(_SAS_FILES)}; give the file.")
        path = found[0]
    with opened(path) as file:
        content = file.read()
    user, item = _pairs(content.removeprefix(BYTE_ORDER_MARK), path)
    digest = hashlib.sha256(content).hexdigest()
    note = "" if digest == _SAS_SHA256 else "not the file of the published numbers (another sum)"
    vocabularies = {"user": Vocabulary.of(user), "item": Vocabulary.of(item)}
    return build_clicks(
        name=name,
        source=Source("file", str(path), f"sha256:{digest} (unpacked)", note),
        user=vocabularies["user"].encode(user) - FIRST,
        item=vocabularies["item"].encode(item),
        timestamp=None,
        user_row=np.arange(FIRST, vocabularies["user"].rows),
        vocabularies=vocabularies,
    )


def _pairs(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd  # slow to import

    if not content.strip():
        raise InputError(f"{path} is empty; fetch it again.")
    # pandas would take 3.0 and 1e3 for whole numbers.
    is_plain = not content.translate(None, b"0123456789 \n")
    if is_plain:
        try:
            frame = pd.read_csv(io.BytesIO(content), sep=" ", header=None, dtype=np.int64)
            is_plain = frame.shape == (content.count(b" "), 2)
        except (ValueError, OverflowError):
            is_plain = False
    if is_plain:
        return frame[0].to_numpy(), frame[1].to_numpy()
    # Something is unusual: other blanks, or a fault, whose line is to be named.
    pairs = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        fields = line.decode("utf-8", "backslashreplace").split()
        where = f"{path}, line {number}"
        if len(fields) not in (0, 2):
            raise InputError(
                f"{where}: {len(fields)} fields where there should be 2; write 'user item'."
            )
        if fields:
            names = zip(("user", "item"), fields, strict=True)
            pairs.append([whole_number(text, lambda w=where: w, what) for what, text in names])
    if not pairs:
        raise InputError(f"{path} is empty; fetch it again.")
    user, item = np.array(pairs, np.int64).T
    return user, item
