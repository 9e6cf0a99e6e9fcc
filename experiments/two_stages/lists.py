"""Lists of the two-stage experiment: one for each user and day, made at the day's first moment.

Nothing of the day itself is read for a list but its labels: what the user clicked, completed and watched
among the candidates, and which items count as relevant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.clicks import Clicks
from jrec.data.impressions import Impressions
from jrec.data.quantiles import Quantiles
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.retrieval.mining import hottest, item_counts
from jrec.retrieval.nominate import Nominated
from jrec.serving.candidate_features import Events
from jrec.serving.candidates import history_window
from jrec.serving.two_stage_export import UserLogs
from jrec.serving.two_stages import Request, StageSizes

DAY = 86_400


@dataclass(frozen=True)
class Lists:
    """Q lists of C candidates.

    Attributes:
        request: of the Q users, on the host. found: their candidates, on the host.
        late: float32 [Q, C], how often a candidate was watched of late, in [0, 1].
        clicked, completed: bool [Q, C]. watch: float32 [Q, C], seconds.
        day: int64 [Q], the list's moment, seconds. targets: items from 0 that each user completed on
            the day, each once. repeats: int64 [Q], how many of them the user had watched before.
    """

    request: Request
    found: Nominated
    late: np.ndarray
    clicked: np.ndarray
    completed: np.ndarray
    watch: np.ndarray
    day: np.ndarray
    targets: Ragged
    repeats: np.ndarray

    def __len__(self) -> int:
        return len(self.day)


@dataclass(frozen=True)
class Log:
    """Impressions and the first stage's clicks by user, for lists at any moment.

    Attributes:
        length: clicks that the first stage reads.
        order: int64 [n], the impressions by user and time. offsets: int64 [N + 1], where each user begins.
        click_user: int64 [N], each user's place among those of the clicks, -1 for none.
    """

    impressions: Impressions
    clicks: Clicks
    length: int
    order: np.ndarray
    offsets: np.ndarray
    click_user: np.ndarray

    @classmethod
    def of(cls, impressions: Impressions, clicks: Clicks, length: int) -> "Log":
        """Sorts both; users and items have the same rows in both."""
        order = np.lexsort((impressions.timestamp, impressions.user))
        counts = np.bincount(impressions.user, minlength=len(impressions.user_row))
        place = np.full(impressions.vocabularies["user"].rows, -1)
        place[clicks.user_row] = np.arange(clicks.users)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return cls(impressions, clicks, length, order, offsets, place[impressions.user_row])

    def users_of(self, moment: int) -> np.ndarray:
        """Users who were shown something on the day that begins at a moment."""
        time = self.impressions.timestamp
        on_day = (time >= moment) & (time < moment + DAY) & ~self.impressions.history_only
        return np.unique(self.impressions.user[on_day])

    def request(self, users: np.ndarray, moment: int, sizes: StageSizes) -> Request:
        """What was known of these users before a moment."""
        own = self.click_user[users]
        before = np.concatenate([[0], np.cumsum(self.clicks.timestamp < moment)])
        begin = np.where(own >= 0, self.clicks.offsets[own], 0)
        # Clicks are in the order of time within a user.
        end = begin + np.where(
            own >= 0, before[self.clicks.offsets[own + 1]] - before[self.clicks.offsets[own]], 0
        )
        read = history_window(self.clicks.item - FIRST, begin, end, self.length)
        log, order = self.impressions, self.order
        time = log.timestamp[order]
        known = np.concatenate([[0], np.cumsum(time < moment)])
        begin = self.offsets[users]
        end = begin + known[self.offsets[users + 1]] - known[begin]
        place = np.maximum(begin, end - sizes.events)[:, None] + np.arange(sizes.events)
        mask = place < end[:, None]
        row = order[np.minimum(place, len(order) - 1)]
        events = Events(
            np.where(mask, log.item[row], 0).astype(np.int32),
            mask & log.clicked[row],
            np.where(mask, moment - log.timestamp[row], 0).astype(np.float32),
            mask,
        )
        return Request(users.astype(np.int32), *read, events)

    def watched_before(self, moment: int) -> np.ndarray:
        """int64, rising: user x items + item (from 0) of all that was watched before a moment."""
        log, clicks, items = self.impressions, self.clicks, self.item_rows
        told = log.clicked & (log.timestamp < moment)
        watched = [log.user[told].astype(np.int64) * items + log.item[told] - FIRST]
        user_of = np.full(clicks.users, -1)
        user_of[self.click_user[self.click_user >= 0]] = np.flatnonzero(self.click_user >= 0)
        user = user_of[clicks.user_of_event]
        told = (user >= 0) & (clicks.timestamp < moment)
        watched.append(user[told] * items + clicks.item[told] - FIRST)
        return np.unique(np.concatenate(watched))

    @property
    def item_rows(self) -> int:
        """Rows of the item vocabulary."""
        return self.impressions.vocabularies["item"].rows

    def recent(
        self, moment: int, days: int, sizes: StageSizes
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The hottest items before a moment, counted over some days, and all items' places among them.

        Returns:
            (int32 [H], items from 0, -1 where there is none; float32 [V] in [0, 1], quantiles of the
            vocabulary's rows; the counts int64 [M]).
        """
        log, items = self.impressions, self.impressions.vocabularies["item"].rows - FIRST
        told = log.completed & ~log.history_only & (log.timestamp < moment)
        told &= log.timestamp >= moment - days * DAY
        counts = item_counts(log.item[told] - FIRST, items)
        listed = hottest(counts, sizes.hottest)
        places = Quantiles.fit(counts)(counts)
        return (
            np.where(listed.mask[0], listed.rows[0], -1).astype(np.int32),
            np.concatenate([np.zeros(FIRST, np.float32), places]),
            counts,
        )

    def labels(
        self, users: np.ndarray, moment: int, rows_QC: np.ndarray, mask_QC: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Ragged]:
        """What became of candidates (rows from 0) on the day: clicked, completed, watch, targets."""
        log = self.impressions
        on_day = np.flatnonzero(
            (log.timestamp >= moment) & (log.timestamp < moment + DAY) & ~log.history_only
        )
        items = self.item_rows
        key = log.user[on_day].astype(np.int64) * items + log.item[on_day] - FIRST
        pairs, place = np.unique(key, return_inverse=True)
        clicked = np.bincount(place, log.clicked[on_day]) > 0
        completed = np.bincount(place, log.completed[on_day]) > 0
        watch = np.zeros(len(pairs))
        seconds = np.where(log.clicked[on_day], log.watch_seconds[on_day], 0)
        np.maximum.at(watch, place, seconds)
        wanted = users[:, None].astype(np.int64) * items + rows_QC
        found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        hit = (pairs[found] == wanted) & mask_QC
        done = pairs[completed]
        offsets = np.searchsorted(done // items, np.append(users, users.max(initial=0) + 1))
        return (
            hit & clicked[found],
            hit & completed[found],
            np.where(hit, watch[found], 0).astype(np.float32),
            Ragged((done % items).astype(np.int32), offsets),
        )

    def user_logs(self, now: int) -> UserLogs:
        """Everything up to a moment, for the export."""
        log, order = self.impressions, self.order[self.impressions.timestamp[self.order] < now]
        events = np.bincount(log.user[order], minlength=len(log.user_row))
        own, kept = self.click_user, self.clicks.timestamp < now
        user = self.clicks.user_of_event[kept]
        counts = np.bincount(user, minlength=self.clicks.users)
        of_user = np.where(own >= 0, counts[own], 0)
        starts = np.concatenate([[0], np.cumsum(counts)])
        first = np.where(own >= 0, starts[own], 0)
        offsets = np.concatenate([[0], np.cumsum(of_user)])
        place = np.repeat(first - offsets[:-1], of_user) + np.arange(offsets[-1])
        clicked = (self.clicks.item[kept] - FIRST)[place]
        return UserLogs(
            Ragged(clicked.astype(np.int32), offsets),
            Ragged(
                (log.item[order] - FIRST).astype(np.int32),
                np.concatenate([[0], np.cumsum(events)]),
            ),
            log.clicked[order],
            log.timestamp[order],
            now,
        )


def make_lists(
    log: Log,
    moments: list[int],
    find: Callable[[Any, Request], Nominated],
    arrays: dict[str, Any],
    sizes: StageSizes,
    recent_days: int,
    only_targets: bool = False,
    batch: int = 256,
) -> Lists:
    """Lists of all users who were shown something on the days that begin at `moments`.

    What a user has watched before the moment is no candidate, as when a system serves.

    Args:
        find: the first stage, jitted. arrays: its own, without `hottest`.
        only_targets: leave out users who completed nothing on the day.
        batch: users at once.

    Raises InputError where that leaves nobody.
    """
    parts = []
    for moment in moments:
        users = log.users_of(moment)
        empty = np.zeros((len(users), 0), np.int64)
        targets = log.labels(users, moment, empty, empty > 0)[3]
        if only_targets:
            users = users[targets.lengths > 0]
        if not len(users):
            continue
        popular, recent, _ = log.recent(moment, recent_days, sizes)
        request = log.request(users, moment, sizes)
        now = arrays | {"hottest": jnp.asarray(popular)}
        found = []
        for start in range(0, len(users), batch):
            # A short batch repeats its last user: one shape, one compilation.
            some = np.minimum(np.arange(start, start + batch), len(users) - 1)
            one = find(now, jax.tree.map(lambda part, some=some: part[some], request))
            found.append([np.asarray(part)[: len(users) - start] for part in one])
        nominated = Nominated(*(np.concatenate(some) for some in zip(*found, strict=True)))
        before = log.watched_before(moment)
        pair = users[:, None].astype(np.int64) * log.item_rows + nominated.rows
        nominated = without(nominated, nominated.mask & np.isin(pair, before))
        clicked, completed, watch, targets = log.labels(
            users, moment, nominated.rows, nominated.mask
        )
        late = np.where(nominated.mask, recent[nominated.rows + FIRST], 0).astype(np.float32)
        day = np.full(len(users), moment)
        list_of = np.repeat(np.arange(len(users)), targets.lengths)
        again = np.isin(users[list_of].astype(np.int64) * log.item_rows + targets.values, before)
        repeats = np.bincount(list_of[again], minlength=len(users))
        parts.append((request, nominated, late, clicked, completed, watch, day, repeats, targets))
    if not parts:
        did = "completed" if only_targets else "was shown"
        raise InputError(
            f"Nobody {did} anything on the days of a part that begins at {moments[0]} (seconds), so it has no "
            f"lists; use a longer log, or other --list-days and --valid-days."
        )
    columns = [list(column) for column in zip(*parts, strict=True)]
    *joined, repeats = (
        jax.tree.map(lambda *some: np.concatenate(some), *column) for column in columns[:-1]
    )
    lengths = np.concatenate([targets.lengths for targets in columns[-1]])
    values = np.concatenate([targets.values for targets in columns[-1]])
    return Lists(*joined, Ragged(values, np.concatenate([[0], np.cumsum(lengths)])), repeats)


def without(found: Nominated, left_out_QC: np.ndarray) -> Nominated:
    """The candidates but some, which become gaps as `Nominated` has them."""
    return Nominated(
        np.where(left_out_QC, 0, found.rows),
        np.where(left_out_QC[..., None], 0, found.places),
        np.where(left_out_QC, -np.inf, found.scores),
        found.mask & ~left_out_QC,
    )
