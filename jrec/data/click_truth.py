"""What a synthetic click log holds to be found: the probability of every next click.

A user has the taste of one of a few groups, which shows weakly in city, province and phone. After
the clicks h_1 (the last), h_2, h_3, ..., item i of category c is next with a probability
proportional to

    (1 - follow) [(1 - drift) taste[group, c] + drift transition[category of h_1, c]] share[i]
        + follow sum_l lag_l sum_s link_share_s [links[h_l, s] = i]

among the items that the user has not clicked: nobody clicks an item twice. `share` is Zipf-like
within a category; `follow` and `drift` are 0 for a first click; lags beyond the first click leave
their weight to the others.
"""

from dataclasses import dataclass

import numpy as np

from jrec.errors import InputError

LAG = np.array([0.6, 0.3, 0.1])
LINK_SHARE = np.array([0.7, 0.3])
SHORTEST = 3  # clicks of a user; leave-one-out needs them
CITIES, PHONES = 120, 40

_EVEN = 0.05  # of every distribution over categories


@dataclass(frozen=True)
class ClickSize:
    """How much to make, and how predictable it is."""

    users: int = 10_000
    """Users, each with at least 3 clicks."""
    items: int = 2_000
    """Items that can be clicked; the rarest may never be."""
    clicks: float = 20.0
    """Mean clicks of a user; at most 5 times as many and a quarter of the items."""
    categories: int = 20
    """Categories of items."""
    groups: int = 50
    """Groups of users with one taste."""
    follow: float = 0.25
    """Share of the later clicks that follow a link from one of the last three clicks."""
    drift: float = 0.25
    """Share of the others whose category comes from the last click's, not from taste."""


@dataclass(frozen=True)
class Truth:
    """What was planted; items, users and groups are numbers from 0 (an item's row is 2 more).

    Attributes:
        category: int64 [M]. share: float64 [M], probability within the category.
        links: int32 [M, 2], the items that follow an item, with `LINK_SHARE`.
        taste: float64 [G, C] and transition: float64 [C, C]; rows sum to 1.
        prior: float64 [G], each group's share of the users.
        profile: for `city` and `phone`, float64 [G, values]; rows sum to 1.
        group: int64 [N]. duration: float32 [M], seconds.
    """

    size: ClickSize
    category: np.ndarray
    share: np.ndarray
    links: np.ndarray
    taste: np.ndarray
    transition: np.ndarray
    prior: np.ndarray
    profile: dict[str, np.ndarray]
    group: np.ndarray
    duration: np.ndarray

    def mean_play_seconds(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float64, the true mean of a play time, for users and items of one shape.

        A share of the item's duration, from 0.15 to 0.85, that rises with the user's taste for its
        category. Play times are gamma draws of shape 2 with this mean.
        """
        liking = self.taste[self.group[user], self.category[item]] * self.size.categories
        return self.duration[item] * (0.15 + 0.7 * liking / (1 + liking))


def plant(size: ClickSize, seed: int) -> Truth:
    """Draws tastes, transitions, links and popularity; raises InputError for sizes without sense."""
    _check(size, seed)
    generator = np.random.default_rng(seed)
    rest = generator.integers(0, size.categories, size.items - size.categories)
    category = generator.permutation(np.concatenate([np.arange(size.categories), rest]))
    weight = 1.0 / (generator.permutation(size.items) + 10.0)
    share = weight / np.bincount(category, weight)[category]
    order, starts = by_category(category)
    counts = np.diff(np.append(starts, size.items))
    draws = generator.random((size.items, 2))
    near = order[starts[category][:, None] + (draws * counts[category][:, None]).astype(np.int64)]
    far = generator.integers(0, size.items, (size.items, 2))
    links = np.where(generator.random((size.items, 2)) < 0.7, near, far).astype(np.int32)
    prior = generator.dirichlet(np.full(size.groups, 5.0))

    def rows(count: int, values: int, concentration: float, even: float) -> np.ndarray:
        drawn = generator.gamma(concentration, size=(count, values)) + 1e-9
        return (1 - even) * drawn / drawn.sum(1, keepdims=True) + even / values

    return Truth(
        size=size,
        category=category,
        share=share,
        links=links,
        taste=rows(size.groups, size.categories, 0.2, _EVEN),
        transition=rows(size.categories, size.categories, 0.2, _EVEN),
        prior=prior,
        profile={
            "city": rows(size.groups, CITIES, 0.5, 0.7),
            "phone": rows(size.groups, PHONES, 0.5, 0.7),
        },
        group=generator.choice(size.groups, size.users, p=prior),
        duration=np.exp(generator.normal(4.5, 0.8, size.items)).astype(np.float32),
    )


def by_category(category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items in the order of their categories, and where each category starts."""
    counts = np.bincount(category)
    return np.argsort(category, kind="stable"), np.cumsum(counts) - counts


def _check(size: ClickSize, seed: int) -> None:
    counts = (size.users, size.items, size.categories, size.groups)
    if min(counts) < 1 or max(counts) >= 2**31 or not SHORTEST <= size.clicks < 2**15:
        raise InputError(f"A synthetic log needs positive sizes and 3 clicks a user, not {size}.")
    if not (0 <= size.follow < 1 and 0 <= size.drift <= 1):
        raise InputError(f"follow and drift must lie between 0 and 1, but the sizes are {size}.")
    if size.items < max(4 * SHORTEST, size.categories):
        raise InputError(
            f"{size.items} items are too few for {size.categories} categories and users who never "
            f"click twice; make at least {max(4 * SHORTEST, size.categories)}."
        )
    if seed < 0:
        raise InputError(f"--seed must be 0 or more, but is {seed}.")
