"""Makes impression logs whose true expected watch times are known, of any size, seeded."""

from dataclasses import dataclass

import numpy as np

from jrec.data.click_truth import ClickSize, Truth, plant
from jrec.data.clicks import Categorical, Continuous, with_stand_ins
from jrec.data.impressions import Impressions
from jrec.data.origin import Source
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError

_BEGIN, _DAY = 1_640_995_200, 86_400  # 2022-01-01
_AUTHORS_OF_CATEGORY = 10
_FATIGUE, _RETURN = 0.7, 1.0


@dataclass(frozen=True)
class ImpressionSize:
    """How much to make, and how it looks."""

    users: int = 2_000
    """Users, each with the same number of pages."""
    items: int = 500
    """Items that can be shown."""
    pages: int = 20
    """Pages of a user, over `days`."""
    slots: int = 5
    """Impressions on a page, shown at one moment."""
    categories: int = 10
    """Categories of items."""
    groups: int = 10
    """Groups of users with one taste."""
    click_rate: float = 0.2
    """Rate of clicks of an item that is liked as the mean, seen for the first time."""
    days: int = 10
    """Days of the log."""


def make_impressions(size: ImpressionSize, seed: int) -> Impressions:
    """A synthetic log; what was planted in it stands in `expected_watch_seconds`.

    The log-odds of a click are those of `click_rate`, plus the logarithm of the user's liking of the
    category against the mean, plus 1 where the user watched the category within the last day, less
    0.7 for each earlier impression of the item to the user (at most 3). A click is watched for a
    gamma draw of shape 2 with mean `Truth.mean_play_seconds`; it is completed where that reaches
    half of the item's duration. So E[watch time] = P(click) times that mean.

    Raises InputError where the sizes allow no log.
    """
    _check(size)
    truth = plant(
        ClickSize(size.users, size.items, categories=size.categories, groups=size.groups), seed
    )
    generator = np.random.default_rng((seed, 7))
    shape = (size.users, size.pages, size.slots)
    # One more second each: no two pages of a user share a moment.
    time = np.sort(generator.integers(0, size.days * _DAY, shape[:2]), 1) + np.arange(size.pages)
    item = _shown(truth, shape, generator)
    user = np.broadcast_to(np.arange(size.users)[:, None], (size.users, size.slots))
    play = truth.mean_play_seconds(user[:, None], item)
    liking = truth.taste[truth.group[user[:, None]], truth.category[item]] * size.categories
    last = np.full((size.users, size.categories), -np.inf)  # when each category was last watched
    chance, clicked = np.empty(shape), np.empty(shape, bool)
    for page in range(size.pages):
        now, shown = time[:, page, None], item[:, page]
        seen = np.zeros(shown.shape)
        for before in range(page):
            seen += (item[:, before][:, None] == shown[:, :, None]).sum(2)
        category = truth.category[shown]
        odds = np.log(size.click_rate / (1 - size.click_rate)) + np.log(liking[:, page])
        idle = now - last[user, category]
        odds = odds + _RETURN * (idle < _DAY) - _FATIGUE * np.minimum(seen, 3)
        chance[:, page] = 1 / (1 + np.exp(-odds))
        clicked[:, page] = generator.random(shown.shape) < chance[:, page]
        watch = clicked[:, page]
        last[user[watch], category[watch]] = np.broadcast_to(now, shown.shape)[watch]
    watched = np.where(clicked, play * generator.gamma(2.0, 0.5, shape), 0)
    return _packed(size, seed, truth, time, item, clicked, watched, chance * play)


def _shown(truth: Truth, shape: tuple[int, int, int], generator: np.random.Generator) -> np.ndarray:
    """int64, the items of each page, each once: more often the popular ones, and some again."""
    users, _, slots = shape
    weight = truth.share / truth.share.sum()
    # A few items a user meets again and again, or no impression would ever be a second one.
    known = generator.choice(len(weight), (users, 2 * slots), p=weight)
    fresh = generator.choice(len(weight), shape, p=weight)
    again = known[np.arange(users)[:, None, None], generator.integers(0, 2 * slots, shape)]
    item = np.where(generator.random(shape) < 0.3, again, fresh)
    for slot in range(1, slots):
        # Whoever stands on the page already gives way to the next item that does not.
        for _ in range(slot):
            twice = (item[..., slot, None] == item[..., :slot]).any(-1)
            item[..., slot] = np.where(twice, (item[..., slot] + 1) % len(weight), item[..., slot])
    return item


def _packed(
    size: ImpressionSize,
    seed: int,
    truth: Truth,
    time: np.ndarray,
    item: np.ndarray,
    clicked: np.ndarray,
    watched: np.ndarray,
    expected: np.ndarray,
) -> Impressions:
    generator = np.random.default_rng((seed, 8))
    author = truth.category * _AUTHORS_OF_CATEGORY
    author += generator.integers(0, _AUTHORS_OF_CATEGORY, size.items)
    page = np.arange(size.users * size.pages)
    names = {"user": size.users, "item": size.items, "category": size.categories}
    names["author"] = size.categories * _AUTHORS_OF_CATEGORY
    names |= {key: rows.shape[1] for key, rows in truth.profile.items()}
    profile = {
        key: np.array([generator.choice(rows.shape[1], p=rows[g]) for g in truth.group])
        for key, rows in truth.profile.items()
    }
    of_item = {
        "category": Categorical((truth.category + FIRST).astype(np.int32), "category"),
        "author": Categorical((author + FIRST).astype(np.int32), "author"),
        "duration_seconds": Continuous(truth.duration, np.ones(size.items, bool)),
    }
    seconds = watched.reshape(-1).astype(np.float32)
    flat = item.reshape(-1)
    return Impressions(
        name="synthetic",
        source=Source("synthetic", f"{size} seed {seed}", ""),
        user=np.repeat(np.arange(size.users), size.pages * size.slots).astype(np.int32),
        item=(flat + FIRST).astype(np.int32),
        timestamp=np.repeat(_BEGIN + time.reshape(-1), size.slots),
        page=np.repeat(page, size.slots),
        clicked=clicked.reshape(-1),
        completed=clicked.reshape(-1) & (seconds >= 0.5 * truth.duration[flat]),
        watch_seconds=seconds,
        history_only=np.zeros(len(flat), bool),
        user_row=(np.arange(size.users) + FIRST).astype(np.int32),
        vocabularies={
            key: Vocabulary.in_order(np.char.add(key[0], np.arange(count).astype(np.str_)))
            for key, count in names.items()
        },
        user_features={
            key: Categorical((drawn + FIRST).astype(np.int32), key)
            for key, drawn in profile.items()
        },
        item_features={key: with_stand_ins(column) for key, column in of_item.items()},
        expected_watch_seconds=expected.reshape(-1).astype(np.float32),
    )


def _check(size: ImpressionSize) -> None:
    if min(size.users, size.items, size.pages, size.slots, size.days) < 1:
        raise InputError(f"A synthetic log needs positive sizes, not {size}.")
    if size.items < 2 * size.slots:
        raise InputError(f"Pages of {size.slots} slots need {2 * size.slots} items or more.")
    if not 0 < size.click_rate < 1:
        raise InputError(f"The click rate must lie between 0 and 1, but is {size.click_rate}.")
