"""Both stages of the YouTube paper joined, in one file: candidates by attention, ranked by expected watch time.

    python -m experiments.minimal.two_stages

The networks, losses and steps are those of `candidates.py` and `ranking.py` in this folder. The first stage trains on
the clicks of a synthetic log's first days, the second on its lists of the next two days; the last days are test. The
order by expected watch time holds more watch time among the first ten, and fewer completed items: `experiments/two_stages`
ranks by a head for completions, and adds two more sources of candidates, KuaiRand-Pure and one exported program of both.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.impressions import Impressions
from jrec.data.vocabulary import FIRST
from jrec.evaluate.ranking_metrics import NOT_LISTED, mean_metrics, ranking_metrics

from . import candidates, ranking

SECONDS = 86_400  # of a day

# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """The stages of `python -m experiments.two_stages train --first-loss full-softmax --completion-weight 0
    --rank-by watch --dropout 0 --user-id`; their lists here come from the first stage alone."""

    log: ImpressionSize = field(default_factory=ImpressionSize)
    """Sizes of the synthetic log."""
    first_epochs: int = 6
    """Passes of the first stage over the clicks; `candidates.Settings` has its other settings."""
    first_batch_size: int = 64
    epochs: int = 2
    """Passes of the second stage over the lists; `ranking.Settings` has its other settings."""
    batch_lists: int = 8
    """Lists a step of the second stage, all candidates of each."""
    candidates: int = 100
    """Of a list."""
    seed: int = 0
    user: int = 1
    """Whose ten best items are printed."""


# ---------------------------------------------------------------- days of the log


class Day(NamedTuple):
    """Who asks for a list at a day's first moment, what was known then, and what the day brought.

    user: int [Q]. watched: each one's items before, the oldest first. Of items not watched before, completed: bool
    [Q, V], and seconds: float32 [Q, V], the longest watch of the day.
    """

    moment: int
    user: np.ndarray
    watched: list[np.ndarray]
    completed: np.ndarray
    seconds: np.ndarray


def day_of(log: Impressions, moment: int, user: np.ndarray | None = None) -> Day:
    """Returns the day that begins at a moment; its users are those who were shown something, or the given ones."""
    on_day = (log.timestamp >= moment) & (log.timestamp < moment + SECONDS)
    user = np.unique(log.user[on_day]) if user is None else user
    order = np.lexsort((log.timestamp, log.user))
    order = order[log.clicked[order] & (log.timestamp[order] < moment)]
    ends = np.searchsorted(log.user[order], np.arange(len(log.user_row) - 1), "right")
    watched = np.split(log.item[order], ends)
    seconds_NV = np.zeros((len(log.user_row), log.vocabularies["item"].rows), np.float32)
    completed_NV = np.zeros(seconds_NV.shape, bool)
    at = log.user[on_day], log.item[on_day]
    np.maximum.at(seconds_NV, at, np.where(log.clicked, log.watch_seconds, 0)[on_day])
    np.logical_or.at(completed_NV, at, log.completed[on_day])
    for u, own in enumerate(watched):
        completed_NV[u, own], seconds_NV[u, own] = False, 0
    return Day(moment, user, [watched[u] for u in user], completed_NV[user], seconds_NV[user])


# ---------------------------------------------------------------- from the first stage to the second


class Lists(NamedTuple):
    """Q lists of C candidates, the best first: rows int [Q, C] and scores, -inf for what the user has watched."""

    item: np.ndarray
    score: np.ndarray


def best(score_QV: np.ndarray, day: Day, count: int) -> Lists:
    """Returns the items of the highest scores that each user has not watched."""
    score_QV = np.array(score_QV)
    for score_V, own in zip(score_QV, day.watched, strict=True):
        score_V[own] = -np.inf
    item_QC = np.argsort(-score_QV, 1)[:, :count]
    return Lists(item_QC, np.take_along_axis(score_QV, item_QC, 1))


def features(log: Impressions, day: Day, lists: Lists, fitted: np.ndarray) -> ranking.Batch:
    """Returns the candidates [Q, C] as impressions of the day's first moment, labelled by what the day brought.

    Their place in the list is one more number. `fitted` is as in `ranking.features`.
    """
    Q, C = lists.item.shape
    asked = ranking.ask(log, np.repeat(day.user, C), lists.item.ravel(), day.moment)
    every = ranking.features(asked, np.append(fitted, np.zeros(Q * C, bool)))
    batch = jax.tree.map(lambda column: column[-Q * C :].reshape(Q, C, *column.shape[1:]), every)
    place_QC1 = np.tile(1 - np.arange(C, dtype=np.float32)[:, None] / C, (Q, 1, 1))
    seconds_QC = np.take_along_axis(day.seconds, lists.item, 1)
    return batch._replace(
        numbers=np.concatenate([batch.numbers, place_QC1], -1),
        known=np.concatenate([batch.known, place_QC1 > 0], -1),
        clicked=seconds_QC > 0,
        seconds=seconds_QC,
        mask=lists.score > -np.inf,
    )


# ---------------------------------------------------------------- evaluation


def ranked(lists: Lists, score_QC: np.ndarray) -> Lists:
    """Returns the lists in the order of another score; what was watched stays behind."""
    score_QC = np.where(lists.score > -np.inf, score_QC, -np.inf)
    order_QC = np.argsort(-score_QC, 1)
    return Lists(*(np.take_along_axis(part, order_QC, 1) for part in (lists.item, score_QC)))


def measure(days: list[Day], lists: list[Lists]) -> dict[str, float]:
    """Returns recalls of completed items, and the share of the watch time that the first ten hold."""
    recalls, held, whole = [], 0.0, 0.0
    for day, some in zip(days, lists, strict=True):
        place_C = np.arange(1, some.item.shape[1] + 1)
        hit_QC = np.take_along_axis(day.completed, some.item, 1)
        rank_QC = np.sort(np.where(hit_QC, place_C, NOT_LISTED), 1)
        targets_QC = place_C <= day.completed.sum(1, keepdims=True)
        recalls.append(ranking_metrics(rank_QC, targets_QC, (10, 50)))
        held += np.take_along_axis(day.seconds, some.item[:, :10], 1).sum()
        whole += day.seconds.sum()
    names = ("recall@10", "recall@50")
    means = mean_metrics({name: np.concatenate([one[name] for one in recalls]) for name in names})
    return means | {"watch@10": held / whole}


def main(settings: Settings) -> dict[str, float]:
    """Trains both stages, prints test metrics beside popularity's and ten items for one user; returns them."""
    log = make_impressions(settings.log, 0)
    moments = np.arange(settings.log.days) * SECONDS + log.timestamp.min() // SECONDS * SECONDS
    # Test: the last fifth. The day before it would choose the epoch. The two days before that give lists.
    held = max(1, settings.log.days // 5)
    train_days = [day_of(log, moment) for moment in moments[-held - 3 : -held - 1]]
    test_days = [day_of(log, moment) for moment in moments[-held:]]
    known = log.timestamp < train_days[0].moment  # what the first stage trains on

    epochs, size = settings.first_epochs, settings.first_batch_size
    first = candidates.Settings(epochs=epochs, batch_size=size, seed=settings.seed)
    shape = first.length, first.width, first.layers, first.heads, first.dropout
    rows = {name: vocabulary.rows for name, vocabulary in log.vocabularies.items()}
    network = candidates.Attention(rows["item"], *shape)
    everyone = day_of(log, train_days[0].moment, np.arange(len(log.user_row)))
    runs = candidates.runs([own for own in everyone.watched if len(own)], first.length)

    def nominate(params: dict, day: Day) -> Lists:
        vectors_QD = candidates.user_vectors(network, params, day.watched)
        return best(candidates.scores(params, vectors_QD), day, settings.candidates)

    def first_metrics(params: dict) -> dict[str, float]:
        return measure(train_days[:1], [nominate(params, train_days[0])])

    first_params = candidates.train(network, runs, first, first_metrics)

    lists = [nominate(first_params, day) for day in test_days]
    test = [features(log, day, some, known) for day, some in zip(test_days, lists, strict=True)]
    parts = [features(log, day, nominate(first_params, day), known) for day in train_days]
    data = jax.tree.map(lambda *columns: jnp.concatenate(columns), *parts)
    epochs, size = settings.epochs, settings.batch_lists
    second = ranking.Settings(epochs=epochs, batch_size=size, seed=settings.seed)
    ranker = ranking.Ranking({name: rows[name] for name in parts[0].ids}, second.tower)
    predict = jax.jit(ranker.apply)

    def rank(params: dict) -> list[Lists]:
        scores = (predict(params, batch) for batch in test)
        return [ranked(some, score) for some, score in zip(lists, scores, strict=True)]

    params = ranking.train(ranker, data, second, lambda params: measure(test_days, rank(params)))
    popular_V = np.bincount(log.item[known & log.clicked], minlength=rows["item"]).astype(float)
    popular_V[:FIRST] = -np.inf
    popular = [
        best(np.tile(popular_V, (len(d.user), 1)), d, settings.candidates) for d in test_days
    ]
    found = {"popularity": popular, "first stage": lists, "both stages": rank(params)}
    found = {title: measure(test_days, some) for title, some in found.items()}
    print("\n" + " " * 12 + "".join(f"{name:>11s}" for name in found["popularity"]))
    for title, means in found.items():
        print(f"{title:12s}" + "".join(f"{mean:11.4f}" for mean in means.values()))

    now = day_of(log, log.timestamp.max() + 1, np.array([settings.user]))
    own = nominate(first_params, now)
    own = ranked(own, predict(params, features(log, now, own, known)))
    names = log.vocabularies["item"].decode(own.item[0, :10])
    print(f"\nten items for user {settings.user}, expected seconds:")
    for item, seconds in zip(names, np.exp(own.score[0]), strict=False):
        print(f"  {seconds:5.1f}  {item}")
    return found["both stages"]


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
