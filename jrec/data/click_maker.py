"""Makes click logs with planted taste (`click_truth`), of any size, seeded."""

import numpy as np

from jrec.data.click_truth import (
    CITIES,
    LAG,
    LINK_SHARE,
    PHONES,
    SHORTEST,
    ClickSize,
    Truth,
    by_category,
    plant,
)
from jrec.data.clicks import (
    Bag,
    Categorical,
    Clicks,
    Column,
    Continuous,
    build_clicks,
    with_stand_ins,
)
from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST, Vocabulary

_CITIES_OF_PROVINCE, _TAGS_OF_CATEGORY = 4, 5
_USERS_AT_ONCE = 50_000  # part of what a seed means: each block has a generator of its own
_DAY, _BEGIN = 86_400, 1_640_995_200  # 2022-01-01


def make_clicks(size: ClickSize, seed: int) -> tuple[Clicks, Truth]:
    """A synthetic data set in memory, and what was planted in it.

    Every user has at least 3 clicks. Beyond what a log holds it has times, item durations (`duration_seconds`) and, as an event
    feature, play times (`play_seconds`). Raises InputError where the sizes allow no log.
    """
    truth = plant(size, seed)
    generator = np.random.default_rng((seed, 1))
    # Geometric lengths: most users are short, as in real logs.
    longest = min(size.items // 4, int(5 * size.clicks))
    lengths = SHORTEST + generator.geometric(1 / (size.clicks - SHORTEST + 1), size.users) - 1
    lengths = np.minimum(lengths, longest)
    blocks = range(0, size.users, _USERS_AT_ONCE)
    item = np.concatenate(
        [
            _walk(
                truth,
                truth.group[first : first + _USERS_AT_ONCE],
                lengths[first : first + _USERS_AT_ONCE],
                np.random.default_rng((seed, 2, first)),
            )
            for first in blocks
        ]
    )
    user = np.repeat(np.arange(size.users), lengths)
    clicks = build_clicks(
        name="synthetic",
        source=Source("synthetic", f"{size} seed {seed}", ""),
        user=user,
        item=item + FIRST,
        timestamp=_times(lengths, np.random.default_rng((seed, 3))),
        user_row=np.arange(size.users) + FIRST,
        vocabularies=_vocabularies(size),
        user_features=_profiles(truth, np.random.default_rng((seed, 4))),
        item_features=_item_features(truth, np.random.default_rng((seed, 5))),
        event_features={"play_seconds": _played(truth, user, item, seed)},
    )
    return clicks, truth


class _Rows:
    """Draws from one of many distributions at a time: their cumulated sums, end to end."""

    def __init__(self, probabilities: list[np.ndarray]) -> None:
        lengths = np.array([len(row) for row in probabilities])
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.sums = np.concatenate([k + np.cumsum(row) for k, row in enumerate(probabilities)])

    def draw(self, row: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A place within each `row`, drawn by the row's probabilities."""
        place = np.searchsorted(self.sums, row + generator.random(len(row)), side="right")
        # Rounding may leave a row's last sum a hair under the next whole number.
        return np.clip(place, self.starts[row], self.ends[row] - 1) - self.starts[row]


def _walk(
    truth: Truth, group: np.ndarray, lengths: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """int64, the items of all users, user by user: all users take their step t at once."""
    size = truth.size
    order, starts = by_category(truth.category)
    # Taste by group, then transitions by category.
    categories = _Rows([*truth.taste, *truth.transition])
    items = _Rows(np.split(truth.share[order], starts[1:]))
    by_length = np.argsort(-lengths, kind="stable")
    group, longest_first = group[by_length], lengths[by_length]
    clicked: list[np.ndarray] = []  # step t of the users who have one, the longest first
    for step in range(int(longest_first[0])):
        active = np.searchsorted(-longest_first, -step, side="left")
        chosen = np.empty(active, np.int64)
        pending = np.arange(active)
        while len(pending):
            row = group[pending]
            if step:
                last = truth.category[clicked[-1][pending]]
                drifts = generator.random(len(pending)) < size.drift
                row = np.where(drifts, size.groups + last, row)
            category = categories.draw(row, generator)
            drawn = order[starts[category] + items.draw(category, generator)]
            if step:
                follows = np.flatnonzero(generator.random(len(pending)) < size.follow)
                drawn[follows] = _followed(truth, clicked, pending[follows], generator)
            # Whoever has clicked the item already draws again: the rest keeps its proportions.
            again = np.zeros(len(pending), bool)
            for earlier in clicked:
                again |= earlier[pending] == drawn
            chosen[pending] = drawn
            pending = pending[again]
        clicked.append(chosen)
    offsets = np.cumsum(lengths) - lengths
    result = np.empty(int(lengths.sum()), np.int64)
    for step, chosen in enumerate(clicked):
        result[offsets[by_length[: len(chosen)]] + step] = chosen
    return result


def _followed(
    truth: Truth, clicked: list[np.ndarray], users: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    lag = np.cumsum(LAG[: len(clicked)] / LAG[: len(clicked)].sum())
    back = np.minimum(np.searchsorted(lag, generator.random(len(users)), "right"), len(lag) - 1)
    recent = np.stack([clicked[-1 - k][users] for k in range(len(lag))])
    link = (generator.random(len(users)) >= LINK_SHARE[0]).astype(np.int64)
    return truth.links[recent[back, np.arange(len(users))], link]


def _times(lengths: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """int64 seconds: users come within 30 days, then click about once a day."""
    gaps = (generator.exponential(_DAY, int(lengths.sum())) + 1).astype(np.int64)
    total = np.cumsum(gaps)
    first = np.cumsum(lengths) - lengths
    come = generator.integers(0, 30 * _DAY, len(lengths))
    return _BEGIN + total + np.repeat(come - total[first], lengths)


def _names(prefix: str, count: int) -> Vocabulary:
    return Vocabulary.in_order(np.char.add(prefix, np.arange(count).astype(np.str_)))


def _vocabularies(size: ClickSize) -> dict[str, Vocabulary]:
    return {
        "user": _names("u", size.users),
        "item": _names("v", size.items),
        "province": _names("p", CITIES // _CITIES_OF_PROVINCE),
        "city": _names("c", CITIES),
        "phone": _names("f", PHONES),
        "category": _names("k", size.categories),
        "tags": _names("t", _TAGS_OF_CATEGORY * size.categories),
    }


def _profiles(truth: Truth, generator: np.random.Generator) -> dict[str, Categorical]:
    drawn = {
        key: _Rows(list(rows)).draw(truth.group, generator) for key, rows in truth.profile.items()
    }
    drawn["province"] = drawn["city"] // _CITIES_OF_PROVINCE
    return {
        key: Categorical((drawn[key] + FIRST).astype(np.int32), key)
        for key in ("province", "city", "phone")
    }


def _item_features(truth: Truth, generator: np.random.Generator) -> dict[str, Column]:
    count = generator.integers(1, 4, len(truth.category))
    offsets = np.concatenate([[0], np.cumsum(count)])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count)
    start = np.repeat(generator.integers(0, _TAGS_OF_CATEGORY, len(count)), count)
    tag = np.repeat(truth.category, count) * _TAGS_OF_CATEGORY
    tag += (start + place) % _TAGS_OF_CATEGORY
    known = np.ones(len(count), bool)
    columns = {
        "category": Categorical((truth.category + FIRST).astype(np.int32), "category"),
        "tags": Bag(Ragged((tag + FIRST).astype(np.int32), offsets), "tags"),
        "duration_seconds": Continuous(truth.duration, known),
    }
    return {key: with_stand_ins(column) for key, column in columns.items()}


def _played(truth: Truth, user: np.ndarray, item: np.ndarray, seed: int) -> Continuous:
    draws = np.random.default_rng((seed, 6)).gamma(2.0, 0.5, len(item))
    seconds = truth.mean_play_seconds(user, item) * draws
    return Continuous(seconds.astype(np.float32), np.ones(len(item), bool))
