"""Two stages in one pure function: a user and a history in, candidates, then a ranked list out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrec.data.vocabulary import FIRST
from jrec.retrieval.exact import ItemTable
from jrec.retrieval.nominate import Nominated, nominate
from jrec.serving.candidate_features import Events, ranking_batch

Arrays = Mapping[str, Any]
Encode = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]
"""(arrays, item rows [B, L], mask [B, L], users [B]) -> user vectors [B, D]."""
Logits = Callable[[Any, Mapping[str, Any]], Mapping[str, jax.Array]]
"""(parameters, batch) -> a logit [n] for each head."""


@dataclass(frozen=True)
class StageSizes:
    """How many candidates each source names, and how much of a user's log is read."""

    network: int = 100
    """Items of the network's highest scores."""
    hottest: int = 50
    """Most watched items."""
    similar: int = 10
    """Items like each of the last watched ones."""
    last: int = 5
    """Last watched items that `similar` goes by."""
    events: int = 100
    """Last events of a user that history features are counted over."""
    watched: int = 10
    """Last watched items that the ranking network reads as one bag."""

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Of the lists of `jrec.retrieval.nominate.SOURCES`."""
        return self.network, self.hottest, self.last * self.similar


class Request(NamedTuple):
    """What is known of B users when they ask.

    Attributes:
        user: int32 [B], N for an unknown user.
        clicks: int32 [B, L], vocabulary rows of the watched items, the oldest first, and mask bool [B, L], a
            prefix; as the first stage's network reads them.
        events: of the log, for the second stage.
    """

    user: jax.Array
    clicks: jax.Array
    clicks_mask: jax.Array
    events: Events


class Listed(NamedTuple):
    """Ranked lists.

    Attributes:
        rows: int32 [B, K], items counted from 0; -1 where the mask is false.
        scores: float32 [B, K], the logit of the head that ranks, falling.
        watch_seconds: float32 [B, K], expected watch time: exp of the head `watch`.
        places: int32 [B, K, S], place in each source's list, 0 where it does not name the item.
        mask: bool [B, K].
    """

    rows: jax.Array
    scores: jax.Array
    watch_seconds: jax.Array
    places: jax.Array
    mask: jax.Array


def find_candidates(
    arrays: Arrays, encode: Encode, block_rows: int, sizes: StageSizes, request: Request
) -> Nominated:
    """The first stage.

    Args:
        arrays: `first`, what `encode` reads; `table`: `weights`, `biases` and `norm` of an `ItemTable` of
            `block_rows`; `hottest` and `similar`, see `nominate`.
    """
    vectors_BD = encode(arrays["first"], request.clicks, request.clicks_mask, request.user)
    known_BL = request.clicks_mask & (request.clicks >= FIRST)
    seen_BL = jnp.concatenate([request.clicks, request.events.items], 1) - FIRST
    watched_BL = request.events.watched & request.events.mask & (request.events.items >= FIRST)
    last, last_mask = last_clicks(request, sizes.last)
    return nominate(
        ItemTable(**arrays["table"], block_rows=block_rows),
        vectors_BD,
        arrays["hottest"],
        arrays["similar"],
        seen_BL,
        jnp.concatenate([known_BL, watched_BL], 1),
        last - FIRST,
        last_mask,
        sizes.network,
    )


def last_clicks(request: Request, count: int) -> tuple[jax.Array, jax.Array]:
    """The last watched items, the latest first: int32 [B, count] vocabulary rows, mask bool."""
    place_BR = (
        request.clicks_mask.sum(1, keepdims=True) - 1 - jnp.arange(count, dtype=jnp.int32)[None]
    )
    rows_BR = jnp.take_along_axis(request.clicks, jnp.maximum(place_BR, 0), 1)
    mask_BR = (place_BR >= 0) & (rows_BR >= FIRST)
    return jnp.where(mask_BR, rows_BR, 0), mask_BR


def candidate_batch(
    arrays: Arrays,
    keys: Sequence[str],
    sizes: StageSizes,
    request: Request,
    found: Nominated,
    late_BC: jax.Array,
) -> dict[str, Any]:
    """What the ranking network reads of candidates; see `jrec.serving.candidate_features.ranking_batch`."""
    bag = last_clicks(request, sizes.watched)
    features, lengths = arrays["features"], sizes.lengths
    return ranking_batch(
        features, keys, lengths, found, request.user, request.events, *bag, late_BC
    )


def rank_candidates(
    found: Nominated, logits: Mapping[str, jax.Array], head: str, count: int
) -> Listed:
    """The second stage's order, the K candidates of the highest logit; `logits` are of B x C."""
    shape = found.rows.shape
    score_BC = jnp.where(found.mask, logits[head].reshape(shape), -jnp.inf)
    short = ((0, 0), (0, max(count - shape[1], 0)))
    score_BK, place_BK = jax.lax.top_k(jnp.pad(score_BC, short, constant_values=-jnp.inf), count)
    mask_BK = score_BK > -jnp.inf
    place_BK = jnp.where(mask_BK, place_BK, 0)

    def taken(part: jax.Array) -> jax.Array:
        return jnp.take_along_axis(part, place_BK, 1)

    seconds_BC = jnp.exp(
        logits.get("watch", jnp.full(score_BC.size, jnp.nan, jnp.float32))
    ).reshape(shape)
    places_BKS = jnp.take_along_axis(found.places, place_BK[..., None], 1)
    return Listed(
        jnp.where(mask_BK, taken(found.rows), -1),
        score_BK,
        jnp.where(mask_BK, taken(seconds_BC), 0),
        jnp.where(mask_BK[..., None], places_BKS, 0),
        mask_BK,
    )


def make_two_stages(
    encode: Encode,
    logits: Logits,
    keys: Sequence[str],
    sizes: StageSizes,
    block_rows: int,
    head: str,
    count: int,
) -> Callable[[Arrays, Request], Listed]:
    """A pure function (arrays, request) -> lists of K, both stages in one program.

    Args:
        encode: user vectors, of `arrays["first"]`. logits: of the ranking network, of `arrays["ranker"]`.
        keys: item columns that history features go by. block_rows: of the item table.
        head: whose logits rank. count: K.

    The arrays are those of `find_candidates`, `features` as `ranking_batch` has them, `ranker`, and
    `recent` float32 [V], how often each vocabulary row was watched of late, in [0, 1].
    """

    def run(arrays: Arrays, request: Request) -> Listed:
        found = find_candidates(arrays, encode, block_rows, sizes, request)
        late_BC = arrays["recent"][found.rows + FIRST]
        batch = candidate_batch(arrays, keys, sizes, request, found, late_BC)
        return rank_candidates(found, logits(arrays["ranker"], batch), head, count)

    return run
