"""KuaiRand-Pure as impressions: all that was shown, clicked or not, with watch times."""

from pathlib import Path

import numpy as np

from jrec.data.clicks import Clicks
from jrec.data.impressions import Impressions
from jrec.data.kuairand import read_kuairand

_DAY, _CHINA = 86_400, 8 * 3600


def read_kuairand_impressions(path: Path, earlier: bool = True) -> Impressions:
    """Every row of the log; `clicked` is `is_click`, `completed` is `long_view`.

    The log names no pages: what a user was shown on one day (of China) in one tab counts as one.

    Args:
        path: the zip archive, or the folder of its tables.
        earlier: begin each user's history with the watched videos up to 24 April, at most 50, as
            rows that are `history_only`; all of them have the time of the user's last one.

    Raises InputError as `read_kuairand`.
    """
    return impressions_of_clicks(read_kuairand(path, "shown", earlier))


def impressions_of_clicks(clicks: Clicks) -> Impressions:
    """The impressions of KuaiRand's clicks, read with `shown`."""
    events = clicks.event_features
    play, is_click, long_view = (events[n] for n in ("play_seconds", "is_click", "long_view"))
    real = play.known
    user = clicks.user_of_event
    tab = events["tab"]
    keys = np.stack([user, (clicks.timestamp + _CHINA) // _DAY, tab.rows])
    page = np.unique(keys, axis=1, return_inverse=True)[1]
    return Impressions(
        name=clicks.name,
        source=clicks.source,
        user=user.astype(np.int32),
        item=clicks.item,
        timestamp=clicks.timestamp,
        page=page.reshape(-1).astype(np.int64),
        clicked=~real | (is_click.values > 0),
        completed=real & (long_view.values > 0),
        watch_seconds=play.values,
        history_only=~real,
        user_row=clicks.user_row,
        vocabularies=clicks.vocabularies,
        user_features=clicks.user_features,
        item_features=clicks.item_features,
        context_features={name: events[name] for name in ("tab", "hour", "duration_seconds")},
    )
