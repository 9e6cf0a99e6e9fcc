"""The best ranking that a synthetic click log allows, and how often it is right."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from jrec.data.click_examples import count_items, leave_one_out
from jrec.data.click_truth import LAG, LINK_SHARE, Truth
from jrec.data.clicks import Categorical, Clicks
from jrec.data.vocabulary import FIRST

_RANKINGS = ("from_history", "knowing_taste", "popularity")
_SCORES_AT_ONCE = 2_000_000


def planted_optimum(
    clicks: Clicks,
    truth: Truth,
    ks: Sequence[int] = (10, 50, 100),
    users: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """How often the best rankings hold the last click among their first K, seen items removed.

    Of three rankings of the whole catalogue, ties by item row:
    `from_history`: by P(item | history, city, phone) under the true parameters, the group being
    inferred by Bayes' rule: no model that learns from the log can be better in expectation;
    `knowing_taste`: by P(item | group, history), which a log tells nobody; `popularity`: by clicks
    in the training part of leave-one-out.

    Args:
        clicks, truth: of `make_clicks`.
        users: how many users to look at, drawn by `seed`; by default 10,000, fewer for a large
            catalogue.

    Returns:
        For each ranking `hr@K` (equal to recall@K, as one item is held out), `ndcg@K` and, but for
        popularity, `expected_hr@K`: its mean under the true probabilities, without the luck of the
        draws. And `users`: how many were looked at, under `evaluated`.
    """
    chosen = np.flatnonzero(np.diff(clicks.offsets) >= 3)
    if users is None:
        users = int(np.clip(1e8 // len(truth.category), 250, 10_000))
    if len(chosen) > users:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, users, replace=False))
    popularity = count_items(clicks, leave_one_out(clicks).train)[FIRST:].astype(np.float64)
    histories = _Histories.of(clicks, chosen)
    by_history, mixture = _group_posterior(histories, clicks, truth)
    by_taste = np.eye(len(truth.prior))[truth.group[chosen]]
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in _RANKINGS}
    masses: dict[str, list[np.ndarray]] = {name: [] for name in _RANKINGS}
    block = max(1, _SCORES_AT_ONCE // len(truth.category))
    for first in range(0, len(chosen), block):
        part = slice(first, first + block)
        of_block = (
            _scores(truth, mixture.of(part), by_history[part]),
            _scores(truth, mixture.of(part), by_taste[part]),
            np.tile(np.append(popularity, 0.0), (len(chosen[part]), 1)),
        )
        for name, scores in zip(_RANKINGS, of_block, strict=True):
            rows, target = np.arange(len(scores)), histories.target[part]
            scores[rows[:, None], histories.item[part]] = -1.0  # no click (-1) is the last column
            own = scores[rows, target][:, None]
            before = (scores == own) & (np.arange(scores.shape[1]) < target[:, None])
            ranks[name].append((scores > own).sum(1) + before.sum(1))
            if name != "popularity":
                masses[name].append(_top_sums(scores, ks))
    result: dict[str, dict[str, float]] = {"evaluated": {"users": len(chosen)}}
    for name in _RANKINGS:
        rank = np.concatenate(ranks[name])
        numbers = {f"hr@{k}": float((rank < k).mean()) for k in ks}
        gain = 1 / np.log2(rank + 2.0)
        numbers |= {f"ndcg@{k}": float(np.where(rank < k, gain, 0).mean()) for k in ks}
        if masses[name]:
            expected = np.concatenate(masses[name]).mean(0).tolist()
            numbers |= {f"expected_hr@{k}": mean for k, mean in zip(ks, expected, strict=True)}
        result[name] = numbers
    return result


@dataclass(frozen=True)
class _Histories:
    """B users' clicks but the last, and the last; items by number, -1 where there is none.

    Attributes:
        user: int64 [B]. item: int64 [B, L]. length: int64 [B]. target: int64 [B].
    """

    user: np.ndarray
    item: np.ndarray
    length: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, clicks: Clicks, user: np.ndarray) -> "_Histories":
        first, last = clicks.offsets[user], clicks.offsets[user + 1] - 1
        place = np.arange(int((last - first).max()))
        inside = place < (last - first)[:, None]
        event = np.where(inside, first[:, None] + place, 0)
        item = np.where(inside, clicks.item[event].astype(np.int64) - FIRST, -1)
        return cls(user, item, last - first, clicks.item[last].astype(np.int64) - FIRST)


@dataclass(frozen=True)
class _Mixture:
    """P(item | group) before the seen items are left out, in parts.

    share[item] (by_taste taste[group, c] + moved[c]) + the sum of `chance` where `link` is the item.

    Attributes:
        by_taste: float64 [B]. moved: float64 [B, C]. link: int32 [B, 6]. chance: float64 [B, 6].
        unseen: float64 [B, G], the probability of all items together that were not clicked.
    """

    by_taste: np.ndarray
    moved: np.ndarray
    link: np.ndarray
    chance: np.ndarray
    unseen: np.ndarray

    def of(self, part: slice) -> "_Mixture":
        """The mixture of some of the users."""
        return _Mixture(*(getattr(self, field.name)[part] for field in fields(self)))


def _mixture(
    truth: Truth, histories: _Histories, users: np.ndarray, step: np.ndarray, seen: np.ndarray
) -> _Mixture:
    """P(item | group) of some users' click number `step` (int64 [B]), parts of it by user.

    Args:
        seen: float64 [B, C], the share of each category that the user has clicked before.
    """
    place = step[:, None] - 1 - np.arange(len(LAG))
    recent = histories.item[users[:, None], np.maximum(place, 0)]
    has_any = step > 0
    follow, drift = truth.size.follow * has_any, truth.size.drift * has_any
    lag = LAG * (place >= 0)
    lag = lag / np.maximum(lag.sum(1, keepdims=True), 1e-9)
    by_taste = (1 - follow) * (1 - drift)
    moved = ((1 - follow) * drift)[:, None] * truth.transition[truth.category[recent[:, 0]]]
    link = truth.links[recent].reshape(len(users), -1)
    chance = (follow[:, None, None] * lag[:, :, None] * LINK_SHARE).reshape(link.shape)
    earlier = histories.item[users, : int(step.max())]
    known = np.arange(earlier.shape[1]) < step[:, None]
    seen_link = ((link[:, :, None] == earlier[:, None, :]) & known[:, None, :]).any(2)
    seen_chance = by_taste[:, None] * (seen @ truth.taste.T)
    seen_chance += ((moved * seen).sum(1) + (chance * seen_link).sum(1))[:, None]
    return _Mixture(by_taste, moved, link, chance, 1 - seen_chance)


def _group_posterior(
    histories: _Histories, clicks: Clicks, truth: Truth
) -> tuple[np.ndarray, _Mixture]:
    """float64 [B, G], P(group | profile, history), and the mixture of the click that follows."""
    count = len(histories.user)
    log = np.tile(np.log(truth.prior), (count, 1))
    for key, chance in truth.profile.items():
        column = clicks.user_features[key]
        assert isinstance(column, Categorical)
        log += np.log(chance[:, column.rows[histories.user] - FIRST]).T
    seen = np.zeros((count, truth.size.categories))
    for step in range(int(histories.length.max())):
        going = np.flatnonzero(histories.length > step)
        mixture = _mixture(truth, histories, going, np.full(len(going), step), seen[going])
        item = histories.item[going, step]
        category = truth.category[item]
        chance = mixture.by_taste[:, None] * truth.taste[:, category].T
        chance += mixture.moved[np.arange(len(going)), category][:, None]
        chance *= truth.share[item][:, None]
        chance += (mixture.chance * (mixture.link == item[:, None])).sum(1, keepdims=True)
        log[going] += np.log(chance / mixture.unseen)
        seen[going, category] += truth.share[item]
    posterior = np.exp(log - log.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    return posterior, _mixture(truth, histories, np.arange(count), histories.length, seen)


def _scores(truth: Truth, mixture: _Mixture, group: np.ndarray) -> np.ndarray:
    """float64 [B, M + 1]: P(item) of all items under P(group), as if none were seen, and a last 0."""
    weight = group / mixture.unseen
    total = weight.sum(1, keepdims=True)
    of_category = mixture.by_taste[:, None] * (weight @ truth.taste) + total * mixture.moved
    scores = np.zeros((len(group), len(truth.category) + 1))
    np.multiply(of_category[:, truth.category], truth.share, out=scores[:, :-1])
    np.add.at(scores, (np.arange(len(group))[:, None], mixture.link), total * mixture.chance)
    return scores


def _top_sums(scores: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """float64 [B, len(ks)], the sum of each row's K largest scores."""
    most = min(max(ks), scores.shape[1])
    top = -np.sort(np.partition(-scores, most - 1, axis=1)[:, :most], axis=1)
    sums = np.cumsum(np.maximum(top, 0), axis=1)
    return sums[:, [min(k, most) - 1 for k in ks]]
