"""The clicks that the settings name, and what is held out of them."""

from datetime import datetime

from jrec.data.click_examples import ClickSplit, leave_one_out, time_cut
from jrec.data.click_sources import load_clicks_dataset
from jrec.data.clicks import Clicks
from jrec.data.kuairand import china_midnight
from jrec.data.quantiles import normalised
from jrec.errors import InputError

from .settings import Data


def load(data: Data) -> tuple[Clicks, ClickSplit]:
    """The clicks, and what is held out of them; numbers of users and items are in [0, 1], see `normalised`."""
    clicks = load_clicks_dataset(
        data.dataset,
        data.data_dir,
        data.watched,
        data.earlier,
        data.feat_appear_limit,
        skip_bad_lines=data.skip_bad_lines,
        size=data.synthetic,
        seed=data.split_seed,
        csv=data.csv,
    )
    split = _split(data, clicks)
    return normalised(clicks, split.train), split


def _split(data: Data, clicks: Clicks) -> ClickSplit:
    if data.split == "leave-one-out":
        return leave_one_out(clicks)
    midnight = china_midnight if data.dataset == "kuairand-pure" else _utc_midnight
    moments = []
    for flag, day in (("valid-from", data.valid_from), ("test-from", data.test_from)):
        try:
            moments.append(midnight(day))
        except (ValueError, InputError):
            raise InputError(f"--{flag} must be a day as 2022-05-01, but is {day!r}.") from None
    return time_cut(clicks, *moments)


def _utc_midnight(day: str) -> int:
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())
