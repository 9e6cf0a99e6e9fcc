"""Click data sets by name, in one form: logs, MovieLens ratings as watches, KuaiRand-Pure, synthetic."""

from pathlib import Path

from jrec.data.click_log import load_clicks, read_click_log
from jrec.data.click_maker import make_clicks
from jrec.data.click_pairs import read_pairs
from jrec.data.click_store import is_prepared
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Clicks
from jrec.data.clicks_csv import read_clicks_csv
from jrec.data.grouplens import load_movielens
from jrec.data.kuairand import Watched, read_kuairand
from jrec.data.movielens import DATASET_LAYOUTS
from jrec.data.own_csv import CsvClicks
from jrec.data.rating_clicks import clicks_of_ratings
from jrec.errors import InputError

CLICK_DATASETS = (*DATASET_LAYOUTS, "ml-1m-sas", "kuairand-pure", "click-log", "csv", "synthetic")


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
        name: one of `CLICK_DATASETS`. A MovieLens is found as `load_movielens` finds it, its ratings
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
        return clicks_of_ratings(load_movielens(name, data_dir))
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
